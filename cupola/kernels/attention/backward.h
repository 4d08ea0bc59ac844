// Gradients, one head at a time: scores again from the kept top and total, then all three gradients from one block.
#pragma once

#include "attention/problem.h"

namespace cupola::attention {
namespace {

// What the gradient is made from and where it goes; for_key and for_value have a head for each query head.
struct Gradients {
  Tensor out;
  const float* kept;
  Tensor given, for_query, for_key, for_value;
  float* drift;  // [B, H, T]
};

// Turns a block's scores and the gradient of its weights, [size][kQueries], into operands: the weights and the scores'
// gradient as rows over queries (a left operand), and the latter as words over keys (a right one).
template <class Operand>
void weigh(const Problem& p, const float* scores, const float* for_weights, int64_t size, const float* top,
           const float* total, const float* drift, float* weights, float* for_scores, float* across) {
  const Floats by = all(p.exponent());
  const bool capped = p.cap != 0;
  for (int64_t t = 0; t < kQueries; t += kWide) {
    const Floats highest = load(top + t), share = load(total + t), off = load(drift + t);
    for (int64_t s = 0; s < size; s += 2) {
      Floats weight[2], slope[2];
      for (int64_t i = 0; i < 2; ++i) {
        const Floats raw = load(scores + (s + i) * kQueries + t);
        weight[i] = power_of_two<Operand::kExact>((raw - highest) * by);
        weight[i] = Operand::kExact ? weight[i] / share : weight[i] * share;
        slope[i] = weight[i] * (load(for_weights + (s + i) * kQueries + t) - off);
        // What is hidden lies far below -1: no slope there.
        if (capped) slope[i] = slope[i] * larger(all(1) - raw * raw, all(0));
      }
#if CUPOLA_LEVEL >= 3
      if constexpr (Operand::kPer == 2) {
        const __m512i weighed = two_rows(weight[0], weight[1]), sloped = two_rows(slope[0], slope[1]);
        float *to = weights + (s * kQueries + t) / 2, *down = for_scores + (s * kQueries + t) / 2;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_castsi512_si256(weighed));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + kQueries / 2), _mm512_extracti64x4_epi64(weighed, 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(down), _mm512_castsi512_si256(sloped));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(down + kQueries / 2), _mm512_extracti64x4_epi64(sloped, 1));
        _mm512_storeu_si512(across + s / 2 * kQueries + t, interleaved(sloped));
        continue;
      }
#endif
      store_summed<Operand>(weights + s * kQueries + t, kQueries, weight[0], weight[1]);
      store_summed<Operand>(for_scores + s * kQueries + t, kQueries, slope[0], slope[1]);
    }
  }
  (void)across;
}

// The queries of one head and the gradient that comes in, packed a block after the other.
struct Asked {
  float *across, *given_across;  // right operands of the scores and of the weights' gradient
  float *pairs, *given_pairs;    // right operands of the keys' and of the values' gradient
  float *top, *total, *drift;    // [queries in blocks]; one over the total where weights are rounded
  float* gradient;               // of the queries, [block][padded][kQueries]
};

template <class Operand>
void pack_queries(const Problem& p, const Gradients& to, int64_t b, int64_t head, Asked asked, float* rows) {
  const int64_t words = p.padded / Operand::kPer, block = kQueries * words, all_rows = p.batch * p.heads * p.queries;
  const int64_t first = (b * p.heads + head) * p.queries;
  const Rows out = rows_of(to.out, b, head), given = rows_of(to.given, b, head);
  float* line = rows + block;
  for (int64_t query = 0; query < p.queries; query += kQueries) {
    const int64_t at = query / kQueries * block;
    // Where rows and pairs are the same words, they are packed where they are needed.
    float* target = Operand::kPer == 1 ? asked.pairs + at : rows;
    pack_rows<Operand>(rows_of(p.query, b, head), query, p.queries, kQueries, p.asking(b), p.sign, p.padded, target);
    transpose(target, kQueries, words, asked.across + at);
    pack_pairs<Operand>(target, kQueries, p.padded, asked.pairs + at);
    target = Operand::kPer == 1 ? asked.given_pairs + at : rows;
    pack_rows<Operand>(given, query, p.queries, kQueries, p.asking(b), 1, p.padded, target);
    transpose(target, kQueries, words, asked.given_across + at);
    pack_pairs<Operand>(target, kQueries, p.padded, asked.given_pairs + at);
    for (int64_t i = query; i < query + kQueries; ++i) {
      asked.top[i] = asked.drift[i] = 0;
      asked.total[i] = 1;
      if (i >= p.queries) continue;
      to.drift[first + i] = 0;
      if (p.query_segments && !p.asking(b)[i]) continue;
      float *one = line, *other = line + p.padded, sums[16] = {};
      read(out, i, one);
      read(given, i, other);
      for (int64_t c = p.width; c < p.padded; ++c) one[c] = other[c] = 0;
      float sum = 0;
      if (Operand::kExact) {
        // In the order of the product with the values, so that where one key is all, nothing is left of the difference.
        for (int64_t c = 0; c < p.width; ++c) sum = std::fma(one[c], other[c], sum);
      } else {
        for (int64_t c = 0; c < p.padded; c += 16)
          for (int64_t j = 0; j < 16; ++j) sums[j] += one[c + j] * other[c + j];
        for (float each : sums) sum += each;
      }
      asked.top[i] = to.kept[first + i];
      const float total = to.kept[all_rows + first + i];
      if (total != 0) asked.total[i] = Operand::kExact ? total : 1 / total;
      asked.drift[i] = to.drift[first + i] = sum;
    }
  }
}

// Writes a block of rows of a gradient, each number times `by`.
inline void write_rows(const Rows& to, int64_t first, int64_t count, float* from, int64_t padded, float by) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < to.width; ++c) from[i * padded + c] *= by;
    write(to, first + i, from + i * padded);
  }
}

// Writes the gradients of a head's queries, which stand across.
inline void write_queries(const Problem& p, const Tensor& to, int64_t b, int64_t head, const float* across, float* rows) {
  for (int64_t query = 0; query < p.queries; query += kQueries) {
    transpose(across + query * p.padded, p.padded, kQueries, rows);
    write_rows(rows_of(to, b, head), query, std::min(kQueries, p.queries - query), rows, p.padded, p.scale);
  }
}

template <class Operand>
void differentiate_head(const Problem& p, const Gradients& to, int64_t b, int64_t head) {
  const int64_t words = p.padded / Operand::kPer, query_block = kQueries * words, key_block = kKeys * words;
  const int64_t rows_of_queries = up(p.queries, kQueries), all_words = rows_of_queries * words;
  const int64_t whole = kKeys * p.padded, square = kKeys * kQueries, spare = kQueries * words + 2 * p.padded;
  Arena arena(4 * all_words + 3 * rows_of_queries + rows_of_queries * p.padded + 4 * (key_block + p.padded) +
              2 * whole + 5 * square + spare + kQueries * p.padded + 25 * 16);
  const Asked asked{arena.take(all_words),       arena.take(all_words),       arena.take(all_words),
                    arena.take(all_words),       arena.take(rows_of_queries), arena.take(rows_of_queries),
                    arena.take(rows_of_queries), arena.take(rows_of_queries * p.padded)};
  float *keys = arena.take(key_block + p.padded), *values = arena.take(key_block + p.padded);
  float *pairs = arena.take(key_block + p.padded), *keys_across = arena.take(key_block);
  float *for_key = arena.take(whole), *for_value = arena.take(whole);
  float *scores = arena.take(square), *for_weights = arena.take(square), *weights = arena.take(square);
  float *for_scores = arena.take(square), *across = arena.take(square), *rows = arena.take(spare);
  float* turned = arena.take(kQueries * p.padded);
  pack_queries<Operand>(p, to, b, head, asked, rows);
  std::memset(asked.gradient, 0, size_t(rows_of_queries * p.padded) * sizeof(float));
  const Sight sight = p.sight(b);
  const int64_t group = head / (p.heads / p.groups);
  for (int64_t key = 0; key < p.keys; key += kKeys) {
    pack_rows<Operand>(rows_of(p.key, b, group), key, p.keys, kKeys, p.held(b), 1, p.padded, keys);
    pack_rows<Operand>(rows_of(p.value, b, group), key, p.keys, kKeys, p.held(b), 1, p.padded, values);
    transpose(pack_pairs<Operand>(keys, kKeys, p.padded, pairs), kKeys / Operand::kPer, p.padded, keys_across);
    std::memset(for_key, 0, size_t(whole) * sizeof(float));
    std::memset(for_value, 0, size_t(whole) * sizeof(float));
    for (int64_t query = 0; query < p.queries; query += kQueries) {
      const Seen seen = look(sight, query, key);
      if (!seen.any) continue;
      const int64_t at = query / kQueries * query_block, per = Operand::kPer;
      score<Operand>(p, sight, seen, query, key, {keys, words}, {asked.across + at, kQueries}, scores);
      multiply<Operand, false>({values, words}, {asked.given_across + at, kQueries}, {for_weights, kQueries}, seen.size,
                               kQueries, words);
      weigh<Operand>(p, scores, for_weights, seen.size, asked.top + query, asked.total + query, asked.drift + query,
                     weights, for_scores, across);
      multiply<Operand, true>({weights, kQueries / per}, {asked.given_pairs + at, p.padded}, {for_value, p.padded},
                              seen.size, p.padded, kQueries / per);
      multiply<Operand, true>({for_scores, kQueries / per}, {asked.pairs + at, p.padded}, {for_key, p.padded},
                              seen.size, p.padded, kQueries / per);
      multiply<Operand, true>({keys_across, kKeys / per}, {per == 2 ? across : for_scores, kQueries},
                              {asked.gradient + query * p.padded, kQueries}, p.padded, kQueries, seen.size / per);
    }
    const int64_t count = std::min(kKeys, p.keys - key);
    write_rows(rows_of(to.for_key, b, head), key, count, for_key, p.padded, p.scale == 0 ? 0 : p.factor);
    write_rows(rows_of(to.for_value, b, head), key, count, for_value, p.padded, 1);
  }
  write_queries(p, to.for_query, b, head, asked.gradient, turned);
}

template <class Operand>
void differentiate(ffi::ThreadPool& pool, const Problem& p, const Gradients& to) {
  parallel(pool, p.batch * p.heads, [&](int64_t task) {
    const Tiles tiles;
    differentiate_head<Operand>(p, to, task / p.heads, task % p.heads);
  });
}

}  // namespace
}  // namespace cupola::attention
