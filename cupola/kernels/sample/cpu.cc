// Drawing a token of each row, and the logarithm of the sum of its exponentials. A row is one thread's from beginning to
// end, so that its bits depend on nothing else.
#include <functional>
#include <vector>

#include "native/rows.h"

namespace cupola::sample {
namespace {

using namespace cupola::rows;

// A draw finds the block, then the token in it.
constexpr int64_t kBlock = 256;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Two words of random bits from a key and a counter. Source: Salmon et al. 2011, Threefry-2x32 of 20 rounds.
struct Words {
  uint32_t high, low;
};
Words threefry(Words key, Words counter) {
  constexpr int kTurns[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key.high, key.low, key.high ^ key.low ^ 0x1BD11BDA};
  uint32_t a = counter.high + keys[0], b = counter.low + keys[1];
  for (uint32_t group = 0; group < 5; ++group) {
    for (const int turn : kTurns[group % 2]) {
      a += b;
      b = (b << turn | b >> (32 - turn)) ^ a;
    }
    a += keys[(group + 1) % 3];
    b += keys[(group + 2) % 3] + group + 1;
  }
  return {a, b};
}
// The number at a place of those that jax draws by a key, uniform in [0, 1).
float uniform(Words key, uint32_t place) {
  const Words bits = threefry(key, {0, place});
  const uint32_t one = (bits.high ^ bits.low) >> 9 | 0x3f800000;
  float out;
  std::memcpy(&out, &one, sizeof out);
  return out - 1;
}

// What one row is drawn by.
struct Settings {
  float temperature, top_p, min_p;
  int64_t top_k;
  Words key;
};

// Memory that is kept from row to row.
struct Room {
  std::vector<float> peaks, tops, found, weights, sums;
};

// A vector whose lanes behind the end of a row are as given.
inline Floats ended(Floats x, std::integral_constant<int64_t, kLanes>, float) { return x; }
inline Floats ended(Floats x, int64_t count, float behind) {
  float last[kLanes];
  store(last, all(behind));
  store(last, x, count);
  return load(last);
}

// The largest of each lane of each block, NaN apart.
template <typename T>
void find_peaks(const T* logits, int64_t count, std::vector<float>& peaks) {
  peaks.resize(size_t((count + kBlock - 1) / kBlock * kLanes));
  for (int64_t start = 0; start < count; start += kBlock) {
    Floats peak = all(kNothing);
    over(std::min(kBlock, count - start), [&](int64_t i, auto few) {
      // Of a number and a NaN in this order the larger one is the number.
      peak = larger(ended(load(logits + start + i, few), few, kNothing), peak);
    });
    store(peaks.data() + start / kBlock * kLanes, peak);
  }
}

template <typename T>
inline float number(const T* logits, int64_t i) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return widen(logits[i]);
  else
    return logits[i];
}

// The lowest token of the largest logit; 0 where no logit is a number.
template <typename T>
int64_t likeliest(const T* logits, int64_t count, const std::vector<float>& peaks, float peak) {
  const int64_t lane = std::find(peaks.begin(), peaks.end(), peak) - peaks.begin();
  for (int64_t i = lane / kLanes * kBlock; i < count; ++i)
    if (number(logits, i) == peak) return i;
  return 0;
}

// The k-th largest of numbers, which it puts in another order.
inline float largest(std::vector<float>& values, int64_t k) {
  std::nth_element(values.begin(), values.begin() + k - 1, values.end(), std::greater<float>());
  return values[size_t(k) - 1];
}

// The k-th largest logit; of fewer than k numbers, what is below all of them. At least k logits reach the k-th largest
// of the peaks of blocks, or of their lanes, and few others do.
template <typename T>
float kth(const T* logits, int64_t count, int64_t k, Room& room) {
  const int64_t lanes = int64_t(room.peaks.size()), blocks = lanes / kLanes;
  room.tops.resize(size_t(blocks));
  for (int64_t block = 0; block < blocks; ++block) {
    const float* peaks = room.peaks.data() + block * kLanes;
    room.tops[size_t(block)] = *std::max_element(peaks, peaks + kLanes);
  }
  float least = kNothing;
  if (k <= lanes) {
    const std::vector<float>& peaks = k <= blocks ? room.tops : room.peaks;
    room.found.assign(peaks.begin(), peaks.end());
    least = largest(room.found, k);
  }
  room.found.clear();
  for (int64_t block = 0; block < blocks; ++block) {
    if (room.tops[size_t(block)] < least) continue;
    for (int64_t i = block * kBlock; i < std::min(count, (block + 1) * kBlock); ++i)
      if (const float x = number(logits, i); x >= least) room.found.push_back(x);
  }
  return k <= int64_t(room.found.size()) ? largest(room.found, k) : kNothing;
}

// Numbers that are at least, or above, a bound, and 0 for the others.
inline Floats reaching(Floats x, Floats bound, Floats value) {
#if CUPOLA_LEVEL >= 2
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ), value);
#else
  return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_GE_OQ), value);
#endif
}
inline Floats above(Floats x, Floats bound, Floats value) {
#if CUPOLA_LEVEL >= 2
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GT_OQ), value);
#else
  return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_GT_OQ), value);
#endif
}

// The sum over each block of what `each(at, count)` gives for its vectors.
template <typename Each>
void sum_blocks(int64_t count, std::vector<float>& sums, const Each& each) {
  sums.resize(size_t((count + kBlock - 1) / kBlock));
  for (int64_t start = 0; start < count; start += kBlock) {
    Sum sum;
    over(std::min(kBlock, count - start), [&](int64_t i, auto few) {
      sum.part[i / kLanes % 4] += ended(each(start + i, few), few, 0);
    });
    sums[size_t(start / kBlock)] = sum.total();
  }
}
double total(const std::vector<float>& sums) {
  double sum = 0;
  for (const float each : sums) sum += double(each);
  return sum;
}

// Inverts the distribution function of weights above a bound; a weight of 0 is never picked, however sums are rounded.
int64_t pick(const float* weights, int64_t count, float bound, float random) {
  double whole = 0, heap = 0;
  for (int64_t i = 0; i < count; ++i)
    if (weights[i] > bound) whole += double(weights[i]);
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i)
    if (weights[i] > bound) {
      heap += double(weights[i]);
      last = i;
      if (heap > double(random) * whole) return i;
    }
  return last;
}
int64_t pick_token(const Room& room, int64_t count, float bound, Words key) {
  const int64_t start = kBlock * pick(room.sums.data(), int64_t(room.sums.size()), 0, uniform(key, 0));
  return start + pick(room.weights.data() + start, std::min(kBlock, count - start), bound, uniform(key, 1));
}

template <typename T>
int64_t draw(const T* logits, int64_t count, const Settings& how, Room& room) {
  find_peaks(logits, count, room.peaks);
  const float peak = *std::max_element(room.peaks.begin(), room.peaks.end());
  const int64_t first = likeliest(logits, count, room.peaks, peak);
  if (!(how.temperature > 0)) return first;
  const float least = how.top_k > 0 ? kth(logits, count, how.top_k, room) : kNothing;
  // Below this an exponential is nothing; the logit of what may not be drawn is there too.
  const Floats nothing = all(-87.0f);
  room.weights.resize(size_t(count));
  float* weights = room.weights.data();
  sum_blocks(count, room.sums, [&](int64_t i, auto few) {
    const Floats x = load(logits + i, few), far = (x - all(peak)) / all(how.temperature);
    const Floats weight = reaching(x, all(least), reaching(far, nothing, exponential(far)));
    store(weights + i, weight, few);
    return weight;
  });
  const double limit = how.top_p < 1 ? double(how.top_p) * total(room.sums) : std::numeric_limits<double>::infinity();
  if (how.min_p > 0)
    sum_blocks(count, room.sums, [&](int64_t i, auto few) {
      const Floats weight = load(weights + i, few), kept = reaching(weight, all(how.min_p), weight);
      store(weights + i, kept, few);
      return kept;
    });
  if (!(total(room.sums) > 0)) return first;
  float bound = 0;
  for (uint32_t round = 0;; ++round) {
    const int64_t token = pick_token(room, count, bound, threefry(how.key, {0, round}));
    if (!(how.top_p < 1)) return token;
    bound = weights[token];
    sum_blocks(count, room.sums, [&](int64_t i, auto few) {
      const Floats weight = load(weights + i, few);
      return above(weight, all(bound), weight);
    });
    if (!(total(room.sums) >= limit && total(room.sums) > 0)) return token;
  }
}

ffi::Error draw_rows(ffi::ThreadPool pool, ffi::AnyBuffer logits, ffi::Buffer<ffi::F32> temperature,
                     ffi::Buffer<ffi::S32> top_k, ffi::Buffer<ffi::F32> top_p, ffi::Buffer<ffi::F32> min_p,
                     ffi::Buffer<ffi::U32> seed, ffi::Buffer<ffi::S32> position, ffi::ResultBuffer<ffi::S32> tokens,
                     int64_t vocabulary) {
  const int64_t rows = logits.dimensions()[0], stride = logits.dimensions()[1];
  if (vocabulary < 1 || vocabulary > stride) return ffi::Error::InvalidArgument("there are not as many logits");
  const bool known = with_type(logits.element_type(), [&](auto type) {
    const auto* from = static_cast<const decltype(type)*>(logits.untyped_data());
    parallel(pool, rows, [&](int64_t row) {
      thread_local Room room;
      const Words base = {seed.typed_data()[2 * row], seed.typed_data()[2 * row + 1]};
      const Settings how = {temperature.typed_data()[row], top_p.typed_data()[row], min_p.typed_data()[row],
                            top_k.typed_data()[row], threefry(base, {0, uint32_t(position.typed_data()[row])})};
      tokens->typed_data()[row] = int32_t(draw(from + row * stride, vocabulary, how, room));
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

// The logarithm of the sum of the exponentials of a row.
template <typename T>
float log_sum(const T* logits, int64_t count, Room& room) {
  find_peaks(logits, count, room.peaks);
  const float peak = *std::max_element(room.peaks.begin(), room.peaks.end());
  sum_blocks(count, room.sums, [&](int64_t i, auto few) { return exponential(load(logits + i, few) - all(peak)); });
  return peak + float(std::log(total(room.sums)));
}

ffi::Error log_sums(ffi::ThreadPool pool, ffi::AnyBuffer logits, ffi::ResultBuffer<ffi::F32> out, int64_t vocabulary) {
  const int64_t rows = logits.dimensions()[0], stride = logits.dimensions()[1];
  if (vocabulary < 1 || vocabulary > stride) return ffi::Error::InvalidArgument("there are not as many logits");
  const bool known = with_type(logits.element_type(), [&](auto type) {
    const auto* from = static_cast<const decltype(type)*>(logits.untyped_data());
    parallel(pool, rows, [&](int64_t row) {
      thread_local Room room;
      out->typed_data()[row] = log_sum(from + row * stride, vocabulary, room);
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(draw, draw_rows,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::U32>>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Ret<ffi::Buffer<ffi::S32>>()
                  .Attr<int64_t>("vocabulary"));

CUPOLA_KERNEL(log_sum, log_sums,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Attr<int64_t>("vocabulary"));

}  // namespace cupola::sample
