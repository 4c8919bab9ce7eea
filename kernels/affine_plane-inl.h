// SPDX-License-Identifier: Apache-2.0
// The per-channel map over runs of adjacent elements of one channel. Per-target header.
#include "kernels/affine_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_AFFINE_PLANE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_AFFINE_PLANE_INL_H_
#undef CREASE_KERNELS_AFFINE_PLANE_INL_H_
#else
#define CREASE_KERNELS_AFFINE_PLANE_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

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

// What goes past the caches is read as so many streams, about a page of float32 apart: prefetchers follow a
// stream within a page only, and wait at every border. Measured on two threads, best of 15: 22.9 GB/s, one
// stream 18.7. Nothing is gained where caches hold the tensor (0.95 to 1.03 times).
constexpr size_t kStreams = 4;
constexpr size_t kStreamElements = 1024;

// One run of n elements of one channel. kAhead: while it runs, brings the n elements that follow the run
// into L2, for whoever reads them next.
template <typename T, Activation A, Residual R, bool kExact, bool kAhead = false>
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
    const size_t line = std::max(lanes, 64 / sizeof(T));
    const auto lines = [&](auto stream) HWY_ATTR {
      const auto store = [&](size_t at) HWY_ATTR {
        // An address past the tensor's end is never read.
        if constexpr (kAhead) __builtin_prefetch(src + n + at, 0, 2);
        for (size_t v = at; v < at + line; v += lanes) {
          if constexpr (decltype(stream)::value) {
            StreamWide(whole(v), d, dst + v);
          } else {
            StoreWide(whole(v), d, dst + v);
          }
        }
      };
      while (decltype(stream)::value && n - i >= kStreams * kStreamElements / 2) {
        const size_t each = std::min((n - i) / kStreams / line * line, kStreamElements);
        for (size_t j = i; j < i + each; j += line) {
          for (size_t k = 0; k < kStreams; ++k) store(j + k * each);
        }
        i += kStreams * each;
      }
      for (; i + line <= n; i += line) store(i);
    };
    if (kIsWide<T> && args.stream && n >= 4 * lanes) {
      const size_t past = reinterpret_cast<uintptr_t>(dst) / sizeof(T) % lanes;
      if (past != 0) {
        i = lanes - past;
        partial(0, i);
      }
      lines(std::true_type());
    } else {
      lines(std::false_type());
    }
  }
  for (; i + lanes <= n; i += lanes) StoreWide(whole(i), d, dst + i);
  if (i < n) partial(i, n - i);
}

// Planes of fewer vectors than this go through SmallPlanes.
constexpr int64_t kSmallPlane = 64;

// As MapPlanes, for planes of at least one vector, without an epilogue: vectors of elements as they lie, of
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
  } else {
    for (; i + lanes <= end; i += lanes) StoreWide(map(LoadWide(d, src + i), i, lanes), d, dst + i);
  }
  if (i < end) partial(i, end - i);
}

// What AffinePlanes does; FlushStream is left to the caller.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void MapPlanes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
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
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
