// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_group_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_group_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxPixels = 8;

// Channel c of each group of kGroup lanes, in all of the group's lanes.
template <int kGroup, class D>
class Spread {
 public:
  using V = hn::Vec<D>;
  HWY_INLINE Spread(D d, int c) : indices_(Indices(d, c)) {}
  HWY_INLINE V operator()(V x) const { return hn::TableLookupLanes(x, indices_); }

 private:
  using I = hn::RebindToSigned<D>;
  static HWY_INLINE auto Indices(D d, int c) {
    const I di;
    const auto first = hn::AndNot(hn::Set(di, kGroup - 1), hn::Iota(di, 0));
    return hn::IndicesFromVec(d, hn::Add(first, hn::Set(di, c)));
  }
  decltype(Indices(D(), 0)) indices_;
};

template <int kPixels, bool kMasked, class D, class V>
HWY_INLINE void StorePixels(D d, const GroupTile& t, const V (&sum)[kPixels]) {
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const size_t last = static_cast<size_t>(t.last);
  const float* residual = t.residual;
  const int64_t residual_stride = t.residual_stride, dst_stride = t.dst_stride;
  const bool residual_last = t.residual_last;
  float* dst = t.dst;
  const int pixels = t.pixels;
  HWY_UNROLL(kMaxPixels)
  for (int i = 0; i < kPixels; ++i) {
    if (i >= pixels) break;
    V y = sum[i];
    V extra = hn::Zero(d);
    if (residual != nullptr) {
      const float* from = residual + i * residual_stride;
      extra = kMasked ? hn::LoadN(d, from, last) : hn::LoadU(d, from);
      if (!residual_last) y = hn::Add(y, extra);
    }
    // Bounds first: they let NaN through.
    y = hn::Min(hi, hn::Max(lo, y));
    if (residual != nullptr && residual_last) y = hn::Add(y, extra);
    if constexpr (kMasked) {
      hn::StoreN(y, d, dst + i * dst_stride, last);
    } else {
      hn::StoreU(y, d, dst + i * dst_stride);
    }
  }
}

// kStride 1 or 2: three taps share the columns that they have in common. 0: any kernel, nothing shared.
template <int kGroup, int kStride, int kPixels>
HWY_NOINLINE void RunTile(const GroupTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  const float* weights = t.weights;
  V sum[kPixels];
  const V bias = hn::Load(d, weights);
  HWY_UNROLL(kMaxPixels)
  for (int i = 0; i < kPixels; ++i) sum[i] = bias;
  weights += kLanes;
  const int64_t tap_stride = t.tap_stride, pixel_stride = t.pixel_stride;
  for (int y = 0; y < t.kernel_h; ++y) {
    const float* row = t.src + y * t.row_stride;
    for (int c = 0; c < kGroup; ++c) {
      const Spread<kGroup, decltype(d)> spread(d, c);
      if constexpr (kStride == 0) {
        for (int x = 0; x < t.kernel_w; ++x, weights += kLanes) {
          const V tap = hn::Load(d, weights);
          HWY_UNROLL(kMaxPixels)
          for (int i = 0; i < kPixels; ++i) {
            sum[i] = hn::MulAdd(spread(hn::LoadU(d, row + x * tap_stride + i * pixel_stride)), tap, sum[i]);
          }
        }
      } else {
        const V tap[3] = {hn::Load(d, weights), hn::Load(d, weights + kLanes), hn::Load(d, weights + 2 * kLanes)};
        weights += 3 * kLanes;
        HWY_UNROLL(32)
        for (int j = 0; j < (kPixels - 1) * kStride + 3; ++j) {
          const V x = spread(hn::LoadU(d, row + j * tap_stride));
          HWY_UNROLL(kMaxPixels)
          for (int i = 0; i < kPixels; ++i) {
            const int k = j - i * kStride;
            if (k >= 0 && k < 3) sum[i] = hn::MulAdd(x, tap[k < 0 || k > 2 ? 0 : k], sum[i]);
          }
        }
      }
    }
  }
  if (t.last == kLanes) {
    StorePixels<kPixels, false>(d, t, sum);
  } else {
    StorePixels<kPixels, true>(d, t, sum);
  }
}

template <int kGroup, int kStride>
void FillPixels(GroupFunction (&table)[kGroupPixels.size()]) {
  table[0] = &RunTile<kGroup, kStride, kGroupPixels[0]>;
  table[1] = &RunTile<kGroup, kStride, kGroupPixels[1]>;
  table[2] = &RunTile<kGroup, kStride, kGroupPixels[2]>;
}

template <int kLog2>
void FillGroup([[maybe_unused]] GroupOps& ops) {
  constexpr int kGroup = 1 << kLog2;
  if constexpr (kGroup < HWY_MAX_LANES_D(hn::ScalableTag<float>)) {
    FillPixels<kGroup, 0>(ops.any[kLog2]);
    FillPixels<kGroup, 1>(ops.wide3[kLog2]);
    FillPixels<kGroup, 2>(ops.wide3s2[kLog2]);
  }
}

GroupOps MakeOps() {
  GroupOps ops;
  ops.lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<float>()));
  FillGroup<1>(ops);
  FillGroup<2>(ops);
  FillGroup<3>(ops);
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

const GroupOps& GetGroupOps() { return HWY_DYNAMIC_DISPATCH(Ops)(); }

}  // namespace crease
#endif
