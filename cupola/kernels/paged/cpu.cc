// Attention to keys and values in pages of a pool.
//
// A task is one key head of one sequence and some of its queries. It goes through the sequence in blocks of places;
// those of a block are laid out side by side once, in float32, in memory that stays in the nearest cache, whatever
// pages they come from; then all queries that see the block take their share of it.
// Invariant: what is added to a row, and in which order, is decided by the row's own position: blocks begin at fixed
// places, and each number of a product is one chain of multiply-adds from the first place (or number of a head) to
// the last. Places that a row does not see add nothing.
// Source: Milakov and Gimelshein 2018 (the running maximum).
#include "paged/lanes.h"

namespace cupola::paged {
namespace {

constexpr int64_t kBlock = 64;       // places
constexpr int64_t kTaskRows = 192;   // rows (a query in one head) of a task, about
constexpr int64_t kGroupRows = 6;    // rows whose sums are in registers at once
constexpr int kAcross = CUPOLA_LEVEL >= 2 ? 4 : 2;  // vectors beside each other in registers
constexpr float kNothing = -1e30f;   // the maximum of no scores; finite, so that differences are numbers

int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Problem {
  int64_t rows, queries, heads, width;  // of the query
  int64_t pages, groups, size;          // of the pool
  int64_t length;                       // pages in the table of a sequence
  int64_t window;                       // places that a query sees, itself among them
  float scale;
  const int32_t *table, *start;
  int64_t repeats() const { return heads / groups; }
  int64_t padded() const { return rounded_up(width, kLanes); }
};

// Memory of one thread, that stays its own from call to call.
struct Scratch {
  float *query, *keys, *values, *weights, *out, *top, *total;
};

Scratch scratch_of(const Problem& p, int64_t rows) {
  struct Free {
    void operator()(float* held) const { std::free(held); }
  };
  thread_local std::unique_ptr<float, Free> held;
  thread_local int64_t capacity = 0;
  const int64_t wide = rounded_up(p.width, 16);
  const int64_t sizes[] = {rows * wide, wide * kBlock,          kBlock * wide,    kGroupRows * kBlock,
                           rows * wide, rounded_up(rows, 16), rows * int64_t{16}};
  int64_t needed = 0;
  for (int64_t each : sizes) needed += each;
  if (needed > capacity) {
    held.reset();
    held.reset(static_cast<float*>(std::aligned_alloc(64, size_t(needed) * sizeof(float))));
    capacity = held ? needed : 0;
    if (!held) std::abort();
  }
  float* at[7];
  float* next = held.get();
  for (int i = 0; i < 7; ++i) at[i] = next, next += sizes[i];
  return {at[0], at[1], at[2], at[3], at[4], at[5], at[6]};
}

inline float as_float(float x) { return x; }
inline float as_float(bfloat16 x) { return widen(x); }

template <typename Number>
inline void widened(const Number* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = as_float(from[i]);
}

// Brings lines into the nearest cache before they are needed.
inline void fetch(const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(static_cast<const char*>(from) + i, _MM_HINT_T0);
}

// Calls body(page, first place in it, places, first place in the block) for each piece of the places [first, last).
template <typename Body>
inline void pieces(const Problem& p, int64_t row, int64_t first, int64_t last, const Body& body) {
  for (int64_t at = first; at < last;) {
    const int64_t inside = at % p.size, count = std::min(p.size - inside, last - at);
    // As the compiler does: what is no page is the nearest one.
    const int64_t page = std::clamp<int64_t>(p.table[row * p.length + at / p.size], 0, p.pages - 1);
    body(page, inside, count, at - first);
    at += count;
  }
}

template <typename Number>
void lay_out(const Problem& p, const Number* keys, const Number* values, int64_t row, int64_t group, int64_t first,
             int64_t last, const Scratch& to) {
  const int64_t held = p.width * p.size, padded = p.padded();
  pieces(p, row, first, last, [&](int64_t page, int64_t inside, int64_t count, int64_t at) {
    const Number* key = keys + (page * p.groups + group) * held + inside;
    if (count == kLanes) {
      for (int64_t c = 0; c < p.width; ++c) store(to.keys + c * kBlock + at, load(key + c * p.size));
    } else {
      for (int64_t c = 0; c < p.width; ++c) widened(key + c * p.size, count, to.keys + c * kBlock + at);
    }
    const Number* value = values + (page * p.groups + group) * held + inside * p.width;
    for (int64_t z = 0; z < count; ++z) {
      float* line = to.values + (at + z) * padded;
      widened(value + z * p.width, p.width, line);
      for (int64_t c = p.width; c < padded; ++c) line[c] = 0;
    }
  });
  // What stands past the end is no number of this sequence; its scores are hidden, but are computed.
  const int64_t count = last - first, computed = rounded_up(count, kLanes);
  if (count < computed)
    for (int64_t c = 0; c < p.width; ++c)
      for (int64_t z = count; z < computed; ++z) to.keys[c * kBlock + z] = 0;
}

// out[r] = out[r] * shrink[r] + a[r] . b for ROWS rows and VECTORS vectors of columns; shrink null: out is not read.
template <int ROWS, int VECTORS>
inline void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t out_stride,
                 int64_t depth, const float* shrink) {
  Floats sum[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v)
      sum[r][v] = shrink ? multiply_add(load(out + r * out_stride + v * kLanes), spread(shrink[r]), spread(0))
                         : spread(0);
  for (int64_t k = 0; k < depth; ++k) {
    Floats line[VECTORS];
    for (int v = 0; v < VECTORS; ++v) line[v] = load(b + k * b_stride + v * kLanes);
    for (int r = 0; r < ROWS; ++r) {
      const Floats each = spread(a[r * a_stride + k]);
      for (int v = 0; v < VECTORS; ++v) sum[r][v] = multiply_add(each, line[v], sum[r][v]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < VECTORS; ++v) store(out + r * out_stride + v * kLanes, sum[r][v]);
}

template <int ROWS>
void rows_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out, int64_t out_stride,
                  int64_t depth, int64_t columns, const float* shrink) {
  int64_t n = 0;
  for (; n + kAcross * kLanes <= columns; n += kAcross * kLanes)
    tile<ROWS, kAcross>(a, a_stride, b + n, b_stride, out + n, out_stride, depth, shrink);
  for (; n < columns; n += kLanes) tile<ROWS, 1>(a, a_stride, b + n, b_stride, out + n, out_stride, depth, shrink);
}

void product(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* out,
             int64_t out_stride, int64_t depth, int64_t columns, const float* shrink) {
  using Function = decltype(&rows_product<1>);
  constexpr Function kOf[] = {rows_product<1>, rows_product<2>, rows_product<3>,
                              rows_product<4>, rows_product<5>, rows_product<6>};
  kOf[rows - 1](a, a_stride, b, b_stride, out, out_stride, depth, columns, shrink);
}

// Makes weights of a row's scores and returns what its earlier sum and mixture shrink by. The row sees the places
// [low, high) of the block.
inline float weigh(float* scores, int64_t columns, int64_t low, int64_t high, float* top, float* total) {
  Floats highest = spread(kNothing);
  if (low <= 0 && high >= columns) {
    for (int64_t n = 0; n < columns; n += kLanes) highest = larger(highest, load(scores + n));
  } else {
    for (int64_t n = 0; n < columns; n += kLanes) {
      const Floats seen = between(load(scores + n), low - n, high - n, -std::numeric_limits<float>::infinity());
      store(scores + n, seen);
      highest = larger(highest, seen);
    }
  }
  const float now = std::max(*top, largest_of(highest));
  float shrink[kLanes];
  store(shrink, exponential(spread(*top - now)));
  *top = now;
  Floats sum = spread(0);
  for (int64_t n = 0; n < columns; n += kLanes) {
    const Floats weight = exponential(multiply_add(spread(now), spread(-1), load(scores + n)));
    store(scores + n, weight);
    sum = multiply_add(weight, spread(1), sum);
  }
  store(total, multiply_add(load(total), spread(shrink[0]), sum));
  return shrink[0];
}

// The rows [from, to) of the task see some of the block [first, last).
void attend_block(const Problem& p, int64_t at, int64_t first, int64_t last, int64_t from, int64_t to,
                  const Scratch& s) {
  const int64_t padded = p.padded();
  for (int64_t row = from; row < to; row += kGroupRows) {
    const int64_t rows = std::min(kGroupRows, to - row);
    // Rows are in the order of their positions: the last of a group sees farthest.
    const int64_t places = std::min(last, at + (row + rows - 1) / p.repeats() + 1) - first;
    const int64_t columns = rounded_up(places, kLanes);
    float *weights = s.weights, shrink[kGroupRows];
    product(rows, s.query + row * p.width, p.width, s.keys, kBlock, weights, kBlock, p.width, columns, nullptr);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t own = at + (row + r) / p.repeats();
      shrink[r] = weigh(weights + r * kBlock, columns, own - p.window + 1 - first, std::min(own + 1, last) - first,
                        s.top + row + r, s.total + (row + r) * 16);
    }
    product(rows, weights, kBlock, s.values, padded, s.out + row * padded, padded, places, padded, shrink);
  }
}

template <typename Asked, typename Number>
void attend_task(const Problem& p, const Asked* query, const Number* keys, const Number* values, Asked* out,
                 int64_t sequence, int64_t group, int64_t query_first, int64_t query_count) {
  const int64_t repeats = p.repeats(), rows = query_count * repeats, padded = p.padded();
  const Scratch s = scratch_of(p, rows);
  const auto line_of = [&](int64_t row) {
    const int64_t token = sequence * p.queries + query_first + row / repeats;
    return (token * p.heads + group * repeats + row % repeats) * p.width;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const Asked* from = query + line_of(row);
    for (int64_t c = 0; c < p.width; ++c) s.query[row * p.width + c] = as_float(from[c]) * p.scale;
    s.top[row] = kNothing;
  }
  std::fill(s.out, s.out + rows * padded, 0.0f);
  std::fill(s.total, s.total + rows * 16, 0.0f);

  const int64_t at = p.start[sequence] + query_first;
  const int64_t end = std::min(at + query_count, p.length * p.size);
  int64_t first = std::max<int64_t>(at - p.window + 1, 0) / kBlock * kBlock;
  for (; first < end; first += kBlock) {
    const int64_t last = std::min(first + kBlock, end);
    lay_out(p, keys, values, sequence, group, first, last, s);
    pieces(p, sequence, last, std::min(last + kBlock, end), [&](int64_t page, int64_t, int64_t, int64_t) {
      const int64_t held = p.width * p.size, place = (page * p.groups + group) * held;
      fetch(keys + place, held * int64_t{sizeof(Number)});
      fetch(values + place, held * int64_t{sizeof(Number)});
    });
    // Rows before `from` come before the block, those from `to` on have it behind their window.
    const int64_t from = std::clamp<int64_t>(first - at, 0, query_count) * repeats;
    const int64_t to = p.window > last + query_count ? rows
                       : std::clamp<int64_t>(last - 1 + p.window - at, 0, query_count) * repeats;
    attend_block(p, at, first, last, from, to, s);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float total = sum_of(load(s.total + row * 16));
    const float share = total == 0 ? 1 : 1 / total;
    Asked* line = out + line_of(row);
    for (int64_t c = 0; c < p.width; ++c) {
      const float mixed = s.out[row * padded + c] * share;
      if constexpr (sizeof(Asked) == sizeof(float)) {
        line[c] = mixed;
      } else {
        line[c] = narrow(mixed);
      }
    }
  }
}

template <typename Asked, typename Number>
void attend(ffi::ThreadPool& pool, const Problem& p, const ffi::AnyBuffer& query, const ffi::AnyBuffer& keys,
            const ffi::AnyBuffer& values, ffi::AnyBuffer& out) {
  const auto* asked = static_cast<const Asked*>(query.untyped_data());
  const auto* key = static_cast<const Number*>(keys.untyped_data());
  const auto* value = static_cast<const Number*>(values.untyped_data());
  auto* to = static_cast<Asked*>(out.untyped_data());
  const int64_t each = std::max<int64_t>(kTaskRows / p.repeats(), 1), parts = (p.queries + each - 1) / each;
  parallel(pool, p.rows * p.groups * parts, [&](int64_t task) {
    // The last queries of a sequence see most: they come first, so that no thread is left alone with them.
    const int64_t part = parts - 1 - task / (p.rows * p.groups), rest = task % (p.rows * p.groups);
    attend_task<Asked, Number>(p, asked, key, value, to, rest / p.groups, rest % p.groups, part * each,
                               std::min(each, p.queries - part * each));
  });
}

ffi::Error paged_attend(ffi::ThreadPool pool, ffi::AnyBuffer query, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                        ffi::Buffer<ffi::S32> table, ffi::Buffer<ffi::S32> start, int64_t window, float scale,
                        ffi::Result<ffi::AnyBuffer> out) {
  const auto asked = query.dimensions(), held = values.dimensions();
  Problem p{};
  p.rows = asked[0], p.queries = asked[1], p.heads = asked[2], p.width = asked[3];
  p.pages = held[0], p.groups = held[1], p.size = held[2];
  p.length = p.pages && p.size ? table.dimensions()[1] : 0;
  p.window = window, p.scale = scale, p.table = table.typed_data(), p.start = start.typed_data();
  if (!query.element_count()) return ffi::Error::Success();
  const bool wide = query.element_type() == ffi::F32, exact = keys.element_type() == ffi::F32;
  if (wide && exact) attend<float, float>(pool, p, query, keys, values, *out);
  if (wide && !exact) attend<float, bfloat16>(pool, p, query, keys, values, *out);
  if (!wide && exact) attend<bfloat16, float>(pool, p, query, keys, values, *out);
  if (!wide && !exact) attend<bfloat16, bfloat16>(pool, p, query, keys, values, *out);
  return ffi::Error::Success();
}

}  // namespace

CUPOLA_KERNEL(paged_attend, paged_attend,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Attr<int64_t>("window")
                  .Attr<float>("scale")
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::paged
