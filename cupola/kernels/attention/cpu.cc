// Flash attention: scores of a block at a time, computed again for the gradient.
//
// Scores are kept transposed, a row for each key, so that maxima, sums and exponentials run over queries side by side.
// Each task writes outputs of its own; how the tasks are cut changes no bit.
// Source: Dao et al. 2022 (FlashAttention); the gradient as in its appendix B.2.
#include "attention/backward.h"
#include "attention/forward.h"

namespace cupola::attention {
namespace {

using AnyFloat = ffi::AnyBuffer;
using Numbers = ffi::Buffer<ffi::S32>;
using Vector = ffi::Buffer<ffi::F32>;

Problem problem_of(AnyFloat query, AnyFloat key, AnyFloat value, Numbers query_segments, Numbers key_segments,
                   Numbers start, Numbers prefix, Vector sinks, float scale, float cap, int64_t causal, int64_t window) {
  const auto q = query.dimensions(), k = key.dimensions();
  Problem p{};
  p.batch = q[0], p.queries = q[1], p.heads = q[2], p.width = q[3];
  p.keys = k[1], p.groups = k[2];
  p.padded = up(p.width, 32);
  p.query = tensor(query), p.key = tensor(key), p.value = tensor(value);
  p.query_segments = query_segments.element_count() ? query_segments.typed_data() : nullptr;
  p.key_segments = p.query_segments ? key_segments.typed_data() : nullptr;
  p.start = start.typed_data(), p.prefix = prefix.typed_data();
  p.sinks = sinks.element_count() ? sinks.typed_data() : nullptr;
  p.scale = scale, p.cap = cap, p.causal = causal != 0, p.window = window;
  // A score is sign * |scale| * (query . key): the sign goes with the query, the rest with the exponent.
  p.sign = scale > 0 ? 1.0f : scale < 0 ? -1.0f : 0.0f;
  p.factor = scale == 0 ? 1.0f : std::fabs(scale);
  return p;
}

ffi::Error forward(ffi::ThreadPool pool, AnyFloat query, AnyFloat key, AnyFloat value, Numbers query_segments,
                   Numbers key_segments, Numbers start, Numbers prefix, Vector sinks, float scale, float cap,
                   int64_t causal, int64_t window, int64_t rounds, ffi::Result<AnyFloat> out,
                   ffi::ResultBuffer<ffi::F32> kept) {
  const Problem p = problem_of(query, key, value, query_segments, key_segments, start, prefix, sinks, scale, cap, causal,
                               window);
  if (!p.batch || !p.queries || !p.heads) return ffi::Error::Success();
  if (rounds)
    attend<Half>(pool, p, tensor(*out), kept->typed_data());
  else
    attend<Exact>(pool, p, tensor(*out), kept->typed_data());
  return ffi::Error::Success();
}

ffi::Error backward(ffi::ThreadPool pool, AnyFloat query, AnyFloat key, AnyFloat value, Numbers query_segments,
                    Numbers key_segments, Numbers start, Numbers prefix, Vector sinks, AnyFloat out, Vector kept,
                    AnyFloat given, float scale, float cap, int64_t causal, int64_t window, int64_t rounds,
                    ffi::Result<AnyFloat> for_query, ffi::Result<AnyFloat> for_key, ffi::Result<AnyFloat> for_value,
                    ffi::ResultBuffer<ffi::F32> drift) {
  const Problem p = problem_of(query, key, value, query_segments, key_segments, start, prefix, sinks, scale, cap, causal,
                               window);
  if (!p.batch || !p.heads) return ffi::Error::Success();
  const Gradients to{tensor(out),         kept.typed_data(), tensor(given),      tensor(*for_query),
                     tensor(*for_key), tensor(*for_value), drift->typed_data()};
  if (rounds)
    differentiate<Half>(pool, p, to);
  else
    differentiate<Exact>(pool, p, to);
  return ffi::Error::Success();
}

}  // namespace

#define CUPOLA_ATTENTION_OPERANDS   \
  ffi::Ffi::Bind()                  \
      .Ctx<ffi::ThreadPool>()       \
      .Arg<ffi::AnyBuffer>()        \
      .Arg<ffi::AnyBuffer>()        \
      .Arg<ffi::AnyBuffer>()        \
      .Arg<ffi::Buffer<ffi::S32>>() \
      .Arg<ffi::Buffer<ffi::S32>>() \
      .Arg<ffi::Buffer<ffi::S32>>() \
      .Arg<ffi::Buffer<ffi::S32>>() \
      .Arg<ffi::Buffer<ffi::F32>>()
#define CUPOLA_ATTENTION_ATTRIBUTES \
  .Attr<float>("scale").Attr<float>("cap").Attr<int64_t>("causal").Attr<int64_t>("window").Attr<int64_t>("rounds")

CUPOLA_KERNEL(attend, forward,
              CUPOLA_ATTENTION_OPERANDS CUPOLA_ATTENTION_ATTRIBUTES.Ret<ffi::AnyBuffer>().Ret<ffi::Buffer<ffi::F32>>());

CUPOLA_KERNEL(attend_back, backward,
              CUPOLA_ATTENTION_OPERANDS.Arg<ffi::AnyBuffer>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .Arg<ffi::AnyBuffer>() CUPOLA_ATTENTION_ATTRIBUTES.Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace cupola::attention
