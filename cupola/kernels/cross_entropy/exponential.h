// Vectors of floats and their exponential, for the compiler to put into the widest registers of a level.
#pragma once

#include "native/kernel.h"

namespace cupola::cross_entropy {
namespace {

constexpr int kWidth = CUPOLA_LEVEL >= 2 ? 16 : 8;
typedef float Floats __attribute__((vector_size(kWidth * 4)));
typedef int32_t Ints __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Bits __attribute__((vector_size(kWidth * 4)));
typedef uint16_t Halves __attribute__((vector_size(kWidth * 2)));

inline Floats all(float x) { return Floats{} + x; }

// The first `count` numbers, zeros after them.
inline Floats load(const float* from, int64_t count = kWidth) {
  Floats out{};
  if (count >= kWidth)
    std::memcpy(&out, from, sizeof out);
  else if (count > 0)
    std::memcpy(&out, from, size_t(count) * sizeof(float));
  return out;
}

inline Floats load(const bfloat16* from, int64_t count = kWidth) {
  Halves half{};
  if (count >= kWidth)
    std::memcpy(&half, from, sizeof half);
  else if (count > 0)
    std::memcpy(&half, from, size_t(count) * sizeof(bfloat16));
  const Bits bits = __builtin_convertvector(half, Bits) << 16;
  Floats out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

inline void store(float* to, Floats x, int64_t count = kWidth) {
  if (count >= kWidth)
    std::memcpy(to, &x, sizeof x);
  else if (count > 0)
    std::memcpy(to, &x, size_t(count) * sizeof(float));
}

// To the nearest, ties to even; a NaN stays one.
inline void store(bfloat16* to, Floats x, int64_t count = kWidth) {
  Bits bits;
  std::memcpy(&bits, &x, sizeof bits);
  const Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Bits kept = x != x ? bits >> 16 | 0x40 : rounded;
  const Halves half = __builtin_convertvector(kept, Halves);
  if (count >= kWidth)
    std::memcpy(to, &half, sizeof half);
  else if (count > 0)
    std::memcpy(to, &half, size_t(count) * sizeof(bfloat16));
}

inline void store_one(float* to, float x) { *to = x; }
inline void store_one(bfloat16* to, float x) { *to = narrow(x); }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// exp(x) for x <= 0, within an ulp or two: 2^n times a polynomial of the rest. Below the least normal number it is 0.
inline Floats exponential(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction.
  const Floats n = (x * 1.44269504f + kRound) - kRound;
  Floats r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Floats safe = x < -87.0f ? Floats{} : n;
  const Ints power = (__builtin_convertvector(safe, Ints) + 127) << 23;
  Floats scale;
  std::memcpy(&scale, &power, sizeof scale);
  return x < -87.0f ? Floats{} : p * scale;
}

}  // namespace
}  // namespace cupola::cross_entropy
