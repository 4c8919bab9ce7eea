// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_group_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_group_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxPixels = 8;

// kCount floats, over and over.
template <int kCount, class D>
HWY_INLINE hn::Vec<D> LoadRepeated(D d, const float* from) {
  if constexpr (kCount == 1) {
    return hn::Set(d, *from);
  } else if constexpr (kCount == 2) {
    const hn::RepartitionToWide<hn::RebindToUnsigned<D>> d64;
    uint64_t two;
    std::memcpy(&two, from, sizeof(two));
    return hn::BitCast(d, hn::Set(d64, two));
  } else if constexpr (kCount == 4) {
    return hn::LoadDup128(d, from);
  } else {
    static_assert(kCount * 2 == HWY_MAX_LANES_D(D));
    const auto half = hn::LoadU(hn::Half<D>(), from);
    return hn::Combine(d, half, half);
  }
}

// Lane l of a group's vector to GroupLane(l), or back.
template <int kGroup, bool kBack, class D>
class Turns {
 public:
  using V = hn::Vec<D>;
  HWY_INLINE explicit Turns(D d) : indices_(Indices(d)) {}
  HWY_INLINE V operator()(V x) const { return hn::TableLookupLanes(x, indices_); }

 private:
  static HWY_INLINE auto Indices(D d) {
    constexpr int kLanes = HWY_MAX_LANES_D(D);
    // Back takes lane l from GroupLane(l); there, the inverse, is the same with groups as wide as there were groups.
    constexpr int kWidth = kBack ? kGroup : kLanes / kGroup;
    HWY_ALIGN int32_t from[kLanes];
    for (int l = 0; l < kLanes; ++l) from[l] = static_cast<int32_t>(GroupLane(l, kWidth, kLanes));
    return hn::SetTableIndices(d, from);
  }
  decltype(Indices(D())) indices_;
};

template <int kGroup>
void PackRow(const GroupRow& row, const Prologue& prologue) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  const Turns<kGroup, false, decltype(d)> turns(d);
  float* to = row.band;
  for (int64_t c = 0; c < row.channels; c += kLanes) {
    const int64_t width = std::min(kLanes, row.channels - c);
    const float* from = row.src + c;
    int64_t pitch = row.src_pitch;
    to = std::fill_n(to, row.left * kLanes, 0.0f);
    if (prologue.scale != nullptr) {
      const Prologue here = {prologue.scale + c, prologue.shift + c, prologue.activation, prologue.a, prologue.b};
      GetGemmOps().pack(from, pitch, row.inside, width, to, kLanes, here);
      from = to;
      pitch = kLanes;
    }
    if (width == kLanes) {
      for (int64_t i = 0; i < row.inside; ++i, from += pitch, to += kLanes) hn::Store(turns(hn::LoadU(d, from)), d, to);
    } else {
      for (int64_t i = 0; i < row.inside; ++i, from += pitch, to += kLanes) {
        hn::Store(turns(hn::LoadN(d, from, static_cast<size_t>(width))), d, to);
      }
    }
    to = std::fill_n(to, row.right * kLanes, 0.0f);
  }
}

template <int kPixels, bool kMasked, bool kResidual, class D, class V>
HWY_INLINE void StoreWith(D d, const GroupTile& t, int row, const V (&sum)[kPixels]) {
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const size_t last = static_cast<size_t>(t.last);
  const float* residual = kResidual ? t.residual + row * t.residual_line : nullptr;
  const int64_t residual_stride = t.residual_stride, dst_stride = t.dst_stride;
  const bool residual_last = t.residual_last;
  float* dst = t.dst + row * t.dst_line;
  const int pixels = t.pixels;
  HWY_UNROLL(kMaxPixels)
  for (int i = 0; i < kPixels; ++i) {
    if (i >= pixels) break;
    V y = sum[i];
    V extra = hn::Zero(d);
    if constexpr (kResidual) {
      const float* from = residual + i * residual_stride;
      extra = kMasked ? hn::LoadN(d, from, last) : hn::LoadU(d, from);
      if (!residual_last) y = hn::Add(y, extra);
    }
    // Bounds first: they let NaN through.
    y = hn::Min(hi, hn::Max(lo, y));
    if (kResidual && residual_last) y = hn::Add(y, extra);
    if constexpr (kMasked) {
      hn::StoreN(y, d, dst + i * dst_stride, last);
    } else {
      hn::StoreU(y, d, dst + i * dst_stride);
    }
  }
}

template <int kPixels, bool kMasked, class D, class V>
HWY_INLINE void StorePixels(D d, const GroupTile& t, int row, const V (&sum)[kPixels]) {
  if (t.residual == nullptr) {
    StoreWith<kPixels, kMasked, false>(d, t, row, sum);
  } else {
    StoreWith<kPixels, kMasked, true>(d, t, row, sum);
  }
}

// kStride 1 or 2: three taps share the columns that they have in common. 0: any kernel, nothing shared.
template <int kGroup, int kStride, int kRows, int kPixels>
HWY_NOINLINE void RunTile(const GroupTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr int kGroups = HWY_MAX_LANES_D(decltype(d)) / kGroup;
  const float* weights = t.weights;
  V sum[kRows][kPixels];
  const V bias = hn::Load(d, weights);
  HWY_UNROLL(kMaxGroupRows)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(kMaxPixels)
    for (int i = 0; i < kPixels; ++i) sum[r][i] = bias;
  }
  weights += kLanes;
  const int64_t line_stride = t.line_stride, dilation = t.dilation * kLanes, stride = t.stride * kLanes;
  for (int y = 0; y < t.kernel_h; ++y) {
    const float* row = t.src + y * t.row_stride;
    for (int c = 0; c < kGroup; ++c, row += kGroups) {
      if constexpr (kStride == 0) {
        for (int x = 0; x < t.kernel_w; ++x, weights += kLanes) {
          const V tap = hn::Load(d, weights);
          HWY_UNROLL(kMaxGroupRows)
          for (int r = 0; r < kRows; ++r) {
            const float* from = row + r * line_stride + x * dilation;
            HWY_UNROLL(kMaxPixels)
            for (int i = 0; i < kPixels; ++i) {
              sum[r][i] = hn::MulAdd(LoadRepeated<kGroups>(d, from + i * stride), tap, sum[r][i]);
            }
          }
        }
      } else {
        const V tap[3] = {hn::Load(d, weights), hn::Load(d, weights + kLanes), hn::Load(d, weights + 2 * kLanes)};
        weights += 3 * kLanes;
        HWY_UNROLL(kMaxGroupRows)
        for (int r = 0; r < kRows; ++r) {
          const float* from = row + r * line_stride;
          HWY_UNROLL(32)
          for (int j = 0; j < (kPixels - 1) * kStride + 3; ++j) {
            const V x = LoadRepeated<kGroups>(d, from + j * kLanes);
            HWY_UNROLL(kMaxPixels)
            for (int i = 0; i < kPixels; ++i) {
              const int k = j - i * kStride;
              if (k >= 0 && k < 3) sum[r][i] = hn::MulAdd(x, tap[k < 0 || k > 2 ? 0 : k], sum[r][i]);
            }
          }
        }
      }
    }
  }
  const Turns<kGroup, true, decltype(d)> back(d);
  HWY_UNROLL(kMaxGroupRows)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(kMaxPixels)
    for (int i = 0; i < kPixels; ++i) sum[r][i] = back(sum[r][i]);
    if (t.last == kLanes) {
      StorePixels<kPixels, false>(d, t, r, sum[r]);
    } else {
      StorePixels<kPixels, true>(d, t, r, sum[r]);
    }
  }
}

// Two rows of 7 sums, their taps and what is loaded need 18 registers.
constexpr int kRowsHere = HWY_TARGET <= HWY_AVX3 ? kMaxGroupRows : 1;

template <int kGroup, int kStride, int kRows>
void FillPixels(GroupFunctions& table) {
  table[kRows - 1][0] = &RunTile<kGroup, kStride, kRows, kGroupPixels[0]>;
  table[kRows - 1][1] = &RunTile<kGroup, kStride, kRows, kGroupPixels[1]>;
  table[kRows - 1][2] = &RunTile<kGroup, kStride, kRows, kGroupPixels[2]>;
  if constexpr (kRows > 1) FillPixels<kGroup, kStride, kRows - 1>(table);
}

template <int kLog2>
void FillGroup([[maybe_unused]] GroupOps& ops) {
  constexpr int kGroup = 1 << kLog2;
  if constexpr (kGroup <= HWY_MAX_LANES_D(hn::ScalableTag<float>)) {
    FillPixels<kGroup, 0, 1>(ops.any[kLog2]);
    FillPixels<kGroup, 1, kRowsHere>(ops.wide3[kLog2]);
    FillPixels<kGroup, 2, kRowsHere>(ops.wide3s2[kLog2]);
    ops.pack[kLog2] = &PackRow<kGroup>;
  }
}

GroupOps MakeOps() {
  GroupOps ops;
  ops.lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<float>()));
  FillGroup<1>(ops);
  FillGroup<2>(ops);
  FillGroup<3>(ops);
  FillGroup<4>(ops);
  return ops;
}

const GroupOps& Ops() {
  static const GroupOps ops = MakeOps();
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const GroupOps& GetGroupOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
