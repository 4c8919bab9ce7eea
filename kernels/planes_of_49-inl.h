// SPDX-License-Identifier: Apache-2.0
// Batch normalization of float32 planes of 7x7, with all that is known of them known to the compiler: 16 channels fill
// 49 vectors of 16 lanes. Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_PLANES_OF_49_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_PLANES_OF_49_INL_H_
#undef CREASE_KERNELS_PLANES_OF_49_INL_H_
#else
#define CREASE_KERNELS_PLANES_OF_49_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <type_traits>
#include <utility>

#include "kernels/affine_vector-inl.h"
#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Of kChannels adjacent channels each, where kFaster: of 16 lanes a vector. Fewer were not tried.
template <typename T>
class PlanesOf49 {
 public:
  using D = hn::ScalableTag<float>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D);
  static constexpr bool kFaster = std::is_same_v<T, float> && kLanes == 16;
  static constexpr size_t kPlane = 49, kChannels = 16;

  // The means of 16 elements of each channel, which lie in one line where src does: the others are read without them.
  static HWY_INLINE void Sample(const float* src, float* pivot) {
    const D d;
    const V sum = Whole(SampleQuad<0>(src), SampleQuad<1>(src), SampleQuad<2>(src), SampleQuad<3>(src));
    hn::StoreU(hn::Mul(sum, hn::Set(d, 1.0f / kLanes)), d, pivot);
  }

  // Sums of deviations from the pivots and of their squares, of `runs` > 0 images that are `stride` apart; kOne: of
  // one. What four channels have in vectors is added up across lanes beside the reading of the next four.
  template <bool kOne>
  static HWY_INLINE void Sum(const float* src, size_t runs, size_t stride, const float* pivot, float* sum,
                             float* square) {
    constexpr size_t kNext = kFour * kPlane;
    const Four a = Read<kOne>(src, runs, stride, pivot), b = Read<kOne>(src + kNext, runs, stride, pivot + kFour);
    const Quads qa = AddUp(a);
    const Four c = Read<kOne>(src + 2 * kNext, runs, stride, pivot + 2 * kFour);
    const Quads qb = AddUp(b);
    const Four e = Read<kOne>(src + 3 * kNext, runs, stride, pivot + 3 * kFour);
    const Quads qc = AddUp(c), qe = AddUp(e);
    const D d;
    hn::StoreU(hn::Add(Whole(qa.sum, qb.sum, qc.sum, qe.sum), Joined(a.last_sum, b.last_sum, c.last_sum, e.last_sum)),
               d, sum);
    hn::StoreU(hn::Add(Whole(qa.square, qb.square, qc.square, qe.square),
                       Joined(a.last_square, b.last_square, c.last_square, e.last_square)),
               d, square);
  }

  // scale * (x - pivot) + shift of one image, in whole vectors: one on the border of two planes has the parameters of
  // both.
  static HWY_INLINE void Map(const float* src, float* dst, const float* scale, const float* shift, const float* pivot) {
    MapAll(src, dst, scale, shift, pivot, std::make_index_sequence<kChannels>());
  }

 private:
  using V = hn::Vec<D>;
  using Half = hn::Half<D>;
  using VHalf = hn::Vec<Half>;
  using D4 = hn::FixedTag<float, 4>;
  using V4 = hn::Vec<D4>;
  static constexpr size_t kFour = 4;

  // What is summed of four channels; of their last elements, which fill no vector, apart.
  struct Four {
    V sum[kFour], square[kFour];
    V4 last_sum, last_square;
  };
  // Sums of four channels, each in two parts, 4 lanes apart.
  struct Quads {
    VHalf sum, square;
  };
  struct Parameters {
    V scale, shift, pivot;
  };

  static HWY_INLINE VHalf AddHalves(V v) {
    const Half h;
    return hn::Add(hn::LowerHalf(h, v), hn::UpperHalf(h, v));
  }

  static HWY_INLINE VHalf AddFour(const V (&v)[kFour]) {
    return SumBlocks(Half(), AddHalves(v[0]), AddHalves(v[1]), AddHalves(v[2]), AddHalves(v[3]));
  }

  static HWY_INLINE Quads AddUp(const Four& f) { return {AddFour(f.sum), AddFour(f.square)}; }

  // The sums of 16 channels.
  static HWY_INLINE V Whole(VHalf a, VHalf b, VHalf c, VHalf e) {
    const Half h;
    const VHalf low = hn::Add(hn::ConcatLowerLower(h, b, a), hn::ConcatUpperUpper(h, b, a));
    const VHalf high = hn::Add(hn::ConcatLowerLower(h, e, c), hn::ConcatUpperUpper(h, e, c));
    return hn::Combine(D(), high, low);
  }

  static HWY_INLINE V Joined(V4 a, V4 b, V4 c, V4 e) {
    const Half h;
    return hn::Combine(D(), hn::Combine(h, e, c), hn::Combine(h, b, a));
  }

  template <size_t kC>
  static HWY_INLINE VHalf Sampled(const float* src) {
    const Half h;
    constexpr size_t kAt = hwy::RoundUpTo(kC * kPlane, kLanes);
    return hn::Add(hn::LoadU(h, src + kAt), hn::LoadU(h, src + kAt + kLanes / 2));
  }

  template <size_t kQuad>
  static HWY_INLINE VHalf SampleQuad(const float* src) {
    constexpr size_t kC = kQuad * kFour;
    return SumBlocks(Half(), Sampled<kC>(src), Sampled<kC + 1>(src), Sampled<kC + 2>(src), Sampled<kC + 3>(src));
  }

  template <bool kOne>
  static HWY_INLINE Four Read(const float* src, size_t runs, size_t stride, const float* pivot) {
    const D d;
    const D4 d4;
    Four f;
    for (size_t k = 0; k < kFour; ++k) f.sum[k] = f.square[k] = hn::Zero(d);
    f.last_sum = f.last_square = hn::Zero(d4);
    const size_t count = kOne ? 1 : runs;
    for (size_t run = 0; run < count; ++run, src += stride) {
      for (size_t k = 0; k < kFour; ++k) {
        const float* from = src + k * kPlane;
        const V p = hn::Set(d, pivot[k]);
        const V x = hn::Sub(hn::LoadU(d, from), p), y = hn::Sub(hn::LoadU(d, from + kLanes), p);
        const V z = hn::Sub(hn::LoadU(d, from + 2 * kLanes), p);
        f.sum[k] = AddByMultiplier(d, hn::Add(hn::Add(f.sum[k], x), y), z);
        f.square[k] = hn::MulAdd(z, z, hn::MulAdd(y, y, hn::MulAdd(x, x, f.square[k])));
      }
      const auto last = [&](size_t k) HWY_ATTR { return hn::Set(d4, src[k * kPlane + kPlane - 1]); };
      const V4 x = hn::Sub(hn::ConcatLowerLower(d4, hn::InterleaveLower(d4, last(2), last(3)),
                                                hn::InterleaveLower(d4, last(0), last(1))),
                           hn::LoadU(d4, pivot));
      f.last_sum = hn::Add(f.last_sum, x);
      f.last_square = hn::MulAdd(x, x, f.last_square);
    }
    return f;
  }

  static HWY_INLINE void MapVector(const float* src, float* dst, size_t at, const Parameters& of) {
    const D d;
    hn::StoreU(HWY_NAMESPACE::Map<true>(hn::LoadU(d, src + at), of.scale, of.shift, of.pivot), d, dst + at);
  }

  // The vectors of channel kC, first the one that begins in the channel before, whose parameters become this one's.
  template <size_t kC>
  static HWY_INLINE void MapChannel(const float* src, float* dst, const Parameters& own, Parameters& before) {
    constexpr size_t kBegin = kC * kPlane, kPast = kBegin % kLanes;
    constexpr size_t kFirst = hwy::RoundUpTo(kBegin, kLanes), kEnd = hwy::RoundDownTo(kBegin + kPlane, kLanes);
    if constexpr (kPast != 0) {
      const auto m = hn::FirstN(D(), kPast);
      MapVector(src, dst, kBegin - kPast,
                {hn::IfThenElse(m, before.scale, own.scale), hn::IfThenElse(m, before.shift, own.shift),
                 hn::IfThenElse(m, before.pivot, own.pivot)});
    }
    for (size_t at = kFirst; at < kEnd; at += kLanes) MapVector(src, dst, at, own);
    before = own;
  }

  template <size_t... kC>
  static HWY_INLINE void MapAll(const float* src, float* dst, const float* scale, const float* shift,
                                const float* pivot, std::index_sequence<kC...>) {
    const D d;
    Parameters before{hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    (MapChannel<kC>(src, dst, {hn::Set(d, scale[kC]), hn::Set(d, shift[kC]), hn::Set(d, pivot[kC])}, before), ...);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
