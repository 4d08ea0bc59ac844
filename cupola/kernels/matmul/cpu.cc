// Products of matrices with packed weights.
#include "matmul/dense.h"
#include "matmul/group_tiles.h"
#include "matmul/groups.h"
#include "matmul/panel.h"
#include "matmul/tiles.h"
#include "matmul/unpack.h"

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

// The first sizes[0] rows are multiplied by the first matrix, and so on; rows beyond give zeros. `weights` brings the
// numbers of some blocks to the task that it is given, and multiplies.
template <typename Number, typename Weights, typename Multiply>
void multiply_all(ffi::ThreadPool& pool, const ffi::AnyBuffer& x, const Weights& weights, const int32_t* sizes,
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
    const Task<Number> task{held + start * depth, nullptr, out + start * columns + b * kColumns, count, depth,
                            columns - b * kColumns, columns};
    weights(task, e * blocks + b, std::min(at_once, blocks - b), multiply);
  });
}

// With the widest products that the level has for activations in bfloat16, or in float32.
template <typename Weights>
void multiply_as(bool rounded, ffi::ThreadPool& pool, const ffi::AnyBuffer& x, const Weights& weights,
                 const int32_t* sizes, int64_t matrices, int64_t depth, ffi::ResultBuffer<ffi::F32>& out,
                 ffi::Result<ffi::AnyBuffer>& held) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], columns = out->dimensions()[1];
  const auto run = [&](auto* kept, const auto& multiply) {
    multiply_all(pool, x, weights, sizes, matrices, rows, inputs, depth, columns, kept, out->typed_data(), rounded,
                 multiply);
  };
#if CUPOLA_LEVEL >= 4
  if (rounded) return run(as_bfloat16(held->untyped_data()), multiply_tiles);
#elif CUPOLA_LEVEL >= 3
  if (rounded) return run(as_bfloat16(held->untyped_data()), multiply<Paired>);
#endif
  run(static_cast<float*>(held->untyped_data()), multiply<Widened>);
}

// x [rows, inputs] . weight [matrices, blocks, depth / 2, 16, 2]; held is memory for x as it is multiplied.
ffi::Error dot_packed(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::BF16> weight,
                      ffi::Buffer<ffi::S32> sizes, bool rounded, ffi::ResultBuffer<ffi::F32> out,
                      ffi::Result<ffi::AnyBuffer> held) {
  const auto shape = weight.dimensions();
  const int64_t matrices = shape[0], depth = 2 * shape[2];
  if (x.dimensions()[1] > depth || depth % kDepth || out->dimensions()[1] > shape[1] * kColumns)
    return ffi::Error::InvalidArgument("a packed weight of another shape");
  if (int64_t(sizes.element_count()) != matrices) return ffi::Error::InvalidArgument("not one size for each matrix");
  const bfloat16* from = as_bfloat16(weight.untyped_data());
  const auto weights = [&](auto task, int64_t block, int64_t count, const auto& multiply) {
    task.weight = from + block * depth * kColumns;
    multiply(task, count);
  };
  multiply_as(rounded, pool, x, weights, sizes.typed_data(), matrices, depth, out, held);
  return ffi::Error::Success();
}

template <int Bits, typename Scale>
void multiply_grouped(ffi::ThreadPool& pool, const GroupTask<Scale>& task) {
  const int64_t blocks = (task.columns + kColumns - 1) / kColumns;
  const int64_t at_once = blocks_at_once(pool, blocks, task.count * task.inputs * task.columns, 4);
  parallel(pool, (blocks + at_once - 1) / at_once, [&](int64_t at) {
    const int64_t b = at * at_once;
    const auto part = piece<Bits>(task, 0, b);
#if CUPOLA_LEVEL >= 4
    multiply_group_tiles<Bits>(part, std::min(at_once, blocks - b));
#else
    multiply_groups<Bits>(part, std::min(at_once, blocks - b));
#endif
  });
}

// Calls run(task, bits) for codes [blocks, inputs * bits / 32, 16, 4] with scales (and offsets) [blocks, groups, 16].
template <typename Run>
ffi::Error with_groups(const ffi::AnyBuffer& x, const ffi::Buffer<ffi::U8>& codes, const ffi::AnyBuffer& scales,
                       const ffi::AnyBuffer& offsets, int32_t bits, int32_t zero, ffi::ResultBuffer<ffi::F32>& out,
                       const Run& run) {
  const int64_t rows = x.dimensions()[0], inputs = x.dimensions()[1], columns = out->dimensions()[1];
  const int64_t groups = scales.dimensions()[1], group = groups ? inputs / groups : 0;
  const bool half = scales.element_type() == ffi::DataType::F16, offset = offsets.element_count() > 0;
  if ((groups && (group * groups != inputs || group % 8)) || columns > codes.dimensions()[0] * kColumns ||
      codes.dimensions()[1] * 32 != inputs * bits || (offset && offsets.element_type() != scales.element_type()))
    return ffi::Error::InvalidArgument("packed groups of another shape");
  if (!groups) {
    std::memset(out->untyped_data(), 0, size_t(rows * columns) * sizeof(float));
    return ffi::Error::Success();
  }
  const auto as = [&](const auto* scale, const auto* added) {
    const GroupTask<std::remove_const_t<std::remove_pointer_t<decltype(scale)>>> task{
        {}, codes.typed_data(), scale, offset ? added : nullptr, out->typed_data(), rows, inputs, group, columns,
        columns, zero};
    if (bits == 8)
      run(task, std::integral_constant<int, 8>());
    else
      run(task, std::integral_constant<int, 4>());
  };
  if (half)
    as(static_cast<const uint16_t*>(scales.untyped_data()), static_cast<const uint16_t*>(offsets.untyped_data()));
  else
    as(static_cast<const float*>(scales.untyped_data()), static_cast<const float*>(offsets.untyped_data()));
  return ffi::Error::Success();
}

// x [rows, inputs] . groups, x rounded to whole numbers of 8 bits in groups too; measures are [rows, groups, 3].
ffi::Error dot_grouped(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::U8> codes, ffi::AnyBuffer scales,
                       ffi::AnyBuffer offsets, int32_t bits, int32_t zero, ffi::ResultBuffer<ffi::F32> out,
                       ffi::Result<ffi::AnyBuffer> held, ffi::ResultBuffer<ffi::S32> measures) {
  auto* kept = static_cast<Quads::Number*>(held->untyped_data());
  auto* measured = reinterpret_cast<Measure*>(measures->typed_data());
  return with_groups(x, codes, scales, offsets, bits, zero, out, [&](auto task, auto width) {
    const int64_t rows = task.count, inputs = task.inputs, groups = inputs / task.group;
    const int64_t share = rows * inputs >= kFew ? 8 : std::max<int64_t>(rows, 1);
    parallel(pool, (rows + share - 1) / share, [&](int64_t piece) {
      for (int64_t r = piece * share; r < std::min(rows, (piece + 1) * share); ++r) {
        const auto one = [&](const auto* from) {
          quantize(from + r * inputs, inputs, task.group, zero, kept + r * inputs, measured + r * groups);
        };
        if (x.element_type() == ffi::DataType::BF16)
          one(as_bfloat16(x.untyped_data()));
        else
          one(static_cast<const float*>(x.untyped_data()));
      }
    });
    task.rows = {kept, measured};
    multiply_grouped<width>(pool, task);
  });
}

// x [rows, inputs] . groups, both as bfloat16; held is memory for x as it is multiplied.
ffi::Error dot_unpacked(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::U8> codes, ffi::AnyBuffer scales,
                        ffi::AnyBuffer offsets, int32_t bits, int32_t zero, ffi::ResultBuffer<ffi::F32> out,
                        ffi::Result<ffi::AnyBuffer> held) {
  return with_groups(x, codes, scales, offsets, bits, zero, out, [&](const auto& task, auto width) {
    const int64_t depth = (task.inputs + kDepth - 1) / kDepth * kDepth;
    const auto weights = [&](const auto& rows, int64_t block, int64_t count, const auto& multiply) {
      multiply_unpacked<width>(piece<width>(task, 0, block), rows, count, multiply);
    };
    const int32_t all = int32_t(task.count);
    multiply_as(true, pool, x, weights, &all, 1, depth, out, held);
  });
}

// What both products of groups take and give; that of whole numbers has memory for measures besides.
auto of_groups() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::Buffer<ffi::U8>>()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Attr<int32_t>("bits")
      .Attr<int32_t>("zero")
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::AnyBuffer>();
}

}  // namespace

CUPOLA_KERNEL(dot_grouped, dot_grouped, of_groups().Ret<ffi::Buffer<ffi::S32>>());

CUPOLA_KERNEL(dot_unpacked, dot_unpacked, of_groups());

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
