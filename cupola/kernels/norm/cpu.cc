// Normalization of rows, with or without a residual that is added first.
#include "native/rows.h"

namespace cupola::norm {
namespace {

using namespace cupola::rows;

constexpr int64_t kRows = 16;

struct Statistics {
  float mean, inverse;
};

// Mean (0 where rows are not centred) and the inverse of the deviation from it.
template <typename T>
Statistics statistics_of(const T* row, int64_t width, float epsilon, bool centred) {
  float mean = 0;
  if (centred) {
    Sum sum;
    over(width, [&](int64_t i, auto count) { sum.part[i / kLanes % 4] += load(row + i, count); });
    mean = sum.total() / float(width);
  }
  Sum squares;
  const int64_t whole = width - width % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats x = load(row + i) - all(mean);
    Floats& part = squares.part[i / kLanes % 4];
    part = multiply_add(x, x, part);
  }
  float sum = squares.total();
  for (int64_t i = whole; i < width; ++i) {
    const float x = (sizeof(T) == 2 ? widen(bfloat16(row[i])) : float(row[i])) - mean;
    sum += x * x;
  }
  return {mean, 1 / std::sqrt(sum / float(width) + epsilon)};
}

template <typename T>
void forward_row(const T* x, const T* residual, const float* scale, const float* offset, int64_t width, float epsilon,
                 bool centred, bool rounds, T* summed, T* out) {
  if (residual) {
    over(width, [&](int64_t i, auto count) {
      store(summed + i, load(x + i, count) + load(residual + i, count), count);
    });
    x = summed;
  }
  const auto [mean, inverse] = statistics_of(x, width, epsilon, centred);
  const Floats middle = all(mean), by = all(inverse);
  over(width, [&](int64_t i, auto count) {
    Floats y = (load(x + i, count) - middle) * by;
    if (rounds) y = rounded<T>(y);
    y = y * load(scale + i, count);
    if (offset) y = y + load(offset + i, count);
    store(out + i, y, count);
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer residual, ffi::Buffer<ffi::F32> scale,
                   ffi::Buffer<ffi::F32> offset, float epsilon, int32_t centred, int32_t rounds,
                   ffi::Result<ffi::AnyBuffer> out, ffi::Result<ffi::AnyBuffer> summed) {
  const int64_t width = scale.element_count(), rows = width ? x.element_count() / width : 0;
  const bool adds = residual.element_count() != 0, shifts = offset.element_count() != 0;
  const bool known = with_type(x.element_type(), [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x.untyped_data());
    const T* more = static_cast<const T*>(residual.untyped_data());
    T* to = static_cast<T*>(out->untyped_data());
    T* kept = static_cast<T*>(summed->untyped_data());
    parallel(pool, (rows + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t row = block * kRows; row < std::min(rows, (block + 1) * kRows); ++row) {
        const int64_t at = row * width;
        forward_row<T>(from + at, adds ? more + at : nullptr, scale.typed_data(),
                       shifts ? offset.typed_data() : nullptr, width, epsilon, centred, rounds,
                       adds ? kept + at : nullptr, to + at);
      }
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

// Adds a row's share to the gradients for scale and offset, and writes its own gradient.
template <typename T>
void backward_row(const T* x, const T* gradient, const T* more, const float* scale, int64_t width, float epsilon,
                  bool centred, bool rounds, T* out, float* for_scale, float* for_offset) {
  const auto [mean, inverse] = statistics_of(x, width, epsilon, centred);
  const Floats middle = all(mean), by = all(inverse);
  Sum straight, along;
  over(width, [&](int64_t i, auto count) {
    const Floats g = load(gradient + i, count) * load(scale + i, count);
    const int64_t turn = i / kLanes % 4;
    straight.part[turn] += g;
    along.part[turn] = multiply_add(g, (load(x + i, count) - middle) * by, along.part[turn]);
  });
  const Floats level = all(centred ? straight.total() / float(width) : 0), slope = all(along.total() / float(width));
  over(width, [&](int64_t i, auto count) {
    const Floats y = load(gradient + i, count), unit = (load(x + i, count) - middle) * by;
    store(for_scale + i, multiply_add(y, rounds ? rounded<T>(unit) : unit, load(for_scale + i, count)), count);
    if (centred) store(for_offset + i, y + load(for_offset + i, count), count);
    Floats own = by * (y * load(scale + i, count) - level - unit * slope);
    if (more) own = own + load(more + i, count);
    store(out + i, own, count);
  });
}

// The gradients for scale and offset are sums over rows: each block of rows, whose number does not depend on that of the
// threads, has a sum of its own.
ffi::Error backward(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer gradient, ffi::AnyBuffer more,
                    ffi::Buffer<ffi::F32> scale, float epsilon, int32_t centred, int32_t rounds,
                    ffi::Result<ffi::AnyBuffer> out, ffi::ResultBuffer<ffi::F32> for_scale,
                    ffi::ResultBuffer<ffi::F32> for_offset) {
  const int64_t width = scale.element_count(), rows = width ? x.element_count() / width : 0;
  const int64_t blocks = width ? int64_t(for_scale->element_count()) / width : 0;
  const int64_t each = blocks ? (rows + blocks - 1) / blocks : 0;
  const bool adds = more.element_count() != 0;
  const bool known = with_type(x.element_type(), [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x.untyped_data());
    const T* by = static_cast<const T*>(gradient.untyped_data());
    const T* besides = static_cast<const T*>(more.untyped_data());
    T* to = static_cast<T*>(out->untyped_data());
    parallel(pool, blocks, [&](int64_t block) {
      float* scales = for_scale->typed_data() + block * width;
      float* offsets = centred ? for_offset->typed_data() + block * width : nullptr;
      std::fill_n(scales, width, 0.0f);
      if (centred) std::fill_n(offsets, width, 0.0f);
      for (int64_t row = block * each; row < std::min(rows, (block + 1) * each); ++row) {
        const int64_t at = row * width;
        backward_row<T>(from + at, by + at, adds ? besides + at : nullptr, scale.typed_data(), width, epsilon, centred,
                        rounds, to + at, scales, offsets);
      }
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(norm_forward, forward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Attr<float>("epsilon")
                  .Attr<int32_t>("centred")
                  .Attr<int32_t>("rounds")
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>());

CUPOLA_KERNEL(norm_backward, backward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Attr<float>("epsilon")
                  .Attr<int32_t>("centred")
                  .Attr<int32_t>("rounds")
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace cupola::norm
