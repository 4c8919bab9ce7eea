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

#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

constexpr size_t kBlockRows = 64;  // rows of a block, times kBlockVectors vectors: in L1
constexpr size_t kBlockVectors = 4;

template <typename T>
Moments RunOf(const void* src, int64_t n, int64_t runs, int64_t stride) {
  Moments moments;
  AddRuns(static_cast<const T*>(src), static_cast<size_t>(n), static_cast<size_t>(runs), static_cast<size_t>(stride),
          moments);
  return moments;
}

// Merges `count` rows, given by sums of deviations from the pivot and of their squares, into the moments
// of `done` rows.
template <class DD, class VD>
HWY_INLINE void MergeColumns(DD dd, VD pivot, VD sum, VD square, double done, double count, double* mean, double* m2) {
  const VD inverse = hn::Set(dd, 1 / count);
  const VD own_mean = hn::MulAdd(sum, inverse, pivot);
  const VD own_m2 = hn::Max(hn::Zero(dd), hn::NegMulAdd(hn::Mul(sum, sum), inverse, square));
  if (done == 0) {
    hn::StoreU(own_mean, dd, mean);
    hn::StoreU(own_m2, dd, m2);
    return;
  }
  const VD old = hn::LoadU(dd, mean);
  const VD delta = hn::Sub(own_mean, old);
  const double share = count / (done + count);
  hn::StoreU(hn::MulAdd(delta, hn::Set(dd, share), old), dd, mean);
  const VD both = hn::Add(hn::LoadU(dd, m2), own_m2);
  hn::StoreU(hn::MulAdd(hn::Mul(delta, delta), hn::Set(dd, share * done), both), dd, m2);
}

template <class D, class V>
HWY_INLINE void MergeWide(D d, V pivot, V sum, V square, double done, double count, double* mean, double* m2) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    MergeColumns(d, pivot, sum, square, done, count, mean, m2);
  } else {
    const hn::ScalableTag<double> dd;
    const size_t half = hn::Lanes(dd);
    MergeColumns(dd, hn::PromoteLowerTo(dd, pivot), hn::PromoteLowerTo(dd, sum), hn::PromoteLowerTo(dd, square), done,
                 count, mean, m2);
    MergeColumns(dd, hn::PromoteUpperTo(dd, pivot), hn::PromoteUpperTo(dd, sum), hn::PromoteUpperTo(dd, square), done,
                 count, mean + half, m2 + half);
  }
}

// Adds up to kBlockRows rows of kVectors vectors to the moments of `done` rows; `last` lanes are used in
// the last vector, mean and m2 have room for all.
template <size_t kVectors, typename T>
HWY_INLINE void AddColumns(const T* src, size_t pitch, size_t rows, size_t last, size_t done, double* mean,
                           double* m2) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto load = [&](const T* from, size_t v) HWY_ATTR {
    return last == lanes || v + 1 < kVectors ? LoadWide(d, from + v * lanes) : LoadWideN(d, from + v * lanes, last);
  };
  V pivot[kVectors], sum[kVectors], square[kVectors];
  const auto deviate = [&]() HWY_ATTR {
    for (size_t v = 0; v < kVectors; ++v) sum[v] = square[v] = hn::Zero(d);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t v = 0; v < kVectors; ++v) {
        const V x = hn::Sub(load(src + r * pitch, v), pivot[v]);
        sum[v] = hn::Add(sum[v], x);
        square[v] = hn::MulAdd(x, x, square[v]);
      }
    }
  };
  const V inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(rows)));
  bool good = done > 0;
  if (good) {
    HWY_ALIGN Wide<T> narrow[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)];
    for (size_t v = 0; v < kVectors; ++v) {
      for (size_t i = 0; i < lanes; ++i) narrow[i] = static_cast<Wide<T>>(mean[v * lanes + i]);
      pivot[v] = hn::Load(d, narrow);
    }
    deviate();
    for (size_t v = 0; v < kVectors; ++v) {
      // squares - sum^2 / rows >= squares / kGoodPivot
      const V kept = hn::Set(d, static_cast<Wide<T>>(1 - 1 / kGoodPivot));
      good = good && hn::AllTrue(d, hn::Le(hn::Mul(hn::Mul(sum[v], sum[v]), inverse), hn::Mul(square[v], kept)));
    }
  }
  if (!good) {
    for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Zero(d);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Add(pivot[v], load(src + r * pitch, v));
    }
    for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Mul(pivot[v], inverse);
    deviate();
  }
  for (size_t v = 0; v < kVectors; ++v) {
    MergeWide(d, pivot[v], sum[v], square[v], static_cast<double>(done), static_cast<double>(rows), mean + v * lanes,
              m2 + v * lanes);
  }
}

template <typename T>
void ColumnsOf(const void* src, int64_t pitch, int64_t rows, int64_t columns, double* mean, double* m2) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(columns), total = static_cast<size_t>(rows);
  const auto step = static_cast<size_t>(pitch);
  double last_mean[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)], last_m2[HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>)];
  for (size_t row = 0; row < total; row += kBlockRows) {
    const size_t count = std::min(kBlockRows, total - row);
    const T* from = static_cast<const T*>(src) + row * step;
    size_t c = 0;
    for (; c + kBlockVectors * lanes <= n; c += kBlockVectors * lanes) {
      AddColumns<kBlockVectors>(from + c, step, count, lanes, row, mean + c, m2 + c);
    }
    for (; c + lanes <= n; c += lanes) AddColumns<1>(from + c, step, count, lanes, row, mean + c, m2 + c);
    if (c < n) AddColumns<1>(from + c, step, count, n - c, row, last_mean, last_m2);
  }
  const size_t rest = n % lanes;
  std::copy_n(last_mean, rest, mean + (n - rest));
  std::copy_n(last_m2, rest, m2 + (n - rest));
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
