// What is asked of paged attention, where its numbers lie, and the steps that every way to multiply shares.
#pragma once

#include <cstdlib>

#include "paged/lanes.h"

namespace cupola::paged {
namespace {

constexpr float kNothing = -1e30f;  // the maximum of no scores; finite, so that differences are numbers

inline int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Problem {
  int64_t rows, queries, heads, width;  // of the query
  int64_t pages, groups, size;          // of the pool
  int64_t length;                       // pages in the table of a sequence
  int64_t window;                       // places that a query sees, itself among them
  float scale;
  const int32_t *table, *start;
  int64_t repeats() const { return heads / groups; }
};

// Memory of one thread, that stays its own from call to call.
inline float* scratch(int64_t needed) {
  struct Free {
    void operator()(float* held) const { std::free(held); }
  };
  thread_local std::unique_ptr<float, Free> held;
  thread_local int64_t capacity = 0;
  if (needed > capacity) {
    capacity = rounded_up(needed, 1024);
    held.reset();
    held.reset(static_cast<float*>(std::aligned_alloc(64, size_t(capacity) * sizeof(float))));
    if (!held) std::abort();
    std::memset(held.get(), 0, size_t(capacity) * sizeof(float));
  }
  return held.get();
}

// Takes lines of 16 from such memory.
inline float* taken(float*& next, int64_t count) { return std::exchange(next, next + rounded_up(count, 16)); }

inline float as_float(float x) { return x; }
inline float as_float(bfloat16 x) { return widen(x); }

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

// Pages that are asked for before they are needed: memory answers while those before them are laid out.
constexpr int64_t kAhead = 3;

// Brings one key head's part of the page of a place into the nearest cache.
template <typename Number>
inline void fetch(const Problem& p, const Number* keys, const Number* values, int64_t row, int64_t group, int64_t at,
                  int64_t end) {
  if (at >= end) return;
  const int64_t page = std::clamp<int64_t>(p.table[row * p.length + at / p.size], 0, p.pages - 1);
  const int64_t held = p.width * p.size, place = (page * p.groups + group) * held;
  for (int64_t i = 0; i < held; i += 64 / int64_t{sizeof(Number)}) {
    _mm_prefetch(reinterpret_cast<const char*>(keys + place + i), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(values + place + i), _MM_HINT_T0);
  }
}

// Places that a row sees, [low, high) of a block.
struct Seen {
  int64_t low, high;
};

// Makes weights of a row's scores and returns what its earlier sum and mixture shrink by.
inline float weigh(float* scores, int64_t columns, Seen seen, float* top, float* total) {
  Floats highest = spread(kNothing);
  if (seen.low <= 0 && seen.high >= columns) {
    for (int64_t n = 0; n < columns; n += kLanes) highest = larger(highest, load(scores + n));
  } else {
    for (int64_t n = 0; n < columns; n += kLanes) {
      const float hidden = -std::numeric_limits<float>::infinity();
      const Floats shown = between(load(scores + n), seen.low - n, seen.high - n, hidden);
      store(scores + n, shown);
      highest = larger(highest, shown);
    }
  }
  const float now = std::max(*top, largest_of(highest));
  const float shrink = first_of(exponential(spread(*top - now)));
  *top = now;
  Floats sum = spread(0);
  for (int64_t n = 0; n < columns; n += kLanes) {
    const Floats weight = exponential(multiply_add(spread(now), spread(-1), load(scores + n)));
    store(scores + n, weight);
    sum = multiply_add(weight, spread(1), sum);
  }
  store(total, multiply_add(load(total), spread(shrink), sum));
  return shrink;
}

}  // namespace
}  // namespace cupola::paged
