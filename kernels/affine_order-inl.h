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
    StoreWideN(Finish<A, R>(d, y, r, args), d, dst + begin, n);
    begin = stop;
  }
}

// For planes of at least one vector. kAhead: as for Reader.
template <Write kWrite, bool kAhead, typename T, Activation A, Residual R, bool kExact>
class OrderedMap {
 public:
  using W = Wide<T>;
  using D = hn::ScalableTag<W>;
  using V = hn::Vec<D>;

  // Elements [begin, end). Nothing here has its address taken, so that stores, which the compiler believes may go
  // anywhere, leave it in registers.
  static HWY_INLINE void Run(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
    OrderedMap map(args, end - lanes);
    const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(map.dst_ + begin) / sizeof(T)) % lanes;
    int64_t i = past == 0 ? begin : std::min(end, begin + lanes - past);
    if (i > begin) MapElements<T, A, R, kExact>(args, channels, plane, begin, i);
    if (i + lanes <= end) map.read_.Start(i);
    int64_t channel = i / plane % channels, stop = (i / plane + 1) * plane;
    Channel own = map.At(channel);
    while (stop + lanes <= end) {
      i = map.Whole(own, i, stop);
      if (++channel == channels) channel = 0;
      const Channel next = map.At(channel);
      if (i < stop) {
        map.Border(own, next, i, stop - i);
        i += lanes;
      }
      own = next;
      stop += plane;
    }
    i = map.Whole(own, i, std::min(stop, end));
    MapElements<T, A, R, kExact>(args, channels, plane, i, end);
  }

 private:
  struct Channel {
    V scale, shift, pivot;
  };

  // `last`: where the last vector begins.
  HWY_INLINE OrderedMap(const AffineArgs& args, int64_t last)
      : src_(static_cast<const T*>(args.src)),
        residual_(static_cast<const T*>(args.residual)),
        dst_(static_cast<T*>(args.dst)),
        scale_(static_cast<const W*>(args.scale)),
        shift_(static_cast<const W*>(args.shift)),
        pivot_(static_cast<const W*>(args.pivot)),
        a_(args.a),
        b_(args.b),
        read_(src_, last) {}

  HWY_INLINE Channel At(int64_t channel) const {
    const D d;
    const V scale = hn::Set(d, scale_[channel]);
    return {scale, hn::Set(d, shift_[channel]), kExact ? hn::Set(d, pivot_[channel]) : scale};
  }

  HWY_INLINE void Vector(const Channel& c, int64_t i) {
    const D d;
    if constexpr (kVectorsOfLine<T> == 1) FetchSource<kWrite>(src_ + i);
    V y = Map<kExact>(read_.Next(i), c.scale, c.shift, c.pivot);
    const V r = R == Residual::kNone ? y : LoadWide(d, residual_ + i);
    if constexpr (A != Activation::kNone || R != Residual::kNone) {
      y = ApplyEpilogue<A, R>(d, y, r, hn::Set(d, a_), hn::Set(d, b_));
    }
    WriteWide<kWrite>(y, d, dst_ + i);
  }

  // Vectors from i on that end by `stop`; where the last one ended. In pairs: a loop of vectors mispredicts its end
  // at nearly every small plane (188 KB in L2, planes of 49: 9.8 us; in pairs 8.5).
  HWY_INLINE int64_t Whole(const Channel& c, int64_t i, int64_t stop) {
    const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
    for (; i + 2 * lanes <= stop; i += 2 * lanes) {
      if constexpr (kVectorsOfLine<T> != 1) FetchSource<kWrite>(src_ + i);
      Vector(c, i);
      Vector(c, i + lanes);
    }
    if (i + lanes > stop) return i;
    if constexpr (kVectorsOfLine<T> != 1) FetchSource<kWrite>(src_ + i);
    Vector(c, i);
    return i + lanes;
  }

  // The vector at i, whose first `count` elements are of channel `a`.
  HWY_INLINE void Border(const Channel& a, const Channel& b, int64_t i, int64_t count) {
    const D d;
    const auto first = hn::FirstN(d, static_cast<size_t>(count));
    const V scale = hn::IfThenElse(first, a.scale, b.scale);
    Vector({scale, hn::IfThenElse(first, a.shift, b.shift), kExact ? hn::IfThenElse(first, a.pivot, b.pivot) : scale},
           i);
  }

  const T* src_;
  const T* residual_;
  T* dst_;
  const W *scale_, *shift_, *pivot_;
  float a_, b_;
  Reader<T, kAhead> read_;
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
