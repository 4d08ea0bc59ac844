// Products of bfloat16 in the processor's tiles, or where it has none, in registers from memory that stands as tiles
// do. A float32 number is the sum of three bfloat16 ones, the least of which are multiplied first, so that nothing is
// lost but what float32 sums lose. Queries that are bfloat16 stand as they are, and the weights of their keys are
// rounded to it.
#pragma once

#include "paged/problem.h"

#if CUPOLA_LEVEL >= 3
namespace cupola::paged {
namespace {

constexpr int64_t kTileRows = 16, kTileDepth = 32;        // of the left operand, in numbers
constexpr int64_t kTileNumbers = kTileRows * kTileDepth;  // bfloat16 in a tile

// The rows [from, to) of out [16, 16 * tiles] = left . right, or all, for up to four tiles of columns. The steps' tiles of
// the left operand follow one another, part after part; so do those of the right operand, for each tile of columns,
// `apart` numbers from the next.
#if CUPOLA_LEVEL >= 4
struct TileSetting {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Compilers do not know that tiles are loaded from memory: what was written must be there.
inline void written() { __asm__ volatile("" ::: "memory"); }

template <int kParts>
inline void tiles_product(const bfloat16* left, int64_t part_apart, const bfloat16* right, int64_t apart, int64_t steps,
                          int64_t tiles, float* out, int64_t stride, int64_t, int64_t) {
  written();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int part = kParts - 1; part >= 0; --part) {
    for (int64_t step = 0; step < steps; ++step) {
      const bfloat16* from = right + step * kTileNumbers;
      _tile_loadd(4, left + part * part_apart + step * kTileNumbers, 64);
      _tile_loadd(5, from, 64);
      _tile_dpbf16ps(0, 4, 5);
      if (tiles > 1) {
        _tile_loadd(6, from + apart, 64);
        _tile_dpbf16ps(1, 4, 6);
      }
      if (tiles > 2) {
        _tile_loadd(7, from + 2 * apart, 64);
        _tile_dpbf16ps(2, 4, 7);
      }
      if (tiles > 3) {
        _tile_loadd(5, from + 3 * apart, 64);
        _tile_dpbf16ps(3, 4, 5);
      }
    }
  }
  const int64_t bytes = stride * int64_t{sizeof(float)};
  _tile_stored(0, out, bytes);
  if (tiles > 1) _tile_stored(1, out + 16, bytes);
  if (tiles > 2) _tile_stored(2, out + 32, bytes);
  if (tiles > 3) _tile_stored(3, out + 48, bytes);
}
#else
// The same with R rows and V tiles of columns in registers.
template <int kParts, int R, int V>
inline void in_registers(const bfloat16* left, int64_t part_apart, const bfloat16* right, int64_t apart, int64_t steps,
                         float* out, int64_t stride) {
  Floats sum[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = spread(0);
  for (int part = kParts - 1; part >= 0; --part)
    for (int64_t step = 0; step < steps; ++step)
      for (int64_t k = 0; k < kTileDepth; k += 2) {
        const bfloat16 *rows = left + part * part_apart + step * kTileNumbers + k, *line = right + step * kTileNumbers;
        __m512bh lines[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) lines[v] = (__m512bh)_mm512_loadu_si512(line + v * apart + k * kTileRows);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          int both;
          std::memcpy(&both, rows + r * kTileDepth, sizeof both);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v)
            sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)_mm512_set1_epi32(both), lines[v]);
        }
      }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + r * stride + v * 16, sum[r][v]);
}

template <int kParts, int V>
inline void rows_in_registers(const bfloat16* left, int64_t part_apart, const bfloat16* right, int64_t apart,
                              int64_t steps, float* out, int64_t stride, int64_t from, int64_t to) {
  using Function = decltype(&in_registers<kParts, 1, V>);
  constexpr Function kOf[] = {in_registers<kParts, 1, V>, in_registers<kParts, 2, V>, in_registers<kParts, 3, V>,
                              in_registers<kParts, 4, V>};
  for (int64_t row = from; row < to; row += 4)
    kOf[std::min<int64_t>(to - row, 4) - 1](left + row * kTileDepth, part_apart, right, apart, steps,
                                            out + row * stride, stride);
}

template <int kParts>
inline void tiles_product(const bfloat16* left, int64_t part_apart, const bfloat16* right, int64_t apart, int64_t steps,
                          int64_t tiles, float* out, int64_t stride, int64_t from, int64_t to) {
  using Function = decltype(&rows_in_registers<kParts, 1>);
  constexpr Function kOf[] = {rows_in_registers<kParts, 1>, rows_in_registers<kParts, 2>, rows_in_registers<kParts, 3>,
                              rows_in_registers<kParts, 4>};
  kOf[tiles - 1](left, part_apart, right, apart, steps, out, stride, from, to);
}
#endif

// Puts 16 numbers into their row of a left operand, each part in a tile of its own.
template <int kParts>
inline void split(Floats x, bfloat16* to, int64_t part_apart) {
  for (int part = 0; part < kParts; ++part) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + part * part_apart), rounded);
    if (part + 1 < kParts)
      x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
  }
}

// Where the numbers of two lines of 16 go when one of each stands beside one of the other.
inline __m512i beside() {
  const __m512i even = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_or_si512(even, _mm512_slli_epi32(_mm512_add_epi32(even, _mm512_set1_epi32(16)), 16));
}

// Two lines that follow one another: a row of a right operand.
inline void pair(const bfloat16* lines, bfloat16* to) {
  _mm512_store_si512(to, _mm512_permutexvar_epi16(beside(), _mm512_loadu_si512(lines)));
}

// Some numbers of two lines, of which the odd one may be null, for zeros.
inline void pair(const bfloat16* even, const bfloat16* odd, __mmask16 kept, bfloat16* to) {
  const __m256i low = _mm256_maskz_loadu_epi16(kept, even);
  const __m256i high = odd ? _mm256_maskz_loadu_epi16(kept, odd) : _mm256_setzero_si256();
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  _mm512_store_si512(to, _mm512_permutexvar_epi16(beside(), both));
}

// For queries and weights of so many parts.
template <int kParts>
struct Tiles {
  static constexpr int64_t kBlock = 128;  // places: long enough that one step need not wait for the one before
  const Problem& p;
  int64_t padded, deep;  // the width in whole tiles of columns, and of depth
  // Queries that are multiplied as they are have their scores scaled, and weights that are powers of 2. Others bring
  // the scale with them, and have weights that are powers of e.
  static constexpr bool kRounded = kParts == 1;
  float scale, own_scale;
  bfloat16 *query, *keys, *values, *weights;
  float *scores, *mixed, *out, *top, *total;

  Tiles(const Problem& p, int64_t rows)
      : p(p),
        padded(rounded_up(p.width, 16)),
        deep(rounded_up(p.width, kTileDepth)),
        scale(kRounded ? p.scale * 1.44269504088896341f : 1),
        own_scale(kRounded ? 1 : p.scale) {
    const int64_t groups = (rows + kTileRows - 1) / kTileRows;
    float* next = scratch(groups * kTileRows * kParts * deep / 2 + kBlock * (deep + padded) / 2 +
                          kTileRows * kParts * kBlock / 2 + kTileRows * (kBlock + padded) + rows * (padded + 17) +
                          16 * 9);
    const auto numbers = [&](int64_t count) { return reinterpret_cast<bfloat16*>(taken(next, count / 2)); };
    query = numbers(groups * kTileRows * kParts * deep), keys = numbers(kBlock * deep), values = numbers(kBlock * padded);
    weights = numbers(kTileRows * kParts * kBlock);
    scores = taken(next, kTileRows * kBlock), mixed = taken(next, kTileRows * padded);
    out = taken(next, rows * padded), total = taken(next, rows * 16), top = taken(next, rows);
#if CUPOLA_LEVEL >= 4
    static constexpr TileSetting setting;
    written();
    _tile_loadconfig(&setting);
#endif
  }
#if CUPOLA_LEVEL >= 4
  ~Tiles() { _tile_release(); }
#endif

  float* keys_line() { return mixed; }

  void ask(int64_t row, const float* numbers) {
    bfloat16* to = query + row / kTileRows * kTileRows * kParts * deep + row % kTileRows * kTileDepth;
    for (int64_t c = 0; c < deep; c += 16)
      split<kParts>(c < padded ? load(numbers + c) : spread(0), to + c / kTileDepth * kTileNumbers + c % kTileDepth,
                    kTileRows * deep);
  }

  void lay_out(const bfloat16* key_pool, const bfloat16* value_pool, int64_t row, int64_t group, int64_t first,
               int64_t last, int64_t end) {
    const int64_t held = p.width * p.size;
    // Tiles are whole: what stands past the end must be zeros, which no weight makes a NaN.
    const int64_t count = last - first, whole = count / 16 * 16, computed = rounded_up(count, kTileDepth);
    std::memset(keys + whole * deep, 0, size_t((computed - whole) * deep) * sizeof *keys);
    for (int64_t c = 0; c < padded; c += 16)
      std::memset(values + c * kBlock + whole * 16, 0, size_t((computed - whole) * 16) * sizeof *values);
    pieces(p, row, first, last, [&](int64_t page, int64_t inside, int64_t count, int64_t at) {
      fetch(p, key_pool, value_pool, row, group, first + at + kAhead * p.size, end);
      const int64_t place = (page * p.groups + group) * held;
      lay_keys(key_pool + place + inside, count, at);
      lay_values(value_pool + place + inside * p.width, count, at);
    });
  }

  void lay_keys(const bfloat16* from, int64_t count, int64_t at) {
    while (count) {
      const int64_t beside = at % 16, taken_now = std::min(count, 16 - beside);
      bfloat16* to = keys + at / 16 * 16 * deep + beside * 2;
      if (taken_now == 16 && p.size == 16 && p.width == deep) {
        for (int64_t c = 0; c < deep; c += 2, to += 32) pair(from + c * 16, to);
      } else if (taken_now == 16) {
        for (int64_t c = 0; c < deep; c += 2, to += 32) {
          const __mmask16 kept = c < p.width ? 0xffff : 0;
          pair(from + c * p.size, c + 1 < p.width ? from + (c + 1) * p.size : nullptr, kept, to);
        }
      } else {
        for (int64_t c = 0; c < deep; ++c)
          for (int64_t z = 0; z < taken_now; ++z)
            to[c / 2 * 32 + z * 2 + c % 2] = c < p.width ? from[c * p.size + z] : bfloat16{0};
      }
      from += taken_now, at += taken_now, count -= taken_now;
    }
  }

  void lay_values(const bfloat16* from, int64_t count, int64_t at) {
    int64_t z = 0;
    while (z < count) {
      const bool whole = at % 2 == 0 && z + 1 < count;
      bfloat16* to = values + at / 2 * 32;
      for (int64_t c = 0; c < padded; c += 16, to += 16 * kBlock) {
        const int64_t left = std::min<int64_t>(p.width - c, 16);
        const bfloat16* line = from + z * p.width + c;
        if (whole) {
          pair(line, line + p.width, __mmask16(0xffff >> (16 - left)), to);
        } else {
          for (int64_t i = 0; i < 16; ++i) to[i * 2 + at % 2] = i < left ? line[i] : bfloat16{0};
        }
      }
      z += 1 + whole, at += 1 + whole;
    }
  }

  static Floats weight_of(Floats less) {
    if constexpr (kRounded) return two_to(less);
    return exponential(less);
  }

  // As `weigh`, with all scores of a row in registers; writes their weights where they are multiplied.
  float weigh_row(const float* line, int64_t columns, Seen seen, int64_t row, bfloat16* to) {
    constexpr int kVectors = kBlock / 16;
    const bool all_seen = seen.low <= 0 && seen.high >= columns;
    Floats held[kVectors], highest = spread(kNothing);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (v * 16 >= columns) break;
      held[v] = _mm512_mul_ps(load(line + v * 16), spread(scale));
      if (!all_seen) {
        const float hidden = -std::numeric_limits<float>::infinity();
        held[v] = between(held[v], seen.low - v * 16, seen.high - v * 16, hidden);
      }
      highest = larger(highest, held[v]);
    }
    const float now = std::max(top[row], largest_of(highest));
    const float shrink = now == top[row] ? 1 : first_of(weight_of(spread(top[row] - now)));
    top[row] = now;
    Floats sum = spread(0);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if (v * 16 >= rounded_up(columns, kTileDepth)) break;
      const Floats weight = v * 16 < columns ? weight_of(_mm512_sub_ps(held[v], spread(now))) : spread(0);
      sum = _mm512_add_ps(sum, weight);
      split<kParts>(weight, to + v / 2 * kTileNumbers + v % 2 * 16, kTileRows * kBlock);
    }
    float* sums = total + row * 16;
    store(sums, multiply_add(load(sums), spread(shrink), sum));
    return shrink;
  }

  template <typename See>
  void attend(int64_t first, int64_t last, int64_t from, int64_t to, const See& seen) {
    for (int64_t row = from / kTileRows * kTileRows; row < to; row += kTileRows) {
      const int64_t begin = std::max(from - row, int64_t{0}), rows = std::min(kTileRows, to - row);
      const int64_t places = std::min(last - first, seen(row + rows - 1).high), columns = rounded_up(places, 16);
      const int64_t steps = (columns + kTileDepth - 1) / kTileDepth;
      for (int64_t n = 0; n < columns; n += 64)
        tiles_product<kParts>(query + row * kParts * deep, kTileRows * deep, keys + n * deep, 16 * deep,
                              deep / kTileDepth, std::min<int64_t>((columns - n) / 16, 4), scores + n, kBlock, begin, rows);
      float shrink[kTileRows];
      for (int64_t r = begin; r < rows; ++r) {
        shrink[r] = weigh_row(scores + r * kBlock, columns, seen(row + r), row + r, weights + r * kTileDepth);
      }
      for (int64_t c = 0; c < padded; c += 64)
        tiles_product<kParts>(weights, kTileRows * kBlock, values + c * kBlock, 16 * kBlock, steps,
                                std::min<int64_t>((padded - c) / 16, 4), mixed + c, padded, begin, rows);
      for (int64_t r = begin; r < rows; ++r) {
        float* line = out + (row + r) * padded;
        for (int64_t c = 0; c < padded; c += 16)
          store(line + c, multiply_add(load(line + c), spread(shrink[r]), load(mixed + r * padded + c)));
      }
    }
  }
};

}  // namespace
}  // namespace cupola::paged
#endif
