// Packed groups made bfloat16 on the way, a few blocks at a time, for the products of packed matrices.
//
// The numbers are those of the form, rounded once: the bits are those of a product with the matrix that it stands for.
#pragma once

#include "matmul/groups.h"
#include "matmul/tiles.h"

namespace cupola::matmul {
namespace {

constexpr int64_t kUnpacked = 2;  // blocks at a time: they stay in the first cache

// Two numbers of each lane as bfloat16, side by side.
inline Whole side_by_side(Vector low, Vector high) {
#if CUPOLA_LEVEL >= 3
  const Whole order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                       23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (Whole)_mm512_cvtne2ps_pbh(high, low));
#elif CUPOLA_LEVEL == 2
  const auto rounded = [](Vector x) {
    const Whole bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), same(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, same(0x7fff)));
  };
  return _mm512_or_si512(_mm512_srli_epi32(rounded(low), 16), _mm512_and_si512(rounded(high), same(int(0xffff0000))));
#else
  const auto rounded = [](Vector x) {
    const Whole bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), same(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, same(0x7fff)));
  };
  return _mm256_or_si256(_mm256_srli_epi32(rounded(low), 16), _mm256_and_si256(rounded(high), same(int(0xffff0000))));
#endif
}

template <int Shift>
inline Whole shifted(Whole x) {
#if CUPOLA_LEVEL >= 2
  return _mm512_srli_epi32(x, Shift);
#else
  return _mm256_srli_epi32(x, Shift);
#endif
}

inline void store(bfloat16* to, Whole x) { std::memcpy(to, &x, sizeof x); }

// One group of codes of a block: its numbers, less their zero, times the scale, and the offset.
template <int Bits, bool Offset, typename Scale>
struct Group {
  Vector scale[kParts], offset[kParts];
  Whole zero;
#if CUPOLA_LEVEL >= 2
  Vector every;  // What 4 bits can be, less the zero: looked up.
#endif

  Group(const GroupTask<Scale>& task, int64_t at) : zero(same(task.zero)) {
#if CUPOLA_LEVEL >= 2
    every = to_float(_mm512_sub_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), zero));
#endif
    for (int part = 0; part < kParts; ++part) {
      scale[part] = wide(task.scales + at + part * kWidth);
      if constexpr (Offset) offset[part] = wide(task.offsets + at + part * kWidth);
    }
  }

  template <int Shift>
  Vector number(Whole codes, int part) const {
#if CUPOLA_LEVEL >= 2
    Vector code;
    if constexpr (Bits == 4)
      code = _mm512_permutexvar_ps(shifted<Shift>(codes), every);
    else
      code = to_float(_mm512_sub_epi32(_mm512_and_si512(shifted<Shift>(codes), same(255)), zero));
#else
    const Vector code =
        to_float(_mm256_sub_epi32(_mm256_and_si256(shifted<Shift>(codes), same((1 << Bits) - 1)), zero));
#endif
    if constexpr (Offset) return add_product(code, scale[part], offset[part]);
    return product(code, scale[part]);
  }

  // Four inputs from the bits `Shift` of each byte on: two pairs.
  template <int Shift>
  void put(Whole codes, int part, bfloat16* to) const {
    store(to, side_by_side(number<Shift>(codes, part), number<Shift + 8>(codes, part)));
    store(to + 2 * kColumns, side_by_side(number<Shift + 16>(codes, part), number<Shift + 24>(codes, part)));
  }
};

// Writes a group of a block as a packed matrix has it. Asks memory for the same group of the next block.
template <int Bits, bool Offset, typename Scale>
void unpack_group(const GroupTask<Scale>& task, int64_t g, bfloat16* to) {
  const int64_t groups = task.inputs / task.group, runs = task.group * Bits / 32, bytes = runs * 4 * kColumns;
  const uint8_t* codes = task.codes + g * bytes;
  const Group<Bits, Offset, Scale> group(task, g * kColumns);
  ask(task.scales + (groups + g) * kColumns);
  if constexpr (Offset) ask(task.offsets + (groups + g) * kColumns);
  for (int64_t run = 0; run < runs; ++run, codes += 4 * kColumns) {
    ask(codes + groups * bytes);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      const Whole held = load(codes + part * 4 * kWidth);
      bfloat16* first = to + run * 4 * kColumns + part * 2 * kWidth;
      group.template put<0>(held, part, first);
      if constexpr (Bits == 4) group.template put<4>(held, part, first + task.group / 2 * kColumns);
    }
  }
}

// The compiler does not know that tiles read this memory.
inline void written() { __asm__ volatile("" : : : "memory"); }

// Rows with blocks of groups, which are unpacked a few at a time.
template <int Bits, bool Offset, typename Scale, typename Number, typename Multiply>
void multiply_blocks(const GroupTask<Scale>& groups, const Task<Number>& task, int64_t blocks, const Multiply& multiply) {
  const int64_t block = task.depth * kColumns;
  bfloat16* held = own_memory(std::min(kUnpacked, blocks) * block);
  for (int64_t first = 0; first < blocks; first += kUnpacked) {
    const int64_t count = std::min(kUnpacked, blocks - first);
    for (int64_t b = 0; b < count; ++b) {
      const auto one = piece<Bits>(groups, 0, first + b);
      bfloat16* to = held + b * block;
      for (int64_t g = 0; g < groups.inputs / groups.group; ++g)
        unpack_group<Bits, Offset>(one, g, to + g * groups.group * kColumns);
      std::memset(to + groups.inputs * kColumns, 0, size_t((task.depth - groups.inputs) * kColumns) * sizeof(bfloat16));
    }
    written();
    Task<Number> part = task;
    part.weight = held, part.out += first * kColumns, part.columns -= first * kColumns;
    multiply(part, count);
  }
}

template <int Bits, typename Scale, typename Number, typename Multiply>
void multiply_unpacked(const GroupTask<Scale>& groups, const Task<Number>& task, int64_t blocks,
                       const Multiply& multiply) {
  if (groups.offsets)
    multiply_blocks<Bits, true>(groups, task, blocks, multiply);
  else
    multiply_blocks<Bits, false>(groups, task, blocks, multiply);
}

}  // namespace
}  // namespace cupola::matmul
