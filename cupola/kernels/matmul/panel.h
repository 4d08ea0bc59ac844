// Products of a few rows with a few blocks of 16 packed columns, in registers.
//
// Every sum runs over the inputs in the same order, so its bits are the same whatever the other rows and columns.
#pragma once

#include "native/kernel.h"

namespace cupola::matmul {
namespace {

constexpr int64_t kColumns = 16;  // of a block: [inputs / 2][16][2]
constexpr int64_t kDepth = 32;    // inputs are padded to a multiple of it

#if CUPOLA_LEVEL >= 2
using Vector = __m512;
using Whole = __m512i;
constexpr int kWidth = 16;
inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector spread(float x) { return _mm512_set1_ps(x); }
inline Vector add_product(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector product(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Whole load(const void* from) { return _mm512_loadu_si512(from); }
inline void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
inline Vector as_float(Whole x) { return _mm512_castsi512_ps(x); }
inline Whole evens(Whole x) { return _mm512_slli_epi32(x, 16); }
inline Whole odds(Whole x) { return _mm512_and_si512(x, _mm512_set1_epi32(int(0xffff0000))); }
#else
using Vector = __m256;
using Whole = __m256i;
constexpr int kWidth = 8;
inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector spread(float x) { return _mm256_set1_ps(x); }
inline Vector add_product(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector product(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Whole load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
inline Vector as_float(Whole x) { return _mm256_castsi256_ps(x); }
inline Whole evens(Whole x) { return _mm256_slli_epi32(x, 16); }
inline Whole odds(Whole x) { return _mm256_and_si256(x, _mm256_set1_epi32(int(0xffff0000))); }
#endif

constexpr int kParts = int(kColumns) / kWidth;

// Writes `columns` of a block's 16 sums.
inline void put(const Vector (&sums)[kParts], float* to, int64_t columns) {
  if (columns >= kColumns) {
    for (int part = 0; part < kParts; ++part) store(to + part * kWidth, sums[part]);
    return;
  }
  float all[kColumns];
  for (int part = 0; part < kParts; ++part) store(all + part * kWidth, sums[part]);
  std::memcpy(to, all, size_t(columns) * sizeof(float));
}

// Weights made float32, activations in float32: two products for each pair of inputs.
struct Widened {
  using Number = float;
  struct Weight {
    Vector even[kParts], odd[kParts];
  };
  struct Pair {
    Vector even, odd;
  };
  static Weight weight(const bfloat16* from) {
    Weight out;
    for (int part = 0; part < kParts; ++part) {
      const Whole both = load(from + part * 2 * kWidth);
      out.even[part] = as_float(evens(both));
      out.odd[part] = as_float(odds(both));
    }
    return out;
  }
  static Pair pair(const float* x) { return {spread(x[0]), spread(x[1])}; }
  static Vector add(Vector sum, const Weight& w, int part, const Pair& x) {
    return add_product(x.odd, w.odd[part], add_product(x.even, w.even[part], sum));
  }
};

#if CUPOLA_LEVEL >= 3
// Both operands in bfloat16: one instruction for each pair of inputs.
struct Paired {
  using Number = bfloat16;
  using Weight = __m512bh;
  using Pair = __m512bh;
  static Weight weight(const bfloat16* from) { return (__m512bh)_mm512_loadu_si512(from); }
  static Pair pair(const bfloat16* x) {
    int both;
    std::memcpy(&both, x, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
  }
  static Vector add(Vector sum, const Weight& w, int, const Pair& x) { return _mm512_dpbf16_ps(sum, w, x); }
};
#endif

// What one call multiplies: rows of x (padded to `depth`) by the blocks from `weight` on.
template <typename Number>
struct Task {
  const Number* x;
  const bfloat16* weight;
  float* out;
  int64_t rows, depth, columns, stride;  // columns: left to write from `out`; stride: of out, from row to row
};

// The part of a task from a row and a block on.
template <typename Number>
Task<Number> piece(const Task<Number>& task, int64_t row, int64_t rows, int64_t block) {
  return {task.x + row * task.depth,
          task.weight + block * task.depth * kColumns,
          task.out + row * task.stride + block * kColumns,
          rows,
          task.depth,
          task.columns - block * kColumns,
          task.stride};
}

template <typename How, int R, int B>
void tile(const Task<typename How::Number>& task) {
  Vector sums[R][B][kParts];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) sums[r][b][part] = zero();
  const int64_t block = task.depth * kColumns;
  // A long sum is made of short ones, whose rounding errors do not follow from each other.
  constexpr int64_t kRun = 256;
  Vector totals[R][B][kParts] = {};
  for (int64_t begin = 0; begin < task.depth; begin += kRun) {
    for (int64_t k = begin; k < std::min(task.depth, begin + kRun); k += 2) {
      typename How::Weight weights[B];
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b) weights[b] = How::weight(task.weight + b * block + k * kColumns);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto x = How::pair(task.x + r * task.depth + k);
#pragma GCC unroll 16
        for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
          for (int part = 0; part < kParts; ++part) sums[r][b][part] = How::add(sums[r][b][part], weights[b], part, x);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
        for (int part = 0; part < kParts; ++part) {
          totals[r][b][part] = totals[r][b][part] + sums[r][b][part];
          sums[r][b][part] = zero();
        }
  }
  for (int r = 0; r < R; ++r)
    for (int b = 0; b < B; ++b) put(totals[r][b], task.out + r * task.stride + b * kColumns, task.columns - b * kColumns);
}

// All rows with B blocks, R rows at a time, then half as many, ...
template <typename How, int R, int B>
void all_rows(Task<typename How::Number> task) {
  for (; task.rows >= R; task.rows -= R) {
    tile<How, R, B>(task);
    task.x += R * task.depth;
    task.out += R * task.stride;
  }
  if constexpr (R > 1)
    if (task.rows) all_rows<How, R / 2, B>(task);
}

// All rows with all blocks, B at a time, then half as many, ...
template <typename How, int R, int B>
void all_blocks(Task<typename How::Number> task, int64_t blocks) {
  const int64_t block = task.depth * kColumns;
  const auto next = [&](int64_t count) {
    task.weight += count * block;
    task.out += count * kColumns;
    task.columns -= count * kColumns;
    blocks -= count;
  };
  for (; blocks >= B; next(B)) all_rows<How, R, B>(task);
  if constexpr (B > 1)
    if (blocks) all_blocks<How, R, B / 2>(task, blocks);
}

// As many rows and blocks at a time as there are registers for.
template <typename How>
void multiply(const Task<typename How::Number>& task, int64_t blocks) {
  if constexpr (kWidth == 8) {
    if (task.rows >= 3)
      all_blocks<How, 4, 1>(task, blocks);
    else
      all_blocks<How, 2, 2>(task, blocks);
  } else {
    if (task.rows >= 5)
      all_blocks<How, 8, 2>(task, blocks);
    else if (task.rows >= 2)
      all_blocks<How, 4, 4>(task, blocks);
    else
      all_blocks<How, 1, 8>(task, blocks);
  }
}

}  // namespace
}  // namespace cupola::matmul
