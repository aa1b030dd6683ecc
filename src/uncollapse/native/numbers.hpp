// Numbers of the kernels: bf16 and f32 in memory, f32 in arithmetic, and their functions.
//
// Plain C++ that the compiler vectorises for the processor at hand, and, where it does not do so by
// itself, LANES numbers as one. A narrow array holds bf16 bits: the kernels come in both kinds.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#elif defined __AVX__
constexpr int LANES = 8;
#else
constexpr int LANES = 4;  // what SSE2 and NEON have; wider vectors would be taken apart
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

struct bf16 {
  uint16_t bits;
};

// --- bits and memory -------------------------------------------------------------------------

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

inline Floats as_float(Words bits) { return reinterpret_cast<Floats>(bits); }
inline Words as_bits(Floats values) { return reinterpret_cast<Words>(values); }

// the bits of a bf16, in the upper half: to the nearest, ties to even
template <typename Bits>
inline Bits rounded(Bits bits) {
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

inline float load(const float* values, int64_t at) { return values[at]; }
inline float load(const bf16* values, int64_t at) {
  return as_float(static_cast<uint32_t>(values[at].bits) << 16);
}
inline void store(float* values, int64_t at, float value) { values[at] = value; }
inline void store(bf16* values, int64_t at, float value) {
  values[at].bits = static_cast<uint16_t>(rounded(as_bits(value)));
}

// The first `count` numbers of a vector, at most LANES of them.
template <typename Vector>
inline Vector take_some(const void* from, int64_t count) {
  Vector values = {};
  if (count == LANES) {
    std::memcpy(&values, from, sizeof values);
    return values;
  }
#if defined __AVX512BW__ && defined __AVX512VL__
  const uint32_t some = (1u << count) - 1;
  if constexpr (sizeof values == 64)
    return reinterpret_cast<Vector>(_mm512_maskz_loadu_epi32(some, from));
  else
    return reinterpret_cast<Vector>(_mm256_maskz_loadu_epi16(some, from));
#else
  std::memcpy(&values, from, count * (sizeof values / LANES));
  return values;
#endif
}

template <typename Vector>
inline void put_some(void* to, Vector values, int64_t count) {
  if (count == LANES) {
    std::memcpy(to, &values, sizeof values);
    return;
  }
#if defined __AVX512BW__ && defined __AVX512VL__
  const uint32_t some = (1u << count) - 1;
  if constexpr (sizeof values == 64)
    _mm512_mask_storeu_epi32(to, some, reinterpret_cast<__m512i>(values));
  else
    _mm256_mask_storeu_epi16(to, some, reinterpret_cast<__m256i>(values));
#else
  std::memcpy(to, &values, count * (sizeof values / LANES));
#endif
}

inline Floats read(const float* from, int64_t count) { return take_some<Floats>(from, count); }
inline Floats read(const bf16* from, int64_t count) {
  return as_float(__builtin_convertvector(take_some<Halves>(from, count), Words) << 16);
}
inline void write(float* to, Floats values, int64_t count) { put_some(to, values, count); }
inline void write(bf16* to, Floats values, int64_t count) {
  put_some(to, __builtin_convertvector(rounded(as_bits(values)), Halves), count);
}

constexpr float LOG2_E = 1.44269504088896341f;

// --- functions, of one number or of LANES ----------------------------------------------------

// exp(x): 2^n · e^r, |r| ≤ ln 2 / 2, e^r by a polynomial (Cephes); relative error below 2e-7.
// Below -87 it is 0, above 88 it stays what it is there.
template <typename F>
inline F exponential(F x) {
  const F none = {}, least = none - 87.0f, most = none + 88.0f;
  const F above = x < least ? least : x, bounded = above > most ? most : above;
  const F shifted = bounded * LOG2_E + 12582912.0f;  // rounds to an integer
  const F n = shifted - 12582912.0f;
  const F r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  F p = none + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const F value = as_float(as_bits(p) + (as_bits(shifted) << 23));
  return x < least ? none : value;
}

template <typename F>
inline F sigmoid(F x) {
  return 1.0f / (1.0f + exponential(-x));
}

// tanh(x), by a polynomial near 0, where 1 - 2 / (e^2x + 1) would lose its digits (Cephes)
template <typename F>
inline F hyperbolic_tangent(F x) {
  const F none = {}, s = x * x;
  F p = none - 5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const F near = p * s * x + x;
  const F far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  return (x < none ? -x : x) < none + 0.625f ? near : far;
}

}  // namespace

// One C function of every template, for f32 and for bf16.
#define BOTH(name, parameters, ...)                                                       \
  extern "C" void name##_f32 parameters(float) { name __VA_ARGS__; }                      \
  extern "C" void name##_bf16 parameters(bf16) { name __VA_ARGS__; }
