// The mixtures, block by block, rescaled whenever a larger score is found.
#pragma once

#include "attention/problem.h"

namespace cupola::attention {
namespace {

// The running softmax of a block of queries.
struct Running {
  float *top, *total;  // [kQueries]
  float* out;          // [padded][kQueries]
};

// Takes the scores of a block in: weights as a right operand's words, sums, and what was gathered rescaled.
template <class Operand>
void soften(const float* scores, int64_t size, int64_t width, float exponent, Running run, float* weights) {
  constexpr int64_t kAtOnce = 4;
  const Floats by = all(exponent);
  for (int64_t t = 0; t < kQueries; t += kAtOnce * kWide) {
    Floats top[kAtOnce], total[kAtOnce], shrink[kAtOnce];
    for (int64_t j = 0; j < kAtOnce; ++j) top[j] = all(kHidden);
    for (int64_t s = 0; s < size; ++s)
      for (int64_t j = 0; j < kAtOnce; ++j) top[j] = larger(top[j], load(scores + s * kQueries + t + j * kWide));
    bool grown = false;
    for (int64_t j = 0; j < kAtOnce; ++j) {
      const Floats before = load(run.top + t + j * kWide);
      top[j] = larger(before, top[j]);
      shrink[j] = power_of_two<true>((before - top[j]) * by);
      total[j] = load(run.total + t + j * kWide) * shrink[j];
      grown = grown || differ(before, top[j]);
      store(run.top + t + j * kWide, top[j]);
    }
    for (int64_t s = 0; s < size; s += 2) {
      float* to = weights + s / Operand::kPer * kQueries + t;
      for (int64_t j = 0; j < kAtOnce; ++j) {
        const float* from = scores + s * kQueries + t + j * kWide;
        const Floats first = power_of_two<Operand::kExact>((load(from) - top[j]) * by);
        const Floats second = power_of_two<Operand::kExact>((load(from + kQueries) - top[j]) * by);
        total[j] += first + second;
        store_summed<Operand>(to + j * kWide, kQueries, first, second);
      }
    }
    for (int64_t j = 0; j < kAtOnce; ++j) store(run.total + t + j * kWide, total[j]);
    if (!grown) continue;
    for (int64_t c = 0; c < width; ++c)
      for (int64_t j = 0; j < kAtOnce; ++j) {
        float* each = run.out + c * kQueries + t + j * kWide;
        store(each, load(each) * shrink[j]);
      }
  }
}

// Keys and values of one key head, packed: rows of keys, and values across, a block after the other.
template <class Operand>
struct Packed {
  float *keys, *across;
};

template <class Operand>
void pack_keys(const Problem& p, int64_t b, int64_t group, Packed<Operand> to, float* rows, float* pairs) {
  const int64_t block = kKeys * p.padded / Operand::kPer;
  for (int64_t key = 0; key < p.keys; key += kKeys) {
    const int64_t at = key / kKeys * block;
    pack_rows<Operand>(rows_of(p.key, b, group), key, p.keys, kKeys, p.held(b), 1, p.padded, to.keys + at);
    pack_rows<Operand>(rows_of(p.value, b, group), key, p.keys, kKeys, p.held(b), 1, p.padded, rows);
    const float* paired = pack_pairs<Operand>(rows, kKeys, p.padded, pairs);
    transpose(paired, kKeys / Operand::kPer, p.padded, to.across + at);
  }
}

// Attends with one block of queries of one head.
template <class Operand>
void attend_block(const Problem& p, int64_t b, int64_t head, int64_t query, Packed<Operand> packed, Arena arena,
                  const Tensor& out, float* kept) {
  const int64_t words = p.padded / Operand::kPer, block = kKeys * words;
  float *rows = arena.take(kQueries * words + p.padded), *asked = arena.take(kQueries * words);
  float *scores = arena.take(kKeys * kQueries), *weights = arena.take(kKeys * kQueries);
  Running run{arena.take(kQueries), arena.take(kQueries), arena.take(p.padded * kQueries)};
  pack_rows<Operand>(rows_of(p.query, b, head), query, p.queries, kQueries, p.asking(b), p.sign, p.padded, rows);
  transpose(rows, kQueries, words, asked);
  // The top is kept as scores stand, before the exponent: the largest one's weight is 1, and not 1 and a rounding.
  const float exponent = p.exponent(), sink = p.sinks ? p.sinks[head] / (p.cap ? p.cap : p.factor) : kHidden;
  for (int64_t t = 0; t < kQueries; ++t) {
    run.top[t] = std::max(sink, kHidden / 2);
    run.total[t] = sink > kHidden / 2 ? 1 : 0;
  }
  std::memset(run.out, 0, size_t(p.padded * kQueries) * sizeof(float));
  const Sight sight = p.sight(b);
  for (int64_t key = 0; key < p.keys; key += kKeys) {
    const Seen seen = look(sight, query, key);
    if (!seen.any) continue;
    const int64_t at = key / kKeys * block;
    score<Operand>(p, sight, seen, query, key, {packed.keys + at, words}, {asked, kQueries}, scores);
    soften<Operand>(scores, seen.size, p.padded, exponent, run, weights);
    multiply<Operand, true>({packed.across + at, kKeys / Operand::kPer}, {weights, kQueries}, {run.out, kQueries},
                            p.padded, kQueries, seen.size / Operand::kPer);
  }
  const int64_t count = std::min(kQueries, p.queries - query), all_rows = p.batch * p.heads * p.queries;
  float *top = kept + (b * p.heads + head) * p.queries + query, *total = top + all_rows;
  float* turned = scores;
  for (int64_t c = 0; c < p.padded; c += kKeys) {
    // A part of the width at a time: what is turned lies where the scores were.
    const int64_t width = std::min(kKeys, p.padded - c);
    transpose(run.out + c * kQueries, width, kQueries, turned);
    for (int64_t t = 0; t < count; ++t) {
      const float by = run.total[t] == 0 ? 1 : run.total[t];
      for (int64_t i = 0; i < width; ++i) turned[t * width + i] /= by;
      top[t] = run.top[t];
      total[t] = run.total[t];
      Rows to = rows_of(out, b, head);
      to.data = static_cast<const char*>(to.data) + c * (to.half ? 2 : 4);
      to.width = std::min(width, p.width - c);
      write(to, query + t, turned + t * width);
    }
  }
}

template <class Operand>
void attend(ffi::ThreadPool& pool, const Problem& p, const Tensor& out, float* kept) {
  const int64_t repeats = p.heads / p.groups, blocks = up(p.queries, kQueries) / kQueries;
  const int64_t items = repeats * blocks, heads = p.batch * p.groups;
  // A part packs the keys for itself: few parts where there are heads enough for every thread.
  const int64_t parts = std::clamp<int64_t>(up(4 * pool.num_threads(), heads) / heads, 1, items);
  const int64_t words = p.padded / Operand::kPer, held = up(p.keys, kKeys) * words;
  const int64_t pack = kKeys * words + p.padded;
  const int64_t block = 2 * kQueries * words + p.padded + 2 * kKeys * kQueries + 2 * kQueries + p.padded * kQueries;
  parallel(pool, heads * parts, [&](int64_t task) {
    const Tiles tiles;
    const int64_t b = task / parts / p.groups, group = task / parts % p.groups;
    Arena arena(2 * held + p.padded + 2 * pack + block + 16 * 16);
    const Packed<Operand> packed{arena.take(held + p.padded), arena.take(held)};
    {
      Arena own = arena;
      float* rows = own.take(pack);
      pack_keys<Operand>(p, b, group, packed, rows, own.take(pack));
    }
    for (int64_t item = task % parts; item < items; item += parts)
      attend_block<Operand>(p, b, group * repeats + item / blocks, item % blocks * kQueries, packed, arena, out, kept);
  });
}

}  // namespace
}  // namespace cupola::attention
