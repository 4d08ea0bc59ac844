// Products of bfloat16 with tiles (AMX): 16 or 32 rows with 16 packed columns at a time.
//
// A tile's row depends on no other row, so a row's bits are the same whatever the other rows.
#pragma once

#include "matmul/panel.h"

#if CUPOLA_LEVEL >= 4
namespace cupola::matmul {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  void set(int tile, int64_t count, int64_t width = 64) {
    bytes[tile] = uint16_t(width);
    rows[tile] = uint8_t(count);
  }
};

// Tiles are this thread's from here to the end of the scope.
class Tiles {
 public:
  // 0 to 3 are sums. Up to 16 rows: 4 holds x, the others weights. More: 4 and 5 hold x, 6 and 7 weights.
  explicit Tiles(int64_t rows) {
    TileConfig config;
    const int64_t first = std::min<int64_t>(rows, 16), second = rows - first;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, 16);
    for (int tile : {0, 1, 4}) config.set(tile, first);
    for (int tile : {2, 3}) config.set(tile, second ? second : first);
    if (second) config.set(5, second);
    load(config);
  }
  // 0 is the sums of some rows, 1 those rows, 2 the weights, with so many bytes of inputs; 3 to 5 likewise.
  Tiles(int64_t rows, int64_t bytes) {
    TileConfig config;
    for (int tile : {0, 3}) {
      config.set(tile, rows);
      config.set(tile + 1, rows, bytes);
      config.set(tile + 2, bytes / 4);
    }
    load(config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  static void load(const TileConfig& config) {
    // GCC 12 believes that only the first bytes are read, and would not write the others.
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
};

#define CUPOLA_PUT(tile, rows, to, columns)                                                        \
  do {                                                                                             \
    if ((columns) >= kColumns) {                                                                   \
      _tile_stored(tile, (to), size_t(task.stride) * sizeof(float));                               \
    } else if ((columns) > 0) {                                                                    \
      float all[16 * kColumns];                                                                    \
      _tile_stored(tile, all, kColumns * sizeof(float));                                           \
      for (int64_t r = 0; r < (rows); ++r)                                                         \
        std::memcpy((to) + r * task.stride, all + r * kColumns, size_t(columns) * sizeof(float));  \
    }                                                                                              \
  } while (false)

// Inputs of the weights that are asked for ahead: memory is slower than tiles.
constexpr int64_t kAhead = 64;

inline void ask(const bfloat16* from) {
  for (int64_t line = 0; line < kDepth * kColumns; line += 32)
    _mm_prefetch(reinterpret_cast<const char*>(from + kAhead * kColumns + line), _MM_HINT_T0);
}

// Up to 16 rows with up to four blocks. Rows stand as tiles: 16 rows (or what is left) of 32 inputs, then of the next.
inline void flat(const Task<bfloat16>& task, int64_t blocks) {
  const int64_t block = task.depth * kColumns;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < task.depth; k += kDepth) {
    const bfloat16* from = task.weight + k * kColumns;
    _tile_loadd(4, task.x + k * task.rows, 64);
    ask(from);
    _tile_loadd(5, from, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (blocks < 2) continue;
    ask(from + block);
    _tile_loadd(6, from + block, 64);
    _tile_dpbf16ps(1, 4, 6);
    if (blocks < 3) continue;
    ask(from + 2 * block);
    _tile_loadd(7, from + 2 * block, 64);
    _tile_dpbf16ps(2, 4, 7);
    if (blocks < 4) continue;
    ask(from + 3 * block);
    _tile_loadd(5, from + 3 * block, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  CUPOLA_PUT(0, task.rows, task.out, task.columns);
  if (blocks > 1) CUPOLA_PUT(1, task.rows, task.out + kColumns, task.columns - kColumns);
  if (blocks > 2) CUPOLA_PUT(2, task.rows, task.out + 2 * kColumns, task.columns - 2 * kColumns);
  if (blocks > 3) CUPOLA_PUT(3, task.rows, task.out + 3 * kColumns, task.columns - 3 * kColumns);
}

// 17 to 32 rows with one or two blocks, over the inputs from `begin` to `end`; what came before is in `out`.
inline void tall(const Task<bfloat16>& task, int64_t blocks, int64_t begin, int64_t end, bool first) {
  const int64_t block = task.depth * kColumns;
  const size_t line = size_t(task.stride) * sizeof(float);
  const int64_t left = task.rows - 16;
  const bfloat16* below = task.x + 16 * task.depth;
  float* under = task.out + 16 * task.stride;
  if (begin) {
    _tile_loadd(0, task.out, line);
    _tile_loadd(1, task.out + kColumns, line);
    _tile_loadd(2, under, line);
    _tile_loadd(3, under + kColumns, line);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = begin; k < end; k += kDepth) {
    const bfloat16* from = task.weight + k * kColumns;
    if (first) ask(from);
    _tile_loadd(6, from, 64);
    _tile_loadd(4, task.x + k * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, below + k * left, 64);
    _tile_dpbf16ps(2, 5, 6);
    if (blocks < 2) continue;
    if (first) ask(from + block);
    _tile_loadd(7, from + block, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  CUPOLA_PUT(0, 16, task.out, task.columns);
  CUPOLA_PUT(2, left, under, task.columns);
  if (blocks > 1) CUPOLA_PUT(1, 16, task.out + kColumns, task.columns - kColumns);
  if (blocks > 1) CUPOLA_PUT(3, left, under + kColumns, task.columns - kColumns);
}

#undef CUPOLA_PUT

constexpr int64_t kNear = 1536;   // Inputs of two blocks that stay in the second cache while rows pass,
constexpr int64_t kClose = 1024;  // and of so many rows while blocks do.

// Rows `at` to `end`, 32 at a time (or all, if they are fewer), with all blocks.
inline void multiply_tall(const Task<bfloat16>& task, int64_t blocks, int64_t at, int64_t end) {
  const int64_t rows = std::min<int64_t>(32, end - at);
  const Tiles tiles(rows);
  // Sums are read and written again for every run of inputs: runs as long as can be, and all alike.
  const int64_t runs = end - at > 32 ? (task.depth + kNear - 1) / kNear : 1;
  const int64_t run = (task.depth / kDepth + runs - 1) / runs * kDepth;
  for (; at < end; at += kClose) {
    const int64_t close = std::min(end, at + kClose);
    for (int64_t k = 0; k < task.depth; k += run)
      for (int64_t b = 0; b < blocks; b += 2) {
        const bool whole = blocks - b >= 2 && task.columns - b * kColumns >= 2 * kColumns;
        if (k && !whole) continue;
        const int64_t stop = whole ? std::min(task.depth, k + run) : task.depth;
        for (int64_t r = at; r < close; r += 32)
          tall(piece(task, r, rows, b), std::min<int64_t>(2, blocks - b), k, stop, r == at);
      }
  }
}

// All rows with all blocks.
inline void multiply_tiles(const Task<bfloat16>& task, int64_t blocks) {
  const int64_t many = task.rows / 32 * 32, left = task.rows - many;
  if (many) multiply_tall(task, blocks, 0, many);
  if (left > 16) multiply_tall(task, blocks, many, task.rows);
  if (left == 0 || left > 16) return;
  const Tiles tiles(left);
  for (int64_t b = 0; b < blocks; b += 4) flat(piece(task, many, left, b), std::min<int64_t>(4, blocks - b));
}

}  // namespace
}  // namespace cupola::matmul
#endif
