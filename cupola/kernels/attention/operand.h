// Operands of products, packed: as float32, or as pairs of bfloat16 that one instruction multiplies and sums.
//
// A "word" is 32 bits: a float32, or two neighbours along the dimension that is summed over. A left operand is rows of
// words; a right operand has a row of words for each one that is summed over. So the four layouts of a matrix x[n][c]
// are two, `rows` (words along c) and `pairs` (words along n), and their transposes.
#pragma once

#include "attention/vector.h"

namespace cupola::attention {
namespace {

constexpr int64_t up(int64_t x, int64_t by) { return (x + by - 1) / by * by; }

// How numbers are multiplied: kPer in a word; kExact unless they are rounded to bfloat16.
struct Exact {
  static constexpr int64_t kPer = 1;
  static constexpr bool kExact = true;
};
// Rounded to bfloat16 and multiplied as float32, where there is no faster way.
struct Rounded {
  static constexpr int64_t kPer = 1;
  static constexpr bool kExact = false;
};
#if CUPOLA_LEVEL >= 3
struct Half {
  static constexpr int64_t kPer = 2;
  static constexpr bool kExact = false;
};
#else
using Half = Rounded;
#endif

// Rows of a tensor [B, N, H, C] of one batch and head, as they lie in memory.
struct Rows {
  const void* data;
  bool half;       // bfloat16, else float32
  int64_t stride;  // numbers from one row to the next
  int64_t width;
};

inline void read(const Rows& rows, int64_t row, float* to) {
  if (rows.half) {
    const bfloat16* from = as_bfloat16(rows.data) + row * rows.stride;
    for (int64_t c = 0; c < rows.width; ++c) to[c] = widen(from[c]);
  } else {
    std::memcpy(to, static_cast<const float*>(rows.data) + row * rows.stride, size_t(rows.width) * sizeof(float));
  }
}

inline void write(const Rows& rows, int64_t row, const float* from) {
  void* data = const_cast<void*>(rows.data);
  if (rows.half) {
    bfloat16* to = as_bfloat16(data) + row * rows.stride;
    for (int64_t c = 0; c < rows.width; ++c) to[c] = narrow(from[c]);
  } else {
    std::memcpy(static_cast<float*>(data) + row * rows.stride, from, size_t(rows.width) * sizeof(float));
  }
}

inline Floats rounded(Floats x) {
#if CUPOLA_LEVEL >= 2
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const Floats out = _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(int(0xffff0000))));
  return _mm512_mask_mov_ps(out, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
#else
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const Floats out = _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(int(0xffff0000))));
  return _mm256_blendv_ps(out, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
#endif
}

#if CUPOLA_LEVEL >= 3
// Sixteen numbers of two rows as bfloat16: the first row's in the lower half, then the second's.
inline __m512i two_rows(Floats first, Floats second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }
// The same with each number of the first row beside the second row's.
inline __m512i interleaved(__m512i two) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, two);
}
#endif

// Stores kWide numbers of two rows that are summed over as the right operand's words: one row of them for a pair, two
// rows (`beside` apart) for float32.
template <class Operand>
inline void store_summed(float* to, int64_t beside, Floats first, Floats second) {
#if CUPOLA_LEVEL >= 3
  if constexpr (Operand::kPer == 2) {
    _mm512_storeu_si512(to, interleaved(two_rows(first, second)));
    return;
  }
#endif
  store(to, Operand::kExact ? first : rounded(first));
  store(to + beside, Operand::kExact ? second : rounded(second));
}

// Writes `size` rows at `first` as rows of words, `padded` numbers each; those at and past `count`, and padding, are zero.
template <class Operand>
void pack_rows(const Rows& rows, int64_t first, int64_t count, int64_t size, const int32_t* segments, float sign,
               int64_t padded, float* to) {
  float* whole = to + size * padded / Operand::kPer;  // A row of float32 fits behind the block.
  for (int64_t i = 0; i < size; ++i) {
    float* target = to + i * (padded / Operand::kPer);
    if (first + i >= count || (segments && !segments[first + i])) {
      std::memset(target, 0, size_t(padded / Operand::kPer) * sizeof(float));
      continue;
    }
    float* wide = Operand::kPer == 1 ? target : whole;
    read(rows, first + i, wide);
    for (int64_t c = rows.width; c < padded; ++c) wide[c] = 0;
    if (sign != 1)
      for (int64_t c = 0; c < padded; ++c) wide[c] *= sign;
#if CUPOLA_LEVEL >= 3
    if constexpr (Operand::kPer == 2) {
      for (int64_t c = 0; c < padded; c += 32)
        _mm512_storeu_si512(target + c / 2, two_rows(load(wide + c), load(wide + c + 16)));
      continue;
    }
#endif
    if constexpr (!Operand::kExact)
      for (int64_t c = 0; c < padded; c += kWide) store(wide + c, rounded(load(wide + c)));
  }
}

// Returns the words along n of rows of words along c: pairs of rows side by side, or the rows themselves.
template <class Operand>
const float* pack_pairs(const float* rows, int64_t size, int64_t padded, float* to) {
#if CUPOLA_LEVEL >= 3
  if constexpr (Operand::kPer == 2) {
    const __m512i ramp = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                          5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i later = _mm512_add_epi16(ramp, _mm512_set1_epi16(16));
    for (int64_t i = 0; i < size; i += 2)
      for (int64_t c = 0; c < padded; c += 32) {
        const __m512i even = _mm512_loadu_si512(rows + (i * padded + c) / 2);
        const __m512i odd = _mm512_loadu_si512(rows + ((i + 1) * padded + c) / 2);
        _mm512_storeu_si512(to + i / 2 * padded + c, _mm512_permutex2var_epi16(even, ramp, odd));
        _mm512_storeu_si512(to + i / 2 * padded + c + 16, _mm512_permutex2var_epi16(even, later, odd));
      }
    return to;
  }
#endif
  (void)size, (void)padded, (void)to;
  return rows;
}

// Turns [rows][columns] words into [columns][rows]; rows are a multiple of 16.
inline void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
#if CUPOLA_LEVEL >= 2
  const __m512i steps = _mm512_mullo_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(int(columns)));
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t c = 0; c < columns; ++c)
      store(to + c * rows + r, _mm512_i32gather_ps(steps, from + r * columns + c, 4));
#else
  for (int64_t r = 0; r < rows; r += 8)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t i = 0; i < 8; ++i) to[c * rows + r + i] = from[(r + i) * columns + c];
#endif
}

}  // namespace
}  // namespace cupola::attention
