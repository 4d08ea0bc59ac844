// Normalization of rows.
#include "native/kernel.h"

namespace cupola::norm {
namespace {

ffi::Error rms_norm(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> scale, float epsilon,
                    ffi::ResultBuffer<ffi::F32> out) {
  const int64_t width = scale.element_count(), rows = width ? x.element_count() / width : 0;
  const float *from = x.typed_data(), *by = scale.typed_data();
  float* to = out->typed_data();
  constexpr int64_t kRows = 16;
  parallel(pool, (rows + kRows - 1) / kRows, [&](int64_t block) {
    for (int64_t row = block * kRows; row < std::min(rows, (block + 1) * kRows); ++row) {
      const float* source = from + row * width;
      float* target = to + row * width;
      float sums[16] = {};
      int64_t i = 0;
      for (; i + 16 <= width; i += 16)
        for (int k = 0; k < 16; ++k) sums[k] += source[i + k] * source[i + k];
      for (; i < width; ++i) sums[i % 16] += source[i] * source[i];
      float sum = 0;
      for (float each : sums) sum += each;
      const float inverse = 1 / std::sqrt(sum / float(width) + epsilon);
      for (i = 0; i < width; ++i) target[i] = source[i] * inverse * by[i];
    }
  });
  return ffi::Error::Success();
}

}  // namespace

CUPOLA_KERNEL(rms_norm, rms_norm,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Attr<float>("epsilon")
                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace cupola::norm
