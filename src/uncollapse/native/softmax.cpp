// Rows of a softmax over the vocabulary: losses with their gradients, scores, draws.
//
// Sums over a vocabulary are f64 beyond a block of it.

#include <functional>
#include <limits>
#include <vector>

#include "numbers.hpp"

namespace {

constexpr int64_t BLOCK = 128;   // words that are summed in f32
constexpr int64_t FEW = 32;       // words that are looked at together
constexpr uint32_t NARROW = 1 << 18;  // between bits of floats that differ by a 32nd of an octave
constexpr int64_t PIECE = 1024;  // words that are read once, and kept in the nearest cache

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
float nucleus(const float* weights, int64_t size, double total, double wanted,
              std::vector<float>& between) {
  // positive floats are ordered as their bits are; mass above `low` is enough, above `high` not:
  // weights below this first `low`, even if all were, are too few to be missed
  const double spared = std::max(0.0, total - wanted) / size;
  uint32_t low = as_bits(static_cast<float>(0.999 * spared)), high = as_bits(2.0f);
  for (int step = 0; step < 12 && high - low > NARROW; ++step) {
    const uint32_t middle = low + (high - low) / 2;
    (mass_above(weights, size, as_float(middle)) >= wanted ? low : high) = middle;
  }
  between.clear();
  for (int64_t begin = 0; begin < size; begin += FEW) {
    const int64_t end = std::min(begin + FEW, size);
    int32_t found = 0;  // most often none, which takes no look at each
#pragma omp simd reduction(+ : found)
    for (int64_t j = begin; j < end; ++j) {
      const uint32_t bits = as_bits(weights[j]);
      found += bits >= low && bits < high;
    }
    if (found == 0) continue;
    for (int64_t j = begin; j < end; ++j) {
      const uint32_t bits = as_bits(weights[j]);
      if (bits >= low && bits < high) between.push_back(weights[j]);
    }
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
        const float least = nucleus(weights.data(), size, total, top_p * total, between);
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

}  // namespace

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
