// Products of packed operands: tiles where there are, else vectors.
#pragma once

#include "attention/operand.h"

namespace cupola::attention {
namespace {

// Tiles are set up once a task and handed back, as the system asks of who is done with them.
struct Tiles {
#if CUPOLA_LEVEL >= 4
  Tiles() {
    alignas(64) uint8_t config[64] = {1};
    for (int i = 0; i < 8; ++i) {
      config[16 + 2 * i] = 64;
      config[48 + i] = 16;
    }
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
#else
  Tiles() {}
#endif
};

// A left operand, a right operand or a result: where it begins, and words from one row to the next.
struct Words {
  float* data;
  int64_t stride;
};

#if CUPOLA_LEVEL >= 4
inline void multiply_tiles(Words a, Words b, Words out, int64_t rows, int64_t columns, int64_t summed) {
  const int64_t a_bytes = a.stride * 4, b_bytes = b.stride * 4, out_bytes = out.stride * 4;
  for (int64_t n = 0; n < columns; n += 32)
    for (int64_t m = 0; m < rows; m += 32) {
      float *upper = out.data + m * out.stride + n, *lower = upper + 16 * out.stride;
      _tile_loadd(0, upper, out_bytes);
      _tile_loadd(1, upper + 16, out_bytes);
      _tile_loadd(2, lower, out_bytes);
      _tile_loadd(3, lower + 16, out_bytes);
      for (int64_t l = 0; l < summed; l += 16) {
        _tile_loadd(4, a.data + m * a.stride + l, a_bytes);
        _tile_loadd(6, b.data + l * b.stride + n, b_bytes);
        _tile_loadd(7, b.data + l * b.stride + n + 16, b_bytes);
        _tile_loadd(5, a.data + (m + 16) * a.stride + l, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, upper, out_bytes);
      _tile_stored(1, upper + 16, out_bytes);
      _tile_stored(2, lower, out_bytes);
      _tile_stored(3, lower + 16, out_bytes);
    }
}

inline void multiply_tiles_new(Words a, Words b, Words out, int64_t rows, int64_t columns, int64_t summed) {
  const int64_t a_bytes = a.stride * 4, b_bytes = b.stride * 4, out_bytes = out.stride * 4;
  for (int64_t n = 0; n < columns; n += 32)
    for (int64_t m = 0; m < rows; m += 32) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int64_t l = 0; l < summed; l += 16) {
        _tile_loadd(4, a.data + m * a.stride + l, a_bytes);
        _tile_loadd(6, b.data + l * b.stride + n, b_bytes);
        _tile_loadd(7, b.data + l * b.stride + n + 16, b_bytes);
        _tile_loadd(5, a.data + (m + 16) * a.stride + l, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      float *upper = out.data + m * out.stride + n, *lower = upper + 16 * out.stride;
      _tile_stored(0, upper, out_bytes);
      _tile_stored(1, upper + 16, out_bytes);
      _tile_stored(2, lower, out_bytes);
      _tile_stored(3, lower + 16, out_bytes);
    }
}
#endif

template <class Operand>
inline Floats step(Floats sum, Floats a, Floats b) {
#if CUPOLA_LEVEL >= 3
  if constexpr (Operand::kPer == 2)
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
#endif
#if CUPOLA_LEVEL >= 2
  return _mm512_fmadd_ps(a, b, sum);
#else
  return _mm256_fmadd_ps(a, b, sum);
#endif
}

#if CUPOLA_LEVEL >= 2
constexpr int64_t kTileRows = 8;
#else
constexpr int64_t kTileRows = 4;
#endif

// Writes a . b, or adds it. Rows and columns are multiples of 32, what is summed over of 16 words (32 numbers).
template <class Operand, bool kAdd>
void multiply(Words a, Words b, Words out, int64_t rows, int64_t columns, int64_t summed) {
#if CUPOLA_LEVEL >= 4
  if constexpr (Operand::kPer == 2) {
    if constexpr (kAdd)
      multiply_tiles(a, b, out, rows, columns, summed);
    else
      multiply_tiles_new(a, b, out, rows, columns, summed);
    return;
  }
#endif
  for (int64_t n = 0; n < columns; n += 2 * kWide)
    for (int64_t m = 0; m < rows; m += kTileRows) {
      Floats sums[kTileRows][2];
      for (int64_t i = 0; i < kTileRows; ++i)
        for (int64_t j = 0; j < 2; ++j)
          sums[i][j] = kAdd ? load(out.data + (m + i) * out.stride + n + j * kWide) : all(0);
      const float *left = a.data + m * a.stride, *right = b.data + n;
      for (int64_t l = 0; l < summed; ++l, right += b.stride) {
        const Floats first = load(right), second = load(right + kWide);
        for (int64_t i = 0; i < kTileRows; ++i) {
          const Floats each = all(left[i * a.stride + l]);
          sums[i][0] = step<Operand>(sums[i][0], each, first);
          sums[i][1] = step<Operand>(sums[i][1], each, second);
        }
      }
      for (int64_t i = 0; i < kTileRows; ++i)
        for (int64_t j = 0; j < 2; ++j) store(out.data + (m + i) * out.stride + n + j * kWide, sums[i][j]);
    }
}

}  // namespace
}  // namespace cupola::attention
