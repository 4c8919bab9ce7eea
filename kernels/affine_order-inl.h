// SPDX-License-Identifier: Apache-2.0
// The per-channel map over planes in the order in which they lie, in whole aligned vectors: one on the border of two
// planes has the parameters of both. Per-target header.
#include "kernels/affine_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_AFFINE_ORDER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_AFFINE_ORDER_INL_H_
#undef CREASE_KERNELS_AFFINE_ORDER_INL_H_
#else
#define CREASE_KERNELS_AFFINE_ORDER_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

#include "kernels/affine_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Elements [begin, end), fewer than two vectors or a few more.
template <typename T, Activation A, Residual R, bool kExact>
HWY_NOINLINE void MapElements(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  using W = Wide<T>;
  const hn::ScalableTag<W> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* src = static_cast<const T*>(args.src);
  [[maybe_unused]] const auto* residual = static_cast<const T*>(args.residual);
  auto* dst = static_cast<T*>(args.dst);
  while (begin < end) {
    const int64_t stop = std::min({end, begin + lanes, (begin / plane + 1) * plane});
    const int64_t channel = begin / plane % channels;
    const auto of = [&](const void* values) HWY_ATTR { return hn::Set(d, static_cast<const W*>(values)[channel]); };
    const V scale = of(args.scale), pivot = kExact ? of(args.pivot) : scale;
    const auto n = static_cast<size_t>(stop - begin);
    const V y = Map<kExact>(LoadWideN(d, src + begin, n), scale, of(args.shift), pivot);
    const V r = R == Residual::kNone ? y : LoadWideN(d, residual + begin, n);
    StoreWideN(Finish<A, R>(d, y, r, args.a, args.b), d, dst + begin, n);
    begin = stop;
  }
}

// For planes of at least one vector. kDown: from the last vector to the first.
template <Write kWrite, bool kDown, typename T, Activation A, Residual R, bool kExact>
class OrderedMap {
 public:
  using W = Wide<T>;
  using D = hn::ScalableTag<W>;
  using V = hn::Vec<D>;

  // Elements [begin, end). Nothing here has its address taken, so that stores, which the compiler believes may go
  // anywhere, leave it in registers.
  static HWY_INLINE void Run(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
    const OrderedMap map(args, channels, plane);
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(map.dst_ + begin) / sizeof(T)) % kLanes;
    const int64_t first = past == 0 ? begin : std::min(end, begin + kLanes - past);
    const int64_t last = first + (end - first) / kLanes * kLanes;
    if constexpr (kDown) {
      MapElements<T, A, R, kExact>(args, channels, plane, last, end);
      map.Down(first, last);
      MapElements<T, A, R, kExact>(args, channels, plane, begin, first);
    } else {
      if (first > begin) MapElements<T, A, R, kExact>(args, channels, plane, begin, first);
      map.Up(first, last);
      MapElements<T, A, R, kExact>(args, channels, plane, last, end);
    }
  }

 private:
  struct Channel {
    V scale, shift, pivot;
  };

  HWY_INLINE OrderedMap(const AffineArgs& args, int64_t channels, int64_t plane)
      : src_(static_cast<const T*>(args.src)),
        residual_(static_cast<const T*>(args.residual)),
        dst_(static_cast<T*>(args.dst)),
        scale_(static_cast<const W*>(args.scale)),
        shift_(static_cast<const W*>(args.shift)),
        pivot_(static_cast<const W*>(args.pivot)),
        a_(args.a),
        b_(args.b),
        channels_(channels),
        plane_(plane) {}

  // Elements [i, end), whole vectors of them.
  HWY_INLINE void Up(int64_t i, int64_t end) const {
    int64_t channel = i / plane_ % channels_, stop = (i / plane_ + 1) * plane_;
    Channel own = At(channel);
    while (stop < end) {
      i = Whole(own, i, stop);
      if (++channel == channels_) channel = 0;
      const Channel next = At(channel);
      if (i < stop) {
        Border(own, next, i, stop - i);
        i += kLanes;
      }
      own = next;
      stop += plane_;
    }
    Whole(own, i, end);
  }

  // Elements [begin, i), whole vectors of them, from the last one to the first.
  HWY_INLINE void Down(int64_t begin, int64_t i) const {
    if (i == begin) return;
    int64_t channel = (i - 1) / plane_ % channels_, start = (i - 1) / plane_ * plane_;
    Channel own = At(channel);
    while (start > begin) {
      i = WholeDown(own, start, i);
      channel = (channel == 0 ? channels_ : channel) - 1;
      const Channel before = At(channel);
      if (i > start) {
        i -= kLanes;
        Border(before, own, i, start - i);
      }
      own = before;
      start -= plane_;
    }
    WholeDown(own, begin, i);
  }

  HWY_INLINE Channel At(int64_t channel) const {
    const D d;
    const V scale = hn::Set(d, scale_[channel]);
    return {scale, hn::Set(d, shift_[channel]), kExact ? hn::Set(d, pivot_[channel]) : scale};
  }

  HWY_INLINE void Vector(const Channel& c, int64_t i) const {
    const D d;
    if constexpr (kVectorsOfLine<T> == 1) FetchSource<kWrite>(src_ + i);
    const V y = Map<kExact>(LoadWide(d, src_ + i), c.scale, c.shift, c.pivot);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual_ + i);
    WriteWide<kWrite>(Finish<A, R>(d, y, r, a_, b_), d, dst_ + i);
  }

  // Vectors from i on that end by `stop`; where the last one ended. In pairs: a loop of vectors mispredicts its end
  // at nearly every small plane (188 KB in L2, planes of 49: 9.8 us; in pairs 8.5).
  HWY_INLINE int64_t Whole(const Channel& c, int64_t i, int64_t stop) const {
    for (; i + 2 * kLanes <= stop; i += 2 * kLanes) {
      if constexpr (kVectorsOfLine<T> != 1) FetchSource<kWrite>(src_ + i);
      Vector(c, i);
      Vector(c, i + kLanes);
    }
    if (i + kLanes > stop) return i;
    if constexpr (kVectorsOfLine<T> != 1) FetchSource<kWrite>(src_ + i);
    Vector(c, i);
    return i + kLanes;
  }

  // Vectors up to i that begin at `start` or after it; where the first one began.
  HWY_INLINE int64_t WholeDown(const Channel& c, int64_t start, int64_t i) const {
    for (; i - 2 * kLanes >= start; i -= 2 * kLanes) {
      Vector(c, i - kLanes);
      Vector(c, i - 2 * kLanes);
    }
    if (i - kLanes < start) return i;
    Vector(c, i - kLanes);
    return i - kLanes;
  }

  // The vector at i, whose first `count` elements are of channel `a`.
  HWY_INLINE void Border(const Channel& a, const Channel& b, int64_t i, int64_t count) const {
    const D d;
    const auto first = hn::FirstN(d, static_cast<size_t>(count));
    const V scale = hn::IfThenElse(first, a.scale, b.scale);
    Vector({scale, hn::IfThenElse(first, a.shift, b.shift), kExact ? hn::IfThenElse(first, a.pivot, b.pivot) : scale},
           i);
  }

  static constexpr int64_t kLanes = HWY_MAX_LANES_D(D);

  const T* src_;
  const T* residual_;
  T* dst_;
  const W *scale_, *shift_, *pivot_;
  float a_, b_;
  int64_t channels_, plane_;
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
