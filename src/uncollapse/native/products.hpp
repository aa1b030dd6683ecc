// Products of a few rows with weights that stay in a core's cache.
//
// Arrays are read as words of 32 bits: one f32 number, or two of bf16, which are multiplied and
// added up in f32. A panel holds, for each word of depth, those of the LANES units side by side
// of each of its parts. What a sum is does not depend on what else is summed beside it.

#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "numbers.hpp"

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, SUMS = 24;  // of 32 registers; the others are for weights
#elif defined __AVX__
constexpr int LANES = 8, SUMS = 12;
#else
constexpr int LANES = 4, SUMS = 12;  // what SSE2 and NEON have; wider vectors would be taken apart
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

inline Words read(const uint32_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

template <typename T>
constexpr int NUMBERS = 4 / sizeof(T);  // of a word

inline Floats add_product(Floats sum, Words weights, uint32_t state, float) {
  return sum + reinterpret_cast<Floats>(weights) * as_float(state);
}

inline Floats add_product(Floats sum, Words weights, uint32_t state, bf16) {
#ifdef __AVX512BF16__
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(_mm512_set1_epi32(state)),
      reinterpret_cast<__m512bh>(weights)));
#else
  sum += reinterpret_cast<Floats>(weights << 16) * as_float(state << 16);
  return sum + reinterpret_cast<Floats>(weights & 0xffff0000u) * as_float(state & 0xffff0000u);
#endif
}

// Sums (ROWS, PARTS, LANES) of rows `apart` words from each other.
template <typename T, int PARTS, int ROWS>
inline void multiply(const uint32_t* rows, int64_t apart, const uint32_t* panel, int64_t depth,
                     float* sums) {
  Floats sum[ROWS][PARTS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Words weights[PARTS];
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) weights[p] = read(panel + (k * PARTS + p) * LANES);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; ++r) {
      const uint32_t state = rows[r * apart + k];
#pragma GCC unroll 4
      for (int p = 0; p < PARTS; ++p) sum[r][p] = add_product(sum[r][p], weights[p], state, T());
    }
  }
  std::memcpy(sums, sum, sizeof sum);
}

// The same of `count` rows, at most ROWS.
template <typename T, int PARTS, int ROWS = SUMS / PARTS>
inline void multiply_some(int64_t count, const uint32_t* rows, int64_t apart,
                          const uint32_t* panel, int64_t depth, float* sums) {
  if constexpr (ROWS > 1)
    if (count < ROWS)
      return multiply_some<T, PARTS, ROWS - 1>(count, rows, apart, panel, depth, sums);
  multiply<T, PARTS, ROWS>(rows, apart, panel, depth, sums);
}

}  // namespace
