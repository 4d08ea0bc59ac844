// Operands packed for tiles (AMX), and products of them, 32 rows by 32 columns at a time.
//
// A tile is 1 KiB. As a left operand it holds 16 rows of 32 numbers; as a right one 16 pairs of rows of 16 columns, the
// numbers of a pair side by side. Both are made from either order of a matrix, by turning 16 x 16 pairs where need be.
#pragma once

#include "native/kernel.h"

#if CUPOLA_LEVEL >= 4
namespace cupola::dense {
namespace {

constexpr int64_t kSide = 16;                // rows or columns of a tile
constexpr int64_t kDepth = 32;               // numbers of a tile that are summed over
constexpr int64_t kTile = kSide * kDepth;    // numbers of a tile
constexpr int64_t kPanel = 2 * kSide;        // rows or columns that are multiplied at once
constexpr int64_t kNear = 16;                // tiles in depth of a right panel that stays in the first cache

constexpr int64_t ceil(int64_t x, int64_t by) { return (x + by - 1) / by; }

// A matrix in memory, row after row, float32 or bfloat16.
struct Matrix {
  void* data;
  bool half;
  int64_t rows, columns;
};

inline __mmask16 mask16(int64_t left) { return left >= 16 ? 0xffff : left <= 0 ? 0 : __mmask16((1u << left) - 1); }
inline __mmask32 mask32(int64_t left) { return left >= 32 ? ~0u : left <= 0 ? 0 : (1u << left) - 1; }

// 32 neighbours of a row as bfloat16; zeros beyond the matrix.
template <bool kHalf>
inline __m512i along(const Matrix& x, int64_t row, int64_t column) {
  const int64_t left = row < x.rows ? x.columns - column : 0;
  if (left <= 0) return _mm512_setzero_si512();
  const int64_t at = row * x.columns + column;
  if constexpr (kHalf) return _mm512_maskz_loadu_epi16(mask32(left), as_bfloat16(x.data) + at);
  const float* from = static_cast<const float*>(x.data) + at;
  const __m512 first = _mm512_maskz_loadu_ps(mask16(left), from);
  const __m512 second = _mm512_maskz_loadu_ps(mask16(left - 16), left > 16 ? from + 16 : from);
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// 16 neighbours of a row and the next row's below them, side by side.
template <bool kHalf>
inline __m512i across(const Matrix& x, int64_t row, int64_t column) {
  const int64_t left = x.columns - column, at = row * x.columns + column;
  const __mmask16 upper = row < x.rows ? mask16(left) : 0, lower = row + 1 < x.rows ? mask16(left) : 0;
  __m512i both;
  if constexpr (kHalf) {
    const bfloat16* from = as_bfloat16(x.data) + (upper ? at : 0);
    const __m256i first = _mm256_maskz_loadu_epi16(upper, from);
    const __m256i second = _mm256_maskz_loadu_epi16(lower, lower ? from + x.columns : from);
    both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  } else {
    const float* from = static_cast<const float*>(x.data) + (upper ? at : 0);
    const __m512 first = _mm512_maskz_loadu_ps(upper, from);
    const __m512 second = _mm512_maskz_loadu_ps(lower, lower ? from + x.columns : from);
    both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  }
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}

// Turns 16 rows of 16 words.
inline void turn(__m512i (&x)[16]) {
  __m512i y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_unpacklo_epi64(y[4 * i], y[4 * i + 2]);
    x[4 * i + 1] = _mm512_unpackhi_epi64(y[4 * i], y[4 * i + 2]);
    x[4 * i + 2] = _mm512_unpacklo_epi64(y[4 * i + 1], y[4 * i + 3]);
    x[4 * i + 3] = _mm512_unpackhi_epi64(y[4 * i + 1], y[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
    x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
  }
}

template <bool kAcross, bool kTurn, bool kHalf>
inline void pack_tile(const Matrix& x, int64_t row, int64_t column, bfloat16* to) {
  __m512i words[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    words[i] = kAcross ? across<kHalf>(x, row + 2 * i, column) : along<kHalf>(x, row + i, column);
  if constexpr (kTurn) turn(words);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * kDepth, words[i]);
}

// How an operand's tiles come from its matrix. Left and Right stand as they are multiplied, [rows, summed] and
// [summed, columns]; the turned ones the other way round.
enum class Side { Left, LeftTurned, Right, RightTurned };

// Packs the part of a panel from one depth to another; `to` is where the panel begins, `depth` its tiles.
template <Side kHow, bool kHalf>
inline void pack_panel(const Matrix& x, int64_t panel, int64_t begin, int64_t end, int64_t depth, bfloat16* to) {
  constexpr bool kAcross = kHow == Side::LeftTurned || kHow == Side::Right;
  constexpr bool kTurn = kHow == Side::LeftTurned || kHow == Side::RightTurned;
  for (int64_t half = 0; half < 2; ++half)
    for (int64_t d = begin; d < end; ++d) {
      const int64_t side = panel * kPanel + half * kSide, deep = d * kDepth;
      pack_tile<kAcross, kTurn, kHalf>(x, kAcross ? deep : side, kAcross ? side : deep, to + (half * depth + d) * kTile);
    }
}

template <Side kHow>
inline void pack(const Matrix& x, int64_t panel, int64_t begin, int64_t end, int64_t depth, bfloat16* to) {
  if (x.half)
    pack_panel<kHow, true>(x, panel, begin, end, depth, to);
  else
    pack_panel<kHow, false>(x, panel, begin, end, depth, to);
}

// Tiles are this thread's from here to the end of the scope: 0 to 3 sums, 4 and 5 left operands, 6 and 7 right ones.
class Tiles {
 public:
  Tiles() {
    alignas(64) uint8_t config[64] = {1};
    for (int i = 0; i < 8; ++i) {
      config[16 + 2 * i] = 64;
      config[48 + i] = 16;
    }
    // GCC 12 believes that only the first bytes are read, and would not write the others.
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Writes what of a square of sums is in the matrix, in its dtype, or adds it to what is there.
inline void put(const float* sums, const Matrix& out, int64_t row, int64_t column, bool add) {
  const int64_t rows = std::min(kPanel, out.rows - row), columns = std::min(kPanel, out.columns - column);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += 16) {
      __m512 x = _mm512_loadu_ps(sums + r * kPanel + c);
      const int64_t at = (row + r) * out.columns + column + c;
      if (add) x += _mm512_maskz_loadu_ps(mask16(columns - c), static_cast<float*>(out.data) + at);
      if (out.half)
        _mm256_mask_storeu_epi16(as_bfloat16(out.data) + at, mask16(columns - c), (__m256i)_mm512_cvtneps_pbh(x));
      else
        _mm512_mask_storeu_ps(static_cast<float*>(out.data) + at, mask16(columns - c), x);
    }
}

// A panel of rows times a panel of columns, over tiles `begin` to `end` of `depth`, added to what is in `out` (which is
// float32 then) or written.
inline void square(const bfloat16* left, const bfloat16* right, int64_t begin, int64_t end, int64_t depth,
                   const Matrix& out, int64_t row, int64_t column, bool add) {
  const bool whole = !out.half && row + kPanel <= out.rows && column + kPanel <= out.columns;
  alignas(64) float sums[kPanel * kPanel];
  float* to = whole ? static_cast<float*>(out.data) + row * out.columns + column : sums;
  const size_t line = size_t(whole ? out.columns : kPanel) * sizeof(float);
  float* below = to + kSide * (line / sizeof(float));
  if (add && whole) {
    _tile_loadd(0, to, line);
    _tile_loadd(1, to + kSide, line);
    _tile_loadd(2, below, line);
    _tile_loadd(3, below + kSide, line);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const bfloat16 *lower = left + depth * kTile, *later = right + depth * kTile;
  for (int64_t d = begin * kTile; d < end * kTile; d += kTile) {
    _tile_loadd(6, right + d, 64);
    _tile_loadd(4, left + d, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, later + d, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, lower + d, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, to, line);
  _tile_stored(1, to + kSide, line);
  _tile_stored(2, below, line);
  _tile_stored(3, below + kSide, line);
  if (!whole) put(sums, out, row, column, add);
}

// Packed panels of rows, from `row` of out on, times panels of columns, from `column` on, written or added.
inline void multiply(const bfloat16* left, int64_t rows, const bfloat16* right, int64_t columns, int64_t depth,
                     const Matrix& out, int64_t row, int64_t column, bool add = false) {
  const int64_t panel = 2 * depth * kTile;
  for (int64_t c = 0; c < columns; ++c) {
    // Sums that are handed on from one part of the depth to the next must be whole float32.
    const bool whole = !out.half && row + rows * kPanel <= out.rows && column + (c + 1) * kPanel <= out.columns;
    const int64_t near = whole ? kNear : depth;
    for (int64_t d = 0; d < depth; d += near)
      for (int64_t r = 0; r < rows; ++r)
        square(left + r * panel, right + c * panel, d, std::min(depth, d + near), depth, out, row + r * kPanel,
               column + c * kPanel, add || d);
  }
}

}  // namespace
}  // namespace cupola::dense
#endif
