// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_columns.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "kernels/batch_norm_rows.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm_columns.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_vector-inl.h"
#include "kernels/moments-inl.h"
#include "kernels/norm_factors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

constexpr size_t kMostRows = 512;
// Of more rows than these the first pivots are the means of twice as many, and good only where twice as near.
constexpr size_t kShortRows = 128;
constexpr size_t kFewRows = 64;  // that are walked backwards

// The rows of a tensor, from the first one to the last or the other way round.
template <typename T>
struct Rows {
  const T* src;
  T* dst;
  size_t count;
  ptrdiff_t src_pitch, dst_pitch;

  HWY_INLINE bool backwards() const { return src_pitch < 0; }
  HWY_INLINE Rows Backwards() const {
    const auto last = static_cast<ptrdiff_t>(count) - 1;
    return {src + last * src_pitch, dst + last * dst_pitch, count, -src_pitch, -dst_pitch};
  }
};

// kVectors vectors of columns; whole ones, or one of fewer columns.
template <typename T, size_t kVectors, bool kWhole>
class ColumnBlock {
 public:
  using W = Wide<T>;
  using D = hn::ScalableTag<W>;
  using V = hn::Vec<D>;
  static constexpr size_t kLanes = HWY_MAX_LANES_D(D), kColumns = kVectors * kLanes;

  // The first of the `columns` columns from `at` on, as many as it takes. Their first pivots.
  HWY_INLINE void Start(const Rows<T>& rows, size_t at, size_t columns) {
    const D d;
    at_ = at;
    columns_ = std::min(columns, kColumns);
    if constexpr (!kWhole) {  // lanes without a column are computed as well
      std::fill_n(scale_, kColumns, W{0});
      std::fill_n(shift_, kColumns, W{0});
      std::fill_n(center_, kColumns, W{0});
    }
    const size_t sampled = std::min<size_t>(rows.count > kShortRows ? 16 : 8, rows.count);
    V sum[kVectors];
    for (size_t v = 0; v < kVectors; ++v) sum[v] = hn::Zero(d);
    for (size_t row = 0; row < sampled; ++row) {
      const T* from = rows.src + static_cast<ptrdiff_t>(row) * rows.src_pitch + at;
      for (size_t v = 0; v < kVectors; ++v) sum[v] = hn::Add(sum[v], Load(from, v, columns_));
    }
    const V inverse = hn::Set(d, static_cast<W>(1.0 / static_cast<double>(sampled)));
    for (size_t v = 0; v < kVectors; ++v) hn::Store(RoundPivot<T>(d, hn::Mul(sum[v], inverse)), d, pivot_ + v * kLanes);
  }

  // Gives columns whose pivots were not good their means. Whether there were any.
  HWY_INLINE bool MovePivots(const PivotCheck<T>& check) {
    const D d;
    bool moved = false;
    for (size_t v = 0; v < kVectors; ++v) {
      const V pivot = hn::Load(d, pivot_ + v * kLanes);
      const V better = check.Better(pivot, hn::Load(d, sum_ + v * kLanes), hn::Load(d, square_ + v * kLanes));
      moved |= !hn::AllTrue(d, hn::Eq(better, pivot));
      hn::Store(better, d, pivot_ + v * kLanes);
    }
    return moved;
  }

  // Mean, variance and what the map takes. inverse: of the number of rows.
  HWY_INLINE void SetFactors(const NormParameters& parameters, double inverse, double* mean, double* var) {
    const hn::ScalableTag<double> d;
    const auto first = static_cast<int64_t>(at_);
    const auto args = MapArgs<W>::From(first, parameters, mean, var, scale_, shift_, center_);
    const auto one = hn::Set(d, inverse);
    for (size_t c = 0; c < columns_; c += hn::Lanes(d)) {
      const auto of = MeanOf(d, one, LoadDouble(pivot_ + c), LoadDouble(sum_ + c), LoadDouble(square_ + c));
      SetChannels(d, args, mean + first, var + first, c, std::min(hn::Lanes(d), columns_ - c), of.mean,
                  hn::Mul(of.m2, one));
    }
  }

  // Row by row: deviations of `summed` from its pivots and their squares are added up; `mapped` is
  // mapped. All that is kept of either in registers.
  template <bool kSum, bool kMap>
  static HWY_NOINLINE void Pass(const Rows<T>& rows, ColumnBlock& summed, const ColumnBlock& mapped) {
    const D d;
    // Copies: a vector that is stored might be any of these, as far as the compiler knows.
    const T *sum_src = rows.src + summed.at_, *map_src = rows.src + mapped.at_;
    T* dst = rows.dst + mapped.at_;
    const size_t count = rows.count;
    const ptrdiff_t src_pitch = rows.src_pitch, dst_pitch = rows.dst_pitch;
    const size_t summed_columns = summed.columns_, mapped_columns = mapped.columns_;
    V scale[kVectors], shift[kVectors], center[kVectors];
    for (size_t v = 0; kMap && v < kVectors; ++v) {
      scale[v] = hn::Load(d, mapped.scale_ + v * kLanes);
      shift[v] = hn::Load(d, mapped.shift_ + v * kLanes);
      center[v] = hn::Load(d, mapped.center_ + v * kLanes);
    }
    const auto map = [&](size_t row) HWY_ATTR {
      const auto at = static_cast<ptrdiff_t>(row);
      for (size_t v = 0; kMap && v < kVectors; ++v) {
        const V x = Load(map_src + at * src_pitch, v, mapped_columns);
        Store(Map<true>(x, scale[v], shift[v], center[v]), dst + at * dst_pitch, v, mapped_columns);
      }
    };
    if constexpr (kSum) {
      const auto load = [&](size_t row, size_t v) HWY_ATTR {
        return Load(sum_src + static_cast<ptrdiff_t>(row) * src_pitch, v, summed_columns);
      };
      AddRowsOfColumns<kVectors>(d, count, summed.pivot_, summed.sum_, summed.square_, load, map);
    } else {
      for (size_t row = 0; row < count; ++row) map(row);
    }
  }

 private:
  // The vector v of those of a block that begins at `row`.
  static HWY_INLINE V Load(const T* row, size_t v, size_t columns) {
    const D d;
    return kWhole ? LoadWide(d, row + v * kLanes) : LoadWideN(d, row + v * kLanes, columns - v * kLanes);
  }
  static HWY_INLINE void Store(V y, T* row, size_t v, size_t columns) {
    const D d;
    if constexpr (kWhole) {
      StoreWide(y, d, row + v * kLanes);
    } else {
      StoreWideN(y, d, row + v * kLanes, columns - v * kLanes);
    }
  }
  static HWY_INLINE hn::Vec<hn::ScalableTag<double>> LoadDouble(const W* from) {
    const hn::ScalableTag<double> d;
    if constexpr (std::is_same_v<W, double>) {
      return hn::Load(d, from);
    } else {
      return hn::PromoteTo(d, hn::Load(hn::Rebind<float, decltype(d)>(), from));
    }
  }

  size_t at_, columns_;
  HWY_ALIGN W pivot_[kColumns], sum_[kColumns], square_[kColumns];  // of the sums
  HWY_ALIGN W scale_[kColumns], shift_[kColumns], center_[kColumns];
};

// One block after the other: while one is mapped the next one is summed up, so that neither traffic nor arithmetic is
// waited for.
template <class Block, typename T>
HWY_NOINLINE void NormalizeBlocks(const Rows<T>& rows, const NormParameters& parameters, size_t begin, size_t end,
                                  double* mean, double* var) {
  const PivotCheck<T> check(rows.count > kShortRows ? kGoodLongPivot : kGoodShortPivot, rows.count);
  const double inverse = 1 / static_cast<double>(rows.count);
  Block blocks[2];
  Block *own = &blocks[0], *next = &blocks[1];
  const size_t count = hwy::DivCeil(end - begin, Block::kColumns);
  const auto start = [&](size_t i, Block& block) HWY_ATTR {
    const size_t c = begin + (rows.backwards() ? count - 1 - i : i) * Block::kColumns;
    block.Start(rows, c, end - c);
  };
  start(0, *own);
  Block::template Pass<true, false>(rows, *own, *own);
  for (size_t i = 1;; ++i, std::swap(own, next)) {
    if (HWY_UNLIKELY(own->MovePivots(check))) Block::template Pass<true, false>(rows, *own, *own);
    own->SetFactors(parameters, inverse, mean, var);
    if (i == count) return Block::template Pass<false, true>(rows, *own, *own);
    start(i, *next);
    Block::template Pass<true, true>(rows, *next, *own);
  }
}

constexpr size_t kAtOnce = 2;

template <typename T>
void NormalizeColumns(const NormTensor& t, int64_t src_pitch, int64_t dst_pitch, const NormParameters& parameters,
                      int64_t begin, int64_t end, double* mean, double* var) {
  using Blocks = ColumnBlock<T, kAtOnce, true>;
  using Rest = ColumnBlock<T, 1, false>;
  const Rows<T> in_order{static_cast<const T*>(t.src), static_cast<T*>(t.dst),
                         static_cast<size_t>(t.values_per_channel()), src_pitch, dst_pitch};
  // Few rows from the last element to the first: in the order of addresses a core fetches ahead what another one
  // writes. Zen 4, 49 rows of 960, half of the columns on each of two threads: 3.5 us, so 2.55, as if they wrote to
  // different tensors (9.2 and 4.5 where they share no cache). More rows take 1.03 times as long so.
  const Rows<T> rows = in_order.count <= kFewRows ? in_order.Backwards() : in_order;
  const auto first = static_cast<size_t>(begin), last = static_cast<size_t>(end);
  const size_t whole = first + hwy::RoundDownTo(last - first, Blocks::kColumns);
  if (first < whole) NormalizeBlocks<Blocks>(rows, parameters, first, whole, mean, var);
  if (whole < last) NormalizeBlocks<Rest>(rows, parameters, whole, last, mean, var);
}

template <typename T>
ColumnNorm ColumnNormOf() {
  constexpr size_t kLine = 64 / sizeof(T);
  return {kMostRows, static_cast<int64_t>(std::max(ColumnBlock<T, kAtOnce, true>::kColumns, 2 * kLine)),
          NormalizeColumns<T>};
}

ColumnNorm GetColumnNorm(DType dtype) {
  if (dtype == DType::kFloat32) return ColumnNormOf<float>();
  if (dtype == DType::kFloat64) return ColumnNormOf<double>();
  if (dtype == DType::kFloat16) return ColumnNormOf<hwy::float16_t>();
  if (dtype == DType::kBFloat16) return ColumnNormOf<hwy::bfloat16_t>();
  return {};
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetColumnNorm);
}  // namespace

ColumnNorm FindColumnNorm(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetColumnNorm)(dtype);
}

}  // namespace crease
#endif  // HWY_ONCE
