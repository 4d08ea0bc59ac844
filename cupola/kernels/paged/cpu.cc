// Attention to keys and values in pages of a pool.
//
// A task is one key head of one sequence and some of its queries. It goes through the sequence in blocks of places;
// those of a block are laid out side by side once, in memory that stays in the nearest caches, whatever pages they
// come from; then all queries that see the block take their share of it.
// Invariant: what is added to a row, and in which order, is decided by the row's own position: blocks begin at fixed
// places, and places that a row does not see add nothing.
// Source: Milakov and Gimelshein 2018 (the running maximum).
#include "paged/problem.h"
#include "paged/tiles.h"
#include "paged/wide.h"

namespace cupola::paged {
namespace {

constexpr int64_t kTaskRows = 192;  // rows (a query in one head) of a task, about

template <typename Asked>
inline void give(float x, Asked* to) {
  if constexpr (sizeof(Asked) == sizeof(float)) {
    *to = x;
  } else {
    *to = narrow(x);
  }
}

template <typename Way, typename Asked, typename Number>
void attend_task(const Problem& p, const Asked* query, const Number* keys, const Number* values, Asked* out,
                 int64_t sequence, int64_t group, int64_t query_first, int64_t query_count) {
  const int64_t repeats = p.repeats(), rows = query_count * repeats;
  constexpr int64_t kBlock = Way::kBlock;
  Way way(p, rows);
  const int64_t at = p.start[sequence] + query_first, end = std::min(at + query_count, p.length * p.size);
  int64_t first = std::max<int64_t>(at - p.window + 1, 0) / kBlock * kBlock;
  for (int64_t ahead = 0; ahead < kAhead; ++ahead) fetch(p, keys, values, sequence, group, first + ahead * p.size, end);
  const auto line_of = [&](int64_t row) {
    const int64_t token = sequence * p.queries + query_first + row / repeats;
    return (token * p.heads + group * repeats + row % repeats) * p.width;
  };
  // Another call may have left other numbers past the width; the block's own lines are not needed yet.
  float* line = way.keys_line();
  std::fill(line, line + way.padded, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    const Asked* from = query + line_of(row);
    for (int64_t c = 0; c < p.width; ++c) line[c] = as_float(from[c]) * way.own_scale;
    way.ask(row, line);
    way.top[row] = kNothing;
  }
  std::fill(way.out, way.out + rows * way.padded, 0.0f);
  std::fill(way.total, way.total + rows * 16, 0.0f);

  for (; first < end; first += kBlock) {
    const int64_t last = std::min(first + kBlock, end);
    way.lay_out(keys, values, sequence, group, first, last, end);
    // Rows before `from` come before the block, those from `to` on have it behind their window.
    const int64_t from = std::clamp<int64_t>(first - at, 0, query_count) * repeats;
    const int64_t to = p.window > last + query_count
                           ? rows
                           : std::clamp<int64_t>(last - 1 + p.window - at, 0, query_count) * repeats;
    way.attend(first, last, from, to, [&](int64_t row) {
      const int64_t own = at + row / repeats;
      return Seen{own - p.window + 1 - first, std::min(own + 1, last) - first};
    });
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float total = sum_of(load(way.total + row * 16)), share = total == 0 ? 1 : 1 / total;
    Asked* to = out + line_of(row);
    for (int64_t c = 0; c < p.width; ++c) give(way.out[row * way.padded + c] * share, to + c);
  }
}

// Three products of bfloat16 for one of float32 are worth it where tiles make them.
#if CUPOLA_LEVEL >= 4
template <typename Asked>
constexpr bool kOfTiles = true;
#else
template <typename Asked>
constexpr bool kOfTiles = CUPOLA_LEVEL >= 3 && sizeof(Asked) == sizeof(bfloat16);
#endif
#if CUPOLA_LEVEL >= 3
template <typename Asked, typename Number>
using Way = std::conditional_t<sizeof(Number) == sizeof(bfloat16) && kOfTiles<Asked>,
                               Tiles<sizeof(Asked) == sizeof(bfloat16) ? 1 : 3>, Wide<Number>>;
#else
template <typename Asked, typename Number>
using Way = Wide<Number>;
#endif

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
    attend_task<Way<Asked, Number>>(p, asked, key, value, to, rest / p.groups, rest % p.groups, part * each,
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
