// Which keys a query may see, block by block.
#pragma once

#include "attention/operand.h"

namespace cupola::attention {
namespace {

constexpr int64_t kQueries = 64;  // in a block
constexpr int64_t kKeys = 128;    // in a block
constexpr float kHidden = -1e30f;

// The mask of one row of the batch.
struct Sight {
  int64_t queries, keys;
  bool causal;
  int64_t window;  // 0 for none
  int64_t start, prefix;
  const int32_t *query_segments, *key_segments;  // or null
};

// What of a block of keys a block of queries sees.
struct Seen {
  bool any, whole;
  int64_t size;  // keys up to the last that may be seen, in 32s
};

// The smallest and largest document, padding apart, and whether there is padding.
struct Documents {
  int32_t least, most;
  bool padded;
};

inline Documents documents(const int32_t* segments, int64_t first, int64_t stop) {
  Documents out{std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min(), false};
  for (int64_t i = first; i < stop; ++i) {
    if (!segments[i]) out.padded = true;
    else out.least = std::min(out.least, segments[i]), out.most = std::max(out.most, segments[i]);
  }
  return out;
}

inline Seen look(const Sight& sight, int64_t query, int64_t key) {
  const int64_t last_query = std::min(sight.queries, query + kQueries) - 1;
  int64_t stop = std::min(sight.keys, key + kKeys);
  Seen seen{true, true, 0};
  if (sight.causal) {
    const int64_t first_at = sight.start + query, last_at = sight.start + last_query;
    const bool near = !sight.window || stop - 1 > first_at - sight.window;
    seen.any = (key <= last_at && near) || key < sight.prefix;
    const bool all_near = !sight.window || key > last_at - sight.window;
    seen.whole = (stop - 1 <= first_at && all_near) || stop <= sight.prefix;
    stop = std::min(stop, std::max(last_at + 1, sight.prefix));
  }
  if (seen.any && sight.query_segments) {
    const Documents asking = documents(sight.query_segments, query, last_query + 1);
    const Documents held = documents(sight.key_segments, key, stop);
    // With nothing but padding, least is above most.
    seen.any = asking.least <= held.most && held.least <= asking.most;
    seen.whole = seen.whole && !asking.padded && !held.padded && asking.least == asking.most &&
                 held.least == held.most && asking.least == held.least;
  }
  seen.size = up(std::max<int64_t>(stop - key, 0), 32);
  seen.whole = seen.whole && key + seen.size <= sight.keys;
  return seen;
}

// Sets the scores of hidden keys, [size][kQueries] of keys and queries, to kHidden.
inline void hide(const Sight& sight, int64_t query, int64_t key, int64_t size, float* scores) {
  int32_t at[kQueries], document[kQueries];
  constexpr int64_t kFar = std::numeric_limits<int32_t>::max();
  for (int64_t t = 0; t < kQueries; ++t) {
    at[t] = int32_t(sight.start + query + t);
    document[t] = sight.query_segments && query + t < sight.queries ? sight.query_segments[query + t] : 0;
  }
  for (int64_t s = 0; s < size; ++s) {
    float* row = scores + s * kQueries;
    const int64_t here = key + s;
    if (here >= sight.keys) {
      for (int64_t t = 0; t < kQueries; ++t) row[t] = kHidden;
      continue;
    }
    if (sight.causal && here >= sight.prefix) {
      const int32_t low = int32_t(here);
      const int32_t high = int32_t(sight.window ? std::min(here + std::min(sight.window, kFar) - 1, kFar) : kFar);
      for (int64_t t = 0; t < kQueries; ++t) row[t] = (at[t] >= low) & (at[t] <= high) ? row[t] : kHidden;
    }
    if (sight.query_segments) {
      const int32_t own = sight.key_segments[here];
      if (!own) {
        for (int64_t t = 0; t < kQueries; ++t) row[t] = kHidden;
      } else {
        for (int64_t t = 0; t < kQueries; ++t) row[t] = document[t] == own ? row[t] : kHidden;
      }
    }
  }
}

}  // namespace
}  // namespace cupola::attention
