// SPDX-License-Identifier: Apache-2.0
// The per-channel map over one run of adjacent elements. Per-target header.
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
  // For whole lines of the loops below; an address past the tensor's end is never read.
  const auto ahead = [&](size_t i) HWY_ATTR {
    if constexpr (kAhead) __builtin_prefetch(src + n + i, 0, 2);
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
      for (; i + lanes <= n; i += lanes) {
        ahead(i);
        StreamWide(whole(i), d, dst + i);
      }
    }
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      ahead(i);
      ahead(i + lanes);
      const V y0 = whole(i);
      const V y1 = whole(i + lanes);
      StoreWide(y0, d, dst + i);
      StoreWide(y1, d, dst + i + lanes);
    }
  }
  for (; i + lanes <= n; i += lanes) StoreWide(whole(i), d, dst + i);
  if (i < n) partial(i, n - i);
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
