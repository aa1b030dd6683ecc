// Adam on some rows of a table: the steps that they were idle, and a step with a gradient.

#include <vector>

#include "numbers.hpp"

// Rows of a table and their moments, brought to the present step, into (n, width) arrays.
//
// `shares` (6, n): by row Σa, b̄, Σa·C₂, −Σa·C₃, and what the moments shrink to. Where `last` is
// not 0, the sum over so many steps is taken as it stands instead: the steps after step `place`
// have rates `rate` and scales `scale`, and `first` and `second` are β₁ʲ and √β₂ʲ.
extern "C" void adam_catch_up_f32(const float* p, const float* m, const float* v,
                                  const int64_t* rows, float* new_p, float* new_m, float* new_v,
                                  const float* shares, const int64_t* place, const int64_t* last,
                                  const double* first, const double* second, const double* rate,
                                  const double* scale, int64_t count, int64_t width,
                                  float epsilon, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> roots(width), moved(width);
// those that are summed are long work
#pragma omp for schedule(dynamic, 8)
    for (int64_t i = 0; i < count; ++i) {
      const float *old_p = p + rows[i] * width, *old_m = m + rows[i] * width,
                  *old_v = v + rows[i] * width;
      float *to_p = new_p + i * width, *to_m = new_m + i * width, *to_v = new_v + i * width;
      const float total = shares[i], mean = shares[count + i], two = shares[2 * count + i],
                  three = shares[3 * count + i];
      const float of_first = shares[4 * count + i], of_second = shares[5 * count + i];
      float* root = roots.data();
      float* way = moved.data();
      bool still = true;
#pragma omp simd reduction(& : still)
      for (int64_t j = 0; j < width; ++j) {
        still &= old_m[j] == 0.0f;
        root[j] = std::sqrt(old_v[j]);
        const float below = root[j] * mean + epsilon;
        const float u = root[j] / below;
        way[j] = old_m[j] / below * (total + u * u * (two + u * three));
      }
      for (int64_t age = 1; age <= last[i] && !still; ++age) {
        const float a = static_cast<float>(first[age] * rate[place[i] + age]);
        const float b = static_cast<float>(second[age] * scale[place[i] + age]);
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) way[j] += old_m[j] * a / (root[j] * b + epsilon);
      }
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        to_p[j] = old_p[j] - way[j];
        to_m[j] = old_m[j] * of_first;
        to_v[j] = old_v[j] * of_second;
      }
    }
  }
}

// A step of Adam of rows that are caught up, into their table and its moments. The gains are
// 1 − β, of which f32 keeps fewer digits when it is left to subtract.
extern "C" void adam_update_f32(const float* p, const float* m, const float* v,
                                const float* gradient, const int64_t* rows, float* table,
                                float* table_m, float* table_v, int64_t count, int64_t width,
                                float factor, float gain, float keep_second, float gain_second,
                                float rate, float scale, float epsilon, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = i * width, to = rows[i] * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      const float g = gradient[from + j] * factor;
      const float first = m[from + j] + gain * (g - m[from + j]);
      const float second = v[from + j] * keep_second + gain_second * g * g;
      table_m[to + j] = first;
      table_v[to + j] = second;
      table[to + j] = p[from + j] - rate * first / (std::sqrt(second) * scale + epsilon);
    }
  }
}
