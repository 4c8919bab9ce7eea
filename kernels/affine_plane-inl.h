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

// Elements ahead of a plain store whose line is fetched: 276 us for 3 MB from L3 and back, 298 without.
constexpr size_t kStoreAhead = 512;

// One run of n elements of one channel.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void Plane(const T* src, const T* residual, T* dst, size_t n, Wide<T> scale, Wide<T> shift, Wide<T> pivot,
                      const AffineArgs& args) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const V s = hn::Set(d, scale), t = hn::Set(d, shift), p = hn::Set(d, pivot);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    // An address past the tensor's end is never read.
    if constexpr (A == Activation::kNone && R == Residual::kNone) __builtin_prefetch(dst + i + kStoreAhead, 1, 3);
    const V y = Map<kExact>(LoadWide(d, src + i), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual + i);
    StoreWide(Finish<A, R>(d, y, r, args), d, dst + i);
  }
  if (i == n) return;
  const V y = Map<kExact>(LoadWideN(d, src + i, n - i), s, t, p);
  const V r = R == Residual::kNone ? y : LoadWideN(d, residual + i, n - i);
  StoreWideN(Finish<A, R>(d, y, r, args), d, dst + i, n - i);
}

// Walks a dense tensor of planes, each of at least one vector, vector by vector as the elements lie: all of one
// channel, or on the border of two.
template <typename T, bool kExact>
class PlaneCursor {
 public:
  using D = hn::ScalableTag<Wide<T>>;
  using V = hn::Vec<D>;

  // At element `at`.
  HWY_INLINE PlaneCursor(const AffineArgs& args, int64_t channels, int64_t plane, int64_t at)
      : args_(args),
        channels_(channels),
        plane_(plane),
        channel_(at / plane % channels),
        stop_((at / plane + 1) * plane) {
    SetChannel();
  }

  // The map of elements [i, i + count), where the last call ended; count at most a vector.
  HWY_INLINE V operator()(V x, int64_t i, int64_t count) {
    const D d;
    const int64_t left = stop_ - i;
    if (HWY_LIKELY(left >= count)) return Map<kExact>(x, s_, t_, p_);
    const V s = s_, t = t_, p = p_;
    stop_ += plane_;
    if (++channel_ == channels_) channel_ = 0;
    SetChannel();
    const auto before = hn::FirstN(d, static_cast<size_t>(left));
    return Map<kExact>(x, hn::IfThenElse(before, s, s_), hn::IfThenElse(before, t, t_), hn::IfThenElse(before, p, p_));
  }

 private:
  HWY_INLINE void SetChannel() {
    const D d;
    s_ = hn::Set(d, static_cast<const Wide<T>*>(args_.scale)[channel_]);
    t_ = hn::Set(d, static_cast<const Wide<T>*>(args_.shift)[channel_]);
    p_ = kExact ? hn::Set(d, static_cast<const Wide<T>*>(args_.pivot)[channel_]) : s_;
  }

  const AffineArgs& args_;
  int64_t channels_, plane_, channel_, stop_;
  V s_, t_, p_;
};

// As MapPlanes, for planes of at least one vector, without an epilogue: an aligned tensor is written in whole
// aligned lines, with kStream past the caches.
template <typename T, bool kExact, bool kStream>
void MapLines(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  constexpr auto kEach = static_cast<int64_t>(kStreamElements);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t line = std::max(lanes, static_cast<int64_t>(64 / sizeof(T)));
  const auto* src = static_cast<const T*>(args.src);
  auto* dst = static_cast<T*>(args.dst);
  using Cursor = PlaneCursor<T, kExact>;
  const auto partial = [&](Cursor& cursor, int64_t i, int64_t count) HWY_ATTR {
    const auto n = static_cast<size_t>(count);
    StoreWideN(cursor(LoadWideN(d, src + i, n), i, count), d, dst + i, n);
  };
  const auto whole = [&](Cursor& cursor, int64_t i) HWY_ATTR {
    if constexpr (kStream) {
      StreamWide(cursor(LoadWide(d, src + i), i, lanes), d, dst + i);
    } else {
      StoreWide(cursor(LoadWide(d, src + i), i, lanes), d, dst + i);
    }
  };
  int64_t i = begin;
  if (const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(dst + i) / sizeof(T)) % lanes; past != 0) {
    Cursor cursor(args, channels, plane, i);
    const int64_t count = std::min(lanes - past, end - i);
    partial(cursor, i, count);
    i += count;
  }
  while (kStream && end - i >= 4 * line) {
    const int64_t each = std::min((end - i) / static_cast<int64_t>(kStreams) / line * line, kEach);
    Cursor cursors[kStreams] = {{args, channels, plane, i},
                                {args, channels, plane, i + each},
                                {args, channels, plane, i + 2 * each},
                                {args, channels, plane, i + 3 * each}};
    for (const int64_t stop = i + each; i < stop; i += line) {
      for (size_t k = 0; k < kStreams; ++k) {
        const int64_t at = i + static_cast<int64_t>(k) * each;
        for (int64_t v = at; v < at + line; v += lanes) whole(cursors[k], v);
      }
    }
    i += static_cast<int64_t>(kStreams - 1) * each;
  }
  if (i == end) return;
  Cursor cursor(args, channels, plane, i);
  for (; i + lanes <= end; i += lanes) {
    whole(cursor, i);
  }
  if (i < end) partial(cursor, i, end - i);
}

// Planes of fewer vectors than this, and no whole number of them, are written as they lie.
constexpr int64_t kSmallPlane = 64;

// What AffinePlanes does; FlushStream is left to the caller.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void MapPlanes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  // Only the bare map runs at the speed of memory; with an epilogue this would but multiply the code.
  if constexpr (A == Activation::kNone && R == Residual::kNone) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<Wide<T>>()));
    if (kIsWide<T> && args.stream && plane >= lanes) {
      return MapLines<T, kExact, true>(args, channels, plane, begin, end);
    }
    if (plane >= lanes && plane < kSmallPlane * lanes && plane % lanes != 0) {
      return MapLines<T, kExact, false>(args, channels, plane, begin, end);
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
