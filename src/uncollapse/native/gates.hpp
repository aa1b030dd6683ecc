// The gates of recurrent networks, forward and backward, for a strip of units of one row.
//
// An LSTM's are take, forget, value and give; a GRU's are reset, update and new. `memory` is an
// LSTM's cell and a GRU's state, in f32; `hidden` is the state as the next product takes it.

#pragma once

#include "numbers.hpp"

namespace {

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// tanh(x), by a polynomial near 0, where 1 - 2 / (e^2x + 1) would lose its digits (Cephes)
inline float hyperbolic_tangent(float x) {
  const float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float near = p * s * x + x;
  const float far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  return std::fabs(x) < 0.625f ? near : far;
}

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

// Each function takes the place of the strip, and the state's share of its gates, `apart` from
// gate to gate; backward, what arrives at the strip from the step after.
struct Lstm {
  static constexpr int GATES = 4;

  template <typename T, typename R>
  static void forward(const Step<T>& step, int64_t width, int64_t row, int64_t unit, int64_t count,
                      const R* recurrent, int64_t apart) {
    float* gates = step.gates + row * 4 * width + unit;
    const float *bias = step.bias + unit, *before = step.before + row * width + unit;
    float *inner = step.inner + row * width + unit, *memory = step.memory + row * width + unit;
    T* hidden = step.hidden + row * width + unit;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const int64_t f = width + j, v = 2 * width + j, g = 3 * width + j;
      const float take = sigmoid(gates[j] + bias[j] + load(recurrent, j));
      const float forget = sigmoid(gates[f] + bias[f] + load(recurrent, apart + j));
      const float value = hyperbolic_tangent(gates[v] + bias[v] + load(recurrent, 2 * apart + j));
      const float give = sigmoid(gates[g] + bias[g] + load(recurrent, 3 * apart + j));
      const float kept = forget * before[j] + take * value;
      const float bent = hyperbolic_tangent(kept);
      gates[j] = take;
      gates[f] = forget;
      gates[v] = value;
      gates[g] = give;
      inner[j] = bent;
      memory[j] = kept;
      store(hidden, j, give * bent);
    }
  }

  template <typename T, typename R>
  static void backward(const StepBack<T>& step, int64_t width, int64_t row, int64_t unit,
                       int64_t count, const R* of_hidden) {
    const float* gates = step.gates + row * 4 * width + unit;
    float* outer = step.of_given + row * 4 * width + unit;
    T* within = step.of_recurrent + row * 4 * width + unit;
    const int64_t at = row * width + unit;
    const float *inner = step.inner + at, *before = step.before + at;
    const T* of_output = step.of_output + at;
    float* of_memory = step.of_memory + at;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const int64_t f = width + j, v = 2 * width + j, g = 3 * width + j;
      const float take = gates[j], forget = gates[f], value = gates[v], give = gates[g];
      const float arriving = load(of_output, j) + load(of_hidden, j);
      const float kept = of_memory[j] + arriving * give * (1.0f - inner[j] * inner[j]);
      const float to_take = kept * value * take * (1.0f - take);
      const float to_forget = kept * before[j] * forget * (1.0f - forget);
      const float to_value = kept * take * (1.0f - value * value);
      const float to_give = arriving * inner[j] * give * (1.0f - give);
      outer[j] = to_take;
      outer[f] = to_forget;
      outer[v] = to_value;
      outer[g] = to_give;
      store(within, j, to_take);
      store(within, f, to_forget);
      store(within, v, to_value);
      store(within, g, to_give);
      of_memory[j] = kept * forget;
    }
  }
};

// `inner` is the state's share of the new value, before the reset gate. Backward, `of_memory` is
// the state's own share, which is to be added to that through the product with the weights.
struct Gru {
  static constexpr int GATES = 3;

  template <typename T, typename R>
  static void forward(const Step<T>& step, int64_t width, int64_t row, int64_t unit, int64_t count,
                      const R* recurrent, int64_t apart) {
    float* gates = step.gates + row * 3 * width + unit;
    const float *bias = step.bias + unit, *before = step.before + row * width + unit;
    float *inner = step.inner + row * width + unit, *memory = step.memory + row * width + unit;
    T* hidden = step.hidden + row * width + unit;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const int64_t u = width + j, v = 2 * width + j;
      const float reset = sigmoid(gates[j] + bias[j] + load(recurrent, j));
      const float update = sigmoid(gates[u] + bias[u] + load(recurrent, apart + j));
      const float own = bias[v] + load(recurrent, 2 * apart + j);
      const float value = hyperbolic_tangent(gates[v] + reset * own);
      const float next = value + update * (before[j] - value);
      gates[j] = reset;
      gates[u] = update;
      gates[v] = value;
      inner[j] = own;
      memory[j] = next;
      store(hidden, j, next);
    }
  }

  template <typename T, typename R>
  static void backward(const StepBack<T>& step, int64_t width, int64_t row, int64_t unit,
                       int64_t count, const R* of_hidden) {
    const float* gates = step.gates + row * 3 * width + unit;
    float* outer = step.of_given + row * 3 * width + unit;
    T* within = step.of_recurrent + row * 3 * width + unit;
    const int64_t at = row * width + unit;
    const float *inner = step.inner + at, *before = step.before + at;
    const T* of_output = step.of_output + at;
    float* of_memory = step.of_memory + at;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
      const int64_t u = width + j, v = 2 * width + j;
      const float reset = gates[j], update = gates[u], value = gates[v];
      const float arriving = load(of_output, j) + load(of_hidden, j) + of_memory[j];
      const float bent = arriving * (1.0f - update) * (1.0f - value * value);
      const float to_reset = bent * inner[j] * reset * (1.0f - reset);
      const float to_update = arriving * (before[j] - value) * update * (1.0f - update);
      outer[j] = to_reset;
      outer[u] = to_update;
      outer[v] = bent;
      store(within, j, to_reset);
      store(within, u, to_update);
      store(within, v, bent * reset);
      of_memory[j] = arriving * update;
    }
  }
};

}  // namespace

// The C functions of a template, for both networks and both types.
#define BOTH_CELLS(name, parameters, ...)                                                  \
  extern "C" void lstm_##name##_f32 parameters(float) { name<Lstm> __VA_ARGS__; }          \
  extern "C" void lstm_##name##_bf16 parameters(bf16) { name<Lstm> __VA_ARGS__; }          \
  extern "C" void gru_##name##_f32 parameters(float) { name<Gru> __VA_ARGS__; }            \
  extern "C" void gru_##name##_bf16 parameters(bf16) { name<Gru> __VA_ARGS__; }
