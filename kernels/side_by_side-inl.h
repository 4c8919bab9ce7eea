// SPDX-License-Identifier: Apache-2.0
// Small planes of several images side by side: the same vector of four or eight images (sums) or of two (map), then the
// next one, so that what a vector needs of its channel, or of two on their border, is made once for them, and vectors
// lie on lines where images do. Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_SIDE_BY_SIDE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_SIDE_BY_SIDE_INL_H_
#undef CREASE_KERNELS_SIDE_BY_SIDE_INL_H_
#else
#define CREASE_KERNELS_SIDE_BY_SIDE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>

#include "kernels/affine_vector-inl.h"
#include "kernels/moments_planes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Planes of one size of adjacent channels, in images that are `stride` elements apart. `channels`: as many as fill
// whole vectors, a multiple of unit(), at most kMaxChannels.
template <typename T>
class PlanesSideBySide {
 public:
  using W = Wide<T>;
  using D = hn::ScalableTag<W>;
  using V = hn::Vec<D>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D);
  static constexpr size_t kMaxChannels = 16;
  // Whether eight images' sums go side by side: Zen 4, AVX-512, 8 images of 128 channels of 7x7 5.9 us, so 5.7, of 5x5
  // 3.5 and 3.25; with the 16 registers of AVX2 6.3 and 6.8.
  static constexpr bool kEight = HWY_TARGET <= HWY_AVX3;
  // Of a plane: what Sample reads, and no third channel in a vector; four images of it in a block.
  static constexpr size_t kLeastPlane = std::max(kSampled, kLanes);
  static constexpr size_t kMaxPlane = std::min<size_t>(kMaxSmallPlane, 32 * kLanes);

  HWY_INLINE PlanesSideBySide(size_t plane, size_t stride)
      : unit_(std::max(kFour, kLanes / std::gcd(kLanes, plane))), plane_(plane), stride_(stride) {}

  // How many images' sums are added up at once, a multiple of four: 32 terms in each of the two chains of a lane, up to
  // 64 of the largest planes. Every image that is left over is a chain of its own.
  HWY_INLINE size_t block() const { return std::max<size_t>(1, 64 * kLanes / plane_ / kFour) * kFour; }

  HWY_INLINE size_t unit() const { return unit_; }

  // The means of the first kSampled elements.
  HWY_INLINE void Sample(const T* src, size_t channels, W* mean) const {
    const Part d;
    const auto inverse = hn::Set(d, W{1} / static_cast<W>(kSampled));
    for (size_t c = 0; c < channels; c += kFour) {
      hn::Vec<Part> sum[kFour];
      for (size_t k = 0; k < kFour; ++k) {
        const T* from = src + (c + k) * plane_;
        sum[k] = LoadWide(d, from);
        for (size_t i = kPart; i < kSampled; i += kPart) sum[k] = hn::Add(sum[k], LoadWide(d, from + i));
        sum[k] = hn::Mul(sum[k], inverse);
      }
      StoreSums(d, sum, mean + c);
      if constexpr (!kIsWide<T>) {
        const hn::FixedTag<W, kFour> d4;
        hn::Store(RoundPivot<T>(d4, hn::Load(d4, mean + c)), d4, mean + c);
      }
    }
  }

  // Sums of deviations from the pivots and of their squares. `pivot` has room for one more, whose value does not
  // matter.
  HWY_INLINE void Sum(const T* src, size_t channels, size_t images, const W* pivot, W* sum, W* square) const {
    HWY_ALIGN W sums[kMaxChannels * kLanes];
    HWY_ALIGN W squares[kMaxChannels * kLanes];
    size_t image = 0;
    for (; kEight && image + 8 <= images; image += 8) {
      AddImages<8>(src + image * stride_, channels, image > 0, pivot, sums, squares);
    }
    for (; image + kFour <= images; image += kFour) {
      AddImages<kFour>(src + image * stride_, channels, image > 0, pivot, sums, squares);
    }
    if (image < images) AddRest(src + image * stride_, channels, images - image, image > 0, pivot, sums, squares);
    for (size_t c = 0; c < channels; c += kFour) {
      StoreLaneSums(sums + c * kLanes, sum + c);
      StoreLaneSums(squares + c * kLanes, square + c);
    }
  }

  // scale * (x - pivot) + shift in all images, two at a time, the last ones first: they were read last. kDown: from the
  // last vector to the first.
  template <bool kDown>
  HWY_INLINE void Map(const T* src, T* dst, size_t channels, size_t images, const W* scale, const W* shift,
                      const W* pivot) const {
    size_t left = images;
    for (; left >= 2; left -= 2) {
      const size_t at = (left - 2) * stride_;
      MapImages<2, kDown>(src + at, dst + at, channels, scale, shift, pivot);
    }
    if (left > 0) MapFirst<kDown>(src, dst, channels, scale, shift, pivot);
  }

 private:
  // `more`: to sums that are there.
  template <size_t kImages>
  HWY_INLINE void AddImages(const T* src, size_t channels, bool more, const W* pivot, W* sums, W* squares) const {
    const D d;
    const auto add = [&](size_t at, V p, V(&sum)[2], V(&square)[2]) HWY_ATTR {
      for (size_t k = 0; k < kImages; ++k) {
        const V x = hn::Sub(LoadWide(d, src + at + k * stride_), p);
        sum[k % 2] = k % 2 == 0 ? hn::Add(sum[k % 2], x) : AddByMultiplier(d, sum[k % 2], x);
        square[k % 2] = hn::MulAdd(x, x, square[k % 2]);
      }
    };
    // What the vector on the border of the plane before has of this one.
    V left_sum = hn::Zero(d), left_square = hn::Zero(d);
    V own = hn::Set(d, pivot[0]);
    size_t at = 0;
    for (size_t c = 0; c < channels; ++c) {
      const size_t end = (c + 1) * plane_;
      V sum[2] = {left_sum, hn::Zero(d)}, square[2] = {left_square, hn::Zero(d)};
      if (more) {
        sum[1] = hn::Load(d, sums + c * kLanes);
        square[1] = hn::Load(d, squares + c * kLanes);
      }
      for (; at + kLanes <= end; at += kLanes) add(at, own, sum, square);
      left_sum = left_square = hn::Zero(d);
      const V next = hn::Set(d, pivot[c + 1]);
      if (at < end) {
        const auto first = hn::FirstN(d, end - at);
        V border_sum[2] = {hn::Zero(d), hn::Zero(d)}, border_square[2] = {hn::Zero(d), hn::Zero(d)};
        add(at, hn::IfThenElse(first, own, next), border_sum, border_square);
        const V both_sum = hn::Add(border_sum[0], border_sum[1]);
        const V both_square = hn::Add(border_square[0], border_square[1]);
        sum[0] = hn::Add(sum[0], hn::IfThenElseZero(first, both_sum));
        square[0] = hn::Add(square[0], hn::IfThenElseZero(first, both_square));
        left_sum = hn::IfThenZeroElse(first, both_sum);
        left_square = hn::IfThenZeroElse(first, both_square);
        at += kLanes;
      }
      hn::Store(hn::Add(sum[0], sum[1]), d, sums + c * kLanes);
      hn::Store(hn::Add(square[0], square[1]), d, squares + c * kLanes);
      own = next;
    }
  }

  template <size_t kImages, bool kDown>
  HWY_INLINE void MapImages(const T* src, T* dst, size_t channels, const W* scale, const W* shift,
                            const W* pivot) const {
    const D d;
    const auto map = [&](size_t at, V s, V t, V p) HWY_ATTR {
      V x[kImages];
      for (size_t k = 0; k < kImages; ++k) x[k] = LoadWide(d, src + at + k * stride_);
      for (size_t k = 0; k < kImages; ++k) {
        StoreWide(HWY_NAMESPACE::Map<true>(x[k], s, t, p), d, dst + at + k * stride_);
      }
    };
    for (size_t i = 0; i < channels; ++i) {
      const size_t c = kDown ? channels - 1 - i : i, end = (c + 1) * plane_;
      const size_t begin = hwy::RoundUpTo(c * plane_, kLanes), whole = hwy::RoundDownTo(end, kLanes);
      const V s = hn::Set(d, scale[c]), t = hn::Set(d, shift[c]), p = hn::Set(d, pivot[c]);
      const auto border = [&]() HWY_ATTR {
        if (whole == end) return;
        const auto own = hn::FirstN(d, end - whole);
        map(whole, hn::IfThenElse(own, s, hn::Set(d, scale[c + 1])), hn::IfThenElse(own, t, hn::Set(d, shift[c + 1])),
            hn::IfThenElse(own, p, hn::Set(d, pivot[c + 1])));
      };
      if constexpr (kDown) {
        border();
        for (size_t at = whole; at > begin; at -= kLanes) map(at - kLanes, s, t, p);
      } else {
        for (size_t at = begin; at < whole; at += kLanes) map(at, s, t, p);
        border();
      }
    }
  }

  // to[k]: the sum of all lanes of the k-th of four vectors. Their parts are added as they are read, without shuffles.
  static HWY_INLINE void StoreLaneSums(const W* from, W* to) {
    const Part d;
    hn::Vec<Part> v[kFour];
    for (size_t k = 0; k < kFour; ++k) {
      v[k] = hn::Load(d, from + k * kLanes);
      for (size_t i = kPart; i < kLanes; i += kPart) v[k] = hn::Add(v[k], hn::Load(d, from + k * kLanes + i));
    }
    StoreSums(d, v, to);
  }

  // What only the last images of a batch need is kept out of the loops' function, which then keeps more in registers:
  // 2 %.
  HWY_NOINLINE void AddRest(const T* src, size_t channels, size_t images, bool more, const W* pivot, W* sums,
                            W* squares) const {
    for (size_t image = 0; image < images; ++image) {
      AddImages<1>(src + image * stride_, channels, more || image > 0, pivot, sums, squares);
    }
  }
  template <bool kDown>
  HWY_NOINLINE void MapFirst(const T* src, T* dst, size_t channels, const W* scale, const W* shift,
                             const W* pivot) const {
    MapImages<1, kDown>(src, dst, channels, scale, shift, pivot);
  }

  // What StoreSums is given: less than a vector where that has more than four lanes.
  using Part = std::conditional_t<(kLanes > kFour), hn::Half<D>, D>;
  static constexpr size_t kPart = HWY_MAX_LANES_D(Part);

  size_t unit_, plane_, stride_;
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
