// Products in float32, whatever the pool keeps: rows by columns in registers.
#pragma once

#include "paged/problem.h"

namespace cupola::paged {
namespace {

constexpr int64_t kGroupRows = 6;                   // rows whose sums are in registers at once
constexpr int64_t kChain = 32;                      // numbers of a head that are added one after another
constexpr int kAcross = CUPOLA_LEVEL >= 2 ? 4 : 2;  // vectors beside each other in registers

template <typename Number>
inline void widened(const Number* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = as_float(from[i]);
}

// out[r] = out[r] * shrink[r] + a[r] . b for ROWS rows and VECTORS vectors of columns; without ADD, a[r] . b.
template <int ROWS, int VECTORS, bool ADD>
inline void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t out_stride,
                 int64_t depth, const float* shrink) {
  Floats sum[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) sum[r][v] = spread(0);
  for (int64_t k = 0; k < depth; ++k) {
    Floats line[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
      line[v] = load(b + k * b_stride + v * kLanes);
      // GCC would load it again for each row, and loads are what there are too few of.
      __asm__("" : "+v"(line[v]));
    }
    for (int r = 0; r < ROWS; ++r) {
      const Floats each = spread(a[r * a_stride + k]);
      for (int v = 0; v < VECTORS; ++v) sum[r][v] = multiply_add(each, line[v], sum[r][v]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int v = 0; v < VECTORS; ++v) {
      float* to = out + r * out_stride + v * kLanes;
      if constexpr (ADD) sum[r][v] = multiply_add(load(to), spread(shrink[r]), sum[r][v]);
      store(to, sum[r][v]);
    }
  }
}

template <int ROWS, bool ADD>
void rows_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t out_stride,
                  int64_t depth, int64_t columns, const float* shrink) {
  int64_t n = 0;
  for (; n + kAcross * kLanes <= columns; n += kAcross * kLanes)
    tile<ROWS, kAcross, ADD>(a, a_stride, b + n, b_stride, out + n, out_stride, depth, shrink);
  for (; n < columns; n += kLanes)
    tile<ROWS, 1, ADD>(a, a_stride, b + n, b_stride, out + n, out_stride, depth, shrink);
}

template <bool ADD>
void product(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out,
             int64_t out_stride, int64_t depth, int64_t columns, const float* shrink) {
  using Function = decltype(&rows_product<1, ADD>);
  constexpr Function kOf[] = {rows_product<1, ADD>, rows_product<2, ADD>, rows_product<3, ADD>,
                              rows_product<4, ADD>, rows_product<5, ADD>, rows_product<6, ADD>};
  kOf[rows - 1](a, a_stride, b, b_stride, out, out_stride, depth, columns, shrink);
}

// Each number of a product is the same chains of multiply-adds, from the first place (or number of a head) to the last,
// whatever rows and columns are computed beside it.
template <typename Number>
struct Wide {
  static constexpr int64_t kBlock = 64;  // places: their keys and values stay in the first cache
  const Problem& p;
  int64_t padded;
  float own_scale;  // queries bring the scale of scores with them
  float *query, *keys, *values, *weights, *out, *top, *total;

  static int64_t padded_width(const Problem& p) { return rounded_up(p.width, kLanes); }

  Wide(const Problem& p, int64_t rows) : p(p), padded(padded_width(p)), own_scale(p.scale) {
    const int64_t wide = rounded_up(p.width, 16);
    float* next = scratch(2 * rows * wide + 2 * kBlock * wide + kGroupRows * kBlock + 17 * rows + 16 * 7);
    query = taken(next, rows * padded), out = taken(next, rows * padded);
    keys = taken(next, kBlock * padded), values = taken(next, kBlock * padded);
    weights = taken(next, kGroupRows * kBlock);
    total = taken(next, rows * 16), top = taken(next, rows);
  }

  // Memory for one query, that is given back when keys are laid out.
  float* keys_line() { return keys; }

  void ask(int64_t row, const float* numbers) {
    std::memcpy(query + row * padded, numbers, size_t(padded) * sizeof(float));
  }

  // Lays the places [first, last) out side by side, whatever pages they come from.
  void lay_out(const Number* key_pool, const Number* value_pool, int64_t row, int64_t group, int64_t first,
               int64_t last, int64_t end) {
    const int64_t held = p.width * p.size;
    pieces(p, row, first, last, [&](int64_t page, int64_t inside, int64_t count, int64_t at) {
      fetch(p, key_pool, value_pool, row, group, first + at + kAhead * p.size, end);
      const Number* key = key_pool + (page * p.groups + group) * held + inside;
      if (count == kLanes) {
        for (int64_t c = 0; c < p.width; ++c) store(keys + c * kBlock + at, load(key + c * p.size));
      } else {
        for (int64_t c = 0; c < p.width; ++c) widened(key + c * p.size, count, keys + c * kBlock + at);
      }
      const Number* value = value_pool + (page * p.groups + group) * held + inside * p.width;
      for (int64_t z = 0; z < count; ++z) {
        float* line = values + (at + z) * padded;
        widened(value + z * p.width, p.width, line);
        for (int64_t c = p.width; c < padded; ++c) line[c] = 0;
      }
    });
    // What stands past the end is no number of this sequence; its scores are hidden, but are computed.
    const int64_t count = last - first, computed = rounded_up(count, kLanes);
    if (count < computed)
      for (int64_t c = 0; c < p.width; ++c)
        for (int64_t z = count; z < computed; ++z) keys[c * kBlock + z] = 0;
  }

  // Short chains, each added whole: one long one would lose more than other orders of summation do.
  void score(int64_t rows, const float* asked, int64_t columns) {
    constexpr float kKept[kGroupRows] = {1, 1, 1, 1, 1, 1};
    product<false>(rows, asked, padded, keys, kBlock, weights, kBlock, std::min(kChain, p.width), columns, nullptr);
    for (int64_t c = kChain; c < p.width; c += kChain)
      product<true>(rows, asked + c, padded, keys + c * kBlock, kBlock, weights, kBlock,
                    std::min(kChain, p.width - c), columns, kKept);
  }

  // The rows [from, to) see some of the block [first, last); seen(row) tells which.
  template <typename See>
  void attend(int64_t first, int64_t last, int64_t from, int64_t to, const See& seen) {
    for (int64_t row = from; row < to; row += kGroupRows) {
      const int64_t rows = std::min(kGroupRows, to - row);
      // Rows are in the order of their positions: the last of a group sees farthest.
      const int64_t places = std::min(last - first, seen(row + rows - 1).high), columns = rounded_up(places, kLanes);
      float shrink[kGroupRows];
      score(rows, query + row * padded, columns);
      for (int64_t r = 0; r < rows; ++r)
        shrink[r] = weigh(weights + r * kBlock, columns, seen(row + r), top + row + r, total + (row + r) * 16);
      product<true>(rows, weights, kBlock, values, padded, out + row * padded, padded, places, padded, shrink);
    }
  }
};

}  // namespace
}  // namespace cupola::paged
