// Numbers of the kernels: bf16 and f32 in memory, f32 in arithmetic, and their functions.
//
// Plain C++ that the compiler vectorises for the processor at hand. A narrow array holds bf16
// bits: the kernels come in both kinds.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

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

}  // namespace

// One C function of every template, for f32 and for bf16.
#define BOTH(name, parameters, ...)                                                       \
  extern "C" void name##_f32 parameters(float) { name __VA_ARGS__; }                      \
  extern "C" void name##_bf16 parameters(bf16) { name __VA_ARGS__; }
