// AdamW and the norm of a gradient over whole trees: leaves are cut into pieces, which threads take in any order.
// Every number is moved on its own, and pieces of a sum end at fixed places and are added in their order.
#include <vector>

#include "native/rows.h"

namespace cupola::adamw {
namespace {

using namespace cupola::rows;

constexpr int64_t kPiece = 1 << 15;
// Numbers whose squares are added in float32, before the sum goes on in float64.
constexpr int64_t kChain = 1 << 10;

#if CUPOLA_LEVEL >= 2
inline Floats root(Floats x) { return _mm512_maskz_sqrt_ps(__mmask16(-1), x); }
#else
inline Floats root(Floats x) { return _mm256_sqrt_ps(x); }
#endif

struct Piece {
  size_t leaf;
  int64_t start, count;
};

void cut(size_t leaf, int64_t count, std::vector<Piece>& pieces) {
  for (int64_t start = 0; start < count; start += kPiece)
    pieces.push_back({leaf, start, std::min(kPiece, count - start)});
}

// What is the same for all numbers of a leaf.
struct Rule {
  Floats scale, rate, unbias_mean, unbias_square, keep_mean, keep_square, epsilon, multiplier, decay;
};

// What comes out may be written over what came in.
template <typename Parameter, typename Gradient>
void move(const Rule& rule, int64_t count, const Parameter* parameter, const Gradient* gradient, const float* mean,
          const float* square, Parameter* moved, float* next_mean, float* next_square) {
  const Floats take_mean = all(1) - rule.keep_mean, take_square = all(1) - rule.keep_square;
  over(count, [&](int64_t i, auto few) {
    const Floats g = load(gradient + i, few) * rule.scale, p = load(parameter + i, few);
    const Floats m = multiply_add(rule.keep_mean, load(mean + i, few), take_mean * g);
    const Floats v = multiply_add(rule.keep_square, load(square + i, few), take_square * (g * g));
    const Floats direction = m * rule.unbias_mean / (root(v * rule.unbias_square) + rule.epsilon);
    store(next_mean + i, m, few);
    store(next_square + i, v, few);
    store(moved + i, p - rule.rate * multiply_add(rule.decay, p, rule.multiplier * direction), few);
  });
}

ffi::Error update(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> now, ffi::RemainingArgs given, ffi::RemainingRets out,
                  ffi::Span<const float> multipliers, ffi::Span<const float> decays, float keep_mean,
                  float keep_square, float epsilon) {
  const size_t leaves = multipliers.size();
  if (given.size() != 4 * leaves || out.size() != 3 * leaves || decays.size() != leaves || now.element_count() != 4)
    return ffi::Error::InvalidArgument("adamw: there are not as many arrays as leaves");
  std::vector<ffi::AnyBuffer> in, results;
  for (size_t i = 0; i < 4 * leaves; ++i) in.push_back(*given.get<ffi::AnyBuffer>(i));
  for (size_t i = 0; i < 3 * leaves; ++i) results.push_back(**out.get<ffi::AnyBuffer>(i));
  std::vector<Piece> pieces;
  for (size_t leaf = 0; leaf < leaves; ++leaf) cut(leaf, int64_t(in[leaf].element_count()), pieces);
  const float* dynamic = now.typed_data();
  std::atomic<bool> known{true};
  parallel(pool, int64_t(pieces.size()), [&](int64_t each) {
    const auto [leaf, start, count] = pieces[size_t(each)];
    const Rule rule = {all(dynamic[0]),  all(dynamic[1]),    all(dynamic[2]),         all(dynamic[3]),  all(keep_mean),
                       all(keep_square), all(epsilon), all(multipliers[leaf]), all(decays[leaf])};
    const ffi::AnyBuffer &parameter = in[leaf], &gradient = in[leaves + leaf];
    const bool taken = with_type(parameter.element_type(), [&, start = start, count = count, leaf = leaf](auto p) {
      const bool both = with_type(gradient.element_type(), [&](auto g) {
        using P = decltype(p);
        using G = decltype(g);
        move(rule, count, static_cast<const P*>(parameter.untyped_data()) + start,
             static_cast<const G*>(gradient.untyped_data()) + start, in[2 * leaves + leaf].typed_data<float>() + start,
             in[3 * leaves + leaf].typed_data<float>() + start, static_cast<P*>(results[leaf].untyped_data()) + start,
             results[leaves + leaf].typed_data<float>() + start,
             results[2 * leaves + leaf].typed_data<float>() + start);
      });
      if (!both) known = false;
    });
    if (!taken) known = false;
  });
  return known ? ffi::Error::Success() : no_such_type();
}

ffi::Error squares(ffi::ThreadPool pool, ffi::RemainingArgs given, ffi::RemainingRets out) {
  std::vector<ffi::AnyBuffer> in;
  std::vector<Piece> pieces;
  for (size_t leaf = 0; leaf < given.size(); ++leaf) {
    in.push_back(*given.get<ffi::AnyBuffer>(leaf));
    cut(leaf, int64_t(in[leaf].element_count()), pieces);
  }
  std::vector<double> sums(pieces.size());
  std::atomic<bool> known{true};
  parallel(pool, int64_t(pieces.size()), [&](int64_t each) {
    const auto [leaf, start, count] = pieces[size_t(each)];
    const bool taken = with_type(in[leaf].element_type(), [&, leaf = leaf, start = start, count = count](auto type) {
      const auto* from = static_cast<const decltype(type)*>(in[leaf].untyped_data()) + start;
      for (int64_t at = 0; at < count; at += kChain) {
        Sum sum;
        over(std::min(kChain, count - at), [&](int64_t i, auto few) {
          const Floats x = load(from + at + i, few);
          Floats& part = sum.part[i / kLanes % 4];
          part = multiply_add(x, x, part);
        });
        sums[size_t(each)] += double(sum.total());
      }
    });
    if (!taken) known = false;
  });
  std::vector<double> totals(in.size());
  for (size_t each = 0; each < pieces.size(); ++each) totals[pieces[each].leaf] += sums[each];
  for (size_t leaf = 0; leaf < in.size(); ++leaf)
    *(*out.get<ffi::AnyBuffer>(leaf))->typed_data<float>() = float(totals[leaf]);
  return known ? ffi::Error::Success() : no_such_type();
}

}  // namespace

CUPOLA_KERNEL(adamw, update,
              ffi::Ffi::Bind()
                  .Ctx<ffi::ThreadPool>()
                  .Arg<ffi::Buffer<ffi::F32>>()
                  .RemainingArgs()
                  .RemainingRets()
                  .Attr<ffi::Span<const float>>("multipliers")
                  .Attr<ffi::Span<const float>>("decays")
                  .Attr<float>("keep_mean")
                  .Attr<float>("keep_square")
                  .Attr<float>("epsilon"));

CUPOLA_KERNEL(squares, squares, ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());

}  // namespace cupola::adamw
