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

// Blocks of kChannels adjacent channels. kFaster: where it is worth using, with 16 lanes a vector; fewer were not
// tried.
template <typename T>
class PlanesOf49 {
 public:
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D);
  static constexpr bool kFaster = std::is_same_v<T, float> && kLanes == 16;
  static constexpr size_t kPlane = 49, kChannels = 16;

  // Of each channel: deviations from its pivot, and their squares.
  struct Sums {
    V sum, square;
    HWY_INLINE void Add(const Sums& more) {
      sum = hn::Add(sum, more.sum);
      square = hn::Add(square, more.square);
    }
  };
  // For scale * (x - pivot) + shift.
  struct Factors {
    HWY_ALIGN float scale[kChannels], shift[kChannels], pivot[kChannels];
  };

  // The means of 16 elements of each channel, which lie in one line where src begins one: no other line is read.
  static HWY_INLINE V Sample(const float* src) {
    const V sum = Whole(SampleQuad<0>(src), SampleQuad<1>(src), SampleQuad<2>(src), SampleQuad<3>(src));
    return hn::Mul(sum, hn::Set(D(), 1.0f / kLanes));
  }

  // The map of one image, channel by channel, in whole vectors: one on the border of two planes has the factors of
  // both.
  class Mapper {
   public:
    HWY_INLINE Mapper(const float* src, float* dst, const Factors& factors) : src_(src), dst_(dst), factors_(factors) {}

    // The vectors of channel kC, first the one that begins in the channel before.
    template <size_t kC>
    HWY_INLINE void Channel() {
      constexpr size_t kBegin = kC * kPlane, kPast = kBegin % kLanes;
      constexpr size_t kFirst = hwy::RoundUpTo(kBegin, kLanes), kEnd = hwy::RoundDownTo(kBegin + kPlane, kLanes);
      const One own = Of(kC);
      if constexpr (kPast != 0) {
        const auto m = hn::FirstN(D(), kPast);
        MapVector(kBegin - kPast,
                  {hn::IfThenElse(m, before_.scale, own.scale), hn::IfThenElse(m, before_.shift, own.shift),
                   hn::IfThenElse(m, before_.pivot, own.pivot)});
      }
      for (size_t at = kFirst; at < kEnd; at += kLanes) MapVector(at, own);
      before_ = own;
    }

   private:
    struct One {
      V scale, shift, pivot;
    };
    HWY_INLINE One Of(size_t c) const {
      const D d;
      return {hn::Set(d, factors_.scale[c]), hn::Set(d, factors_.shift[c]), hn::Set(d, factors_.pivot[c])};
    }
    HWY_INLINE void MapVector(size_t at, const One& of) const {
      const D d;
      hn::StoreU(HWY_NAMESPACE::Map<true>(hn::LoadU(d, src_ + at), of.scale, of.shift, of.pivot), d, dst_ + at);
    }

    const float* src_;
    float* dst_;
    const Factors& factors_;
    One before_;
  };

  // Of one image, beside the map of another block's: a channel is summed up, then the mapper's is mapped. A function of
  // its own: in a loop over images the compiler would load all factors before, and have registers for few.
  static HWY_NOINLINE Sums Sum(const float* src, const float* pivot, Mapper mapper) {
    return SumBeside(src, pivot, mapper);
  }

  // Of `images` that are `stride` apart.
  static HWY_NOINLINE Sums SumAlone(const float* src, size_t images, size_t stride, const float* pivot) {
    Sums sums{hn::Zero(D()), hn::Zero(D())};
    for (size_t image = 0; image < images; ++image) {
      Nothing nothing;
      sums.Add(SumBeside(src + image * stride, pivot, nothing));
    }
    return sums;
  }

  static HWY_INLINE void MapAlone(const float* src, float* dst, size_t images, size_t stride, const Factors& factors) {
    for (size_t image = 0; image < images; ++image) {
      Mapper mapper(src + image * stride, dst + image * stride, factors);
      MapChannels(mapper, std::make_index_sequence<kChannels>());
    }
  }

 private:
  // Sums are taken by half vectors: fewer of them lie on two lines, and fewer lanes are left to add up.
  using Half = hn::Half<D>;
  using VHalf = hn::Vec<Half>;
  using D4 = hn::FixedTag<float, 4>;
  using V4 = hn::Vec<D4>;
  static constexpr size_t kFour = 4;

  // What is summed of four channels; of their last elements, which fill no vector, apart.
  struct Four {
    VHalf sum[kFour], square[kFour];
    V4 last_sum, last_square;
  };
  // Sums of four channels, each in two parts, 4 lanes apart.
  struct Quads {
    VHalf sum, square;
  };

  // What takes the Mapper's place where there is nothing to map.
  struct Nothing {
    template <size_t kC>
    HWY_INLINE void Channel() {}
  };

  // What four channels have in vectors is added up across lanes beside the reading of the next four.
  template <class Beside>
  static HWY_INLINE Sums SumBeside(const float* src, const float* pivot, Beside& beside) {
    const Four a = Read<0>(src, pivot, beside), b = Read<1>(src, pivot, beside);
    const Quads qa = AddUp(a);
    const Four c = Read<2>(src, pivot, beside);
    const Quads qb = AddUp(b);
    const Four e = Read<3>(src, pivot, beside);
    const Quads qc = AddUp(c), qe = AddUp(e);
    return {
        hn::Add(Whole(qa.sum, qb.sum, qc.sum, qe.sum), Joined(a.last_sum, b.last_sum, c.last_sum, e.last_sum)),
        hn::Add(Whole(qa.square, qb.square, qc.square, qe.square),
                Joined(a.last_square, b.last_square, c.last_square, e.last_square)),
    };
  }

  static HWY_INLINE VHalf AddFour(const VHalf (&v)[kFour]) { return SumBlocks(Half(), v[0], v[1], v[2], v[3]); }
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

  // Of a plane but for its last element.
  static HWY_INLINE void SumPlane(const float* src, const float* pivot, VHalf& sum, VHalf& square) {
    const Half h;
    const VHalf p = hn::Set(h, *pivot);
    const auto at = [&](size_t i) HWY_ATTR { return hn::Sub(hn::LoadU(h, src + i * hn::Lanes(h)), p); };
    const VHalf a = at(0), b = at(1), c = at(2), e = at(3), f = at(4), g = at(5);
    sum = hn::Add(AddByMultiplier(h, hn::Add(a, b), c), AddByMultiplier(h, hn::Add(e, f), g));
    square = hn::MulAdd(e, e, hn::MulAdd(c, c, hn::MulAdd(b, b, hn::Mul(a, a))));
    square = hn::MulAdd(g, g, hn::MulAdd(f, f, square));
  }

  template <size_t kQuad, class Beside>
  static HWY_INLINE Four Read(const float* src, const float* pivot, Beside& beside) {
    constexpr size_t kC = kQuad * kFour;
    const float *from = src + kC * kPlane, *of = pivot + kC;
    Four f;
    SumPlane(from, of, f.sum[0], f.square[0]);
    beside.template Channel<kC>();
    SumPlane(from + kPlane, of + 1, f.sum[1], f.square[1]);
    beside.template Channel<kC + 1>();
    SumPlane(from + 2 * kPlane, of + 2, f.sum[2], f.square[2]);
    beside.template Channel<kC + 2>();
    SumPlane(from + 3 * kPlane, of + 3, f.sum[3], f.square[3]);
    beside.template Channel<kC + 3>();
    const D4 d4;
    const auto last = [&](size_t k) HWY_ATTR { return hn::Set(d4, from[k * kPlane + kPlane - 1]); };
    f.last_sum = hn::Sub(
        hn::ConcatLowerLower(d4, hn::InterleaveLower(d4, last(2), last(3)), hn::InterleaveLower(d4, last(0), last(1))),
        hn::LoadU(d4, of));
    f.last_square = hn::Mul(f.last_sum, f.last_sum);
    return f;
  }

  template <size_t... kC>
  static HWY_INLINE void MapChannels(Mapper& mapper, std::index_sequence<kC...>) {
    (mapper.template Channel<kC>(), ...);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
