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

// Appends those of the eight channels from k on whose bits are set; returns the list's new end.
HWY_INLINE uint16_t* Append(unsigned bits, int64_t k, uint16_t* end) {
  const hn::CappedTag<uint16_t, 8> d;
  static_assert(HWY_MAX_LANES_D(decltype(d)) == 8);
  hn::StoreU(hn::Add(hn::Load(d, kPlaces[bits].at), hn::Set(d, static_cast<uint16_t>(k))), d, end);
  return end + hwy::PopCount(uint32_t{bits});
}

int64_t Find(const float* const* rows, int row_count, int64_t depth, uint16_t* channels) {
  uint16_t* end = channels;
  int64_t k = 0;
  if (row_count == kSparseRows) {
    for (; k + 8 <= depth; k += 8) end = Append(NonZeros(rows, kSparseRows, k, 8), k, end);
  }
  for (; k < depth; k += 8) end = Append(NonZeros(rows, row_count, k, depth - k), k, end);
  return end - channels;
}

int64_t List(const uint8_t* const* marks, int row_count, int64_t depth, uint16_t* channels) {
  uint16_t* end = channels;
  for (int64_t k = 0; k < depth; k += 8) {
    unsigned bits = 0;
    for (int r = 0; r < row_count; ++r) bits |= marks[r][k / 8];
    end = Append(bits, k, end);
  }
  return end - channels;
}

template <int kRows, int kVectors, class D, class V>
HWY_INLINE void AddChannel(D d, const float* const (&rows)[kSparseRows], const float* b, size_t k,
                           V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  b += k * (kVectors * kLanes);
  V x[kRows];
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kRows; ++r) x[r] = hn::Set(d, rows[r][k]);
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    V column = hn::Load(d, b + v * kLanes);
    KeepInRegister(column);
    HWY_UNROLL(kSparseRows)
    for (int r = 0; r < kRows; ++r) sum[r][v] = hn::MulAdd(x[r], column, sum[r][v]);
  }
}

template <bool kResidual, int kRows, int kVectors, class D, class V>
HWY_INLINE void StoreRows(D d, const SparseTile& tile, V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  const SparseTile t = tile;  // stores may alias its fields
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const auto last = static_cast<size_t>(t.last);
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kRows; ++r) {
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

constexpr int kPair = 2;

// With kLines lines of `ahead` beside every two channels.
template <int kRows, int kVectors, int kLines>
HWY_NOINLINE void RunTile(const SparseTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kLanes = HWY_MAX_LANES_D(decltype(d));
  if (t.far) {
    const int64_t columns = (kVectors - 1) * kLanes + t.last;
    PrefetchRows<1>(t.dst, t.dst_stride, t.row_count, columns);
    if (t.residual != nullptr) PrefetchRows<0>(t.residual, t.residual_stride, t.row_count, columns);
  }
  V sum[kRows][kVectors];
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    const V first = t.start == nullptr ? hn::Zero(d) : hn::Load(d, t.start + v * kLanes);
    HWY_UNROLL(kSparseRows)
    for (int r = 0; r < kRows; ++r) sum[r][v] = first;
  }
  const float* const rows[kSparseRows] = {t.rows[0], t.rows[1], t.rows[2]};
  const float* b = t.b;
  const uint16_t* channel = t.channels;
  const uint16_t* end = channel + t.count;
  // Without, what is read anyhow: a prefetch from an unmapped page waits for the page table.
  const float* ahead = t.ahead == nullptr ? b : t.ahead;
  const ptrdiff_t ahead_step = t.ahead_floats / std::max<ptrdiff_t>(t.count / kPair * kLines, 1);
  for (; end - channel >= kPair; channel += kPair) {
    HWY_UNROLL(kPair)
    for (ptrdiff_t i = 0; i < kPair; ++i) {
      if (i < kLines) {
        PrefetchL2(ahead);
        ahead += ahead_step;
      }
      AddChannel(d, rows, b, channel[i], sum);
    }
  }
  if (channel < end) AddChannel(d, rows, b, *channel, sum);
  if (t.residual == nullptr) {
    StoreRows<false>(d, t, sum);
  } else {
    StoreRows<true>(d, t, sum);
  }
}

// Two lines where one is too few; narrow tiles, which have less to fetch, always one.
template <int kVectors>
void Run(const SparseTile& t) {
  const bool whole = t.row_count == kSparseRows;
  if constexpr (kVectors == kMaxTileVectors) {
    if (t.ahead_floats > t.count / kPair * kLineFloats) {
      return whole ? RunTile<kSparseRows, kVectors, kPair>(t) : RunTile<kSparseRows - 1, kVectors, kPair>(t);
    }
  }
  return whole ? RunTile<kSparseRows, kVectors, 1>(t) : RunTile<kSparseRows - 1, kVectors, 1>(t);
}

const SparseOps& Ops() {
  static const SparseOps ops = {&Find, &List, {nullptr, &Run<1>, &Run<2>, &Run<3>, &Run<4>}};
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const SparseOps& GetSparseOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
