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

constexpr size_t kFirstRows = 32;   // of the block that finds a pivot
constexpr size_t kBlockRows = 128;  // what one lane adds up in single precision
constexpr size_t kRowStreams = 8;   // rows in turns, a page or a row apart, for the prefetchers
constexpr size_t kPage = 1024;      // elements

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

// Sums of deviations from the pivot and of their squares, column by column; room for whole vectors.
template <typename T>
struct ColumnSums {
  static constexpr size_t kRoom = static_cast<size_t>(kMaxColumns) + HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>);
  HWY_ALIGN Wide<T> pivot[kRoom];
  HWY_ALIGN Wide<T> sum[kRoom];
  HWY_ALIGN Wide<T> square[kRoom];
  HWY_ALIGN double mean[kRoom];
  HWY_ALIGN double m2[kRoom];
};

template <typename T, class D = hn::ScalableTag<Wide<T>>>
HWY_INLINE hn::Vec<D> LoadColumns(const T* row, size_t c, size_t columns) {
  const D d;
  return c + hn::Lanes(d) <= columns ? LoadWide(d, row + c) : LoadWideN(d, row + c, columns - c);
}

// kRows rows, `step` elements apart.
template <size_t kRows, typename T>
HWY_INLINE void AddRows(const T* src, size_t step, size_t columns, ColumnSums<T>& sums) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const V pivot = hn::Load(d, sums.pivot + c);
    // Summed apart, so that a large total rounds once for kRows terms.
    V sum = hn::Zero(d), square = hn::Zero(d);
    for (size_t k = 0; k < kRows; ++k) {
      const V x = hn::Sub(LoadColumns(src + k * step, c, columns), pivot);
      sum = hn::Add(sum, x);
      square = hn::MulAdd(x, x, square);
    }
    hn::Store(hn::Add(hn::Load(d, sums.sum + c), sum), d, sums.sum + c);
    hn::Store(hn::Add(hn::Load(d, sums.square + c), square), d, sums.square + c);
  }
}

template <typename T>
void AddDeviations(const T* src, size_t pitch, size_t rows, size_t columns, ColumnSums<T>& sums) {
  const size_t room = columns + hn::Lanes(hn::ScalableTag<Wide<T>>());
  std::fill_n(sums.sum, room, Wide<T>{0});
  std::fill_n(sums.square, room, Wide<T>{0});
  const size_t apart = std::min(std::max<size_t>(1, kPage / std::max<size_t>(1, pitch)), rows / kRowStreams);
  size_t row = 0;
  if (apart > 0) {
    for (; row + kRowStreams * apart <= rows; row += kRowStreams * apart) {
      for (size_t i = row; i < row + apart; ++i) {
        AddRows<kRowStreams>(src + i * pitch, apart * pitch, columns, sums);
      }
    }
  }
  for (; row < rows; ++row) AddRows<1>(src + row * pitch, 0, columns, sums);
}

// As AddBlock has it, for every column.
template <typename T>
HWY_INLINE bool GoodPivots(size_t rows, size_t columns, const ColumnSums<T>& sums) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const V inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(rows)));
  const V kept = hn::Set(d, static_cast<Wide<T>>(1 - 1 / kGoodPivot));
  bool good = true;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const V sum = hn::Load(d, sums.sum + c);
    const auto near = hn::Le(hn::Mul(hn::Mul(sum, sum), inverse), hn::Mul(hn::Load(d, sums.square + c), kept));
    good = good && hn::AllTrue(d, hn::Or(near, hn::Not(hn::FirstN(d, columns - c))));
  }
  return good;
}

template <typename T>
void ColumnsOf(const void* src, int64_t pitch, int64_t rows, int64_t columns, double* mean, double* m2) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(columns), total = static_cast<size_t>(rows);
  const auto step = static_cast<size_t>(pitch);
  const T* from = static_cast<const T*>(src);
  ColumnSums<T> sums;
  for (size_t c = 0; c < n; c += lanes) hn::Store(LoadColumns(from, c, n), d, sums.pivot + c);
  for (size_t row = 0; row < total;) {
    const size_t count = std::min(row == 0 ? kFirstRows : kBlockRows, total - row);
    for (size_t c = 0; row > 0 && c < n; ++c) sums.pivot[c] = static_cast<Wide<T>>(sums.mean[c]);
    AddDeviations(from + row * step, step, count, n, sums);
    if (!GoodPivots(count, n, sums)) {
      const V inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(count)));
      for (size_t c = 0; c < n; c += lanes) {
        const V own = hn::MulAdd(hn::Load(d, sums.sum + c), inverse, hn::Load(d, sums.pivot + c));
        hn::Store(own, d, sums.pivot + c);
      }
      AddDeviations(from + row * step, step, count, n, sums);
    }
    for (size_t c = 0; c < n; c += lanes) {
      MergeWide(d, hn::Load(d, sums.pivot + c), hn::Load(d, sums.sum + c), hn::Load(d, sums.square + c),
                static_cast<double>(row), static_cast<double>(count), sums.mean + c, sums.m2 + c);
    }
    row += count;
  }
  std::copy_n(sums.mean, n, mean);
  std::copy_n(sums.m2, n, m2);
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
