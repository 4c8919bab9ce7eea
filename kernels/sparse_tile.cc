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
#include <type_traits>

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

// Columns that are looked at together.
constexpr int64_t kColumns = 16;

// Which of kColumns columns, of which `count` exist, are not zero in all rows.
HWY_INLINE unsigned NonZeros(const float* const* rows, int row_count, int64_t k, int64_t count) {
  const hn::CappedTag<float, kColumns> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto no_sign = hn::Set(du, 0x7FFFFFFFu);
  unsigned bits = 0;
  for (int64_t i = 0; i < kColumns && i < count; i += lanes) {
    auto any = hn::Zero(du);
    for (int r = 0; r < row_count; ++r) {
      const float* x = rows[r] + k + i;
      const auto v = count - i >= lanes ? hn::LoadU(d, x) : hn::LoadN(d, x, static_cast<size_t>(count - i));
      any = hn::Or(any, hn::BitCast(du, v));
    }
    uint8_t some[8] = {};
    hn::StoreMaskBits(du, hn::Ne(hn::And(any, no_sign), hn::Zero(du)), some);
    bits |= (unsigned{some[0]} | unsigned{some[1]} << 8) << i;
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
  const auto append = [&](unsigned bits) HWY_ATTR {
    end = Append(bits & 255, k, end);
    end = Append(bits >> 8, k + 8, end);
  };
  if (row_count == kSparseRows) {
    for (; k + kColumns <= depth; k += kColumns) append(NonZeros(rows, kSparseRows, k, kColumns));
  }
  for (; k < depth; k += kColumns) append(NonZeros(rows, row_count, k, depth - k));
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
HWY_INLINE void AddChannel(D d, const float* const (&rows)[kRows], const float* b, size_t k,
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

// Where a tile's results go.
struct Destination {
  float* dst;
  const float* residual;
  int64_t rows;
};

template <bool kResidual, int kRows, int kVectors, class D, class V>
HWY_INLINE void StoreRows(D d, const SparseTiles& t, const Destination& to, V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  // Locals: the stores may alias the tiles' fields.
  const auto last = static_cast<size_t>(t.last);
  const int64_t dst_stride = t.dst_stride, residual_stride = t.residual_stride;
  const bool residual_last = t.residual_last;
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kRows; ++r) {
    if (r >= to.rows) return;
    float* dst = to.dst + r * dst_stride;
    HWY_UNROLL(kMaxTileVectors)
    for (int v = 0; v < kVectors; ++v) {
      const bool whole = v + 1 < kVectors || last == static_cast<size_t>(kLanes);
      V y = sum[r][v];
      V extra = hn::Zero(d);
      if constexpr (kResidual) {
        const float* from = to.residual + r * residual_stride + v * kLanes;
        extra = whole ? hn::LoadU(d, from) : hn::LoadN(d, from, last);
        if (!residual_last) y = hn::Add(y, extra);
      }
      // Bounds first: they let NaN through.
      y = hn::Min(hi, hn::Max(lo, y));
      if (kResidual && residual_last) y = hn::Add(y, extra);
      if (whole) {
        hn::StoreU(y, d, dst + v * kLanes);
      } else {
        hn::StoreN(y, d, dst + v * kLanes, last);
      }
    }
  }
}

constexpr int kPair = 2;
// Floats behind what is fetched that are fetched once more: while many lines are on their way Zen 4 forgets some (a
// second time 64 to 256 lines later: 512 channels at 7x7 1.27 -> 1.03 ms, 256 at 14x14 0.77 -> 0.66).
constexpr ptrdiff_t kAgain = 2048;

// With kLines lines of `ahead` beside every two channels, and those `back` floats before them.
template <int kRows, int kVectors, int kLines>
HWY_INLINE void RunTile(const SparseTiles& t, const ChannelList& list, const Destination& to, const float* ahead,
                        ptrdiff_t ahead_step, ptrdiff_t back) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kLanes = HWY_MAX_LANES_D(decltype(d));
  if (t.far) {
    const int64_t columns = (kVectors - 1) * kLanes + t.last;
    const auto rows = static_cast<int>(to.rows);
    PrefetchRows<1>(to.dst, t.dst_stride, rows, columns);
    if (to.residual != nullptr) PrefetchRows<0>(to.residual, t.residual_stride, rows, columns);
  }
  V sum[kRows][kVectors];
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    const V first = t.start == nullptr ? hn::Zero(d) : hn::Load(d, t.start + v * kLanes);
    HWY_UNROLL(kSparseRows)
    for (int r = 0; r < kRows; ++r) sum[r][v] = first;
  }
  const float* rows[kRows];
  HWY_UNROLL(kSparseRows)
  for (int r = 0; r < kRows; ++r) rows[r] = t.a + list.rows[r];
  const float* b = t.b;
  const uint16_t* channel = list.channels();
  const uint16_t* end = channel + list.count;
  for (; end - channel >= kPair; channel += kPair) {
    HWY_UNROLL(kPair)
    for (ptrdiff_t i = 0; i < kPair; ++i) {
      if (i < kLines) {
        PrefetchL2(ahead);
        PrefetchL2(ahead - back);
        ahead += ahead_step;
      }
      AddChannel(d, rows, b, channel[i], sum);
    }
  }
  if (channel < end) AddChannel(d, rows, b, *channel, sum);
  if (to.residual == nullptr) {
    StoreRows<false>(d, t, to, sum);
  } else {
    StoreRows<true>(d, t, to, sum);
  }
}

// The same as a call. With 16 registers what the loop over tiles keeps would leave too few for sums (Zen 4 as AVX2,
// ResNet-50's nodes on one thread: 65.9 -> 46.8 ms); with 32 a call costs 1 to 3 %.
template <int kRows, int kVectors, int kLines>
HWY_NOINLINE void CallTile(const SparseTiles& t, const ChannelList& list, const Destination& to, const float* ahead,
                           ptrdiff_t ahead_step, ptrdiff_t back) {
  RunTile<kRows, kVectors, kLines>(t, list, to, ahead, ahead_step, back);
}

template <int kVectors, int kLines>
HWY_NOINLINE void RunTiles(const SparseTiles& t) {
  const float* ahead = t.ahead;
  ptrdiff_t left = ahead == nullptr ? 0 : static_cast<ptrdiff_t>(t.ahead_floats);
  const ptrdiff_t most_step = std::min<ptrdiff_t>(t.ahead_step * kPair / kLines, kLineFloats);
  const float* at = t.lists;
  Destination to{t.dst, t.residual, 0};
  for (int64_t i = 0; i < t.count; ++i, at += t.list_floats) {
    const ChannelList& list = *reinterpret_cast<const ChannelList*>(at);
    to.rows = list.row_count;
    const ptrdiff_t steps = list.count / kPair * kLines;
    const ptrdiff_t step = steps * most_step <= left ? most_step : left / std::max<ptrdiff_t>(steps, 1);
    // Without, what is read anyhow: a prefetch from an unmapped page waits for the page table.
    const float* fetched = step == 0 ? t.b : ahead;
    const ptrdiff_t back = step == 0 ? 0 : std::min<ptrdiff_t>(kAgain, ahead - t.ahead);
    const auto run = [&](auto rows) HWY_ATTR {
      if constexpr (k32Registers) {
        RunTile<rows(), kVectors, kLines>(t, list, to, fetched, step, back);
      } else {
        CallTile<rows(), kVectors, kLines>(t, list, to, fetched, step, back);
      }
    };
    if (to.rows == kSparseRows) {
      run(std::integral_constant<int, kSparseRows>());
    } else {
      run(std::integral_constant<int, kSparseRows - 1>());
    }
    ahead += steps * step;
    left -= steps * step;
    to.dst += to.rows * t.dst_stride;
    if (to.residual != nullptr) to.residual += to.rows * t.residual_stride;
  }
}

// A line beside every channel where one beside every two is too few; narrow tiles have less to fetch.
template <int kVectors>
void Run(const SparseTiles& t) {
  if constexpr (kVectors >= kLeastFetchingVectors) {
    if (t.ahead_step > kLineFloats / kPair) return RunTiles<kVectors, kPair>(t);
  }
  RunTiles<kVectors, 1>(t);
}

// Measured on cores that do one multiply-add of a vector a cycle: with AVX-512 on Zen 4, below on Zen 1, where a tile
// was a call of its own then.
constexpr SparseCosts kCosts =
    k32Registers ? SparseCosts{2.95, 30, 3.05, 0, 4.2, 30, 1} : SparseCosts{3.1, 61, 3, 0.9, 0, 131, 2.5};

const SparseOps& Ops() {
  static const SparseOps ops = {kCosts, &Find, &List, {nullptr, &Run<1>, &Run<2>, &Run<3>, &Run<4>}};
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
