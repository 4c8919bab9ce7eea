// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise_tile.h"

#include "kernels/gemm_tile.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/depthwise_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

template <bool kMasked, class D>
HWY_INLINE hn::Vec<D> LoadSome(D d, const float* from, size_t count) {
  if constexpr (kMasked) return hn::LoadN(d, from, count);
  return hn::LoadU(d, from);
}

// Bounds (kUpper: an upper one, too) and residual of `count` pixels from `first` on of one vector of channels. By
// value: stores may alias the tile's fields.
template <bool kMasked, bool kResidual, bool kUpper, class D, class V>
HWY_INLINE void StoreWith(D d, const DepthwiseTile& t, int64_t first, int count, int64_t channel, size_t lanes,
                          const V (&sum)[kMaxDepthwisePixels]) {
  const V lo = hn::Set(d, t.lo);
  [[maybe_unused]] const V hi = hn::Set(d, t.hi);
  const int64_t residual_stride = t.residual_stride;
  const int64_t dst_stride = t.dst_stride;
  const float* residual = kResidual ? t.residual + first * residual_stride + channel : nullptr;
  const bool residual_last = t.residual_last;
  float* dst = t.dst + first * dst_stride + channel;
  HWY_UNROLL(kMaxDepthwisePixels)
  for (int i = 0; i < kMaxDepthwisePixels; ++i) {
    if (i >= count) break;
    V y = sum[i];
    V extra = hn::Zero(d);
    if constexpr (kResidual) {
      extra = LoadSome<kMasked>(d, residual + i * residual_stride, lanes);
      if (!residual_last) y = hn::Add(y, extra);
    }
    // Bounds first: they let NaN through.
    y = hn::Max(lo, y);
    if constexpr (kUpper) y = hn::Min(hi, y);
    if (kResidual && residual_last) y = hn::Add(y, extra);
    if constexpr (kMasked) {
      hn::StoreN(y, d, dst + i * dst_stride, lanes);
    } else {
      hn::StoreU(y, d, dst + i * dst_stride);
    }
  }
}

template <bool kMasked, class D, class V>
HWY_INLINE void StorePixels(D d, const DepthwiseTile& t, int64_t first, int count, int64_t channel, size_t lanes,
                            const V (&sum)[kMaxDepthwisePixels]) {
  if (t.residual != nullptr) {
    StoreWith<kMasked, true, true>(d, t, first, count, channel, lanes, sum);
  } else if (t.hi < std::numeric_limits<float>::infinity()) {
    StoreWith<kMasked, false, true>(d, t, first, count, channel, lanes, sum);
  } else {
    StoreWith<kMasked, false, false>(d, t, first, count, channel, lanes, sum);
  }
}

// Keeps GCC from folding the load of x into each of its multiply-adds, which then all wait for a load port.
template <class V>
HWY_INLINE void KeepInRegister([[maybe_unused]] V& x) {
#if HWY_ARCH_X86
  asm("" : "+v"(x.raw));
#endif
}

// What columns that do not exist are read from. GCC turns skipping them into a store on the stack for every column.
alignas(64) constexpr float kZeros[kMaxLanes] = {};

// One row of weights stays in registers; every source vector is loaded once and feeds up to kKernel sums.
template <int kKernel, int kStride, int kPixels, bool kEdge, bool kMasked>
HWY_NOINLINE void RunFixed(const DepthwiseTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr int kColumns = (kPixels - 1) * kStride + kKernel;
  static_assert(kColumns <= 32);
  // Bit j: column j exists.
  const uint64_t end = uint64_t{1} << std::clamp<int64_t>(t.end_column, 0, kColumns);
  const uint64_t begin = uint64_t{1} << std::clamp<int64_t>(t.first_column, 0, kColumns);
  const uint64_t columns = (end - 1) & ~(begin - 1);
  const int64_t pitch = t.tap_stride;
  const int64_t vectors = kMasked ? 1 : t.channels / kLanes;
  const auto lanes = static_cast<size_t>(t.channels);
  int64_t first = 0, c = 0;
  for (int64_t n = t.repeat * vectors; n > 0; --n) {
    const float* row = t.src + c + t.first_row * t.row_stride + t.offset + first * t.pixel_stride;
    const float* taps = t.weights + c * (kKernel * kKernel) + t.first_row * kKernel * kLanes;
    V sum[kMaxDepthwisePixels];
    const V bias = hn::LoadU(d, t.bias + c);
    HWY_UNROLL(kMaxDepthwisePixels)
    for (int i = 0; i < kMaxDepthwisePixels; ++i) sum[i] = bias;
    for (int y = t.first_row; y < t.end_row; ++y) {
      V tap[kKernel];
      HWY_UNROLL(8)
      for (int j = 0; j < kKernel; ++j) tap[j] = hn::Load(d, taps + j * kLanes);
      HWY_UNROLL(32)
      for (int j = 0; j < kColumns; ++j) {
        const bool exists = !kEdge || (columns >> j & 1) != 0;
        V x = LoadSome<kMasked>(d, exists ? row + j * pitch : kZeros, lanes);
        KeepInRegister(x);
        HWY_UNROLL(kMaxDepthwisePixels)
        for (int i = 0; i < kPixels; ++i) {
          const int k = j - i * kStride;
          if (k >= 0 && k < kKernel) sum[i] = hn::MulAdd(x, tap[k < 0 || k >= kKernel ? 0 : k], sum[i]);
        }
      }
      row += t.row_stride;
      taps += kKernel * kLanes;
    }
    StorePixels<kMasked>(d, t, first, kEdge ? t.pixels : kPixels, c, lanes, sum);
    c += kLanes;
    if (c >= t.channels) {
      c = 0;
      first += kPixels;
    }
  }
}

template <bool kMasked, class D>
HWY_INLINE void RunAnyVector(D d, const DepthwiseTile& t, int64_t c, size_t count, const float* weights) {
  using V = hn::Vec<D>;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(D);
  V sum[kMaxDepthwisePixels];
  HWY_UNROLL(kMaxDepthwisePixels)
  for (int i = 0; i < kMaxDepthwisePixels; ++i) sum[i] = hn::LoadU(d, t.bias + c);
  for (int y = t.first_row; y < t.end_row; ++y) {
    for (int x = 0; x < t.kernel_w; ++x) {
      const V tap = hn::LoadU(d, weights + (y * t.kernel_w + x) * kLanes);
      const float* from = t.src + c + t.offset + y * t.row_stride + x * t.tap_stride;
      int64_t column = x * t.dilation_w;
      HWY_UNROLL(kMaxDepthwisePixels)
      for (int i = 0; i < kMaxDepthwisePixels; ++i) {
        if (i < t.pixels && column >= t.first_column && column < t.end_column) {
          sum[i] = hn::MulAdd(LoadSome<kMasked>(d, from + i * t.pixel_stride, count), tap, sum[i]);
        }
        column += t.stride_w;
      }
    }
  }
  StorePixels<kMasked>(d, t, 0, t.pixels, c, count, sum);
}

HWY_NOINLINE void RunAny(const DepthwiseTile& t) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  const float* weights = t.weights;
  int64_t c = 0;
  for (; c + kLanes <= t.channels; c += kLanes) {
    RunAnyVector<false>(d, t, c, kLanes, weights);
    weights += t.kernel_h * t.kernel_w * kLanes;
  }
  if (c < t.channels) RunAnyVector<true>(d, t, c, static_cast<size_t>(t.channels - c), weights);
}

template <int kKernel, int kStride, int kPixels>
void FillPixels(DepthwiseFunction (&variants)[3]) {
  variants[0] = &RunFixed<kKernel, kStride, kPixels, false, false>;
  variants[1] = &RunFixed<kKernel, kStride, kPixels, true, false>;
  variants[2] = &RunFixed<kKernel, kStride, kPixels, true, true>;
}

template <int kKernel, int kStride>
void FillFixed(DepthwiseFunction (&table)[kDepthwisePixels.size()][3]) {
  static_assert(kDepthwisePixels.size() == 3);
  FillPixels<kKernel, kStride, kDepthwisePixels[0]>(table[0]);
  FillPixels<kKernel, kStride, kDepthwisePixels[1]>(table[1]);
  FillPixels<kKernel, kStride, kDepthwisePixels[2]>(table[2]);
}

DepthwiseOps MakeOps() {
  DepthwiseOps ops;
  ops.lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<float>()));
  FillFixed<3, 1>(ops.fixed[0][0]);
  FillFixed<3, 2>(ops.fixed[0][1]);
  FillFixed<5, 1>(ops.fixed[1][0]);
  FillFixed<5, 2>(ops.fixed[1][1]);
  FillFixed<7, 1>(ops.fixed[2][0]);
  FillFixed<7, 2>(ops.fixed[2][1]);
  ops.any = &RunAny;
  return ops;
}

const DepthwiseOps& Ops() {
  static const DepthwiseOps ops = MakeOps();
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const DepthwiseOps& GetDepthwiseOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
