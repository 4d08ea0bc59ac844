// Softmax statistics and the gradient of a block of logits [classes, positions]: each in one pass over memory.
//
// A column is a position: a vector holds one number of each of many positions, and no sum goes across a vector.
#include "cross_entropy/exponential.h"
#include "native/kernel.h"

namespace cupola::cross_entropy {
namespace {

constexpr int64_t kStrip = 64;    // positions that one task works on
constexpr int64_t kStep = 512;    // classes that one task works on in statistics
constexpr int64_t kGroup = 8;     // classes whose maximum is taken at once
constexpr int64_t kTile = 64;     // classes that one task works on in the gradient
constexpr float kNothing = -std::numeric_limits<float>::infinity();

using Numbers = ffi::Buffer<ffi::F32>;
using Results = ffi::ResultBuffer<ffi::F32>;

struct Partial {
  float top[kStrip], total[kStrip], at[kStrip], sum[kStrip];
};

// The statistics of classes [first, last) for `count` columns that begin at `column`.
void survey(const float* logits, int64_t stride, int64_t column, int64_t count, int64_t first, int64_t last,
            const float* classes, Partial& out) {
  for (int64_t j = 0; j < count; j += kWidth) {
    const int64_t width = std::min<int64_t>(kWidth, count - j);
    Floats top = all(kNothing), total{}, sum{};
    for (int64_t row = first; row < last; row += kGroup) {
      const int64_t rows = std::min(kGroup, last - row);
      const float* from = logits + row * stride + column + j;
      Floats held[kGroup], most = top;
      for (int64_t i = 0; i < rows; ++i) {
        held[i] = load(from + i * stride, width);
        most = larger(most, held[i]);
      }
      // While nothing but -inf was seen, there is nothing to shrink, and -inf - -inf is no number.
      total = top == kNothing ? Floats{} : total * exponential(top - most);
      for (int64_t i = 0; i < rows; ++i) total += exponential(held[i] - most);
      if (classes)
        for (int64_t i = 0; i < rows; ++i) sum += held[i] * classes[row + i];
      top = most;
    }
    store(out.top + j, top);
    store(out.total + j, total);
    store(out.sum + j, sum);
  }
}

ffi::Error statistics(ffi::ThreadPool pool, Numbers logits, ffi::Buffer<ffi::S32> where, Numbers top, Numbers total,
                      Numbers at, Numbers sum, Numbers classes, Results top_out, Results total_out, Results at_out,
                      Results sum_out) {
  const int64_t columns = where.element_count(), rows = columns ? logits.element_count() / columns : 0;
  const int64_t strips = (columns + kStrip - 1) / kStrip, steps = (rows + kStep - 1) / kStep;
  const float *from = logits.typed_data(), *by = classes.element_count() ? classes.typed_data() : nullptr;
  std::unique_ptr<Partial[]> parts(new Partial[size_t(strips * steps)]);
  parallel(pool, strips * steps, [&](int64_t task) {
    const int64_t column = task / steps * kStrip, first = task % steps * kStep;
    survey(from, columns, column, std::min(kStrip, columns - column), first, std::min(rows, first + kStep), by,
           parts[size_t(task)]);
  });
  for (int64_t n = 0; n < columns; ++n) {
    float most = top.typed_data()[n], share = total.typed_data()[n], linear = sum.typed_data()[n];
    for (int64_t step = 0; step < steps; ++step) {
      const Partial& part = parts[size_t(n / kStrip * steps + step)];
      const float other = part.top[n % kStrip], larger = std::max(most, other);
      share = (most == kNothing ? 0 : share * std::exp(most - larger)) +
              (other == kNothing ? part.total[n % kStrip] : part.total[n % kStrip] * std::exp(other - larger));
      most = larger;
      linear += part.sum[n % kStrip];
    }
    const int64_t target = where.typed_data()[n];
    const bool here = target >= 0 && target < rows;
    top_out->typed_data()[n] = most;
    total_out->typed_data()[n] = share;
    at_out->typed_data()[n] = at.typed_data()[n] + (here ? from[target * columns + n] : 0);
    sum_out->typed_data()[n] = linear;
  }
  return ffi::Error::Success();
}

struct Slope {
  const int32_t* where;
  const float *top, *share, *hit, *spread, *classes;
  float cap;
};

// A tile of the gradient, classes [row, row + rows) of columns [column, column + count), and its transpose.
template <typename Out>
void tile_of(const float* logits, int64_t all_rows, int64_t columns, int64_t row, int64_t column, const Slope& slope,
             Out* straight, Out* turned) {
  const int64_t rows = std::min(kTile, all_rows - row), count = std::min(kStrip, columns - column);
  alignas(64) float tile[kTile][kStrip];
  for (int64_t j = 0; j < count; j += kWidth) {
    const int64_t width = std::min<int64_t>(kWidth, count - j);
    const Floats top = load(slope.top + column + j, width), share = load(slope.share + column + j, width);
    const Floats spread = load(slope.spread + column + j, width);
    for (int64_t i = 0; i < rows; ++i) {
      Floats out = share * exponential(load(logits + (row + i) * columns + column + j, width) - top);
      if (slope.classes) out -= spread * slope.classes[row + i];
      store(tile[i] + j, out);
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    const int64_t target = slope.where[column + j] - row;
    if (target >= 0 && target < rows) tile[target][j] -= slope.hit[column + j];
  }
  const float inverse = slope.cap > 0 ? 1 / slope.cap : 0;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < count; j += kWidth) {
      const int64_t width = std::min<int64_t>(kWidth, count - j), at = (row + i) * columns + column + j;
      Floats out = load(tile[i] + j);
      if (slope.cap > 0) {
        const Floats part = load(logits + at, width) * inverse;
        out *= 1.0f - part * part;
        store(tile[i] + j, out);
      }
      store(straight + at, out, width);
    }
  for (int64_t j = 0; j < count; ++j) {
    Out* to = turned + (column + j) * all_rows + row;
    int64_t i = 0;
    for (; i + kWidth <= rows; i += kWidth) {
      Floats out;
      for (int k = 0; k < kWidth; ++k) out[k] = tile[i + k][j];
      store(to + i, out);
    }
    for (; i < rows; ++i) store_one(to + i, tile[i][j]);
  }
}

ffi::Error gradient(ffi::ThreadPool pool, Numbers logits, ffi::Buffer<ffi::S32> where, Numbers top, Numbers share,
                    Numbers hit, Numbers spread, Numbers classes, float cap, ffi::Result<ffi::AnyBuffer> straight,
                    ffi::Result<ffi::AnyBuffer> turned) {
  const int64_t columns = where.element_count(), rows = columns ? logits.element_count() / columns : 0;
  const int64_t strips = (columns + kStrip - 1) / kStrip, tiles = (rows + kTile - 1) / kTile;
  const Slope slope{where.typed_data(),  top.typed_data(),    share.typed_data(),
                    hit.typed_data(),    spread.typed_data(), classes.element_count() ? classes.typed_data() : nullptr,
                    cap};
  const bool narrow = straight->element_type() == ffi::DataType::BF16;
  parallel(pool, tiles, [&](int64_t tile) {
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t row = tile * kTile, column = strip * kStrip;
      if (narrow)
        tile_of(logits.typed_data(), rows, columns, row, column, slope, as_bfloat16(straight->untyped_data()),
                as_bfloat16(turned->untyped_data()));
      else
        tile_of(logits.typed_data(), rows, columns, row, column, slope, static_cast<float*>(straight->untyped_data()),
                static_cast<float*>(turned->untyped_data()));
    }
  });
  return ffi::Error::Success();
}

}  // namespace

CUPOLA_KERNEL(softmax_statistics, statistics,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<Numbers>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Ret<Numbers>()
                  .Ret<Numbers>()
                  .Ret<Numbers>()
                  .Ret<Numbers>());

CUPOLA_KERNEL(softmax_gradient, gradient,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<Numbers>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Arg<Numbers>()
                  .Attr<float>("soft_cap")
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::cross_entropy
