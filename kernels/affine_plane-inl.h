// SPDX-License-Identifier: Apache-2.0
// The per-channel map over runs of adjacent elements of one channel. Per-target header.
#include "kernels/affine_rows.h"
#include "kernels/rounding.h"
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

#include "kernels/affine_order-inl.h"
#include "kernels/affine_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

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
    if constexpr (kIsBare<A, R>) __builtin_prefetch(dst + i + kStoreAhead, 1, 3);
    const V y = Map<kExact>(LoadWide(d, src + i), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual + i);
    StoreWide(Finish<A, R>(d, y, r, args.a, args.b), d, dst + i);
  }
  if (i == n) return;
  const V y = Map<kExact>(LoadWideN(d, src + i, n - i), s, t, p);
  const V r = R == Residual::kNone ? y : LoadWideN(d, residual + i, n - i);
  StoreWideN(Finish<A, R>(d, y, r, args.a, args.b), d, dst + i, n - i);
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

// As MapPlanes, for planes of at least one vector: an aligned tensor is written in whole aligned lines, with kStream
// past the caches.
template <typename T, Activation A, Residual R, bool kExact, bool kStream>
void MapLines(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  constexpr auto kEach = static_cast<int64_t>(kStreamElements);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t line = std::max(lanes, static_cast<int64_t>(64 / sizeof(T)));
  const auto* src = static_cast<const T*>(args.src);
  [[maybe_unused]] const auto* residual = static_cast<const T*>(args.residual);
  auto* dst = static_cast<T*>(args.dst);
  const float a = args.a, b = args.b;
  using Cursor = PlaneCursor<T, kExact>;
  using V = hn::Vec<decltype(d)>;
  const auto partial = [&](Cursor& cursor, int64_t i, int64_t count) HWY_ATTR {
    const auto n = static_cast<size_t>(count);
    const V y = cursor(LoadWideN(d, src + i, n), i, count);
    const V r = R == Residual::kNone ? y : LoadWideN(d, residual + i, n);
    StoreWideN(Finish<A, R>(d, y, r, a, b), d, dst + i, n);
  };
  const auto whole = [&](Cursor& cursor, int64_t i) HWY_ATTR {
    const V y = cursor(LoadWide(d, src + i), i, lanes);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual + i);
    WriteWide<kStream ? Write::kStream : Write::kPlain>(Finish<A, R>(d, y, r, a, b), d, dst + i);
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

// How the borders of planes of one size lie in vectors: after group() planes a plane begins where a vector does. Which
// plane of the group a lane belongs to is looked up, so that no branch depends on where borders are: in L2, planes of
// 49 elements take 6.4 us where a loop that asks takes 8.1 (memcpy 5.9).
template <typename W>
class PlanePattern {
 public:
  using D = hn::ScalableTag<W>;
  using DI = hn::RebindToSigned<D>;
  // Lanes are looked up by one instruction from AVX2 on. On Zen 1 three of them a vector take 28 us for 188 KB in L2,
  // where OrderedMap takes 9: there this is for planes that it does not do (4 elements, 128 KB: 75 us, one by one 240).
  static constexpr bool kFast = HWY_MAX_LANES_D(D) >= 8;
  static constexpr int64_t kMaxVectors = 128;  // 8 KiB, which leave L1 to the data
  static constexpr int64_t kWorth = 4;         // groups

  // For planes of `plane` elements, `count` in all. In order only those of less than a vector need one.
  PlanePattern(int64_t plane, int64_t count, bool in_pages) : plane_(plane) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
    const int64_t step = std::min(lanes, plane & -plane);  // their greatest common divisor: lanes is a power of two
    group_ = lanes / step;
    vectors_ = plane / step;
    // Planes that are whole vectors need none; finding it takes about as long as mapping a group.
    usable_ = kFast && (in_pages || plane < lanes) && group_ > 1 && vectors_ <= kMaxVectors &&
              count >= kWorth * group_ * plane;
    if (!usable_) return;
    const D d;
    const DI di;
    // Halves never round to the wrong side: lanes * vectors_ is far below 2^23.
    const auto inverse = hn::Set(d, W{1} / static_cast<W>(plane)), half = hn::Set(d, W{0.5});
    for (int64_t v = 0; v < vectors_; ++v) {
      const auto element = hn::Iota(d, static_cast<W>(v * lanes));
      hn::Store(hn::ConvertTo(di, hn::Mul(hn::Add(element, half), inverse)), di, owner_ + v * lanes);
    }
  }

  bool usable() const { return usable_; }
  int64_t plane() const { return plane_; }
  int64_t group() const { return group_; }
  int64_t vectors() const { return vectors_; }
  HWY_INLINE auto Owner(int64_t vector) const {
    const DI di;
    return hn::IndicesFromVec(D(), hn::Load(di, owner_ + vector * static_cast<int64_t>(hn::Lanes(di))));
  }

 private:
  int64_t plane_, group_, vectors_;
  bool usable_;
  HWY_ALIGN hn::TFromD<DI> owner_[static_cast<size_t>(kMaxVectors) * HWY_MAX_LANES_D(D)];
};

// Maps groups of planes from plane `first` on, a multiple of pattern.group(), while they end before element `end`;
// where that was.
template <typename T, Activation A, Residual R, bool kExact>
int64_t MapGroups(const AffineArgs& args, const PlanePattern<Wide<T>>& pattern, int64_t channels, int64_t first,
                  int64_t end) {
  using W = Wide<T>;
  const hn::ScalableTag<W> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t group = pattern.group(), vectors = pattern.vectors();
  int64_t channel = first % channels, i = first * pattern.plane();
  for (; i + vectors * lanes <= end; i += vectors * lanes) {
    // The parameters of the group's planes, lane by lane; a batch goes on with channel 0.
    const auto gather = [&](const void* from) HWY_ATTR {
      const W* values = static_cast<const W*>(from);
      if (channel + lanes <= channels) return hn::LoadU(d, values + channel);
      HWY_ALIGN W own[HWY_MAX_LANES_D(decltype(d))] = {};
      for (int64_t k = 0; k < group; ++k) own[k] = values[(channel + k) % channels];
      return hn::Load(d, own);
    };
    const V scale = gather(args.scale), shift = gather(args.shift), pivot = kExact ? gather(args.pivot) : scale;
    const T* src = static_cast<const T*>(args.src) + i;
    [[maybe_unused]] const T* residual = static_cast<const T*>(args.residual) + (R == Residual::kNone ? 0 : i);
    T* dst = static_cast<T*>(args.dst) + i;
    for (int64_t v = 0; v < vectors; ++v) {
      const auto owner = pattern.Owner(v);
      const auto of = [&](V values) HWY_ATTR { return hn::TableLookupLanes(values, owner); };
      const V y = Map<kExact>(LoadWide(d, src + v * lanes), of(scale), of(shift), kExact ? of(pivot) : pivot);
      const V r = R == Residual::kNone ? y : LoadWide(d, residual + v * lanes);
      StoreWide(Finish<A, R>(d, y, r, args.a, args.b), d, dst + v * lanes);
    }
    channel += group;
    if (channel >= channels) channel %= channels;
  }
  return i;
}

// Planes of fewer vectors than this, and no whole number of them, are written as they lie.
constexpr int64_t kSmallPlane = 64;

template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void MapPlaneByPlane(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
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

// Planes of at least one vector by OrderedMap.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void MapOrdered(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  if constexpr (kHasAllWays<T, A, R>) {
    if (kIsWide<T> && args.stream) {
      return OrderedMap<Write::kStream, false, T, A, R, kExact>::Run(args, channels, plane, begin, end);
    }
    if constexpr (kKnowsPages) {
      if (IsBetterDown(args)) {
        return OrderedMap<Write::kPlain, true, T, A, R, kExact>::Run(args, channels, plane, begin, end);
      }
    } else if (kIsBare<A, R> && args.fetch_source) {  // others were not measured on Zen 1
      return OrderedMap<Write::kFetch, false, T, A, R, kExact>::Run(args, channels, plane, begin, end);
    }
  }
  OrderedMap<Write::kPlain, false, T, A, R, kExact>::Run(args, channels, plane, begin, end);
}

// What AffinePlanes does; FlushStream is left to the caller. `pattern`: of such planes, usable or not.
template <typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void MapPlanes(const AffineArgs& args, const PlanePattern<Wide<T>>& pattern, int64_t channels, int64_t plane,
                          int64_t begin, int64_t end) {
  constexpr bool kBare = kIsBare<A, R>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<Wide<T>>()));
  if (!InPages(args)) {
    if (plane >= lanes) return MapOrdered<T, A, R, kExact>(args, channels, plane, begin, end);
  } else if constexpr (kKnowsPages && kHasAllWays<T, A, R>) {
    if (kIsWide<T> && args.stream && plane >= lanes) {
      return MapLines<T, A, R, kExact, true>(args, channels, plane, begin, end);
    }
  }
  if constexpr (PlanePattern<Wide<T>>::kFast) {
    const bool aligned = reinterpret_cast<uintptr_t>(args.dst) % (static_cast<size_t>(lanes) * sizeof(T)) == 0;
    if (pattern.usable() && (aligned || !kBare)) {
      const int64_t period = pattern.group() * plane, first = std::min(end, RoundUp(begin, period));
      MapPlaneByPlane<T, A, R, kExact>(args, channels, plane, begin, first);
      begin = first < end ? MapGroups<T, A, R, kExact>(args, pattern, channels, first / plane, end) : end;
    }
  }
  if constexpr (kKnowsPages && kBare) {
    if (plane >= lanes && plane < kSmallPlane * lanes && plane % lanes != 0 && begin < end) {
      return MapLines<T, A, R, kExact, false>(args, channels, plane, begin, end);
    }
  }
  MapPlaneByPlane<T, A, R, kExact>(args, channels, plane, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
