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
#include <utility>

#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

constexpr size_t kFour = 4;
constexpr size_t kMaxSmallPlane = kShort;
constexpr size_t kLaneTerms = 64;  // what one lane adds up in single precision, of more than one image
constexpr size_t kSampled = 16;    // elements whose mean is the first pivot

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
    const hn::Repartition<uint64_t, D> pairs;
    // In every block of four lanes: 0 + 2 of both, then 1 + 3 of both.
    const V first = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
    const V second = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
    const auto a = hn::BitCast(pairs, first), b = hn::BitCast(pairs, second);
    const V even = hn::BitCast(d, hn::InterleaveLower(pairs, a, b));
    const V odd = hn::BitCast(d, hn::InterleaveUpper(pairs, a, b));
    StoreBlockSums(d, hn::Add(even, odd), to);
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

// What SumFour does for float32 planes of 7x7, whose last element fills no vector, without loops over a plane.
struct FourOf49 {
  static constexpr size_t kPlane = 49;
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;
  using D4 = hn::FixedTag<float, kFour>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D), kWhole = kPlane / kLanes;
  // With AVX2 on the same CPU it takes 1.02 times as long, with SSE2 1.07.
  static constexpr bool kFaster = kLanes >= 16;

  // Channels c, c + 1 and so on, or the last one again, of adjacent planes.
  HWY_INLINE FourOf49(const float* src, size_t c, size_t channels) {
    for (size_t k = 0; k < kFour; ++k) plane[k] = src + std::min(c + k, channels - 1) * kPlane;
  }

  // The means of the first kSampled elements.
  HWY_INLINE void Sample(float* pivot) const {
    const D d;
    const D4 d4;
    V sums[kFour];
    for (size_t k = 0; k < kFour; ++k) {
      sums[k] = hn::LoadU(d, plane[k]);
      for (size_t v = 1; v < kSampled / kLanes; ++v) sums[k] = hn::Add(sums[k], hn::LoadU(d, plane[k] + v * kLanes));
    }
    StoreSums(d, sums, pivot);
    hn::StoreU(hn::Mul(hn::LoadU(d4, pivot), hn::Set(d4, 1.0f / kSampled)), d4, pivot);
  }

  HWY_INLINE void Sum(size_t runs, size_t stride, const float* pivot, float* sum, float* square) const {
    const D d;
    const D4 d4;
    V sums[kFour], squares[kFour], p[kFour];
    const float* at[kFour];
    for (size_t k = 0; k < kFour; ++k) {
      sums[k] = squares[k] = hn::Zero(d);
      p[k] = hn::Set(d, pivot[k]);
      at[k] = plane[k];
    }
    const auto last = [&](size_t k) HWY_ATTR { return hn::Set(d4, at[k][kPlane - 1]); };
    const auto p4 = hn::LoadU(d4, pivot);
    auto last_sum = hn::Zero(d4), last_square = hn::Zero(d4);
    for (size_t run = 0; run < runs; ++run) {
      for (size_t v = 0; v < kWhole; ++v) {
        for (size_t k = 0; k < kFour; ++k) {
          const V x = hn::Sub(hn::LoadU(d, at[k] + v * kLanes), p[k]);
          sums[k] = hn::Add(sums[k], x);
          squares[k] = hn::MulAdd(x, x, squares[k]);
        }
      }
      const auto x = hn::Sub(hn::ConcatLowerLower(d4, hn::InterleaveLower(d4, last(2), last(3)),
                                                  hn::InterleaveLower(d4, last(0), last(1))),
                             p4);
      last_sum = hn::Add(last_sum, x);
      last_square = hn::MulAdd(x, x, last_square);
      for (size_t k = 0; k < kFour; ++k) at[k] += stride;
    }
    StoreSums(d, sums, sum);
    StoreSums(d, squares, square);
    hn::StoreU(hn::Add(hn::LoadU(d4, sum), last_sum), d4, sum);
    hn::StoreU(hn::Add(hn::LoadU(d4, square), last_square), d4, square);
  }

  const float* plane[kFour];
};

// Sums of `runs` images, stride apart, about pivots that are sampled on the way with kSample: those of the next four
// beside the sums of these, so that nothing waits for them (a program of its own on Zen 4, 188 KB: 4.5 us where sums
// wait for their own pivots, 2.9 so).
template <bool kSample>
HWY_NOINLINE void SumPlanesOf49(const float* src, size_t channels, size_t runs, size_t stride,
                                ColumnSums<float>& sums) {
  if constexpr (kSample) FourOf49(src, 0, channels).Sample(sums.pivot);
  for (size_t c = 0; c < channels; c += kFour) {
    if constexpr (kSample) {
      if (c + kFour < channels) FourOf49(src, c + kFour, channels).Sample(sums.pivot + c + kFour);
    }
    FourOf49(src, c, channels).Sum(runs, stride, sums.pivot + c, sums.sum + c, sums.square + c);
  }
}

// Of `channels` <= kMaxColumns planes of n <= kMaxSmallPlane elements, adjacent, in `batch` images: their moments, to
// sums.mean and sums.m2.
template <typename T>
void SmallPlaneMoments(const T* src, size_t channels, size_t n, size_t batch, size_t stride, ColumnSums<T>& sums) {
  // The last four repeat a channel where fewer are left: every channel is added up in the same way.
  const auto sum_all = [&](auto squares, size_t length, size_t image, size_t images) HWY_ATTR {
    for (size_t c = 0; c < channels; c += kFour) {
      const size_t last = std::min(kFour, channels - c) - 1;
      const size_t offset[kFour] = {0, std::min<size_t>(1, last) * n, std::min<size_t>(2, last) * n, last * n};
      SumFour<squares.value>(src + image * stride + c * n, offset, length, images, stride, sums.pivot + c, sums.sum + c,
                             sums.square + c);
    }
  };
  const auto sample = [&]() HWY_ATTR {
    const hn::ScalableTag<Wide<T>> d;
    const size_t sampled = std::min(n, kSampled);
    sum_all(std::false_type(), sampled, 0, 1);
    const auto inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(sampled)));
    for (size_t c = 0; c < channels; c += hn::Lanes(d)) {
      hn::Store(RoundPivot<T>(d, hn::Mul(hn::Load(d, sums.sum + c), inverse)), d, sums.pivot + c);
    }
  };
  bool sampled = false;
  const auto add = [&](size_t image, size_t images) HWY_ATTR {
    const bool first = !std::exchange(sampled, true);
    if constexpr (std::is_same_v<T, float> && FourOf49::kFaster) {
      if (n == FourOf49::kPlane) {
        return (first ? SumPlanesOf49<true> : SumPlanesOf49<false>)(src + image * stride, channels, images, stride,
                                                                    sums);
      }
    }
    if (first) sample();
    sum_all(std::true_type(), n, image, images);
  };
  constexpr size_t kLanes = HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>);
  const size_t images = std::max<size_t>(1, kLaneTerms / hwy::DivCeil(n, kLanes));
  for (size_t image = 0; image < batch; image += images) {
    const size_t count = std::min(images, batch - image);
    if (image > 0) PivotsFromMeans(channels, sums);
    AddBlockOfColumns(kGoodShortPivot, image * n, count * n, channels, sums, [&]() HWY_ATTR { add(image, count); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
