// A long short-term memory over all steps.
#include <memory>

#include "native/rows.h"

namespace cupola::lstm {
namespace {

using namespace cupola::rows;

// A tile of the packed matrix has so many numbers of each of its rows: what a step makes of it stays in registers.
constexpr int64_t kTile = 4 * kLanes;
constexpr int64_t kRows = kLanes == 16 ? 6 : 2;

int64_t up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Puts the matrix in the order in which it is read: [tiles][depth][kTile]. Where its columns are those of four gates, a
// tile has the same kLanes of each; else it has kTile in turn. What is beyond the matrix is zero.
template <typename T>
std::unique_ptr<T[]> packed(ffi::ThreadPool& pool, const T* matrix, int64_t depth, int64_t columns, bool gates) {
  const int64_t part = gates ? columns / 4 : columns, lanes = gates ? kLanes : kTile;
  const int64_t tiles = (part + lanes - 1) / lanes;
  std::unique_ptr<T[]> out(new T[size_t(tiles * depth * kTile)]);
  parallel(pool, tiles, [&](int64_t tile) {
    const int64_t few = std::min(lanes, part - tile * lanes);
    for (int64_t k = 0; k < depth; ++k) {
      T* to = out.get() + (tile * depth + k) * kTile;
      for (int64_t gate = 0; gate < (gates ? 4 : 1); ++gate, to += lanes) {
        std::copy_n(matrix + k * columns + gate * part + tile * lanes, few, to);
        std::fill_n(to + few, lanes - few, T(0));
      }
    }
  });
  return out;
}

// sums[row][0..4) += rows of a, depth numbers each, times a tile.
template <int64_t kCount, typename T>
inline void multiply(const float* a, int64_t depth, const T* tile, Floats (*sums)[4]) {
  for (int64_t k = 0; k < depth; ++k, tile += kTile) {
    const Floats b[4] = {load(tile), load(tile + kLanes), load(tile + 2 * kLanes), load(tile + 3 * kLanes)};
    for (int64_t row = 0; row < kCount; ++row) {
      const Floats x = all(a[row * depth + k]);
      for (int part = 0; part < 4; ++part) sums[row][part] = multiply_add(x, b[part], sums[row][part]);
    }
  }
}

// Calls each(constant, row) for all rows, kRows at a time, and once for what is left.
template <typename Each>
inline void few_at_a_time(int64_t rows, const Each& each) {
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) each(std::integral_constant<int64_t, kRows>(), row);
  switch (rows - row) {
    case 5: return each(std::integral_constant<int64_t, 5>(), row);
    case 4: return each(std::integral_constant<int64_t, 4>(), row);
    case 3: return each(std::integral_constant<int64_t, 3>(), row);
    case 2: return each(std::integral_constant<int64_t, 2>(), row);
    case 1: return each(std::integral_constant<int64_t, 1>(), row);
  }
}

// Copies numbers, rounded as operands of a product with a matrix of T are.
template <typename T>
void copy_rounded(const float* from, int64_t count, float* to) {
  over(count, [&](int64_t i, auto few) { store(to + i, rounded<T>(load(from + i, few)), few); });
}

struct Forward {
  const float *inputs, *hidden, *cell;
  float *hiddens, *last_cell, *cells, *gates;
  int64_t steps, width;
  bool keeps;

  // What the gates do to kLanes of a row's states, from their sums.
  void update(Floats (&sums)[4], int64_t row, int64_t step, int64_t unit, int64_t few) const {
    const int64_t at = row * steps + step;
    const Floats enter = sigmoid(sums[0]), forget = sigmoid(sums[1]), fresh = tangent(sums[2]), show = sigmoid(sums[3]);
    float* state = last_cell + row * width + unit;
    const Floats next = multiply_add(forget, load(state, few), enter * fresh);
    store(state, next, few);
    store(hiddens + at * width + unit, show * tangent(next), few);
    if (!keeps) return;
    store(cells + at * width + unit, next, few);
    float* four = gates + at * 4 * width + unit;
    store(four, enter, few);
    store(four + width, forget, few);
    store(four + 2 * width, fresh, few);
    store(four + 3 * width, show, few);
  }

  template <typename T>
  void run(const T* matrix, int64_t first, int64_t rows) const {
    std::unique_ptr<float[]> before(new float[size_t(rows * width)]);
    std::copy_n(cell + first * width, rows * width, last_cell + first * width);
    for (int64_t step = 0; step < steps; ++step) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = first + row;
        const float* from = step ? hiddens + (at * steps + step - 1) * width : hidden + at * width;
        copy_rounded<T>(from, width, before.get() + row * width);
      }
      for (int64_t unit = 0; unit < width; unit += kLanes) {
        const int64_t few = std::min(kLanes, width - unit);
        few_at_a_time(rows, [&](auto count, int64_t row) {
          constexpr int64_t kCount = decltype(count)::value;
          Floats sums[kCount][4];
          for (int64_t i = 0; i < kCount; ++i)
            for (int64_t gate = 0; gate < 4; ++gate)
              sums[i][gate] =
                  load(inputs + (((first + row + i) * steps + step) * 4 + gate) * width + unit, few);
          multiply<kCount>(before.get() + row * width, width, matrix + unit / kLanes * width * kTile, sums);
          for (int64_t i = 0; i < kCount; ++i) update(sums[i], first + row + i, step, unit, few);
        });
      }
    }
  }
};

struct Backward {
  const float *for_hiddens, *for_last, *cell, *cells, *gates;
  float *sums, *for_hidden, *for_cell;
  int64_t steps, width;

  // The gradients of a row's sums at a step, from what comes back from the next one.
  template <typename T>
  void differentiate(int64_t row, int64_t step, const float* back, float* operand) const {
    const int64_t at = row * steps + step;
    const float* before = step ? cells + (at - 1) * width : cell + row * width;
    const float* four = gates + at * 4 * width;
    float* out = sums + at * 4 * width;
    over(width, [&](int64_t i, auto few) {
      const Floats enter = load(four + i, few), forget = load(four + width + i, few);
      const Floats fresh = load(four + 2 * width + i, few), show = load(four + 3 * width + i, few);
      const Floats shown = tangent(load(cells + at * width + i, few)), one = all(1);
      const Floats by_hidden = load(for_hiddens + at * width + i, few) + load(back + i, few);
      float* carried = for_cell + row * width + i;
      const Floats by_cell = load(carried, few) + by_hidden * show * (one - shown * shown);
      store(carried, by_cell * forget, few);
      store(out + i, by_cell * fresh * enter * (one - enter), few);
      store(out + width + i, by_cell * load(before + i, few) * forget * (one - forget), few);
      store(out + 2 * width + i, by_cell * enter * (one - fresh * fresh), few);
      store(out + 3 * width + i, by_hidden * shown * show * (one - show), few);
    });
    copy_rounded<T>(out, 4 * width, operand);
  }

  template <typename T>
  void run(const T* matrix, int64_t first, int64_t rows) const {
    const int64_t depth = 4 * width, padded = up(width, kTile);
    std::unique_ptr<float[]> operand(new float[size_t(rows * depth)]), back(new float[size_t(rows * padded)]());
    std::copy_n(for_last + first * width, rows * width, for_cell + first * width);
    for (int64_t step = steps; step-- > 0;) {
      for (int64_t row = 0; row < rows; ++row)
        differentiate<T>(first + row, step, back.get() + row * padded, operand.get() + row * depth);
      for (int64_t unit = 0; unit < width; unit += kTile) {
        few_at_a_time(rows, [&](auto count, int64_t row) {
          constexpr int64_t kCount = decltype(count)::value;
          Floats products[kCount][4];
          for (auto& each : products) std::fill_n(each, 4, all(0));
          multiply<kCount>(operand.get() + row * depth, depth, matrix + unit * depth, products);
          for (int64_t i = 0; i < kCount; ++i)
            for (int64_t part = 0; part < 4; ++part)
              store(back.get() + (row + i) * padded + unit + part * kLanes, products[i][part]);
        });
      }
    }
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(back.get() + row * padded, width, for_hidden + (first + row) * width);
  }
};

// Rows are shared out, as evenly as can be: what a row gives does not depend on who else is in its share.
template <typename T, typename Work>
void share_out(ffi::ThreadPool& pool, const Work& work, const T* matrix, int64_t batch) {
  const int64_t shares = std::min<int64_t>(batch, std::max<int64_t>(pool.num_threads(), 1));
  parallel(pool, shares, [&](int64_t share) {
    const int64_t first = batch * share / shares;
    work.template run<T>(matrix, first, batch * (share + 1) / shares - first);
  });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> inputs, ffi::AnyBuffer matrix,
                   ffi::Buffer<ffi::F32> hidden, ffi::Buffer<ffi::F32> cell, ffi::ResultBuffer<ffi::F32> hiddens,
                   ffi::ResultBuffer<ffi::F32> last_cell,
                   ffi::ResultBuffer<ffi::F32> cells, ffi::ResultBuffer<ffi::F32> gates) {
  const int64_t batch = inputs.dimensions()[0], width = matrix.dimensions()[0];
  const Forward work{inputs.typed_data(),    hidden.typed_data(),    cell.typed_data(),  hiddens->typed_data(),
                     last_cell->typed_data(), cells->typed_data(),   gates->typed_data(), inputs.dimensions()[1],
                     width,                  cells->dimensions()[0] != 0};
  const bool known = with_type(matrix.element_type(), [&](auto type) {
    using T = decltype(type);
    const auto order = packed(pool, static_cast<const T*>(matrix.untyped_data()), width, 4 * width, true);
    share_out(pool, work, order.get(), batch);
  });
  return known ? ffi::Error::Success() : no_such_type();
}

ffi::Error backward(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> for_hiddens, ffi::Buffer<ffi::F32> for_last,
                    ffi::AnyBuffer matrix, ffi::Buffer<ffi::F32> cell, ffi::Buffer<ffi::F32> cells,
                    ffi::Buffer<ffi::F32> gates, ffi::ResultBuffer<ffi::F32> sums,
                    ffi::ResultBuffer<ffi::F32> for_hidden, ffi::ResultBuffer<ffi::F32> for_cell) {
  const int64_t batch = gates.dimensions()[0], width = cell.dimensions()[1];
  const Backward work{for_hiddens.typed_data(), for_last.typed_data(), cell.typed_data(),
                      cells.typed_data(),       gates.typed_data(),    sums->typed_data(),
                      for_hidden->typed_data(), for_cell->typed_data(), gates.dimensions()[1],
                      width};
  const bool known = with_type(matrix.element_type(), [&](auto type) {
    using T = decltype(type);
    const auto order = packed(pool, static_cast<const T*>(matrix.untyped_data()), 4 * width, width, false);
    share_out(pool, work, order.get(), batch);
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(lstm_forward, forward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>());

CUPOLA_KERNEL(lstm_backward, backward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>()
                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace cupola::lstm
