// SPDX-License-Identifier: Apache-2.0
// Moments of runs and columns in vector code. Per-target header.
//
// A block is read once, as deviations from a pivot: the mean of what came before, at first any element.
// Where the pivot turns out to be far from the block's own mean against its deviation, the block is read
// again, from a near cache, with that mean as pivot; so nothing cancels however large the mean.
#include "kernels/moments_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_MOMENTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_MOMENTS_INL_H_
#undef CREASE_KERNELS_MOMENTS_INL_H_
#else
#define CREASE_KERNELS_MOMENTS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

#include "kernels/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Elements of a block: 16 KiB of float32. Also bounds what one lane adds up in single precision.
constexpr size_t kBlock = kMomentsBlock;
constexpr size_t kShort = 512;  // terms of a sum that single precision may finish
constexpr size_t kChains = 4;   // independent sums, for the latency of an addition
constexpr size_t kLongRun = kBlock / 2;
// A pivot is good where the squares about it are at most so many times those about the mean: the
// rounding error of their difference grows by as much.
constexpr double kGoodPivot = 1.25;

// The sum of all lanes: in double where many terms went into them, else where the call would cost more
// than the loop.
template <class D, class V = hn::Vec<D>>
HWY_INLINE double SumLanes(D d, V v, size_t terms) {
  if (terms <= kShort) return static_cast<double>(hn::ReduceSum(d, v));
  HWY_ALIGN hn::TFromD<D> lanes[HWY_MAX_LANES_D(D)];
  hn::Store(v, d, lanes);
  double sum = 0;
  for (size_t i = 0; i < hn::Lanes(d); ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

template <class V>
HWY_INLINE V SumChains(const V (&v)[kChains]) {
  return hn::Add(hn::Add(v[0], v[1]), hn::Add(v[2], v[3]));
}

// Sums of deviations from the pivot and of their squares.
struct Deviations {
  double sum, squares;
};

template <typename T>
HWY_INLINE Deviations BlockDeviations(const T* src, size_t n, size_t runs, size_t stride, Wide<T> pivot) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const V p = hn::Set(d, pivot);
  V sum[kChains], square[kChains];
  for (size_t k = 0; k < kChains; ++k) sum[k] = square[k] = hn::Zero(d);
  for (size_t run = 0; run < runs; ++run) {
    const T* from = src + run * stride;
    // Long runs as kChains streams, as Plane does.
    const size_t each = n >= kLongRun ? n / kChains / lanes * lanes : lanes;
    size_t i = 0;
    while (i + kChains * each <= n) {
      for (const size_t end = i + each; i < end; i += lanes) {
        for (size_t k = 0; k < kChains; ++k) {
          const V x = hn::Sub(LoadWide(d, from + i + k * each), p);
          sum[k] = hn::Add(sum[k], x);
          square[k] = hn::MulAdd(x, x, square[k]);
        }
      }
      i += (kChains - 1) * each;
    }
    for (; i + lanes <= n; i += lanes) {
      const V x = hn::Sub(LoadWide(d, from + i), p);
      sum[1] = hn::Add(sum[1], x);
      square[1] = hn::MulAdd(x, x, square[1]);
    }
    if (i < n) {
      const V x = hn::IfThenElseZero(hn::FirstN(d, n - i), hn::Sub(LoadWideN(d, from + i, n - i), p));
      sum[0] = hn::Add(sum[0], x);
      square[0] = hn::MulAdd(x, x, square[0]);
    }
  }
  const size_t terms = n * runs;
  return {SumLanes(d, SumChains(sum), terms), SumLanes(d, SumChains(square), terms)};
}

// Adds `runs` runs of n elements, n * runs <= kBlock.
template <typename T>
HWY_INLINE void AddBlock(const T* src, size_t n, size_t runs, size_t stride, Moments& moments) {
  const hn::ScalableTag<Wide<T>> d;
  const auto terms = static_cast<double>(n * runs);
  const double inverse = 1 / terms;
  auto pivot = moments.count > 0 ? static_cast<Wide<T>>(moments.mean) : hn::GetLane(LoadWideN(d, src, 1));
  for (bool again = false;; again = true) {
    const Deviations of = BlockDeviations(src, n, runs, stride, pivot);
    const double rest = of.sum * inverse;
    const Moments block = {terms, static_cast<double>(pivot) + rest, std::max(0.0, of.squares - of.sum * rest)};
    if (again || of.squares <= kGoodPivot * block.m2) return moments.Merge(block);
    pivot = static_cast<Wide<T>>(block.mean);
  }
}

// Adds `runs` runs of n elements, `stride` apart; at most kBlock in all, or one run.
template <typename T>
HWY_INLINE void AddRuns(const T* src, size_t n, size_t runs, size_t stride, Moments& moments) {
  if (runs > 1) return AddBlock(src, n, runs, stride, moments);
  for (size_t i = 0; i < n; i += kBlock) AddBlock(src + i, std::min(kBlock, n - i), 1, 0, moments);
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
