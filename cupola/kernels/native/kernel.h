// What every kernel starts from: XLA's interface, bfloat16, threads.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace cupola {

namespace ffi = xla::ffi;

// Binds a function to a name that Python finds: CUPOLA_KERNEL(name, function, ffi::Ffi::Bind()...).
#define CUPOLA_KERNEL(name, function, ...)                                                                   \
  extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* cupola_##name(XLA_FFI_CallFrame* frame); \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(cupola_##name, function, __VA_ARGS__)

using bfloat16 = uint16_t;

inline float widen(bfloat16 x) {
  const uint32_t bits = uint32_t{x} << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

// To the nearest, ties to even; a NaN stays one.
inline bfloat16 narrow(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline const bfloat16* as_bfloat16(const void* data) { return static_cast<const bfloat16*>(data); }
inline bfloat16* as_bfloat16(void* data) { return static_cast<bfloat16*>(data); }

// Memory of this thread, kept from one task to the next; what it held before is lost.
inline bfloat16* own_memory(int64_t numbers) {
  thread_local std::unique_ptr<bfloat16, decltype(&std::free)> held(nullptr, &std::free);
  thread_local int64_t size = 0;
  if (size < numbers) {
    held.reset(static_cast<bfloat16*>(std::aligned_alloc(64, size_t((numbers + 31) / 32 * 32) * sizeof(bfloat16))));
    size = numbers;
  }
  return held.get();
}

constexpr int kPatience = 256;  // pauses, some microseconds: others end their last piece in that time

// Calls body(i) once for each i in [0, count), on XLA's threads and on this one. Who does which i is left to chance, so
// a body writes what no other one writes. This thread does all of it where the others are busy: waiting for them could
// be waiting for oneself.
template <typename Body>
void parallel(ffi::ThreadPool& pool, int64_t count, const Body& body) {
  const int64_t threads = std::min<int64_t>(pool.num_threads(), count);
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  struct Work {
    std::atomic<int64_t> next{0}, done{0};
    int64_t count;
    const Body* body;
    // Whoever comes after the end touches nothing but the counters.
    void run() {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
        (*body)(i);
        done.fetch_add(1, std::memory_order_release);
      }
    }
  };
  auto work = std::make_shared<Work>();
  work->count = count;
  work->body = &body;
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([work] { work->run(); });
  work->run();
  // Where more threads run than there are processors, the one that is waited for may need this one's.
  for (int turns = 0; work->done.load(std::memory_order_acquire) < count; ++turns) {
    if (turns < kPatience)
      _mm_pause();
    else
      sched_yield();
  }
}

}  // namespace cupola
