// Attention among all positions of short sentences, and its gradient.
//
// A sentence's head is a piece of work of its own: its queries, keys and values are turned and
// widened into arrays that stay in a core's cache, with rows and columns in whole vectors.

#include <vector>

#include "numbers.hpp"

namespace {

#ifdef __AVX512F__
constexpr int64_t ROWS = 8;
#else
constexpr int64_t ROWS = 4;
#endif

inline int64_t in_lanes(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

// An array whose entry (i, k) is at[i * row + k * column].
struct Matrix {
  const float* at;
  int64_t row, column;
};

template <int VECTORS>
inline void multiply_block(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row,
                           int64_t first, int64_t last) {
  Floats sums[ROWS][VECTORS] = {};
  for (int64_t k = first; k < last; ++k) {
    Floats factors[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v)
      factors[v] = read(b + k * b_row + v * LANES, LANES);
#pragma GCC unroll 8
    for (int64_t i = 0; i < ROWS; ++i) {
      const float own = a.at[i * a.row + k * a.column];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += own * factors[v];
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v)
      write(c + i * c_row + v * LANES, sums[i][v], LANES);
}

// ROWS rows of c = a b, over entries `first` to `last` of a's rows, in whole vectors of columns.
inline void multiply(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row,
                     int64_t first, int64_t last, int64_t columns) {
  int64_t j = 0;
  for (; j + 2 * LANES <= columns; j += 2 * LANES)
    multiply_block<2>(a, b + j, b_row, c + j, c_row, first, last);
  if (j < columns) multiply_block<1>(a, b + j, b_row, c + j, c_row, first, last);
}

// One head of one sentence.
struct Head {
  int64_t steps, width, tall, wide;  // the latter in whole vectors
  const float *cosine, *sine;        // (steps, width / 2)
  std::vector<float> queries, keys, values, across, weights;

  Head(int64_t steps, int64_t width, const float* cosine, const float* sine)
      : steps(steps), width(width), tall(in_lanes(steps)), wide(in_lanes(width)),
        cosine(cosine), sine(sine), queries(tall * wide), keys(tall * wide),
        values(tall * wide), across(tall * wide), weights(tall * tall) {}

  // `parts` (steps, 3, heads, width), from this head's on; queries are scaled
  template <typename T>
  void read(const T* parts, int64_t heads) {
    const int64_t half = width / 2, apart = heads * width;
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    for (int64_t t = 0; t < steps; ++t) {
      const T *query = parts + 3 * t * apart, *key = query + apart, *value = key + apart;
      const float *one = cosine + t * half, *other = sine + t * half;
      float *q = queries.data() + t * wide, *k = keys.data() + t * wide;
#pragma omp simd
      for (int64_t j = 0; j < half; ++j) {
        const float a = load(query, j), b = load(query, half + j);
        q[j] = (a * one[j] - b * other[j]) * scale;
        q[half + j] = (a * other[j] + b * one[j]) * scale;
        const float c = load(key, j), d = load(key, half + j);
        k[j] = c * one[j] - d * other[j];
        k[half + j] = c * other[j] + d * one[j];
      }
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) values[t * wide + j] = load(value, j);
    }
  }

  // into `across`, (wide, tall)
  void transpose(const std::vector<float>& rows) {
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t j = 0; j < width; ++j) across[j * tall + t] = rows[t * wide + j];
  }

  // first position that queries from i on do not see
  int64_t end(int64_t i, bool causal) const { return causal ? std::min(i + ROWS, steps) : steps; }

  // softmax of scores where `visible` (steps), or up to the query's own position without it
  void weigh(const bool* visible) {
    transpose(keys);
    const bool causal = visible == nullptr;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t last = in_lanes(end(i - i % ROWS, causal));
      float* row = weights.data() + i * tall;
      if (i % ROWS == 0)
        multiply({queries.data() + i * wide, wide, 1}, across.data(), tall, row, tall, 0, width,
                 last);
      // whole vectors, as the rest would be computed one by one
      std::fill(row + (causal ? i + 1 : steps), row + last, -INFINITY);
      if (!causal)
        for (int64_t j = 0; j < steps; ++j) row[j] = visible[j] ? row[j] : -INFINITY;
      float most = -INFINITY, total = 0;
#pragma omp simd reduction(max : most)
      for (int64_t j = 0; j < last; ++j) most = std::max(most, row[j]);
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < last; ++j) {
        row[j] = exponential(row[j] - most);
        total += row[j];
      }
      const float share = 1.0f / total;
#pragma omp simd
      for (int64_t j = 0; j < last; ++j) row[j] *= share;
      std::fill(row + last, row + tall, 0.0f);
    }
  }
};

// `parts` (batch, steps, 3, heads, width) are queries, keys and values, whose pairs of channels
// (half a width apart) are turned by the angles of `cosine` and `sine`. Queries see where
// `visible` (batch, steps) says so; if it is null, what is not behind them.
template <typename T>
void attention_forward(const T* parts, const float* cosine, const float* sine,
                       const bool* visible, T* seen, int64_t batch, int64_t steps, int64_t heads,
                       int64_t width, int threads) {
  const bool causal = visible == nullptr;
#pragma omp parallel num_threads(threads)
  {
    Head own(steps, width, cosine, sine);
    std::vector<float> found(own.tall * own.wide);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < batch * heads; ++item) {
      const int64_t sentence = item / heads, head = item % heads;
      own.read(parts + (sentence * steps * 3 * heads + head) * width, heads);
      own.weigh(causal ? nullptr : visible + sentence * steps);
      for (int64_t i = 0; i < steps; i += ROWS)
        multiply({own.weights.data() + i * own.tall, own.tall, 1}, own.values.data(), own.wide,
                 found.data() + i * own.wide, own.wide, 0, own.end(i, causal), own.wide);
      for (int64_t t = 0; t < steps; ++t) {
        T* out = seen + ((sentence * steps + t) * heads + head) * width;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) store(out, j, found[t * own.wide + j]);
      }
    }
  }
}

template <typename T>
void attention_backward(const T* parts, const float* cosine, const float* sine,
                        const bool* visible, const T* of_seen, T* of_parts, int64_t batch,
                        int64_t steps, int64_t heads, int64_t width, int threads) {
  const bool causal = visible == nullptr;
  const int64_t half = width / 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
#pragma omp parallel num_threads(threads)
  {
    Head own(steps, width, cosine, sine);
    const int64_t tall = own.tall, wide = own.wide;
    std::vector<float> arriving(tall * wide), of_scores(tall * tall);
    std::vector<float> of_queries(tall * wide), of_keys(tall * wide), of_values(tall * wide);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < batch * heads; ++item) {
      const int64_t sentence = item / heads, head = item % heads;
      const int64_t begin = (sentence * steps * 3 * heads + head) * width;
      own.read(parts + begin, heads);
      own.weigh(causal ? nullptr : visible + sentence * steps);
      for (int64_t t = 0; t < steps; ++t) {
        const T* from = of_seen + ((sentence * steps + t) * heads + head) * width;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) arriving[t * wide + j] = load(from, j);
      }
      own.transpose(own.values);
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t end = in_lanes(own.end(i - i % ROWS, causal));
        if (i % ROWS == 0)
          multiply({arriving.data() + i * wide, wide, 1}, own.across.data(), tall,
                   of_scores.data() + i * tall, tall, 0, width, end);
        const float* weights = own.weights.data() + i * tall;
        float* row = of_scores.data() + i * tall;
        float mean = 0;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < end; ++j) mean += weights[j] * row[j];
#pragma omp simd
        for (int64_t j = 0; j < end; ++j) row[j] = weights[j] * (row[j] - mean);
        std::fill(row + end, row + tall, 0.0f);
      }
      for (int64_t i = 0; i < steps; i += ROWS) {
        const int64_t first = causal ? i : 0, at = i * wide;
        multiply({of_scores.data() + i * tall, tall, 1}, own.keys.data(), wide,
                 of_queries.data() + at, wide, 0, own.end(i, causal), wide);
        multiply({of_scores.data() + i, 1, tall}, own.queries.data(), wide, of_keys.data() + at,
                 wide, first, steps, wide);
        multiply({own.weights.data() + i, 1, tall}, arriving.data(), wide, of_values.data() + at,
                 wide, first, steps, wide);
      }
      for (int64_t t = 0; t < steps; ++t) {
        T* query = of_parts + begin + 3 * t * heads * width;
        T *key = query + heads * width, *value = key + heads * width;
        const float *one = cosine + t * half, *other = sine + t * half;
        const float *q = of_queries.data() + t * wide, *k = of_keys.data() + t * wide;
#pragma omp simd
        for (int64_t j = 0; j < half; ++j) {
          store(query, j, (q[j] * one[j] + q[half + j] * other[j]) * scale);
          store(query, half + j, (q[half + j] * one[j] - q[j] * other[j]) * scale);
          store(key, j, k[j] * one[j] + k[half + j] * other[j]);
          store(key, half + j, k[half + j] * one[j] - k[j] * other[j]);
        }
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) store(value, j, of_values[t * wide + j]);
      }
    }
  }
}

}  // namespace

#define FORWARD(T)                                                                               \
  (const T* parts, const float* cosine, const float* sine, const bool* visible, T* seen,         \
   int64_t batch, int64_t steps, int64_t heads, int64_t width, int threads)
#define BACKWARD(T)                                                                              \
  (const T* parts, const float* cosine, const float* sine, const bool* visible,                  \
   const T* of_seen, T* of_parts, int64_t batch, int64_t steps, int64_t heads, int64_t width,    \
   int threads)
BOTH(attention_forward, FORWARD,
     (parts, cosine, sine, visible, seen, batch, steps, heads, width, threads))
BOTH(attention_backward, BACKWARD,
     (parts, cosine, sine, visible, of_seen, of_parts, batch, steps, heads, width, threads))
