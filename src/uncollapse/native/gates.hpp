// The gates of recurrent networks, forward and backward, for at most LANES units of one row.
//
// An LSTM's are take, forget, value and give; a GRU's are reset, update and new. `memory` is an
// LSTM's cell and a GRU's state, in f32; `hidden` is the state as the next product takes it.

#pragma once

#include "numbers.hpp"

namespace {

// The arrays of one step. The activated gates replace the input's share of them, and `inner`
// keeps what else the backward pass needs.
template <typename T>
struct Step {
  const float *bias, *before;
  float *gates, *inner, *memory;
  T* hidden;
};

// The same, backward. `of_output` is what arrives at this step's state from above; `of_memory`
// goes from after the step to before it; `of_given` and `of_recurrent` are the gradients of the
// input's and of the state's share of the gates.
template <typename T>
struct StepBack {
  const float *gates, *inner, *before;
  const T* of_output;
  float *of_memory, *of_given;
  T* of_recurrent;
};

// Each function takes the place of the units, and the state's share of their gates, `apart` from
// gate to gate; backward, what arrives at them from the step after.
struct Lstm {
  static constexpr int GATES = 4;

  template <typename T, typename R>
  static inline void forward(const Step<T>& step, int64_t width, int64_t row, int64_t unit,
                             int64_t count, const R* recurrent, int64_t apart) {
    const int64_t at = row * width + unit;
    float* gates = step.gates + row * 4 * width + unit;
    const float* bias = step.bias + unit;
    const auto sum = [=](int64_t gate) {
      return read(gates + gate * width, count) + read(bias + gate * width, count) +
             read(recurrent + gate * apart, count);
    };
    const Floats take = sigmoid(sum(0)), forget = sigmoid(sum(1));
    const Floats value = hyperbolic_tangent(sum(2)), give = sigmoid(sum(3));
    const Floats kept = forget * read(step.before + at, count) + take * value;
    const Floats bent = hyperbolic_tangent(kept);
    write(gates, take, count);
    write(gates + width, forget, count);
    write(gates + 2 * width, value, count);
    write(gates + 3 * width, give, count);
    write(step.inner + at, bent, count);
    write(step.memory + at, kept, count);
    write(step.hidden + at, give * bent, count);
  }

  template <typename T, typename R>
  static inline void backward(const StepBack<T>& step, int64_t width, int64_t row, int64_t unit,
                              int64_t count, const R* of_hidden) {
    const int64_t at = row * width + unit, across = row * 4 * width + unit;
    const float* gates = step.gates + across;
    const Floats take = read(gates, count), forget = read(gates + width, count);
    const Floats value = read(gates + 2 * width, count), give = read(gates + 3 * width, count);
    const Floats inner = read(step.inner + at, count), before = read(step.before + at, count);
    const Floats arriving = read(step.of_output + at, count) + read(of_hidden, count);
    const Floats kept =
        read(step.of_memory + at, count) + arriving * give * (1.0f - inner * inner);
    const Floats to_each[] = {
        kept * value * take * (1.0f - take),
        kept * before * forget * (1.0f - forget),
        kept * take * (1.0f - value * value),
        arriving * inner * give * (1.0f - give),
    };
    for (int64_t gate = 0; gate < 4; ++gate) {
      write(step.of_given + across + gate * width, to_each[gate], count);
      write(step.of_recurrent + across + gate * width, to_each[gate], count);
    }
    write(step.of_memory + at, kept * forget, count);
  }
};

// `inner` is the state's share of the new value, before the reset gate. Backward, `of_memory` is
// the state's own share, which is to be added to that through the product with the weights.
struct Gru {
  static constexpr int GATES = 3;

  template <typename T, typename R>
  static inline void forward(const Step<T>& step, int64_t width, int64_t row, int64_t unit,
                             int64_t count, const R* recurrent, int64_t apart) {
    const int64_t at = row * width + unit;
    float* gates = step.gates + row * 3 * width + unit;
    const auto share = [=](int64_t gate) {
      return read(step.bias + unit + gate * width, count) + read(recurrent + gate * apart, count);
    };
    const Floats reset = sigmoid(read(gates, count) + share(0));
    const Floats update = sigmoid(read(gates + width, count) + share(1));
    const Floats own = share(2);
    const Floats value = hyperbolic_tangent(read(gates + 2 * width, count) + reset * own);
    const Floats next = value + update * (read(step.before + at, count) - value);
    write(gates, reset, count);
    write(gates + width, update, count);
    write(gates + 2 * width, value, count);
    write(step.inner + at, own, count);
    write(step.memory + at, next, count);
    write(step.hidden + at, next, count);
  }

  template <typename T, typename R>
  static inline void backward(const StepBack<T>& step, int64_t width, int64_t row, int64_t unit,
                              int64_t count, const R* of_hidden) {
    const int64_t at = row * width + unit, across = row * 3 * width + unit;
    const float* gates = step.gates + across;
    const Floats reset = read(gates, count), update = read(gates + width, count);
    const Floats value = read(gates + 2 * width, count);
    const Floats inner = read(step.inner + at, count), before = read(step.before + at, count);
    const Floats arriving = read(step.of_output + at, count) + read(of_hidden, count) +
                            read(step.of_memory + at, count);
    const Floats bent = arriving * (1.0f - update) * (1.0f - value * value);
    const Floats to_reset = bent * inner * reset * (1.0f - reset);
    const Floats to_update = arriving * (before - value) * update * (1.0f - update);
    float* outer = step.of_given + across;
    T* within = step.of_recurrent + across;
    write(outer, to_reset, count);
    write(outer + width, to_update, count);
    write(outer + 2 * width, bent, count);
    write(within, to_reset, count);
    write(within + width, to_update, count);
    write(within + 2 * width, bent * reset, count);
    write(step.of_memory + at, arriving * update, count);
  }
};

}  // namespace

// The C functions of a template, for both networks and both types.
#define BOTH_CELLS(name, parameters, ...)                                                  \
  extern "C" void lstm_##name##_f32 parameters(float) { name<Lstm> __VA_ARGS__; }          \
  extern "C" void lstm_##name##_bf16 parameters(bf16) { name<Lstm> __VA_ARGS__; }          \
  extern "C" void gru_##name##_f32 parameters(float) { name<Gru> __VA_ARGS__; }            \
  extern "C" void gru_##name##_bf16 parameters(bf16) { name<Gru> __VA_ARGS__; }
