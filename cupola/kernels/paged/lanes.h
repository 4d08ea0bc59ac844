// Vectors of float32: what a row of scores needs beside `rows.h`. The exponential here ends at 0.
#pragma once

#include "native/rows.h"

namespace cupola::paged {
namespace {

using rows::Floats, rows::larger, rows::load, rows::multiply_add, rows::nearest, rows::scaled, rows::store;
constexpr int kLanes = rows::kLanes;
inline Floats spread(float x) { return rows::all(x); }

#if CUPOLA_LEVEL >= 2
// 0 in the lanes where x < bound; a NaN is not.
inline Floats zero_below(Floats y, Floats x, float bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, spread(bound), _CMP_NLT_UQ), y);
}
// x in lanes [first, last), `other` elsewhere.
inline Floats between(Floats x, int64_t first, int64_t last, float other) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const int low = int(std::clamp<int64_t>(first, 0, kLanes)), high = int(std::clamp<int64_t>(last, 0, kLanes));
  const __mmask16 kept =
      _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(low)) & _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(high));
  return _mm512_mask_mov_ps(spread(other), kept, x);
}
#else
inline Floats zero_below(Floats y, Floats x, float bound) {
  return _mm256_and_ps(_mm256_cmp_ps(x, spread(bound), _CMP_NLT_UQ), y);
}
inline Floats between(Floats x, int64_t first, int64_t last, float other) {
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  const int low = int(std::clamp<int64_t>(first, 0, kLanes)), high = int(std::clamp<int64_t>(last, 0, kLanes));
  const __m256i kept = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(low), lane),
                                           _mm256_cmpgt_epi32(_mm256_set1_epi32(high), lane));
  return _mm256_blendv_ps(spread(other), x, _mm256_castsi256_ps(kept));
}
#endif

// Lanes are added one after another: the order is the same whatever the compiler does.
inline float sum_of(Floats x) {
  float each[kLanes], sum = 0;
  store(each, x);
  for (float one : each) sum += one;
  return sum;
}

#if CUPOLA_LEVEL >= 2
inline float first_of(Floats x) { return _mm512_cvtss_f32(x); }
inline float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }
#else
inline float first_of(Floats x) { return _mm256_cvtss_f32(x); }
inline float largest_of(Floats x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
#endif

// e^x for x <= 0 to 1 unit in the last place or so: 2^n e^r with |r| <= ln 2 / 2; 0 below -87, where float32 ends.
// Coefficients of the polynomial: Moshier, Cephes, expf.
inline Floats exponential(Floats x) {
  const Floats n = nearest(multiply_add(x, spread(1.44269504088896341f), spread(0)));
  Floats r = multiply_add(n, spread(-0.693359375f), x);
  r = multiply_add(n, spread(2.12194440e-4f), r);
  Floats p = spread(1.9875691500e-4f);
  p = multiply_add(p, r, spread(1.3981999507e-3f));
  p = multiply_add(p, r, spread(8.3334519073e-3f));
  p = multiply_add(p, r, spread(4.1665795894e-2f));
  p = multiply_add(p, r, spread(1.6666665459e-1f));
  p = multiply_add(p, r, spread(5.0000001201e-1f));
  p = multiply_add(multiply_add(p, r, spread(1)), r, spread(1));
  return zero_below(scaled(p, n), x, -87.0f);
}

#if CUPOLA_LEVEL >= 3
// 2^x for x <= 0 to 1 part in 380,000: for what is rounded to bfloat16. 0 below -150.
// Coefficients: the least largest relative error of a polynomial of degree 4 on [-1/2, 1/2].
inline Floats two_to(Floats x) {
  x = larger(spread(-160), x);  // A NaN stays one.
  const Floats n = nearest(x), r = _mm512_sub_ps(x, n);
  Floats p = spread(9.57010048e-3f);
  p = multiply_add(p, r, spread(5.59178602e-2f));
  p = multiply_add(p, r, spread(2.40247449e-1f));
  p = multiply_add(p, r, spread(6.93121815e-1f));
  return scaled(multiply_add(p, r, spread(9.99999261e-1f)), n);
}
#endif

}  // namespace
}  // namespace cupola::paged
