// The rotation of pairs.
#include <vector>

#include "native/rows.h"

namespace cupola::rotary {
namespace {

using namespace cupola::rows;

constexpr int64_t kPositions = 16;

// Halves: number i with number i + pairs.
template <typename T>
void turn_halves(const T* x, const float* cos, const float* sin, float way, int64_t pairs, T* out) {
  over(pairs, [&](int64_t i, auto count) {
    const Floats a = load(x + i, count), b = load(x + pairs + i, count);
    const Floats c = load(cos + i, count), s = load(sin + i, count) * all(way);
    store(out + i, a * c - b * s, count);
    store(out + pairs + i, multiply_add(b, c, a * s), count);
  });
}

// Neighbours: number 2i with number 2i + 1; each cosine and sine stands twice.
template <typename T>
void turn_neighbours(const T* x, const float* cos, const float* sin, int64_t pairs, T* out) {
  over(2 * pairs, [&](int64_t i, auto count) {
    const Floats both = load(x + i, count);
    store(out + i, multiply_add_alternating(both, load(cos + i, count), swapped(both) * load(sin + i, count)), count);
  });
}

ffi::Error rotate(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> cos, ffi::Buffer<ffi::F32> sin,
                  int32_t neighbours, float way, ffi::Result<ffi::AnyBuffer> out) {
  const auto dims = x.dimensions(), angles = cos.dimensions();
  const int64_t length = dims[1], heads = dims[2], width = dims[3], pairs = angles[2];
  const int64_t places = x.element_count() ? dims[0] * length : 0;
  const bool known = with_type(x.element_type(), [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x.untyped_data());
    T* to = static_cast<T*>(out->untyped_data());
    parallel(pool, (places + kPositions - 1) / kPositions, [&](int64_t block) {
      std::vector<float> twice(neighbours ? 2 * width : 0);
      for (int64_t place = block * kPositions; place < std::min(places, (block + 1) * kPositions); ++place) {
        const int64_t angle = (angles[0] == 1 ? place % length : place) * pairs;
        const float *c = cos.typed_data() + angle, *s = sin.typed_data() + angle;
        for (int64_t i = 0; i < int64_t(twice.size()) / 2; ++i) {
          twice[i] = c[i / 2];
          twice[width + i] = s[i / 2] * way;
        }
        for (int64_t head = 0; head < heads; ++head) {
          const int64_t at = (place * heads + head) * width;
          if (neighbours)
            turn_neighbours(from + at, twice.data(), twice.data() + width, pairs, to + at);
          else
            turn_halves(from + at, c, s, way, pairs, to + at);
        }
      }
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(rotate, rotate,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Attr<int32_t>("neighbours")
                  .Attr<float>("way")
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::rotary
