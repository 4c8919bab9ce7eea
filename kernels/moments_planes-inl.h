// SPDX-License-Identifier: Apache-2.0
// Moments of planes too small for a loop each: four channels at a time, whose sums across lanes are taken together.
// Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_MOMENTS_PLANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_MOMENTS_PLANES_INL_H_
#undef CREASE_KERNELS_MOMENTS_PLANES_INL_H_
#else
#define CREASE_KERNELS_MOMENTS_PLANES_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

constexpr size_t kFour = 4;
constexpr size_t kMaxSmallPlane = kShort;
constexpr size_t kSampled = 16;  // elements whose mean is the first pivot
// What one lane adds up, of more than one image.
template <typename T>
constexpr size_t kLaneTerms = std::is_same_v<T, double> ? 256 : 32;

template <class D, class V>
HWY_INLINE void StoreBlockSums(D d, V v, float* to) {
  if constexpr (HWY_MAX_LANES_D(D) <= kFour) {
    hn::StoreU(v, d, to);
  } else {
    const hn::Half<D> half;
    StoreBlockSums(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), to);
  }
}

// to[k]: the sum of v[k]'s lanes, added up in the same order for every k.
template <class D, class V>
HWY_INLINE void StoreSums(D d, const V (&v)[kFour], hn::TFromD<D>* to) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    for (size_t k = 0; k < kFour; ++k) to[k] = hn::ReduceSum(d, v[k]);
  } else {
    StoreBlockSums(d, SumBlocks(d, v[0], v[1], v[2], v[3]), to);
  }
}

// Planes of n elements of four channels, `offset` elements from src each, in `runs` images that are `stride` apart:
// sums of deviations from the pivots and of their squares.
template <bool kSquares, typename T>
HWY_INLINE void SumFour(const T* src, const size_t (&offset)[kFour], size_t n, size_t runs, size_t stride,
                        const Wide<T>* pivot, Wide<T>* sum, Wide<T>* square) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  V sums[kFour], squares[kFour], p[kFour];
  for (size_t k = 0; k < kFour; ++k) {
    sums[k] = squares[k] = hn::Zero(d);
    p[k] = kSquares ? hn::Set(d, pivot[k]) : hn::Zero(d);
  }
  const auto tail = hn::FirstN(d, n % lanes);
  for (size_t run = 0; run < runs; ++run) {
    const T* from = src + run * stride;
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      for (size_t k = 0; k < kFour; ++k) {
        V x = LoadWide(d, from + offset[k] + i);
        if constexpr (kSquares) {
          x = hn::Sub(x, p[k]);
          squares[k] = hn::MulAdd(x, x, squares[k]);
        }
        sums[k] = hn::Add(sums[k], x);
      }
    }
    if (i == n) continue;
    for (size_t k = 0; k < kFour; ++k) {
      V x = LoadWideN(d, from + offset[k] + i, n - i);
      if constexpr (kSquares) {
        x = hn::IfThenElseZero(tail, hn::Sub(x, p[k]));
        squares[k] = hn::MulAdd(x, x, squares[k]);
      }
      sums[k] = hn::Add(sums[k], x);
    }
  }
  StoreSums(d, sums, sum);
  if constexpr (kSquares) StoreSums(d, squares, square);
}

// Of `channels` <= kMaxColumns planes of n <= kMaxSmallPlane elements, adjacent, in `batch` images: their moments, to
// sums.mean and sums.m2.
template <typename T>
void SmallPlaneMoments(const T* src, size_t channels, size_t n, size_t batch, size_t stride, ColumnSums<T>& sums) {
  // The last four repeat a channel where fewer are left: every channel is added up in the same way.
  const auto sum = [&](auto squares, size_t length, size_t image, size_t images) HWY_ATTR {
    for (size_t c = 0; c < channels; c += kFour) {
      const size_t last = std::min(kFour, channels - c) - 1;
      const size_t offset[kFour] = {0, std::min<size_t>(1, last) * n, std::min<size_t>(2, last) * n, last * n};
      SumFour<squares.value>(src + image * stride + c * n, offset, length, images, stride, sums.pivot + c, sums.sum + c,
                             sums.square + c);
    }
  };
  const hn::ScalableTag<Wide<T>> d;
  const size_t sampled = std::min(n, kSampled);
  sum(std::false_type(), sampled, 0, 1);
  const auto inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(sampled)));
  for (size_t c = 0; c < channels; c += hn::Lanes(d)) {
    hn::Store(RoundPivot<T>(d, hn::Mul(hn::Load(d, sums.sum + c), inverse)), d, sums.pivot + c);
  }
  constexpr size_t kLanes = HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>);
  const size_t images = std::max<size_t>(1, kLaneTerms<T> / hwy::DivCeil(n, kLanes));
  for (size_t image = 0; image < batch; image += images) {
    const size_t count = std::min(images, batch - image);
    if (image > 0) PivotsFromMeans(channels, sums);
    AddBlockOfColumns(kGoodShortPivot, image * n, count * n, channels, sums,
                      [&]() HWY_ATTR { sum(std::true_type(), n, image, count); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
