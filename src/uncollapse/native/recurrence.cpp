// The gates of recurrent networks, forward and backward.

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

// One step of an LSTM. `given` is the input's share of the gates (take, forget, value, give), f32,
// `recurrent` the state's; the activated gates replace `given`, for the backward pass.
template <typename T>
void lstm_forward(float* given, const T* recurrent, const float* before, float* cell, T* hidden,
                  int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    float* gates = given + i * 4 * width;
    const T* added = recurrent + i * 4 * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const float take = sigmoid(gates[j] + load(added, j));
      const float forget = sigmoid(gates[width + j] + load(added, width + j));
      const float value = hyperbolic_tangent(gates[2 * width + j] + load(added, 2 * width + j));
      const float give = sigmoid(gates[3 * width + j] + load(added, 3 * width + j));
      const float kept = forget * before[i * width + j] + take * value;
      gates[j] = take;
      gates[width + j] = forget;
      gates[2 * width + j] = value;
      gates[3 * width + j] = give;
      cell[i * width + j] = kept;
      store(hidden, i * width + j, give * hyperbolic_tangent(kept));
    }
  }
}

// The gradient of a step: of the gates into `gradient`, of the cell before in place of `of_cell`.
// `of_output` is what arrives at this step's state from above, `of_hidden` from the step after.
template <typename T>
void lstm_backward(const float* gates, const float* before, const float* cell, const T* of_output,
                   const T* of_hidden, float* of_cell, T* gradient, int64_t rows, int64_t width,
                   int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const float* own = gates + i * 4 * width;
    T* out = gradient + i * 4 * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = i * width + j;
      const float take = own[j], forget = own[width + j], value = own[2 * width + j],
                  give = own[3 * width + j];
      const float bent = hyperbolic_tangent(cell[at]);
      const float arriving = load(of_output, at) + load(of_hidden, at);
      const float kept = of_cell[at] + arriving * give * (1.0f - bent * bent);
      store(out, j, kept * value * take * (1.0f - take));
      store(out, width + j, kept * before[at] * forget * (1.0f - forget));
      store(out, 2 * width + j, kept * take * (1.0f - value * value));
      store(out, 3 * width + j, arriving * bent * give * (1.0f - give));
      of_cell[at] = kept * forget;
    }
  }
}

// One step of a GRU (reset, update, new). In place of `given`: the activated gates; `inner` keeps
// the state's share of the new value, before the reset gate.
template <typename T>
void gru_forward(float* given, const T* recurrent, const float* bias, const float* before,
                 float* state, T* hidden, float* inner, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    float* gates = given + i * 3 * width;
    const T* added = recurrent + i * 3 * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = i * width + j;
      const float reset = sigmoid(gates[j] + load(added, j) + bias[j]);
      const float update = sigmoid(gates[width + j] + load(added, width + j) + bias[width + j]);
      const float own = load(added, 2 * width + j) + bias[2 * width + j];
      const float value = hyperbolic_tangent(gates[2 * width + j] + reset * own);
      const float next = value + update * (before[at] - value);
      gates[j] = reset;
      gates[width + j] = update;
      gates[2 * width + j] = value;
      inner[at] = own;
      state[at] = next;
      store(hidden, at, next);
    }
  }
}

// The gradient of a step: of the input's share into `of_given`, of the state's into
// `of_recurrent`, and the state's own share, which the product with the weights is added to, in
// place of `of_state`.
template <typename T>
void gru_backward(const float* gates, const float* inner, const float* before, const T* of_output,
                  const T* of_hidden, float* of_state, T* of_given, T* of_recurrent, int64_t rows,
                  int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const float* own = gates + i * 3 * width;
    T* outer = of_given + i * 3 * width;
    T* within = of_recurrent + i * 3 * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = i * width + j;
      const float reset = own[j], update = own[width + j], value = own[2 * width + j];
      const float arriving = load(of_output, at) + load(of_hidden, at) + of_state[at];
      const float bent = arriving * (1.0f - update) * (1.0f - value * value);
      const float to_reset = bent * inner[at] * reset * (1.0f - reset);
      const float to_update = arriving * (before[at] - value) * update * (1.0f - update);
      store(outer, j, to_reset);
      store(outer, width + j, to_update);
      store(outer, 2 * width + j, bent);
      store(within, j, to_reset);
      store(within, width + j, to_update);
      store(within, 2 * width + j, bent * reset);
      of_state[at] = arriving * update;
    }
  }
}

}  // namespace

#define LSTM_FORWARD(T)                                                                          \
  (float* given, const T* recurrent, const float* before, float* cell, T* hidden, int64_t rows,  \
   int64_t width, int threads)
BOTH(lstm_forward, LSTM_FORWARD, (given, recurrent, before, cell, hidden, rows, width, threads))

#define LSTM_BACKWARD(T)                                                                         \
  (const float* gates, const float* before, const float* cell, const T* of_output,               \
   const T* of_hidden, float* of_cell, T* gradient, int64_t rows, int64_t width, int threads)
BOTH(lstm_backward, LSTM_BACKWARD,
     (gates, before, cell, of_output, of_hidden, of_cell, gradient, rows, width, threads))

#define GRU_FORWARD(T)                                                                           \
  (float* given, const T* recurrent, const float* bias, const float* before, float* state,       \
   T* hidden, float* inner, int64_t rows, int64_t width, int threads)
BOTH(gru_forward, GRU_FORWARD,
     (given, recurrent, bias, before, state, hidden, inner, rows, width, threads))

#define GRU_BACKWARD(T)                                                                          \
  (const float* gates, const float* inner, const float* before, const T* of_output,              \
   const T* of_hidden, float* of_state, T* of_given, T* of_recurrent, int64_t rows,              \
   int64_t width, int threads)
BOTH(gru_backward, GRU_BACKWARD,
     (gates, inner, before, of_output, of_hidden, of_state, of_given, of_recurrent, rows, width,
      threads))
