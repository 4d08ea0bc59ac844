// The gradient of a table whose rows were looked up.
#include <vector>

#include "native/rows.h"

namespace cupola::embedding {
namespace {

using namespace cupola::rows;

constexpr int64_t kRows = 64;

// Places of the tokens, those of the same token in their order; `starts` says where those of each token begin.
void sorted(const int32_t* tokens, int64_t count, int64_t vocabulary, std::vector<int32_t>& starts,
            std::vector<int32_t>& places) {
  starts.assign(size_t(vocabulary) + 2, 0);
  const auto known = [&](int32_t token) { return token >= 0 && token < vocabulary; };
  for (int64_t i = 0; i < count; ++i)
    if (known(tokens[i])) ++starts[size_t(tokens[i]) + 2];
  for (int64_t token = 2; token < vocabulary + 2; ++token) starts[token] += starts[token - 1];
  places.resize(size_t(count));
  for (int64_t i = 0; i < count; ++i)
    if (known(tokens[i])) places[starts[size_t(tokens[i]) + 1]++] = int32_t(i);
}

template <typename T>
void sum_rows(const T* gradient, const int32_t* places, int64_t count, int64_t width, T* out) {
  over(width, [&](int64_t i, auto few) {
    Floats sum = load(gradient + places[0] * width + i, few);
    for (int64_t each = 1; each < count; ++each) sum += load(gradient + places[each] * width + i, few);
    store(out + i, sum, few);
  });
}

ffi::Error backward(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> tokens, ffi::AnyBuffer gradient,
                    ffi::Result<ffi::AnyBuffer> out) {
  const int64_t vocabulary = out->dimensions()[0], width = out->dimensions()[1];
  std::vector<int32_t> starts, places;
  sorted(tokens.typed_data(), int64_t(tokens.element_count()), vocabulary, starts, places);
  const bool known = with_type(gradient.element_type(), [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(gradient.untyped_data());
    T* to = static_cast<T*>(out->untyped_data());
    parallel(pool, (vocabulary + kRows - 1) / kRows, [&](int64_t block) {
      for (int64_t row = block * kRows; row < std::min(vocabulary, (block + 1) * kRows); ++row) {
        const int64_t start = starts[row], count = starts[row + 1] - start;
        if (count)
          sum_rows(from, places.data() + start, count, width, to + row * width);
        else
          std::memset(to + row * width, 0, size_t(width) * sizeof(T));
      }
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(look_up_backward, backward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::Buffer<ffi::S32>>()
                  .Arg<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::embedding
