// Rows of float32 or bfloat16, read and written as vectors of float32 as wide as the level has them.
// Invariant: the last few numbers of a row are read and written alone, never what lies behind them.
#pragma once

#include "native/kernel.h"

namespace cupola::rows {
namespace {

#if CUPOLA_LEVEL >= 2
using Floats = __m512;
constexpr int64_t kLanes = 16;
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats nearest(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * b + c
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// a * b - c in even lanes, a * b + c in odd ones.
inline Floats multiply_add_alternating(Floats a, Floats b, Floats c) { return _mm512_fmaddsub_ps(a, b, c); }
// Each pair of lanes, the other way round.
inline Floats swapped(Floats x) { return _mm512_permute_ps(x, 0xb1); }
// y where x > 0, else 0.
inline Floats where_positive(Floats x, Floats y) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), y);
}
// x * 2^n
inline Floats scaled(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }
inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline Floats load(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline void store(float* to, Floats x, int64_t count) { _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), x); }
inline Floats widened(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
inline Floats load(const bfloat16* from) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
inline Floats load(const bfloat16* from, int64_t count) {
  return widened(_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), from));
}
// As `narrow`.
inline __m256i narrowed(Floats x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}
inline void store(bfloat16* to, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrowed(x)); }
inline void store(bfloat16* to, Floats x, int64_t count) {
  _mm256_mask_storeu_epi16(to, __mmask16((1u << count) - 1), narrowed(x));
}
#else
using Floats = __m256;
constexpr int64_t kLanes = 8;
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats nearest(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats multiply_add_alternating(Floats a, Floats b, Floats c) { return _mm256_fmaddsub_ps(a, b, c); }
inline Floats swapped(Floats x) { return _mm256_permute_ps(x, 0xb1); }
inline Floats where_positive(Floats x, Floats y) {
  return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ), y);
}
inline Floats scaled(Floats x, Floats n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline __m256i first(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}
inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline Floats load(const float* from, int64_t count) { return _mm256_maskload_ps(from, first(count)); }
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline void store(float* to, Floats x, int64_t count) { _mm256_maskstore_ps(to, first(count), x); }
inline Floats load(const bfloat16* from) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Floats load(const bfloat16* from, int64_t count) {
  bfloat16 few[kLanes] = {};
  std::memcpy(few, from, size_t(count) * sizeof *few);
  return load(few);
}
inline void store(bfloat16* to, Floats x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(kept, kept), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline void store(bfloat16* to, Floats x, int64_t count) {
  bfloat16 few[kLanes];
  store(few, x);
  std::memcpy(to, few, size_t(count) * sizeof *few);
}
#endif

// The number as it would be after being stored and read again.
template <typename T>
inline Floats rounded(Floats x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    bfloat16 few[kLanes];
    store(few, x);
    return load(few);
  }
  return x;
}

// Calls each(at, count) for the vectors of a row: a constant count for all but the last few numbers.
template <typename Each>
inline void over(int64_t width, const Each& each) {
  int64_t at = 0;
  for (; at + kLanes <= width; at += kLanes) each(at, std::integral_constant<int64_t, kLanes>());
  if (at < width) each(at, width - at);
}
template <typename T>
inline Floats load(const T* from, std::integral_constant<int64_t, kLanes>) {
  return load(from);
}
template <typename T>
inline void store(T* to, Floats x, std::integral_constant<int64_t, kLanes>) {
  store(to, x);
}

// Sums of vectors; four by turns, so that one addition need not wait for the last.
struct Sum {
  Floats part[4] = {all(0), all(0), all(0), all(0)};
  float total() const {
    float each[kLanes], sum = 0;
    store(each, (part[0] + part[1]) + (part[2] + part[3]));
    for (int64_t half = kLanes / 2; half; half /= 2)
      for (int64_t i = 0; i < half; ++i) each[i] += each[i + half];
    sum = each[0];
    return sum;
  }
};

// e^x to one or two units in the last place: 2^n e^r with |r| <= ln 2 / 2. Beyond +-87 as at +-87; a NaN stays one.
// Coefficients: Moshier, Cephes, expf.
inline Floats exponential(Floats x) {
  // In this order the smaller and the larger of a number and a NaN are the NaN.
  x = larger(all(-87.0f), smaller(all(87.0f), x));
  const Floats n = nearest(x * all(1.44269504088896341f));
  Floats r = multiply_add(n, all(-0.693359375f), x);
  r = multiply_add(n, all(2.12194440e-4f), r);
  Floats p = all(1.9875691500e-4f);
  p = multiply_add(p, r, all(1.3981999507e-3f));
  p = multiply_add(p, r, all(8.3334519073e-3f));
  p = multiply_add(p, r, all(4.1665795894e-2f));
  p = multiply_add(p, r, all(1.6666665459e-1f));
  p = multiply_add(p, r, all(5.0000001201e-1f));
  p = multiply_add(p * r, r, r) + all(1);
  return scaled(p, n);
}

// 1 / (1 + e^-x)
inline Floats sigmoid(Floats x) { return all(1) / (all(1) + exponential(all(0) - x)); }

// tanh x: near 0 by the rational function that Eigen has for it, and from 4 on so that it ends at 1 exactly.
inline Floats tangent(Floats x) {
  const Floats far = all(1) - all(2) / (exponential(x + x) + all(1));
  const Floats near = all(4) - larger(x, all(0) - x);
  x = smaller(larger(x, all(-4.0f)), all(4.0f));
  const Floats square = x * x;
  Floats above = all(-2.76076847742355e-16f);
  for (const float each : {2.00018790482477e-13f, -8.60467152213735e-11f, 5.12229709037114e-08f, 1.48572235717979e-05f,
                           6.37261928875436e-04f, 4.89352455891786e-03f})
    above = multiply_add(above, square, all(each));
  Floats below = all(1.19825839466702e-06f);
  for (const float each : {1.18534705686654e-04f, 2.26843463243900e-03f, 4.89352518554385e-03f})
    below = multiply_add(below, square, all(each));
  return where_positive(near, x * above / below) + (far - where_positive(near, far));
}

// Calls each(T()) with the type of the numbers; false where there is no kernel for them.
template <typename Each>
inline bool with_type(ffi::DataType type, const Each& each) {
  if (type == ffi::DataType::F32) return each(float()), true;
  if (type == ffi::DataType::BF16) return each(bfloat16()), true;
  return false;
}

inline ffi::Error no_such_type() { return ffi::Error::InvalidArgument("numbers are neither float32 nor bfloat16"); }

}  // namespace
}  // namespace cupola::rows
