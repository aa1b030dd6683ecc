// The loops that PyTorch makes several passes of: softmax rows, gates, and Adam on single rows.
//
// Plain C++ that the compiler vectorises for the processor at hand; matrix products stay
// PyTorch's. Arrays are contiguous. A `narrow` array holds bf16 bits, else f32: the functions come
// in both kinds. All arithmetic is f32; sums over a vocabulary are f64 beyond a block of it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace {

constexpr int64_t BLOCK = 128;   // words that are summed in f32
constexpr int64_t PIECE = 1024;  // words that are read once, and kept in the nearest cache
constexpr float LOG2_E = 1.44269504088896341f;

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct bf16 {
  uint16_t bits;
};

inline float load(const float* values, int64_t at) { return values[at]; }
inline float load(const bf16* values, int64_t at) {
  return as_float(static_cast<uint32_t>(values[at].bits) << 16);
}
inline void store(float* values, int64_t at, float value) { values[at] = value; }
inline void store(bf16* values, int64_t at, float value) {  // to the nearest, ties to even
  const uint32_t bits = as_bits(value);
  values[at].bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// exp(x): 2^n · e^r, |r| ≤ ln 2 / 2, e^r by a polynomial (Cephes); relative error below 2e-7.
// Below -87 it is 0, above 88 it stays what it is there.
inline float exponential(float x) {
  const float bounded = std::min(std::max(x, -87.0f), 88.0f);
  const float shifted = bounded * 1.44269504088896341f + 12582912.0f;  // rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float value = as_float(as_bits(p) + (as_bits(shifted) << 23));
  return x < -87.0f ? 0.0f : value;
}

// 2^t of t ≤ 0, for sums; below -126 it is that of -126. NaN stays NaN.
inline float power_of_two(float t) {
  const float bounded = std::max(t, -126.0f);
  const float shifted = bounded + 12582912.0f;  // rounds to an integer
  const float r = bounded - (shifted - 12582912.0f);
  float p = 1.3333558e-3f;
  p = p * r + 9.6181291e-3f;
  p = p * r + 5.5504109e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314718e-1f;
  p = p * r + 1.0f;
  return as_float(as_bits(p) + (as_bits(shifted) << 23));
}

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

template <typename T>
float highest(const T* row, int64_t size) {
  float most = -INFINITY;
#pragma omp simd reduction(max : most)
  for (int64_t j = 0; j < size; ++j) most = std::max(most, load(row, j));
  return most;
}

// e^((row - most) · scale) into `weights`, and their sums by blocks; returns the whole sum
template <typename T>
double exponentials(const T* row, int64_t size, float most, float scale, float* weights,
                    double* sums) {
  const float factor = std::min(scale * LOG2_E, std::numeric_limits<float>::max());
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += BLOCK) {
    const int64_t end = std::min(begin + BLOCK, size);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = begin; j < end; ++j) {
      const float t = (load(row, j) - most) * factor;
      const float weight = t < -126.0f ? 0.0f : power_of_two(t);
      weights[j] = weight;
      sum += weight;
    }
    if (sums != nullptr) sums[begin / BLOCK] = sum;
    total += sum;
  }
  return total;
}

template <typename T>
void softmax_gradient(T* logits, const int64_t* targets, float* nll, int64_t rows, int64_t size,
                      int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> weights(size);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
      T* row = logits + i * size;
      const float most = highest(row, size);
      const float chosen = load(row, targets[i]);
      const double total = exponentials(row, size, most, 1.0f, weights.data(), nullptr);
      const float share = static_cast<float>(1.0 / total);
#pragma omp simd
      for (int64_t j = 0; j < size; ++j) store(row, j, weights[j] * share);
      nll[i] = static_cast<float>(std::log(total)) + (most - chosen);
      store(row, targets[i], std::expm1(-nll[i]));  // p - 1, without cancellation at p near 1
    }
  }
}

template <typename T>
void log_likelihood(const T* logits, const int64_t* targets, float* scores, int64_t rows,
                    int64_t size, int64_t stride, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = logits + i * stride;
    float values[PIECE];
    float most = -INFINITY;
    double total = 0;  // relative to e^most
    for (int64_t begin = 0; begin < size; begin += PIECE) {
      const int64_t count = std::min(PIECE, size - begin);
      const T* piece = row + begin;
      float top = -INFINITY;
#pragma omp simd reduction(max : top)
      for (int64_t j = 0; j < count; ++j) {
        values[j] = load(piece, j);
        top = std::max(top, values[j]);
      }
      if (top == -INFINITY) continue;  // adds nothing
      if (top > most) {
        total *= std::exp(static_cast<double>(most) - top);
        most = top;
      }
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < count; ++j) sum += power_of_two((values[j] - most) * LOG2_E);
      total += sum;
    }
    scores[i] = (load(row, targets[i]) - most) - static_cast<float>(std::log(total));
  }
}

double mass_above(const float* weights, int64_t size, float least) {
  double total = 0;
  for (int64_t begin = 0; begin < size; begin += 8 * BLOCK) {
    const int64_t end = std::min(begin + 8 * BLOCK, size);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = begin; j < end; ++j) sum += weights[j] >= least ? weights[j] : 0.0f;
    total += sum;
  }
  return total;
}

// The least weight of the nucleus: the largest t such that weights ≥ t have the wanted mass.
float nucleus(const float* weights, int64_t size, double wanted, std::vector<float>& between) {
  // positive floats are ordered as their bits are
  uint32_t low = 0, high = as_bits(2.0f);  // mass above `low` is enough, above `high` it is not
  for (int step = 0; step < 12; ++step) {
    const uint32_t middle = low + (high - low) / 2;
    (mass_above(weights, size, as_float(middle)) >= wanted ? low : high) = middle;
  }
  between.clear();
  for (int64_t j = 0; j < size; ++j) {
    const uint32_t bits = as_bits(weights[j]);
    if (bits >= low && bits < high) between.push_back(weights[j]);
  }
  std::sort(between.begin(), between.end(), std::greater<float>());
  double mass = mass_above(weights, size, as_float(high));
  for (const float weight : between) {
    mass += weight;
    if (mass >= wanted) return weight;
  }
  return between.empty() ? as_float(low) : between.back();
}

template <typename T>
void draw(const T* logits, const float* uniforms, int64_t* words, int64_t rows, int64_t size,
          int64_t stride, float temperature, float top_p, int threads) {
  // finite, so that the greatest logit keeps its weight at any temperature
  const float scale = std::min(1.0f / temperature, std::numeric_limits<float>::max());
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> weights(size), between;
    std::vector<double> sums((size + BLOCK - 1) / BLOCK);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
      const T* row = logits + i * stride;
      const float most = highest(row, size);
      double total = exponentials(row, size, most, scale, weights.data(), sums.data());
      if (top_p < 1.0f) {
        const float least = nucleus(weights.data(), size, top_p * total, between);
        total = 0;
        for (int64_t begin = 0; begin < size; begin += BLOCK) {
          const int64_t end = std::min(begin + BLOCK, size);
          float sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int64_t j = begin; j < end; ++j) {
            weights[j] = weights[j] >= least ? weights[j] : 0.0f;
            sum += weights[j];
          }
          sums[begin / BLOCK] = sum;
          total += sum;
        }
      }
      double left = uniforms[i] * total;
      size_t block = 0;
      while (block + 1 < sums.size() && left >= sums[block]) left -= sums[block++];
      const int64_t begin = block * BLOCK, end = std::min(begin + BLOCK, size);
      // rounding may carry the search past the last word that has any weight
      int64_t chosen = begin;
      for (int64_t j = begin; j < end; ++j) {
        if (weights[j] <= 0) continue;
        chosen = j;
        left -= weights[j];
        if (left < 0) break;
      }
      words[i] = chosen;
    }
  }
}

template <typename T>
void greatest(const T* logits, int64_t* words, int64_t rows, int64_t size, int64_t stride,
              int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = logits + i * stride;
    const float most = highest(row, size);
    int64_t j = 0;
    for (int64_t begin = 0; begin < size; begin += BLOCK) {
      const int64_t end = std::min(begin + BLOCK, size);
      if (highest(row + begin, end - begin) < most) continue;
      j = begin;
      break;
    }
    while (j + 1 < size && load(row, j) < most) ++j;
    words[i] = j;
  }
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

// One C function of every template, for f32 and for bf16.
#define BOTH(name, parameters, ...)                                                       \
  extern "C" void name##_f32 parameters(float) { name __VA_ARGS__; }                      \
  extern "C" void name##_bf16 parameters(bf16) { name __VA_ARGS__; }

#define SOFTMAX_GRADIENT(T) \
  (T * logits, const int64_t* targets, float* nll, int64_t rows, int64_t size, int threads)
BOTH(softmax_gradient, SOFTMAX_GRADIENT, (logits, targets, nll, rows, size, threads))

#define LOG_LIKELIHOOD(T)                                                                        \
  (const T* logits, const int64_t* targets, float* scores, int64_t rows, int64_t size,           \
   int64_t stride, int threads)
BOTH(log_likelihood, LOG_LIKELIHOOD, (logits, targets, scores, rows, size, stride, threads))

#define DRAW(T)                                                                                  \
  (const T* logits, const float* uniforms, int64_t* words, int64_t rows, int64_t size,           \
   int64_t stride, float temperature, float top_p, int threads)
BOTH(draw, DRAW, (logits, uniforms, words, rows, size, stride, temperature, top_p, threads))

#define GREATEST(T) \
  (const T* logits, int64_t* words, int64_t rows, int64_t size, int64_t stride, int threads)
BOTH(greatest, GREATEST, (logits, words, rows, size, stride, threads))

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
