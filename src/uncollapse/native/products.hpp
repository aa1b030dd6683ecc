// Products of a few rows with weights that stay in a core's cache.
//
// Arrays are read as words of 32 bits: one f32 number, or two of bf16, which are multiplied and
// added up in f32. A panel holds, for each word of depth, those of the LANES units side by side
// of each of its parts. What a sum is does not depend on what else is summed beside it.

#pragma once

#include "numbers.hpp"

namespace {

// of the registers; the others are for weights
#ifdef __AVX512F__
constexpr int SUMS = 24;
#else
constexpr int SUMS = 12;
#endif

template <typename T>
constexpr int NUMBERS = 4 / sizeof(T);  // of a word

inline Floats add_product(Floats sum, Words weights, uint32_t state, float) {
  return sum + as_float(weights) * as_float(state);
}

inline Floats add_product(Floats sum, Words weights, uint32_t state, bf16) {
#ifdef __AVX512BF16__
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(_mm512_set1_epi32(state)),
      reinterpret_cast<__m512bh>(weights)));
#else
  sum += as_float(weights << 16) * as_float(state << 16);
  return sum + as_float(weights & 0xffff0000u) * as_float(state & 0xffff0000u);
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
    for (int p = 0; p < PARTS; ++p) weights[p] = take_some<Words>(panel + (k * PARTS + p) * LANES, LANES);
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
