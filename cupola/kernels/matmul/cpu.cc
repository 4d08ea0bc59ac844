// Products of matrices with packed weights.
#include "matmul/dense.h"
#include "matmul/group_tiles.h"
#include "matmul/groups.h"
#include "matmul/panel.h"
#include "matmul/tiles.h"

namespace cupola::matmul {
namespace {

constexpr int64_t kSmall = 1 << 18;  // Products of fewer numbers are not worth a second thread,
constexpr int64_t kFew = 1 << 16;    // and fewer numbers are not to be written.

// Blocks of columns that a thread takes at a time: some times as many takings as threads, so that all end together.
int64_t blocks_at_once(ffi::ThreadPool& pool, int64_t blocks, int64_t numbers, int64_t least) {
  if (numbers < kSmall) return std::max<int64_t>(blocks, 1);
  return std::max(least, std::min<int64_t>(8, blocks / (6 * pool.num_threads())) / least * least);
}

// Writes a row as it is multiplied: in the dtype of the products, padded with zeros, kDepth numbers every `step`.
template <typename From, typename To>
void prepare(const From* __restrict from, int64_t inputs, To* __restrict to, int64_t depth, int64_t step, bool rounded) {
  const auto one = [&](From x) {
    float wide;
    if constexpr (sizeof(From) == 2) wide = widen(x);
    else wide = x;
    if constexpr (sizeof(To) == 2) return narrow(wide);
    else return rounded ? widen(narrow(wide)) : wide;
  };
  for (int64_t k = 0; k < depth; k += kDepth, from += kDepth, to += step) {
    const int64_t count = std::min(kDepth, std::max<int64_t>(inputs - k, 0));
    if (count == kDepth)
      for (int64_t i = 0; i < kDepth; ++i) to[i] = one(from[i]);
    else
      for (int64_t i = 0; i < kDepth; ++i) to[i] = i < count ? one(from[i]) : To(0);
  }
}

// Where a row stands among those of its matrix that are multiplied together: 16 rows of a tile, or each for itself.
template <typename Number>
void prepare_row(const ffi::AnyBuffer& x, int64_t r, int64_t inputs, Number* held, int64_t depth, const int64_t* first,
                 int64_t matrices, bool rounded) {
  Number* to = held + r * depth;
  int64_t step = kDepth;
  if constexpr (CUPOLA_LEVEL >= 4 && sizeof(Number) == 2) {
    const int64_t* start = std::upper_bound(first, first + matrices + 1, r) - 1;
    if (start == first + matrices) return;
    const int64_t within = (r - *start) % 16, top = r - within;
    step = kDepth * std::min<int64_t>(16, start[1] - top);
    to = held + top * depth + within * kDepth;
  }
  if (x.element_type() == ffi::DataType::BF16)
    prepare(as_bfloat16(x.untyped_data()) + r * inputs, inputs, to, depth, step, rounded);
  else
    prepare(static_cast<const float*>(x.untyped_data()) + r * inputs, inputs, to, depth, step, rounded);
}

// The first sizes[0] rows are multiplied by the first matrix, and so on; rows beyond give zeros.
template <typename Number, typename Multiply>
void multiply_all(ffi::ThreadPool& pool, const ffi::AnyBuffer& x, const bfloat16* weight, const int32_t* sizes,
                  int64_t matrices, int64_t rows, int64_t inputs, int64_t depth, int64_t columns, Number* held,
                  float* out, bool rounded, const Multiply& multiply) {
  const int64_t blocks = (columns + kColumns - 1) / kColumns, share = rows * depth >= kFew ? 8 : rows;
  std::unique_ptr<int64_t[]> first(new int64_t[size_t(matrices) + 1]());
  for (int64_t e = 0; e < matrices; ++e) {
    first[size_t(e) + 1] = std::min(rows, first[size_t(e)] + std::max<int64_t>(sizes[e], 0));
  }
  if (rows)
    parallel(pool, (rows + share - 1) / share, [&](int64_t piece) {
      for (int64_t r = piece * share; r < std::min(rows, (piece + 1) * share); ++r)
        prepare_row(x, r, inputs, held, depth, first.get(), matrices, rounded);
    });
  const int64_t left = rows - first[size_t(matrices)];
  std::memset(out + (rows - left) * columns, 0, size_t(left * columns) * sizeof(float));
  const int64_t at_once = blocks_at_once(pool, blocks, rows * depth * columns, CUPOLA_LEVEL >= 4 ? 2 : 4);
  const int64_t pieces = (blocks + at_once - 1) / at_once;
  parallel(pool, matrices * pieces, [&](int64_t piece) {
    const int64_t e = piece / pieces, b = piece % pieces * at_once, start = first[size_t(e)];
    const int64_t count = first[size_t(e) + 1] - start;
    if (!count) return;
    multiply(Task<Number>{held + start * depth, weight + (e * blocks + b) * depth * kColumns,
                          out + start * columns + b * kColumns, count, depth, columns - b * kColumns, columns},
             std::min(at_once, blocks - b));
  });
}

// x [rows, inputs] . weight [matrices, blocks, depth / 2, 16, 2]; held is memory for x as it is multiplied.
ffi::Error dot_packed(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::BF16> weight,
                      ffi::Buffer<ffi::S32> sizes, bool rounded, ffi::ResultBuffer<ffi::F32> out,
                      ffi::Result<ffi::AnyBuffer> held) {
  const auto shape = weight.dimensions();
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], columns = out->dimensions()[1];
  const int64_t matrices = shape[0], depth = 2 * shape[2];
  if (inputs > depth || depth % kDepth || columns > shape[1] * kColumns)
    return ffi::Error::InvalidArgument("a packed weight of another shape");
  if (int64_t(sizes.element_count()) != matrices) return ffi::Error::InvalidArgument("not one size for each matrix");
  const bfloat16* from = as_bfloat16(weight.untyped_data());
  const auto run = [&](auto* kept, const auto& multiply) {
    multiply_all(pool, x, from, sizes.typed_data(), matrices, rows, inputs, depth, columns, kept, out->typed_data(), rounded,
                 multiply);
  };
#if CUPOLA_LEVEL >= 3
  if (rounded) {
#if CUPOLA_LEVEL >= 4
    run(as_bfloat16(held->untyped_data()), multiply_tiles);
#else
    run(as_bfloat16(held->untyped_data()), multiply<Paired>);
#endif
    return ffi::Error::Success();
  }
#endif
  run(static_cast<float*>(held->untyped_data()), multiply<Widened>);
  return ffi::Error::Success();
}

template <int Bits, typename Scale>
void multiply_grouped(ffi::ThreadPool& pool, const GroupTask<Scale>& task) {
  const int64_t blocks = (task.columns + kColumns - 1) / kColumns, groups = task.inputs / task.group;
  const int64_t at_once = blocks_at_once(pool, blocks, task.count * task.inputs * task.columns, 4);
  parallel(pool, (blocks + at_once - 1) / at_once, [&](int64_t piece) {
    const int64_t b = piece * at_once;
    GroupTask<Scale> part = task;
    part.codes += b * kColumns * task.inputs * Bits / 8;
    part.scales += b * groups * kColumns;
    if (part.offsets) part.offsets += b * groups * kColumns;
    part.out += b * kColumns;
    part.columns -= b * kColumns;
#if CUPOLA_LEVEL >= 4
    multiply_group_tiles<Bits>(part, std::min(at_once, blocks - b));
#else
    multiply_groups<Bits>(part, std::min(at_once, blocks - b));
#endif
  });
}

// x [rows, inputs] . codes [blocks, inputs * bits / 32, 16, 4] with scales (and offsets) [blocks, groups, 16].
ffi::Error dot_grouped(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::U8> codes, ffi::AnyBuffer scales,
                       ffi::AnyBuffer offsets, int32_t bits, int32_t zero, ffi::ResultBuffer<ffi::F32> out,
                       ffi::Result<ffi::AnyBuffer> held, ffi::ResultBuffer<ffi::F32> row_scales,
                       ffi::ResultBuffer<ffi::S32> row_sums) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], columns = out->dimensions()[1];
  const int64_t groups = scales.dimensions()[1], group = groups ? inputs / groups : 0;
  const bool half = scales.element_type() == ffi::DataType::F16, offset = offsets.element_count() > 0;
  if ((groups && (group * groups != inputs || group % 8)) || columns > codes.dimensions()[0] * kColumns ||
      codes.dimensions()[1] * 32 != inputs * bits || (offset && offsets.element_type() != scales.element_type()))
    return ffi::Error::InvalidArgument("packed groups of another shape");
  auto* kept = static_cast<Quads::Number*>(held->untyped_data());
  const int64_t share = rows * inputs >= kFew ? 8 : rows;
  if (rows)
    parallel(pool, (rows + share - 1) / share, [&](int64_t piece) {
      for (int64_t r = piece * share; r < std::min(rows, (piece + 1) * share); ++r) {
        const auto one = [&](const auto* from) {
          quantize(from + r * inputs, inputs, std::max<int64_t>(group, 1), kept + r * inputs,
                   row_scales->typed_data() + r * groups, row_sums->typed_data() + r * groups);
        };
        if (x.element_type() == ffi::DataType::BF16)
          one(as_bfloat16(x.untyped_data()));
        else
          one(static_cast<const float*>(x.untyped_data()));
      }
    });
  if (!groups) {
    std::memset(out->untyped_data(), 0, size_t(rows * columns) * sizeof(float));
    return ffi::Error::Success();
  }
  const auto run = [&](const auto* scale, const auto* added) {
    const GroupTask<std::remove_const_t<std::remove_pointer_t<decltype(scale)>>> task{
        {kept, row_scales->typed_data(), row_sums->typed_data()},
        codes.typed_data(), scale, offset ? added : nullptr, out->typed_data(),
        rows, inputs, group, columns, columns, zero};
    if (bits == 8)
      multiply_grouped<8>(pool, task);
    else
      multiply_grouped<4>(pool, task);
  };
  if (half)
    run(static_cast<const uint16_t*>(scales.untyped_data()), static_cast<const uint16_t*>(offsets.untyped_data()));
  else
    run(static_cast<const float*>(scales.untyped_data()), static_cast<const float*>(offsets.untyped_data()));
  return ffi::Error::Success();
}

}  // namespace

CUPOLA_KERNEL(dot_grouped, dot_grouped,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::U8>>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Attr<int32_t>("bits")
                  .Attr<int32_t>("zero")
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::S32>>());

CUPOLA_KERNEL(dot_packed, dot_packed,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::BF16>>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Attr<bool>("rounded")
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::matmul
