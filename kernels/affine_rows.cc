// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_rows.h"

#include <algorithm>
#include <cstddef>

#include <hwy/cache_control.h>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_plane-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Planes of fewer vectors than this go through SmallPlanes.
constexpr int64_t kSmallPlane = 64;

// As Planes, for planes of at least one vector, without an epilogue: vectors of elements as they lie, of
// one channel or on the border of two, so that an aligned tensor is written in whole aligned lines.
template <typename T, bool kExact>
void SmallPlanes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* src = static_cast<const T*>(args.src);
  auto* dst = static_cast<T*>(args.dst);
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  [[maybe_unused]] const auto* pivot = static_cast<const Wide<T>*>(args.pivot);
  int64_t channel = begin / plane % channels;
  int64_t stop = (begin / plane + 1) * plane;
  V s = hn::Set(d, scale[channel]), t = hn::Set(d, shift[channel]);
  V p = kExact ? hn::Set(d, pivot[channel]) : s;
  const auto map = [&](V x, int64_t i, int64_t count) HWY_ATTR {
    const int64_t left = stop - i;
    if (left >= count) return Map<kExact>(x, s, t, p);
    const V old_s = s, old_t = t, old_p = p;
    stop += plane;
    if (++channel == channels) channel = 0;
    s = hn::Set(d, scale[channel]);
    t = hn::Set(d, shift[channel]);
    p = kExact ? hn::Set(d, pivot[channel]) : s;
    const auto before = hn::FirstN(d, static_cast<size_t>(left));
    return Map<kExact>(x, hn::IfThenElse(before, old_s, s), hn::IfThenElse(before, old_t, t),
                       hn::IfThenElse(before, old_p, p));
  };
  const auto partial = [&](int64_t i, int64_t count) HWY_ATTR {
    const auto n = static_cast<size_t>(count);
    StoreWideN(map(LoadWideN(d, src + i, n), i, count), d, dst + i, n);
  };
  int64_t i = begin;
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(dst + i) / sizeof(T)) % lanes;
  if (past != 0) {
    const int64_t count = std::min(lanes - past, end - i);
    partial(i, count);
    i += count;
  }
  if (kIsWide<T> && args.stream) {
    for (; i + lanes <= end; i += lanes) StreamWide(map(LoadWide(d, src + i), i, lanes), d, dst + i);
    hwy::FlushStream();
  } else {
    for (; i + lanes <= end; i += lanes) StoreWide(map(LoadWide(d, src + i), i, lanes), d, dst + i);
  }
  if (i < end) partial(i, end - i);
}

template <typename T, Activation A, Residual R, bool kExact = false>
void Planes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  if constexpr (A == Activation::kNone && R == Residual::kNone) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<Wide<T>>()));
    if (plane >= lanes && plane < kSmallPlane * lanes && plane % lanes != 0) {
      return SmallPlanes<T, kExact>(args, channels, plane, begin, end);
    }
  }
  const auto* src = static_cast<const T*>(args.src);
  const auto* residual = static_cast<const T*>(args.residual);
  auto* dst = static_cast<T*>(args.dst);
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  [[maybe_unused]] const auto* pivot = static_cast<const Wide<T>*>(args.pivot);
  int64_t channel = begin / plane % channels;
  int64_t stop = (begin / plane + 1) * plane;
  while (begin < end) {
    const int64_t n = std::min(stop, end) - begin;
    Plane<T, A, R, kExact>(src + begin, R == Residual::kNone ? nullptr : residual + begin, dst + begin,
                           static_cast<size_t>(n), scale[channel], shift[channel], kExact ? pivot[channel] : 0, args);
    begin += n;
    stop += plane;
    if (++channel == channels) channel = 0;
  }
  if (args.stream) hwy::FlushStream();
}

template <typename T, Activation A, Residual R, bool kExact = false>
void Pixels(const AffineArgs& args, int64_t channels, const AffinePitches& pitches, int64_t begin, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(channels);
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  [[maybe_unused]] const auto* pivot = static_cast<const Wide<T>*>(args.pivot);
  const bool stream = A == Activation::kNone && R == Residual::kNone && args.stream && n % lanes == 0 &&
                      pitches.dst % static_cast<int64_t>(lanes) == 0 &&
                      reinterpret_cast<uintptr_t>(args.dst) % (lanes * sizeof(T)) == 0;
  for (int64_t row = begin; row < end; ++row) {
    const T* src = static_cast<const T*>(args.src) + row * pitches.src;
    [[maybe_unused]] const T* residual = static_cast<const T*>(args.residual) + row * pitches.residual;
    T* dst = static_cast<T*>(args.dst) + row * pitches.dst;
    size_t c = 0;
    for (; c + lanes <= n; c += lanes) {
      const V s = hn::LoadU(d, scale + c);
      V y = Map<kExact>(LoadWide(d, src + c), s, hn::LoadU(d, shift + c), kExact ? hn::LoadU(d, pivot + c) : s);
      const V r = R == Residual::kNone ? y : LoadWide(d, residual + c);
      y = Finish<A, R>(d, y, r, args);
      if (stream) {
        StreamWide(y, d, dst + c);
      } else {
        StoreWide(y, d, dst + c);
      }
    }
    if (c < n) {
      const size_t left = n - c;
      const V s = hn::LoadN(d, scale + c, left);
      V y = Map<kExact>(LoadWideN(d, src + c, left), s, hn::LoadN(d, shift + c, left),
                        kExact ? hn::LoadN(d, pivot + c, left) : s);
      const V r = R == Residual::kNone ? y : LoadWideN(d, residual + c, left);
      StoreWideN(Finish<A, R>(d, y, r, args), d, dst + c, left);
    }
  }
  if (stream) hwy::FlushStream();
}

struct Rows {
  AffinePlanes planes = nullptr;
  AffinePixels pixels = nullptr;
};

template <typename T, bool kExact = false>
Rows PlainRows() {
  return {Planes<T, Activation::kNone, Residual::kNone, kExact>, Pixels<T, Activation::kNone, Residual::kNone, kExact>};
}

// A residual is fused with the activations that networks use around one.
constexpr bool IsCommon(Activation a) {
  return a == Activation::kNone || a == Activation::kRelu || a == Activation::kClip || a == Activation::kLeakyRelu ||
         a == Activation::kHardSwish || a == Activation::kSilu;
}

Rows GetRows(DType dtype, Activation activation, Residual residual) {
  if (dtype == DType::kFloat32) {
    Rows rows;
    VisitActivation(activation, [&](auto a) {
      VisitResidual(residual, [&](auto r) {
        if constexpr (IsCommon(decltype(a)::value) || decltype(r)::value == Residual::kNone) {
          rows = {Planes<float, decltype(a)::value, decltype(r)::value>,
                  Pixels<float, decltype(a)::value, decltype(r)::value>};
        }
      });
    });
    return rows;
  }
  if (activation != Activation::kNone || residual != Residual::kNone) return {};
  if (dtype == DType::kFloat64) return PlainRows<double>();
  if (dtype == DType::kFloat16) return PlainRows<hwy::float16_t>();
  if (dtype == DType::kBFloat16) return PlainRows<hwy::bfloat16_t>();
  return {};
}

Rows GetExact(DType dtype) {
  if (dtype == DType::kFloat32) return PlainRows<float, true>();
  if (dtype == DType::kFloat64) return PlainRows<double, true>();
  if (dtype == DType::kFloat16) return PlainRows<hwy::float16_t, true>();
  if (dtype == DType::kBFloat16) return PlainRows<hwy::bfloat16_t, true>();
  return {};
}

AffinePlanes GetExactPlanes(DType dtype) { return GetExact(dtype).planes; }
AffinePixels GetExactPixels(DType dtype) { return GetExact(dtype).pixels; }

AffinePlanes GetPlanes(DType dtype, Activation activation, Residual residual) {
  return GetRows(dtype, activation, residual).planes;
}

AffinePixels GetPixels(DType dtype, Activation activation, Residual residual) {
  return GetRows(dtype, activation, residual).pixels;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {

HWY_EXPORT(GetPlanes);
HWY_EXPORT(GetPixels);
HWY_EXPORT(GetExactPlanes);
HWY_EXPORT(GetExactPixels);

}  // namespace

AffinePlanes FindAffinePlanes(DType dtype, Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetPlanes)(dtype, activation, residual);
}

AffinePixels FindAffinePixels(DType dtype, Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetPixels)(dtype, activation, residual);
}

AffinePlanes FindExactPlanes(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetExactPlanes)(dtype);
}

AffinePixels FindExactPixels(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetExactPixels)(dtype);
}

}  // namespace crease
#endif  // HWY_ONCE
