// One new position of many sentences, each of a length of its own, that attends to those before.

#include <vector>

#include "numbers.hpp"

namespace {

// `parts` (rows, 3, heads, width) are new queries, keys and values, whose pairs of channels (half
// a width apart) are turned by the angles of `cosine` and `sine` (rows, width / 2). Row i is row
// places[i] of the caches (·, heads, capacity, width), in which lengths[i] positions are known.
template <typename T>
void attend(const T* parts, const float* cosine, const float* sine, T* keys, T* values,
            const int64_t* places, const int64_t* lengths, T* seen, int64_t rows, int64_t heads,
            int64_t width, int64_t capacity, int threads) {
  const int64_t half = width / 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> query(width), sum(width), scores(capacity);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
      const float* one = cosine + i * half;
      const float* other = sine + i * half;
      const int64_t length = lengths[i];
      for (int64_t head = 0; head < heads; ++head) {
        const T* new_query = parts + (i * 3 * heads + head) * width;
        const T* new_key = new_query + heads * width;
        const T* new_value = new_key + heads * width;
        const int64_t begin = (places[i] * heads + head) * capacity * width;
        T* key = keys + begin;
        T* value = values + begin;
#pragma omp simd
        for (int64_t j = 0; j < half; ++j) {
          const float a = load(new_query, j), b = load(new_query, half + j);
          query[j] = (a * one[j] - b * other[j]) * scale;
          query[half + j] = (a * other[j] + b * one[j]) * scale;
          const float c = load(new_key, j), d = load(new_key, half + j);
          store(key, length * width + j, c * one[j] - d * other[j]);
          store(key, length * width + half + j, c * other[j] + d * one[j]);
        }
        std::memcpy(value + length * width, new_value, width * sizeof(T));
        float most = -INFINITY;
        for (int64_t at = 0; at <= length; ++at) {
          const T* row = key + at * width;
          float score = 0;
#pragma omp simd reduction(+ : score)
          for (int64_t j = 0; j < width; ++j) score += query[j] * load(row, j);
          scores[at] = score;
          most = std::max(most, score);
        }
        float total = 0;
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t at = 0; at <= length; ++at) {
          const T* row = value + at * width;
          const float weight = exponential(scores[at] - most);
          total += weight;
#pragma omp simd
          for (int64_t j = 0; j < width; ++j) sum[j] += weight * load(row, j);
        }
        const float share = 1.0f / total;
        T* out = seen + (i * heads + head) * width;
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) store(out, j, sum[j] * share);
      }
    }
  }
}

}  // namespace

#define ATTEND(T)                                                                                \
  (const T* parts, const float* cosine, const float* sine, T* keys, T* values,                   \
   const int64_t* places, const int64_t* lengths, T* seen, int64_t rows, int64_t heads,          \
   int64_t width, int64_t capacity, int threads)
BOTH(attend, ATTEND,
     (parts, cosine, sine, keys, values, places, lengths, seen, rows, heads, width, capacity,
      threads))
