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

constexpr size_t kSampledRows = 8;  // whose mean is the first pivot
constexpr size_t kBlockRows = 128;  // what one lane adds up in single precision
// Rows in turns, a page or a row apart, for the prefetchers. Zen 1 (AVX2) follows 4 as well as 8, and 16 badly:
// statistics and map of 98 MB, two threads: 11.9, 12.4 and 12.4 ms, of 24 MB with 3 channels 2.87, 3.09 and 2.83.
constexpr size_t kRowStreams = HWY_TARGET <= HWY_AVX3 ? 8 : 4;
constexpr size_t kPage = 1024;  // elements
// Vectors of columns whose sums stay in registers while rows are read in order. AVX-512, Zen 4, statistics alone: 188
// KB in L2, rows of 960 floats, 1.8 us (2.07 by rows in turns, a read 1.62); 3 MB in L3, rows of 64, 34 us (40, 32), of
// 2048 41 (47, 32), of 512 half as much 19 (22.5, 16.6). From memory (98 MB) rows in turns a page apart have 12.4 ms
// where those in order have 16.9.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;
constexpr size_t kAtOnce = 8;
constexpr size_t kCachedBlockRows = kRowsOfSum * (kBlockRows / kRowStreams);

template <typename T>
Moments RunOf(const void* src, int64_t n, int64_t runs, int64_t stride) {
  Moments moments;
  AddRuns(static_cast<const T*>(src), static_cast<size_t>(n), static_cast<size_t>(runs), static_cast<size_t>(stride),
          NoTask<true>(), moments);
  return moments;
}

template <typename T, class D = hn::ScalableTag<Wide<T>>>
HWY_INLINE hn::Vec<D> LoadColumns(const T* row, size_t c, size_t columns) {
  const D d;
  return c + hn::Lanes(d) <= columns ? LoadWide(d, row + c) : LoadWideN(d, row + c, columns - c);
}

// kRows rows, `step` elements apart, and with kFetch those after them: AVX-512, Zen 4, 98 MB by rows of 256, training
// on one thread 11.0 -> 10.3 ms.
template <size_t kRows, bool kFetch, typename T>
HWY_INLINE void AddRows(const T* src, size_t step, size_t columns, ColumnSums<T>& sums) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const V pivot = hn::Load(d, sums.pivot + c);
    // Summed apart, so that a large total rounds once for kRows terms.
    V sum = hn::Zero(d), square = hn::Zero(d);
    for (size_t k = 0; kFetch && k < kRows; ++k) __builtin_prefetch(src + (kRows + k) * step + c, 0, 2);
    for (size_t k = 0; k < kRows; ++k) {
      const V x = hn::Sub(LoadColumns(src + k * step, c, columns), pivot);
      sum = hn::Add(sum, x);
      square = hn::MulAdd(x, x, square);
    }
    hn::Store(hn::Add(hn::Load(d, sums.sum + c), sum), d, sums.sum + c);
    hn::Store(hn::Add(hn::Load(d, sums.square + c), square), d, sums.square + c);
  }
}

// Of kVectors vectors of columns from c on, all of them whole or a single one: their sums, row by row. kFetch: the next
// row is asked for, where rows are so far apart that no prefetcher follows them: 3 MB in L3, rows of 2048 floats, Zen
// 4, 41 us, so 39. Of fewer vectors at once it was not measured.
template <size_t kVectors, bool kFetch, typename T>
HWY_INLINE void AddColumns(const T* src, size_t pitch, size_t rows, size_t c, size_t columns, ColumnSums<T>& sums) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto load = [&](size_t row, size_t v) HWY_ATTR {
    const T* from = src + row * pitch;
    return kVectors > 1 ? LoadWide(d, from + c + v * lanes) : LoadColumns(from, c, columns);
  };
  // Always inline: calls of a function that does nothing but fetch are left out by the compiler.
  const auto fetch = [&](size_t row) HWY_ATTR __attribute__((always_inline)) {
    for (size_t v = 0; kFetch && v < kVectors; ++v) __builtin_prefetch(src + (row + 1) * pitch + c + v * lanes, 0, 3);
  };
  AddRowsOfColumns<kVectors>(d, rows, sums.pivot + c, sums.sum + c, sums.square + c, load, fetch);
}

template <typename T>
void AddDeviations(const T* src, size_t pitch, size_t rows, size_t columns, ReadFrom from, ColumnSums<T>& sums) {
  const size_t lanes = hn::Lanes(hn::ScalableTag<Wide<T>>());
  if (kManyRegisters && from == ReadFrom::kCaches) {
    size_t c = 0;
    const bool fetch = pitch * sizeof(T) > kPage * sizeof(float);
    for (; c + kAtOnce * lanes <= columns; c += kAtOnce * lanes) {
      fetch ? AddColumns<kAtOnce, true>(src, pitch, rows, c, columns, sums)
            : AddColumns<kAtOnce, false>(src, pitch, rows, c, columns, sums);
    }
    for (; c + kAtOnce / 2 * lanes <= columns; c += kAtOnce / 2 * lanes) {
      AddColumns<kAtOnce / 2, false>(src, pitch, rows, c, columns, sums);
    }
    for (; c < columns; c += lanes) AddColumns<1, false>(src, pitch, rows, c, columns, sums);
    return;
  }
  std::fill_n(sums.sum, columns + lanes, Wide<T>{0});
  std::fill_n(sums.square, columns + lanes, Wide<T>{0});
  const size_t apart = std::min(std::max<size_t>(1, kPage / std::max<size_t>(1, pitch)), rows / kRowStreams);
  size_t row = 0;
  if (apart > 0) {
    for (; row + kRowStreams * apart <= rows; row += kRowStreams * apart) {
      for (size_t i = row; i < row + apart; ++i) {
        if (kManyRegisters && from == ReadFrom::kFetched) {
          AddRows<kRowStreams, true>(src + i * pitch, apart * pitch, columns, sums);
        } else {
          AddRows<kRowStreams, false>(src + i * pitch, apart * pitch, columns, sums);
        }
      }
    }
  }
  for (; row < rows; ++row) AddRows<1, false>(src + row * pitch, 0, columns, sums);
}

template <typename T>
void ColumnsOf(const void* src, int64_t pitch, int64_t rows, int64_t columns, ReadFrom where, double factor,
               double* mean, double* m2) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(columns), total = static_cast<size_t>(rows);
  const auto step = static_cast<size_t>(pitch);
  const T* from = static_cast<const T*>(src);
  ColumnSums<T> sums;
  std::fill_n(sums.pivot, n + lanes, Wide<T>{0});
  const bool many = kManyRegisters && where == ReadFrom::kCaches && total > kBlockRows;
  const size_t block = many ? kCachedBlockRows : kBlockRows;
  const size_t sampled = std::min(many ? 2 * kSampledRows : kSampledRows, total);
  AddDeviations(from, step, sampled, n, where, sums);
  const auto inverse = hn::Set(d, static_cast<Wide<T>>(1.0 / static_cast<double>(sampled)));
  for (size_t c = 0; c < n; c += lanes) {
    hn::Store(RoundPivot<T>(d, hn::Mul(hn::Load(d, sums.sum + c), inverse)), d, sums.pivot + c);
  }
  const double good = many ? kGoodLongPivot : kGoodShortPivot;
  for (size_t row = 0; row < total;) {
    const size_t count = std::min(block, total - row);
    if (row > 0) PivotsFromMeans(n, sums);
    AddBlockOfColumns(row == 0 ? good : kGoodPivot, row, count, n, sums,
                      [&]() HWY_ATTR { AddDeviations(from + row * step, step, count, n, where, sums); });
    row += count;
  }
  CopyMoments(sums, n, factor, mean, m2);
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
