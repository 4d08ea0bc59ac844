// Products of rows quantized to 8 bits with packed groups of small whole numbers, in registers.
//
// A group's sum is exact, and groups are added in order: a row's bits depend on no other row, nor on the level's widths.
#pragma once

#include "matmul/panel.h"

namespace cupola::matmul {
namespace {

#if CUPOLA_LEVEL >= 2
inline Whole same(int32_t x) { return _mm512_set1_epi32(x); }
inline Whole low_halves(Whole x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Whole high_halves(Whole x) { return low_halves(_mm512_srli_epi16(x, 4)); }
inline Vector to_float(Whole x) { return _mm512_cvtepi32_ps(x); }
inline Vector wide(const float* from) { return _mm512_loadu_ps(from); }
#else
inline Whole same(int32_t x) { return _mm256_set1_epi32(x); }
inline Whole low_halves(Whole x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Whole high_halves(Whole x) { return low_halves(_mm256_srli_epi16(x, 4)); }
inline Vector to_float(Whole x) { return _mm256_cvtepi32_ps(x); }
inline Vector wide(const float* from) { return _mm256_loadu_ps(from); }
#endif

#if CUPOLA_LEVEL >= 2
inline Vector wide(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
#else
inline Vector wide(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#endif

#if CUPOLA_LEVEL >= 3
// Four products and their sum in one instruction.
struct Quads {
  using Number = int8_t;
  static constexpr int kPlace[4] = {0, 1, 2, 3};
  static Whole add(Whole sum, Whole codes, const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, sizeof four);
    return _mm512_dpbusd_epi32(sum, codes, same(four));
  }
};
#else
// By way of 16 bits, where nothing can overflow: even places, then odd ones.
struct Quads {
  using Number = int16_t;
  static constexpr int kPlace[4] = {0, 2, 1, 3};
  static Whole add(Whole sum, Whole codes, const int16_t* x) {
    int32_t even, odd;
    std::memcpy(&even, x, sizeof even);
    std::memcpy(&odd, x + 2, sizeof odd);
#if CUPOLA_LEVEL >= 2
    const Whole evens = _mm512_and_si512(codes, _mm512_set1_epi16(255)), odds = _mm512_srli_epi16(codes, 8);
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(evens, same(even)));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(odds, same(odd)));
#else
    const Whole evens = _mm256_and_si256(codes, _mm256_set1_epi16(255)), odds = _mm256_srli_epi16(codes, 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(evens, same(even)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(odds, same(odd)));
#endif
  }
};
#endif

// Of a group of a row's whole numbers: their scale, their sum by their scale, which offsets are multiplied by, and their
// sum by the codes' zero, which is too much in the products.
struct Measure {
  float scale, moment;
  int32_t excess;
};

// Rows as they are multiplied: whole numbers, and the measure of each group.
struct Rows {
  const Quads::Number* x;
  const Measure* of;
};

// Asks memory for what is read soon.
inline void ask(const void* from) { _mm_prefetch(static_cast<const char*>(from), _MM_HINT_T0); }

// What one call multiplies: rows by the blocks from `codes` on. Scale is float or the bits of a half.
template <typename Scale>
struct GroupTask {
  Rows rows;
  const uint8_t* codes;
  const Scale *scales, *offsets;  // offsets: null where all are zero
  float* out;
  int64_t count, inputs, group, columns, stride;
  int32_t zero;
};

// The part of a task from a row and a block on.
template <int Bits, typename Scale>
GroupTask<Scale> piece(GroupTask<Scale> task, int64_t row, int64_t block) {
  const int64_t groups = task.inputs / task.group, scales = block * groups * kColumns;
  task.rows = {task.rows.x + row * task.inputs, task.rows.of + row * groups};
  task.codes += block * kColumns * task.inputs * Bits / 8;
  task.scales += scales;
  if (task.offsets) task.offsets += scales;
  task.out += row * task.stride + block * kColumns;
  task.count -= row;
  task.columns -= block * kColumns;
  return task;
}

// Rows with B blocks. `Ask`s memory for the blocks after them: blocks are short, and would be slow to begin.
template <int Bits, int R, int B, bool Offset, bool Ask, typename Scale>
void group_tile(const GroupTask<Scale>& task) {
  const int64_t groups = task.inputs / task.group, bytes = task.inputs * Bits / 8 * kColumns;
  const int64_t steps = task.group * Bits / 8 / 4, second = task.group / 2;
  Vector sums[R][B][kParts];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) sums[r][b][part] = zero();
  for (int64_t g = 0; g < groups; ++g) {
    Whole whole[R][B][kParts];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
        for (int part = 0; part < kParts; ++part) whole[r][b][part] = same(-task.rows.of[r * groups + g].excess);
    const auto* x = task.rows.x + g * task.group;
    const uint8_t* codes = task.codes + g * steps * 4 * kColumns;
    for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
        for (int part = 0; part < kParts; ++part) {
          const uint8_t* from = codes + b * bytes + s * 4 * kColumns + part * 4 * kWidth;
          const Whole held = load(from);
          if constexpr (Ask) ask(from + B * bytes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const auto* row = x + r * task.inputs + 4 * s;
            Whole& sum = whole[r][b][part];
            if constexpr (Bits == 8)
              sum = Quads::add(sum, held, row);
            else
              sum = Quads::add(Quads::add(sum, low_halves(held), row), high_halves(held), row + second);
          }
        }
    }
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) {
        const int64_t at = (b * groups + g) * kColumns + part * kWidth;
        const Vector scale = wide(task.scales + at);
        Vector offset;
        if constexpr (Offset) offset = wide(task.offsets + at);
        if constexpr (Ask) {
          ask(task.scales + B * groups * kColumns + at);
          if constexpr (Offset) ask(task.offsets + B * groups * kColumns + at);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Measure& row = task.rows.of[r * groups + g];
          Vector& sum = sums[r][b][part];
          sum = add_product(to_float(whole[r][b][part]), product(scale, spread(row.scale)), sum);
          if constexpr (Offset) sum = add_product(offset, spread(row.moment), sum);
        }
      }
  }
  for (int r = 0; r < R; ++r)
    for (int b = 0; b < B; ++b) put(sums[r][b], task.out + r * task.stride + b * kColumns, task.columns - b * kColumns);
}

template <int Bits, int R, int B, bool Ask = true, typename Scale>
void group_rows(GroupTask<Scale> task) {
  if (task.count >= R) {
    task.offsets ? group_tile<Bits, R, B, true, Ask>(task) : group_tile<Bits, R, B, false, Ask>(task);
    return group_rows<Bits, R, B, false>(piece<Bits>(task, R, 0));
  }
  if constexpr (R > 1)
    if (task.count) group_rows<Bits, R / 2, B, Ask>(task);
}

template <int Bits, int R, int B, typename Scale>
void group_blocks(GroupTask<Scale> task, int64_t blocks) {
  const int64_t bytes = task.inputs * Bits / 8 * kColumns, scales = task.inputs / task.group * kColumns;
  const auto next = [&](int64_t count) {
    task.codes += count * bytes;
    task.scales += count * scales;
    if (task.offsets) task.offsets += count * scales;
    task.out += count * kColumns;
    task.columns -= count * kColumns;
    blocks -= count;
  };
  for (; blocks >= B; next(B)) group_rows<Bits, R, B>(task);
  if constexpr (B > 1)
    if (blocks) group_blocks<Bits, R, B / 2>(task, blocks);
}

// As many rows and blocks at a time as there are registers for.
template <int Bits, typename Scale>
void multiply_groups(const GroupTask<Scale>& task, int64_t blocks) {
  constexpr int more = kWidth == 8 ? 1 : 2;
  if (task.count >= 2)
    group_blocks<Bits, 2 * more, more>(task, blocks);
  else
    group_blocks<Bits, 1, 1>(task, blocks);  // One block after another, as memory has them.
}

// Writes a row's groups as whole numbers from -127 to 127. A group with a number that is not finite is not either.
// Written so that the compiler makes vectors of it: sizes are compared as whole numbers, which order as floats do.
template <typename From>
void quantize(const From* __restrict from, int64_t inputs, int64_t group, int32_t zero, Quads::Number* __restrict x,
              Measure* of) {
  constexpr uint32_t kInfinite = 0x7f800000;
  const auto bits = [](From number) {
    uint32_t out;
    if constexpr (sizeof(From) == 2) out = uint32_t{number} << 16;
    else std::memcpy(&out, &number, sizeof out);
    return out;
  };
  for (int64_t g = 0; g < inputs / group; ++g, from += group, x += group) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < group; ++i) largest = std::max(largest, bits(from[i]) & 0x7fffffff);
    const bool finite = largest < kInfinite;
    float top;
    std::memcpy(&top, &largest, sizeof top);
    const float inverse = top > 0 && finite ? 127 / top : 0;
    int32_t sum = 0;
    const auto whole = [&](int64_t i) {
      const uint32_t held = finite ? bits(from[i]) : 0;
      float wide;
      std::memcpy(&wide, &held, sizeof wide);
      return int32_t(std::nearbyint(std::min(127.f, std::max(-127.f, wide * inverse))));
    };
    if constexpr (sizeof(Quads::Number) == 1) {
      for (int64_t i = 0; i < group; ++i) {
        const int32_t held = whole(i);
        x[i] = Quads::Number(held);
        sum += held;
      }
    } else {
      for (int64_t i = 0; i < group; i += 4)
        for (int64_t j = 0; j < 4; ++j) {
          const int32_t held = whole(i + j);
          x[i + Quads::kPlace[j]] = Quads::Number(held);
          sum += held;
        }
    }
    const float scale = finite ? top / 127 : std::numeric_limits<float>::quiet_NaN();
    of[g] = {scale, float(sum) * scale, sum * zero};
  }
}

}  // namespace
}  // namespace cupola::matmul
