// An activation of gates, times values.
#include "native/rows.h"

namespace cupola::gated {
namespace {

using namespace cupola::rows;

constexpr int64_t kBlock = 1 << 14;

// In the order of `gated/cpu.py`.
enum Activation { kSilu, kGelu, kGeluTanh, kRelu, kReluSquared };

struct Active {
  Floats value, slope;
};

// The distribution function of a standard normal number; erf by the rational function that XLA has for it, which ends
// at +-1 exactly.
inline Floats normal_below(Floats x) {
  const Floats asked = x * all(0.707106781186547524f);
  Floats z = asked;
  z = smaller(larger(z, all(-3.7439211627767994f)), all(3.7439211627767994f));
  const Floats square = z * z;
  Floats above = all(0.00022905065861350646f);
  for (const float each : {0.0034082910107109506f, 0.050955695062380861f, 0.18520832239976145f, 1.128379143519084f})
    above = multiply_add(above, square, all(each));
  Floats below = all(-1.1791602954361697e-7f);
  for (const float each : {0.000023547966471313185f, 0.0010179625278914885f, 0.014070470171167667f,
                           0.11098505178285362f, 0.49746925110067538f, 1.0f})
    below = multiply_add(below, square, all(each));
  const Floats share = where_positive(asked + all(3.7439211627767994f), multiply_add(z * above / below, all(0.5f), all(0.5f)));
  return all(1) - where_positive(all(3.7439211627767994f) - asked, all(1) - share);
}

// The activation and its derivative; of a NaN, one (the larger of 0 and x, in this order, is it too).
template <Activation kind>
inline Active active(Floats x) {
  if constexpr (kind == kSilu) {
    const Floats share = sigmoid(x), value = x * share;
    return {value, multiply_add(value, all(1) - share, share)};
  } else if constexpr (kind == kGelu) {
    const Floats share = normal_below(x);
    const Floats density = exponential(x * x * all(-0.5f)) * all(0.398942280401432678f);
    return {x * share, multiply_add(x, density, share)};
  } else if constexpr (kind == kGeluTanh) {
    // (1 + tanh u) / 2 = sigmoid(2 u)
    const Floats square = x * x, twice = all(1.595769121605730711f);
    const Floats share = sigmoid(twice * multiply_add(square * x, all(0.044715f), x));
    const Floats steep = twice * multiply_add(square, all(0.134145f), all(1));
    return {x * share, multiply_add(x * share * (all(1) - share), steep, share)};
  } else if constexpr (kind == kRelu) {
    return {larger(all(0), x), where_positive(x, all(1))};
  } else {
    const Floats above = larger(all(0), x);
    return {above * above, above + above};
  }
}

template <Activation kind, typename T, typename Kept>
void forward_part(const T* gates, const T* values, T* out, Kept* gates_kept, Kept* values_kept, int64_t count) {
  over(count, [&](int64_t i, auto few) {
    const Floats x = load(gates + i, few), v = load(values + i, few);
    store(out + i, active<kind>(x).value * v, few);
    if (gates_kept) {
      store(gates_kept + i, x, few);
      store(values_kept + i, v, few);
    }
  });
}

template <Activation kind, typename T, typename Kept>
void backward_part(const Kept* gates, const Kept* values, const T* gradient, T* for_gates, T* for_values,
                   int64_t count) {
  over(count, [&](int64_t i, auto few) {
    const Active a = active<kind>(load(gates + i, few));
    const Floats g = load(gradient + i, few);
    store(for_gates + i, g * load(values + i, few) * a.slope, few);
    store(for_values + i, g * a.value, few);
  });
}

template <typename Each>
bool with_activation(int32_t number, const Each& each) {
  switch (number) {
    case kSilu: return each(std::integral_constant<Activation, kSilu>()), true;
    case kGelu: return each(std::integral_constant<Activation, kGelu>()), true;
    case kGeluTanh: return each(std::integral_constant<Activation, kGeluTanh>()), true;
    case kRelu: return each(std::integral_constant<Activation, kRelu>()), true;
    case kReluSquared: return each(std::integral_constant<Activation, kReluSquared>()), true;
  }
  return false;
}

// With `kept` that are not empty, gates and values are written there too, in their format.
ffi::Error forward(ffi::ThreadPool pool, ffi::AnyBuffer gates, ffi::AnyBuffer values, int32_t activation,
                   ffi::Result<ffi::AnyBuffer> out, ffi::Result<ffi::AnyBuffer> gates_kept,
                   ffi::Result<ffi::AnyBuffer> values_kept) {
  const int64_t total = gates.element_count();
  const bool keeps = gates_kept->element_count() != 0;
  bool known = false;
  with_type(gates.element_type(), [&](auto type) {
    with_type(gates_kept->element_type(), [&](auto other) {
      known = with_activation(activation, [&](auto kind) {
        using T = decltype(type);
        using Kept = decltype(other);
        parallel(pool, (total + kBlock - 1) / kBlock, [&](int64_t block) {
          const int64_t at = block * kBlock;
          forward_part<kind>(static_cast<const T*>(gates.untyped_data()) + at,
                             static_cast<const T*>(values.untyped_data()) + at,
                             static_cast<T*>(out->untyped_data()) + at,
                             keeps ? static_cast<Kept*>(gates_kept->untyped_data()) + at : nullptr,
                             keeps ? static_cast<Kept*>(values_kept->untyped_data()) + at : nullptr,
                             std::min(kBlock, total - at));
        });
      });
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

ffi::Error backward(ffi::ThreadPool pool, ffi::AnyBuffer gates, ffi::AnyBuffer values, ffi::AnyBuffer gradient,
                    int32_t activation, ffi::Result<ffi::AnyBuffer> for_gates, ffi::Result<ffi::AnyBuffer> for_values) {
  const int64_t total = gates.element_count();
  bool known = false;
  with_type(gates.element_type(), [&](auto other) {
    with_type(gradient.element_type(), [&](auto type) {
      known = with_activation(activation, [&](auto kind) {
        using T = decltype(type);
        using Kept = decltype(other);
        parallel(pool, (total + kBlock - 1) / kBlock, [&](int64_t block) {
          const int64_t at = block * kBlock;
          backward_part<kind>(static_cast<const Kept*>(gates.untyped_data()) + at,
                              static_cast<const Kept*>(values.untyped_data()) + at,
                              static_cast<const T*>(gradient.untyped_data()) + at,
                              static_cast<T*>(for_gates->untyped_data()) + at,
                              static_cast<T*>(for_values->untyped_data()) + at, std::min(kBlock, total - at));
        });
      });
    });
  });
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(gate_forward, forward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Attr<int32_t>("activation")
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>());

CUPOLA_KERNEL(gate_backward, backward,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Arg<ffi::AnyBuffer>()
                  .Attr<int32_t>("activation")
                  .Ret<ffi::AnyBuffer>()
                  .Ret<ffi::AnyBuffer>());

}  // namespace cupola::gated
