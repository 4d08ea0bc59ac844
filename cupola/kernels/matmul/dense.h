// Products of activations with several matrices at once, and their gradients: operands are rounded and packed on the
// way, the activations once for all matrices. Each task writes outputs of its own; how the tasks are cut changes no bit.
#pragma once

#include "matmul/squares.h"

namespace cupola::dense {
namespace {

#if CUPOLA_LEVEL >= 4
constexpr int64_t kRows = 4;      // panels of rows in a task
constexpr int64_t kSquare = 8;    // panels of rows and of columns of a weight's gradient in a task

Matrix matrix_of(const ffi::AnyBuffer& x) {
  return {x.untyped_data(), x.element_type() == ffi::BF16, x.dimensions()[0], x.dimensions()[1]};
}

// Which part of something that is cut into parts of unlike sizes: the part, and the place in it.
template <typename Size>
inline int64_t find(int64_t& at, const Size& size) {
  int64_t part = 0;
  for (; at >= size(part); ++part) at -= size(part);
  return part;
}

ffi::Error forward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  constexpr size_t kMost = 16;
  Matrix weight[kMost], out[kMost];
  const size_t count = args.size() - 1;
  if (count > kMost || rets.size() != count + 1) return ffi::Error::InvalidArgument("too many matrices");
  const Matrix x = matrix_of(*args.get<ffi::AnyBuffer>(0));
  int64_t panels = 0;
  for (size_t i = 0; i < count; ++i) {
    weight[i] = matrix_of(*args.get<ffi::AnyBuffer>(i + 1));
    out[i] = matrix_of(**rets.get<ffi::AnyBuffer>(i));
    panels += ceil(weight[i].columns, kPanel);
  }
  bfloat16* packed = as_bfloat16((*rets.get<ffi::AnyBuffer>(count))->untyped_data());
  const int64_t depth = ceil(x.columns, kDepth), panel = 2 * depth * kTile;
  const auto columns = [&](int64_t i) { return ceil(weight[i].columns, kPanel); };
  parallel(pool, panels, [&](int64_t at) {
    bfloat16* to = packed + at * panel;
    const int64_t i = find(at, columns);
    pack<Side::Right>(weight[i], at, 0, depth, depth, to);
  });
  parallel(pool, ceil(x.rows, kRows * kPanel), [&](int64_t task) {
    const Tiles tiles;
    const int64_t first = task * kRows, rows = std::min(kRows, ceil(x.rows, kPanel) - first);
    bfloat16* left = own_memory(rows * panel);
    for (int64_t r = 0; r < rows; ++r) pack<Side::Left>(x, first + r, 0, depth, depth, left + r * panel);
    const bfloat16* right = packed;
    for (size_t i = 0; i < count; ++i) {
      multiply(left, rows, right, columns(int64_t(i)), depth, out[i], first * kPanel, 0);
      right += columns(int64_t(i)) * panel;
    }
  });
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  constexpr size_t kMost = 16;
  Matrix weight[kMost], given[kMost], for_weight[kMost];
  const size_t count = (args.size() - 1) / 2;
  if (count > kMost || rets.size() != count + 2) return ffi::Error::InvalidArgument("too many matrices");
  const Matrix x = matrix_of(*args.get<ffi::AnyBuffer>(0)), for_x = matrix_of(**rets.get<ffi::AnyBuffer>(0));
  int64_t panels = 0;
  for (size_t i = 0; i < count; ++i) {
    weight[i] = matrix_of(*args.get<ffi::AnyBuffer>(i + 1));
    given[i] = matrix_of(*args.get<ffi::AnyBuffer>(count + i + 1));
    for_weight[i] = matrix_of(**rets.get<ffi::AnyBuffer>(i + 1));
    panels += ceil(weight[i].columns, kPanel);
  }
  const auto columns = [&](int64_t i) { return ceil(weight[i].columns, kPanel); };
  const int64_t inputs = ceil(x.columns, kPanel), depth = ceil(x.rows, kDepth), panel = 2 * depth * kTile;
  const int64_t wide = 2 * panels * kTile;  // of a panel that is summed over all outputs
  // Of the weights, turned; of x, turned; of the gradients.
  bfloat16* turned = as_bfloat16((*rets.get<ffi::AnyBuffer>(count + 1))->untyped_data());
  bfloat16 *lefts = turned + inputs * wide, *rights = lefts + inputs * panel;
  parallel(pool, inputs, [&](int64_t k) {
    int64_t begin = 0;
    for (size_t i = 0; i < count; ++i) {
      const int64_t size = columns(int64_t(i));
      pack<Side::RightTurned>(weight[i], k, 0, size, panels, turned + k * wide + begin * kTile);
      begin += size;
    }
  });
  parallel(pool, ceil(x.rows, kRows * kPanel), [&](int64_t task) {
    const Tiles tiles;
    const int64_t first = task * kRows, rows = std::min(kRows, ceil(x.rows, kPanel) - first);
    bfloat16* left = own_memory(rows * wide);
    for (int64_t r = 0; r < rows; ++r) {
      int64_t begin = 0;
      for (size_t i = 0; i < count; ++i) {
        const int64_t size = columns(int64_t(i));
        for (int64_t c = 0; c < size; ++c) {
          pack<Side::Left>(given[i], first + r, c, c + 1, panels, left + r * wide + begin * kTile);
          pack<Side::Right>(given[i], c, first + r, first + r + 1, depth, rights + (begin + c) * panel);
        }
        begin += size;
      }
      for (int64_t k = 0; k < inputs; ++k)
        pack<Side::LeftTurned>(x, k, first + r, first + r + 1, depth, lefts + k * panel);
    }
    multiply(left, rows, turned, inputs, panels, for_x, first * kPanel, 0);
  });
  const auto squares = [&](int64_t i) { return ceil(columns(i), kSquare); };
  int64_t across = 0;
  for (size_t i = 0; i < count; ++i) across += squares(int64_t(i));
  parallel(pool, across * ceil(inputs, kSquare), [&](int64_t task) {
    const Tiles tiles;
    int64_t at = task % across;
    const int64_t k = task / across * kSquare, i = find(at, squares), c = at * kSquare;
    int64_t begin = 0;
    for (int64_t j = 0; j < i; ++j) begin += columns(j);
    multiply(lefts + k * panel, std::min(kSquare, inputs - k), rights + (begin + c) * panel,
             std::min(kSquare, columns(i) - c), depth, for_weight[i], k * kPanel, c * kPanel);
  });
  return ffi::Error::Success();
}
// Packs one panel, however it stands.
void pack_left(const Matrix& x, bool turned, int64_t panel, int64_t depth, bfloat16* to) {
  if (turned)
    pack<Side::LeftTurned>(x, panel, 0, depth, depth, to);
  else
    pack<Side::Left>(x, panel, 0, depth, depth, to);
}

// The product of two matrices, either of them turned, added to `onto` where there is one: then out is the same memory.
ffi::Error product(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Buffer<ffi::F32> onto, bool a_turned,
                   bool b_turned, ffi::ResultBuffer<ffi::F32> out, ffi::ResultBuffer<ffi::BF16> memory) {
  const Matrix left = matrix_of(a), right = matrix_of(b);
  const Matrix to{out->typed_data(), false, out->dimensions()[0], out->dimensions()[1]};
  const bool add = onto.element_count() > 0;
  if (add && onto.typed_data() != out->typed_data())
    std::memcpy(out->typed_data(), onto.typed_data(), size_t(to.rows * to.columns) * sizeof(float));
  bfloat16* packed = as_bfloat16(memory->untyped_data());
  const int64_t depth = ceil(a_turned ? left.rows : left.columns, kDepth), panel = 2 * depth * kTile;
  const int64_t rows = ceil(to.rows, kPanel), columns = ceil(to.columns, kPanel);
  parallel(pool, columns, [&](int64_t c) {
    if (b_turned)
      pack<Side::RightTurned>(right, c, 0, depth, depth, packed + c * panel);
    else
      pack<Side::Right>(right, c, 0, depth, depth, packed + c * panel);
  });
  // Few rows are cut into columns too, and packed for each of them.
  const int64_t high = ceil(rows, kRows), wide = high < kSquare ? kRows : columns, across = ceil(columns, wide);
  parallel(pool, high * across, [&](int64_t task) {
    const Tiles tiles;
    const int64_t r = task / across * kRows, c = task % across * wide, count = std::min(kRows, rows - r);
    bfloat16* own = own_memory(count * panel);
    for (int64_t i = 0; i < count; ++i) pack_left(left, a_turned, r + i, depth, own + i * panel);
    multiply(own, count, packed + c * panel, std::min(wide, columns - c), depth, to, r * kPanel, c * kPanel, add);
  });
  return ffi::Error::Success();
}
#else
ffi::Error product(ffi::ThreadPool, ffi::AnyBuffer, ffi::AnyBuffer, ffi::Buffer<ffi::F32>, bool, bool,
                   ffi::ResultBuffer<ffi::F32>, ffi::ResultBuffer<ffi::BF16>) {
  return ffi::Error::InvalidArgument("this level has no tiles");
}
ffi::Error forward(ffi::ThreadPool, ffi::RemainingArgs, ffi::RemainingRets) {
  return ffi::Error::InvalidArgument("this level has no tiles");
}
ffi::Error backward(ffi::ThreadPool, ffi::RemainingArgs, ffi::RemainingRets) {
  return ffi::Error::InvalidArgument("this level has no tiles");
}
#endif

}  // namespace

CUPOLA_KERNEL(dense_product, product,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Attr<bool>("a_turned")
                  .Attr<bool>("b_turned")
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::BF16>>());
CUPOLA_KERNEL(dense_forward, forward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());
CUPOLA_KERNEL(dense_backward, backward, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());

}  // namespace cupola::dense
