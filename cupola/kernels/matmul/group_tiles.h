// Products of rows quantized to 8 bits with packed groups, with tiles (AMX).
//
// A group's sum is exact, whoever makes it, and groups are added in the order and with the roundings of `groups.h`: the
// bits are the same, so either may take any rows.
#pragma once

#include "matmul/groups.h"
#include "matmul/tiles.h"

#if CUPOLA_LEVEL >= 4
namespace cupola::matmul {
namespace {

constexpr int kTileRows = 16;
constexpr int64_t kTileBytes = 64;       // Inputs of one product of tiles, at most.
constexpr int64_t kNearBytes = 96 << 10;  // Of unpacked codes at a time: they stay in the second cache.

// Whether a tile's row holds a group, or a group whole rows, and codes less their zero are numbers of 8 bits.
template <int Bits, typename Scale>
bool tiles_take(const GroupTask<Scale>& task) {
  const bool whole = task.group <= kTileBytes || task.group % kTileBytes == 0;
  return whole && task.zero <= 128 && (1 << Bits) - 1 - task.zero <= 127;
}

// Writes the codes of a block less their zero: runs of 4 inputs of each output, as tiles read them.
template <int Bits, typename Scale>
void unpack(const GroupTask<Scale>& task, const uint8_t* codes, int8_t* to) {
  const Whole less = _mm512_set1_epi8(int8_t(task.zero));
  const auto put = [&](int64_t run, Whole held) {
    _mm512_storeu_si512(to + run * 4 * kColumns, _mm512_sub_epi8(held, less));
  };
  if constexpr (Bits == 8) {
    for (int64_t run = 0; run < task.inputs / 4; ++run) put(run, load(codes + run * 4 * kColumns));
  } else {
    const int64_t half = task.group / 8;  // Runs of half a group.
    for (int64_t run = 0; run < task.inputs / 4; run += 2 * half)
      for (int64_t s = 0; s < half; ++s, codes += 4 * kColumns) {
        const Whole both = load(codes);
        put(run + s, low_halves(both));
        put(run + half + s, high_halves(both));
      }
  }
}

// Writes what sums of the next rows are multiplied by, the numbers of a group side by side: row scales, then the
// products of scales and sums that offsets are multiplied by.
template <typename Scale>
void turn(const GroupTask<Scale>& task, float* to) {
  const int64_t groups = task.inputs / task.group;
  for (int64_t r = 0; r < kTileRows; ++r)
    for (int64_t g = 0; g < groups; ++g) {
      const Measure& row = task.rows.of[r * groups + g];
      to[g * kTileRows + r] = row.scale;
      if (task.offsets) to[(groups + g) * kTileRows + r] = row.moment;
    }
}

// The next rows with one block, whose codes are unpacked.
template <bool Offset, typename Scale>
void group_square(const GroupTask<Scale>& task, const int8_t* codes, const float* turned) {
  const int64_t groups = task.inputs / task.group, step = std::min(task.group, kTileBytes);
  alignas(64) int32_t whole[2][kTileRows * kColumns];
  Vector sums[kTileRows];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) sums[r] = zero();
  const auto multiply = [&](int64_t g) {
    _tile_zero(0);
    for (int64_t k = g * task.group; k < (g + 1) * task.group; k += step) {
      _tile_loadd(1, task.rows.x + k, size_t(task.inputs));
      _tile_loadd(2, codes + k * kColumns, 64);
      _tile_dpbssd(0, 1, 2);
    }
    _tile_stored(0, whole[g & 1], 64);
  };
  multiply(0);
  for (int64_t g = 0; g < groups; ++g) {
    // A group is multiplied while the one before it is added.
    if (g + 1 < groups) multiply(g + 1);
    const int32_t* held = whole[g & 1];
    const Vector scale = wide(task.scales + g * kColumns);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r)
      sums[r] = add_product(to_float(load(held + r * kColumns)), product(scale, spread(turned[g * kTileRows + r])), sums[r]);
    if constexpr (Offset) {
      const Vector offset = wide(task.offsets + g * kColumns);
#pragma GCC unroll 16
      for (int r = 0; r < kTileRows; ++r) sums[r] = add_product(offset, spread(turned[(groups + g) * kTileRows + r]), sums[r]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
    const Vector one[kParts] = {sums[r]};
    put(one, task.out + r * task.stride, task.columns);
  }
}

// All rows with all blocks: tiles where there are rows enough to fill them, else registers.
template <int Bits, typename Scale>
void multiply_group_tiles(const GroupTask<Scale>& task, int64_t blocks) {
  if (task.count < kTileRows || !tiles_take<Bits>(task)) return multiply_groups<Bits>(task, blocks);
  const int64_t block = task.inputs * kColumns, most = std::max<int64_t>(1, kNearBytes / block);
  const std::unique_ptr<int8_t[]> codes(new int8_t[size_t(std::min(most, blocks) * block)]);
  const std::unique_ptr<float[]> turned(new float[size_t(task.inputs / task.group * 2 * kTileRows)]);
  const auto square = task.offsets ? group_square<true, Scale> : group_square<false, Scale>;
  const Tiles tiles(kTileRows, std::min(task.group, kTileBytes));
  for (int64_t first = 0; first < blocks; first += most) {
    const int64_t count = std::min(most, blocks - first);
    const auto part = piece<Bits>(task, 0, first);
    for (int64_t b = 0; b < count; ++b) unpack<Bits>(task, piece<Bits>(part, 0, b).codes, codes.get() + b * block);
    // The compiler does not know that tiles read this memory.
    __asm__ volatile("" : : : "memory");
    int64_t row = 0;
    for (; task.count - row >= kTileRows; row += kTileRows) {
      turn(piece<Bits>(part, row, 0), turned.get());
      for (int64_t b = 0; b < count; ++b) square(piece<Bits>(part, row, b), codes.get() + b * block, turned.get());
    }
    if (row < task.count) multiply_groups<Bits>(piece<Bits>(part, row, 0), count);
  }
}

}  // namespace
}  // namespace cupola::matmul
#endif
