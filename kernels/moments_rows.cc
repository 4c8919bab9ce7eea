// SPDX-License-Identifier: Apache-2.0
#include "kernels/moments_rows.h"

#include <algorithm>
#include <cstddef>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/moments_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Elements of a block that is read twice: 16 KiB of float32. Also bounds what one lane adds up in
// single precision.
constexpr size_t kBlock = kMomentsBlock;
constexpr size_t kBlockRows = 64;  // times 4 vectors of channels
constexpr size_t kShort = 512;     // terms of a sum that single precision may finish
constexpr size_t kChains = 4;      // independent sums, for the latency of an addition

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

// n * runs <= kBlock.
template <typename T>
HWY_INLINE Moments BlockMoments(const T* src, size_t n, size_t runs, size_t stride) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const size_t step = kChains * lanes;
  const size_t terms = n * runs;
  V sum[kChains], square[kChains];
  for (size_t k = 0; k < kChains; ++k) sum[k] = hn::Zero(d);
  for (size_t run = 0; run < runs; ++run) {
    const T* from = src + run * stride;
    size_t i = 0;
    for (; i + step <= n; i += step) {
      for (size_t k = 0; k < kChains; ++k) sum[k] = hn::Add(sum[k], LoadWide(d, from + i + k * lanes));
    }
    for (; i + lanes <= n; i += lanes) sum[1] = hn::Add(sum[1], LoadWide(d, from + i));
    if (i < n) sum[0] = hn::Add(sum[0], LoadWideN(d, from + i, n - i));
  }
  const double inverse = 1 / static_cast<double>(terms);
  const double total = SumLanes(d, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])), terms);
  const auto pivot = static_cast<Wide<T>>(total * inverse);
  const V p = hn::Set(d, pivot);
  for (size_t k = 0; k < kChains; ++k) sum[k] = square[k] = hn::Zero(d);
  for (size_t run = 0; run < runs; ++run) {
    const T* from = src + run * stride;
    size_t i = 0;
    for (; i + step <= n; i += step) {
      for (size_t k = 0; k < kChains; ++k) {
        const V x = hn::Sub(LoadWide(d, from + i + k * lanes), p);
        sum[k] = hn::Add(sum[k], x);
        square[k] = hn::MulAdd(x, x, square[k]);
      }
    }
    for (; i < n; i += lanes) {
      const size_t left = std::min(lanes, n - i);
      const V x = hn::IfThenElseZero(hn::FirstN(d, left), hn::Sub(LoadWideN(d, from + i, left), p));
      sum[0] = hn::Add(sum[0], x);
      square[0] = hn::MulAdd(x, x, square[0]);
    }
  }
  const double rest = SumLanes(d, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])), terms);
  const double m2 = SumLanes(d, hn::Add(hn::Add(square[0], square[1]), hn::Add(square[2], square[3])), terms);
  return {static_cast<double>(terms), static_cast<double>(pivot) + rest * inverse,
          std::max(0.0, m2 - rest * rest * inverse)};
}

template <typename T>
Moments RunOf(const void* src, int64_t n, int64_t runs, int64_t stride) {
  const T* from = static_cast<const T*>(src);
  if (runs > 1) {
    return BlockMoments(from, static_cast<size_t>(n), static_cast<size_t>(runs), static_cast<size_t>(stride));
  }
  Moments moments;
  for (int64_t i = 0; i < n; i += kMomentsBlock) {
    moments.Merge(BlockMoments(from + i, std::min(kBlock, static_cast<size_t>(n - i)), 1, 0));
  }
  return moments;
}

// One block of up to kBlockRows rows of kVectors vectors; `last` lanes are used in the last vector.
template <size_t kVectors, typename T>
HWY_INLINE void BlockColumns(const T* src, size_t pitch, size_t rows, size_t last, Moments* moments) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto load = [&](const T* from, size_t v) HWY_ATTR {
    return last == lanes || v + 1 < kVectors ? LoadWide(d, from + v * lanes) : LoadWideN(d, from + v * lanes, last);
  };
  V pivot[kVectors], sum[kVectors], square[kVectors];
  for (size_t v = 0; v < kVectors; ++v) pivot[v] = sum[v] = square[v] = hn::Zero(d);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Add(pivot[v], load(src + r * pitch, v));
  }
  const V inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(rows)));
  for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Mul(pivot[v], inverse);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t v = 0; v < kVectors; ++v) {
      const V x = hn::Sub(load(src + r * pitch, v), pivot[v]);
      sum[v] = hn::Add(sum[v], x);
      square[v] = hn::MulAdd(x, x, square[v]);
    }
  }
  const auto count = static_cast<double>(rows);
  HWY_ALIGN Wide<T> p[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)];
  HWY_ALIGN Wide<T> s[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)];
  HWY_ALIGN Wide<T> q[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)];
  for (size_t v = 0; v < kVectors; ++v) {
    hn::Store(pivot[v], d, p);
    hn::Store(sum[v], d, s);
    hn::Store(square[v], d, q);
    for (size_t i = 0; i < (v + 1 < kVectors ? lanes : last); ++i) {
      const auto rest = static_cast<double>(s[i]);
      moments[v * lanes + i].Merge({count, static_cast<double>(p[i]) + rest / count,
                                    std::max(0.0, static_cast<double>(q[i]) - rest * rest / count)});
    }
  }
}

template <typename T>
void ColumnsOf(const void* src, int64_t pitch, int64_t rows, int64_t channels, Moments* moments) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(channels);
  const auto step = static_cast<size_t>(pitch);
  std::fill_n(moments, n, Moments());
  for (size_t row = 0; row < static_cast<size_t>(rows); row += kBlockRows) {
    const size_t count = std::min(kBlockRows, static_cast<size_t>(rows) - row);
    const T* from = static_cast<const T*>(src) + row * step;
    size_t c = 0;
    for (; c + 4 * lanes <= n; c += 4 * lanes) BlockColumns<4>(from + c, step, count, lanes, moments + c);
    for (; c < n; c += lanes) BlockColumns<1>(from + c, step, count, std::min(lanes, n - c), moments + c);
  }
}

RunMoments GetRun(DType dtype) {
  if (dtype == DType::kFloat32) return RunOf<float>;
  if (dtype == DType::kFloat64) return RunOf<double>;
  if (dtype == DType::kFloat16) return RunOf<hwy::float16_t>;
  if (dtype == DType::kBFloat16) return RunOf<hwy::bfloat16_t>;
  return nullptr;
}

ColumnMoments GetColumns(DType dtype) {
  if (dtype == DType::kFloat32) return ColumnsOf<float>;
  if (dtype == DType::kFloat64) return ColumnsOf<double>;
  if (dtype == DType::kFloat16) return ColumnsOf<hwy::float16_t>;
  if (dtype == DType::kBFloat16) return ColumnsOf<hwy::bfloat16_t>;
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetRun);
HWY_EXPORT(GetColumns);
}  // namespace

RunMoments FindRunMoments(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetRun)(dtype);
}

ColumnMoments FindColumnMoments(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetColumns)(dtype);
}

}  // namespace crease
#endif  // HWY_ONCE
