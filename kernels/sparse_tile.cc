// SPDX-License-Identifier: Apache-2.0
#include "kernels/sparse_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "kernels/gemm_tile.h"
#include "kernels/registers-inl.h"

#ifndef CREASE_KERNELS_SPARSE_TILE_ONCE
#define CREASE_KERNELS_SPARSE_TILE_ONCE
namespace crease {
namespace {

// By eight bits: the places of those that are set, the lowest first.
struct Places {
  alignas(16) uint16_t at[8];
};
constexpr std::array<Places, 256> MakePlaces() {
  std::array<Places, 256> places{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    size_t count = 0;
    for (unsigned i = 0; i < 8; ++i) {
      if ((bits >> i & 1) != 0) places[bits].at[count++] = static_cast<uint16_t>(i);
    }
  }
  return places;
}
constexpr std::array<Places, 256> kPlaces = MakePlaces();

}  // namespace
}  // namespace crease
#endif

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

// Which of eight columns, of which `count` exist, are not zero in all rows.
HWY_INLINE unsigned NonZeros(const float* const* rows, int row_count, int64_t k, int64_t count) {
  const hn::CappedTag<float, 8> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto zero = hn::Zero(d);
  unsigned bits = 0;
  for (int64_t i = 0; i < 8 && i < count; i += lanes) {
    auto any = hn::FirstN(d, 0);
    for (int r = 0; r < row_count; ++r) {
      const float* x = rows[r] + k + i;
      const auto v = count - i >= lanes ? hn::LoadU(d, x) : hn::LoadN(d, x, static_cast<size_t>(count - i));
      any = hn::Or(any, hn::Not(hn::Eq(v, zero)));  // Ne says no of NaN
    }
    uint8_t some[8] = {};
    hn::StoreMaskBits(d, any, some);
    bits |= unsigned{some[0]} << i;
  }
  return bits;
}

int64_t Find(const float* const* rows, int row_count, int64_t depth, uint16_t* channels) {
  const hn::CappedTag<uint16_t, 8> d;
  static_assert(HWY_MAX_LANES_D(decltype(d)) == 8);
  uint16_t* end = channels;
  const auto list = [&](unsigned bits, int64_t k) HWY_ATTR {
    hn::StoreU(hn::Add(hn::Load(d, kPlaces[bits].at), hn::Set(d, static_cast<uint16_t>(k))), d, end);
    end += hwy::PopCount(uint32_t{bits});
  };
  int64_t k = 0;
  if (row_count == kSparseRows) {
    for (; k + 8 <= depth; k += 8) list(NonZeros(rows, kSparseRows, k, 8), k);
  }
  for (; k < depth; k += 8) list(NonZeros(rows, row_count, k, depth - k), k);
  return end - channels;
}

template <int kVectors, class D, class V>
HWY_INLINE void AddChannel(D d, const float* const (&rows)[kSparseRows], const float* b, size_t k,
                           V (&sum)[kSparseRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  b += k * (kVectors * kLanes);
  V x[kSparseRows];
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kSparseRows; ++r) x[r] = hn::Set(d, rows[r][k]);
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    V column = hn::Load(d, b + v * kLanes);
    KeepInRegister(column);
    HWY_UNROLL(kSparseRows)
    for (int r = 0; r < kSparseRows; ++r) sum[r][v] = hn::MulAdd(x[r], column, sum[r][v]);
  }
}

template <int kVectors, bool kResidual, class D, class V>
HWY_INLINE void StoreRows(D d, const SparseTile& tile, V (&sum)[kSparseRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  const SparseTile t = tile;  // stores may alias its fields
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const auto last = static_cast<size_t>(t.last);
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kSparseRows; ++r) {
    if (r >= t.row_count) return;
    float* dst = t.dst + r * t.dst_stride;
    HWY_UNROLL(kMaxTileVectors)
    for (int v = 0; v < kVectors; ++v) {
      const bool whole = v + 1 < kVectors || last == static_cast<size_t>(kLanes);
      V y = sum[r][v];
      V extra = hn::Zero(d);
      if constexpr (kResidual) {
        const float* from = t.residual + r * t.residual_stride + v * kLanes;
        extra = whole ? hn::LoadU(d, from) : hn::LoadN(d, from, last);
        if (!t.residual_last) y = hn::Add(y, extra);
      }
      // Bounds first: they let NaN through.
      y = hn::Min(hi, hn::Max(lo, y));
      if (kResidual && t.residual_last) y = hn::Add(y, extra);
      if (whole) {
        hn::StoreU(y, d, dst + v * kLanes);
      } else {
        hn::StoreN(y, d, dst + v * kLanes, last);
      }
    }
  }
}

template <int kVectors>
HWY_NOINLINE void RunTile(const SparseTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kLanes = HWY_MAX_LANES_D(decltype(d));
  if (t.far) {
    const int64_t columns = (kVectors - 1) * kLanes + t.last;
    PrefetchRows<1>(t.dst, t.dst_stride, t.row_count, columns);
    if (t.residual != nullptr) PrefetchRows<0>(t.residual, t.residual_stride, t.row_count, columns);
  }
  V sum[kSparseRows][kVectors];
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    const V first = t.start == nullptr ? hn::Zero(d) : hn::Load(d, t.start + v * kLanes);
    HWY_UNROLL(kSparseRows)
    for (int r = 0; r < kSparseRows; ++r) sum[r][v] = first;
  }
  const float* const rows[kSparseRows] = {t.rows[0], t.rows[1], t.rows[2]};
  const float* b = t.b;
  constexpr ptrdiff_t kUnroll = 2;
  const uint16_t* channel = t.channels;
  const uint16_t* end = channel + t.count;
  // Without, what is read anyhow: a prefetch from an unmapped page waits for the page table.
  const float* ahead = t.ahead == nullptr ? b : t.ahead;
  const ptrdiff_t ahead_step = t.ahead_floats / std::max<ptrdiff_t>(t.count / kUnroll, 1);
  for (; end - channel >= kUnroll; channel += kUnroll) {
    PrefetchL2(ahead);
    ahead += ahead_step;
    HWY_UNROLL(kUnroll)
    for (ptrdiff_t i = 0; i < kUnroll; ++i) AddChannel(d, rows, b, channel[i], sum);
  }
  if (channel < end) AddChannel(d, rows, b, *channel, sum);
  if (t.residual == nullptr) {
    StoreRows<kVectors, false>(d, t, sum);
  } else {
    StoreRows<kVectors, true>(d, t, sum);
  }
}

const SparseOps& Ops() {
  static const SparseOps ops = {&Find, {nullptr, &RunTile<1>, &RunTile<2>, &RunTile<3>, &RunTile<4>}};
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const SparseOps& GetSparseOps() { return HWY_DYNAMIC_DISPATCH(Ops)(); }

}  // namespace crease
#endif
