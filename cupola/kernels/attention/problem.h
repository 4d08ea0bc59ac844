// What attention is asked for, and memory for a task to work in.
#pragma once

#include "attention/multiply.h"
#include "attention/sight.h"

namespace cupola::attention {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

// A buffer [B, N, H, C] of float32 or bfloat16.
struct Tensor {
  void* data;
  bool half;
  int64_t length, heads, width;
};

template <class Buffer>
Tensor tensor(Buffer&& buffer) {
  const auto dims = buffer.dimensions();
  return {buffer.untyped_data(), buffer.element_type() == ffi::BF16, dims[1], dims[2], dims[3]};
}

inline Rows rows_of(const Tensor& x, int64_t batch, int64_t head) {
  const int64_t first = (batch * x.length * x.heads + head) * x.width;
  return {static_cast<char*>(x.data) + first * (x.half ? 2 : 4), x.half, x.heads * x.width, x.width};
}

struct Problem {
  int64_t batch, queries, keys, heads, groups, width;
  int64_t padded;  // the width in 32s
  Tensor query, key, value;
  const int32_t *query_segments, *key_segments;  // or null
  const int32_t *start, *prefix;
  const float* sinks;  // or null
  float scale, cap;    // no cap: 0
  bool causal;
  int64_t window;
  float sign, factor;

  // What a score, as it stands in a block, is multiplied by to be an exponent of two.
  float exponent() const { return (cap ? cap : factor) * kLog2E; }
  const int32_t* asking(int64_t b) const { return query_segments ? query_segments + b * queries : nullptr; }
  const int32_t* held(int64_t b) const { return key_segments ? key_segments + b * keys : nullptr; }
  Sight sight(int64_t b) const { return {queries, keys, causal, window, start[b], prefix[b], asking(b), held(b)}; }
};

// Memory of this thread, kept from one task to the next; `take` cuts it up.
class Arena {
 public:
  explicit Arena(int64_t words) {
    thread_local std::unique_ptr<float, decltype(&std::free)> held(nullptr, &std::free);
    thread_local int64_t size = 0;
    if (size < words) {
      held.reset(static_cast<float*>(std::aligned_alloc(64, size_t(up(words, 16)) * sizeof(float))));
      size = words;
    }
    next_ = held.get();
  }
  float* take(int64_t words) {
    float* out = next_;
    next_ += up(words, 16);
    return out;
  }

 private:
  float* next_;
};

// Computes the scores of a block, [size][kQueries]: products as they are, or a soft cap's tanh; hidden ones kHidden.
template <class Operand>
void score(const Problem& p, const Sight& sight, const Seen& seen, int64_t query, int64_t key, Words keys, Words queries,
           float* scores) {
  multiply<Operand, false>(keys, queries, {scores, kQueries}, seen.size, kQueries, p.padded / Operand::kPer);
  if (p.cap) {
    const Floats by = all(p.factor / p.cap);
    for (int64_t i = 0; i < seen.size * kQueries; i += kWide) store(scores + i, tanh_of(load(scores + i) * by));
  }
  if (!seen.whole) hide(sight, query, key, seen.size, scores);
}

}  // namespace
}  // namespace cupola::attention
