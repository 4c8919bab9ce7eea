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

#include "kernels/activation-inl.h"
#include "kernels/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// The epilogue on one vector; `residual` as a vector is loaded only where there is one.
template <Activation A, Residual R, class D, class V>
HWY_INLINE V Finish(D d, V y, V r, [[maybe_unused]] const AffineArgs& args) {
  if constexpr (A == Activation::kNone && R == Residual::kNone) {
    return y;
  } else {
    return ApplyEpilogue<A, R>(d, y, r, hn::Set(d, args.a), hn::Set(d, args.b));
  }
}

template <bool kExact, class V>
HWY_INLINE V Map(V x, V scale, V shift, V pivot) {
  if constexpr (kExact) x = hn::Sub(x, pivot);
  return hn::MulAdd(x, scale, shift);
}

// One run of n elements of one channel.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void Plane(const T* src, const T* residual, T* dst, size_t n, Wide<T> scale, Wide<T> shift, Wide<T> pivot,
                      const AffineArgs& args) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const V s = hn::Set(d, scale);
  const V t = hn::Set(d, shift);
  const V p = hn::Set(d, pivot);
  const auto partial = [&](size_t i, size_t count) HWY_ATTR {
    const V y = Map<kExact>(LoadWideN(d, src + i, count), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWideN(d, residual + i, count);
    StoreWideN(Finish<A, R>(d, y, r, args), d, dst + i, count);
  };
  const auto whole = [&](size_t i) HWY_ATTR {
    const V y = Map<kExact>(LoadWide(d, src + i), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual + i);
    return Finish<A, R>(d, y, r, args);
  };
  size_t i = 0;
  // Streaming and unrolling are for the bare map, which runs at the speed of memory; with an epilogue
  // they would only multiply the code.
  if constexpr (A == Activation::kNone && R == Residual::kNone) {
    if (kIsWide<T> && args.stream && n >= 4 * lanes) {
      const size_t past = reinterpret_cast<uintptr_t>(dst) / sizeof(T) % lanes;
      if (past != 0) {
        i = lanes - past;
        partial(0, i);
      }
      for (; i + lanes <= n; i += lanes) StreamWide(whole(i), d, dst + i);
    }
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      const V y0 = whole(i);
      const V y1 = whole(i + lanes);
      StoreWide(y0, d, dst + i);
      StoreWide(y1, d, dst + i + lanes);
    }
  }
  for (; i + lanes <= n; i += lanes) StoreWide(whole(i), d, dst + i);
  if (i < n) partial(i, n - i);
}

template <typename T, Activation A, Residual R, bool kExact = false>
void Planes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
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
