// Functions of vectors (`rows.h`) that a softmax needs.
#pragma once

#include "native/rows.h"

namespace cupola::attention {
namespace {

using rows::all, rows::Floats, rows::larger, rows::load, rows::smaller, rows::store;
constexpr int64_t kWide = rows::kLanes;
#if CUPOLA_LEVEL >= 2
inline bool differ(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0; }
#else
inline bool differ(Floats a, Floats b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) != 0; }
#endif

// 2^x for x <= 0 (and a little above), 0 where it would be less than 2^-126. The polynomial errs by less than float32's
// rounding; the shorter one, for weights that are rounded to bfloat16, by 3e-6.
template <bool kExact>
inline Floats power_of_two(Floats x) {
  const Floats whole = rows::nearest(x), rest = x - whole;
  Floats out;
  if constexpr (kExact) {
    out = all(1.535336188319500e-4f);
    out = out * rest + all(1.339887440266574e-3f);
    out = out * rest + all(9.618437357674640e-3f);
    out = out * rest + all(5.550332471162809e-2f);
    out = out * rest + all(2.402264791363012e-1f);
    out = out * rest + all(6.931472028550421e-1f);
  } else {
    out = all(9.6004e-3f);
    out = out * rest + all(5.591689e-2f);
    out = out * rest + all(2.4023718e-1f);
    out = out * rest + all(6.9312199e-1f);
  }
  out = out * rest + all(1.0f);
#if CUPOLA_LEVEL >= 2
  return _mm512_scalef_ps(out, whole);
#else
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  const __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-126), _CMP_LT_OQ);
  return _mm256_andnot_ps(tiny, out * _mm256_castsi256_ps(exponent));
#endif
}

// Near zero the rational function of Eigen's ptanh, exact relative to x; farther out 1 - 2 / (1 + exp(2|x|)), exact
// relative to 1 - tanh, which the slope is made of.
inline Floats tanh_of(Floats given) {
  const Floats x = smaller(larger(given, all(-7.90531110763549805f)), all(7.90531110763549805f));
  const Floats square = x * x;
  Floats above = all(-2.76076847742355e-16f);
  above = above * square + all(2.00018790482477e-13f);
  above = above * square + all(-8.60467152213735e-11f);
  above = above * square + all(5.12229709037114e-08f);
  above = above * square + all(1.48572235717979e-05f);
  above = above * square + all(6.37261928875436e-04f);
  above = above * square + all(4.89352455891786e-03f);
  Floats below = all(1.19825839466702e-06f);
  below = below * square + all(1.18534705686654e-04f);
  below = below * square + all(2.26843463243900e-03f);
  below = below * square + all(4.89352518554385e-03f);
  const Floats near = x * above / below;
  const Floats size = larger(given, all(0) - given);
  const Floats shrunk = power_of_two<true>(size * all(-2 * 1.4426950408889634f));
  const Floats far = all(1) - (shrunk + shrunk) / (all(1) + shrunk);
#if CUPOLA_LEVEL >= 2
  const Floats signed_far = _mm512_mask_sub_ps(far, _mm512_cmp_ps_mask(given, all(0), _CMP_LT_OQ), all(0), far);
  return _mm512_mask_mov_ps(near, _mm512_cmp_ps_mask(size, all(0.625f), _CMP_GT_OQ), signed_far);
#else
  const Floats signed_far = _mm256_or_ps(far, _mm256_and_ps(given, _mm256_set1_ps(-0.0f)));
  return _mm256_blendv_ps(near, signed_far, _mm256_cmp_ps(size, all(0.625f), _CMP_GT_OQ));
#endif
}

}  // namespace
}  // namespace cupola::attention
