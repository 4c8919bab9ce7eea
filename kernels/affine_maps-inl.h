// SPDX-License-Identifier: Apache-2.0
// The per-channel map over planes and over channels-last rows, with an epilogue, as functions to point to. Per-target
// header.
#include "kernels/affine_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_AFFINE_MAPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_AFFINE_MAPS_INL_H_
#undef CREASE_KERNELS_AFFINE_MAPS_INL_H_
#else
#define CREASE_KERNELS_AFFINE_MAPS_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

#include "kernels/affine_plane-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

template <typename T, Activation A, Residual R, bool kExact>
void Planes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  const PlanePattern<Wide<T>> pattern(plane, end - begin);
  MapPlanes<T, A, R, kExact>(args, pattern, channels, plane, begin, end);
  if (args.stream) hwy::FlushStream();
}

// Rows that share a reading of the parameters where caches hold them. In order they are left to the prefetchers: 3 MB
// in L3, rows of 1 KB and of 8 KB, two threads: 79 and 74 us, 84 and 77 with the source fetched; one by one 119.
constexpr int64_t kTurns = 4;

// kRows rows, `step` apart, in turns: one reading of the parameters, and as many streams from memory.
template <size_t kRows, Write kWrite, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void RowsOf(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t step) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  [[maybe_unused]] const auto* pivot = static_cast<const Wide<T>*>(args.pivot);
  const T* src[kRows];
  [[maybe_unused]] const T* residual[kRows];
  T* dst[kRows];
  for (size_t k = 0; k < kRows; ++k) {
    const int64_t at = row + static_cast<int64_t>(k) * step;
    src[k] = static_cast<const T*>(args.src) + at * pitches.src;
    residual[k] = R == Residual::kNone ? nullptr : static_cast<const T*>(args.residual) + at * pitches.residual;
    dst[k] = static_cast<T*>(args.dst) + at * pitches.dst;
  }
  size_t c = 0;
  // Whole lines, for one fetch each.
  for (; kInOrder && c + 2 * lanes <= n; c += 2 * lanes) {
    V s[2], t[2], p[2];
    for (size_t v = 0; v < 2; ++v) {
      s[v] = hn::LoadU(d, scale + c + v * lanes);
      t[v] = hn::LoadU(d, shift + c + v * lanes);
      p[v] = kExact ? hn::LoadU(d, pivot + c + v * lanes) : s[v];
    }
    for (size_t k = 0; k < kRows; ++k) {
      FetchSource<kWrite, kStreamRowsAhead>(src[k] + c);
      for (size_t v = 0; v < 2; ++v) {
        const size_t at = c + v * lanes;
        const V y = Map<kExact>(LoadWide(d, src[k] + at), s[v], t[v], p[v]);
        const V r = R == Residual::kNone ? y : LoadWide(d, residual[k] + at);
        WriteWide<kWrite>(Finish<A, R>(d, y, r, args), d, dst[k] + at);
      }
    }
  }
  for (; c + lanes <= n; c += lanes) {
    const V s = hn::LoadU(d, scale + c), t = hn::LoadU(d, shift + c), p = kExact ? hn::LoadU(d, pivot + c) : s;
    for (size_t k = 0; k < kRows; ++k) {
      V y = Map<kExact>(LoadWide(d, src[k] + c), s, t, p);
      const V r = R == Residual::kNone ? y : LoadWide(d, residual[k] + c);
      y = Finish<A, R>(d, y, r, args);
      WriteWide<kWrite>(y, d, dst[k] + c);
    }
  }
  if (c == n) return;
  const size_t left = n - c;
  const V s = hn::LoadN(d, scale + c, left), t = hn::LoadN(d, shift + c, left);
  const V p = kExact ? hn::LoadN(d, pivot + c, left) : s;
  for (size_t k = 0; k < kRows; ++k) {
    const V y = Map<kExact>(LoadWideN(d, src[k] + c, left), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWideN(d, residual[k] + c, left);
    StoreWideN(Finish<A, R>(d, y, r, args), d, dst[k] + c, left);
  }
}

template <Write kWrite, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void RowsFrom(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end) {
  // Only the bare map runs at the speed of memory; with an epilogue this would but multiply the code.
  constexpr bool kBare = A == Activation::kNone && R == Residual::kNone;
  constexpr int64_t kRows = !kBare ? 1 : kWrite == Write::kStream ? kStreams : kTurns;
  const int64_t step =
      kWrite == Write::kStream && !kInOrder
          ? std::max<int64_t>(1, static_cast<int64_t>(kStreamElements) / std::max<int64_t>(1, pitches.src))
          : 1;
  for (; row + kRows * step <= end; row += kRows * step) {
    for (int64_t i = row; i < row + step; ++i) RowsOf<kRows, kWrite, T, A, R, kExact>(args, n, pitches, i, step);
  }
  for (; row < end; ++row) RowsOf<1, kWrite, T, A, R, kExact>(args, n, pitches, row, 0);
}

template <typename T, Activation A, Residual R, bool kExact>
void Pixels(const AffineArgs& args, int64_t channels, const AffinePitches& pitches, int64_t begin, int64_t end) {
  const size_t lanes = hn::Lanes(hn::ScalableTag<Wide<T>>());
  const auto n = static_cast<size_t>(channels);
  if constexpr (A == Activation::kNone && R == Residual::kNone) {
    if (kIsWide<T> && args.stream && n % lanes == 0 && pitches.dst % static_cast<int64_t>(lanes) == 0 &&
        reinterpret_cast<uintptr_t>(args.dst) % (lanes * sizeof(T)) == 0) {
      RowsFrom<Write::kStream, T, A, R, kExact>(args, n, pitches, begin, end);
      return hwy::FlushStream();
    }
    if (!kInOrder && args.fetch) return RowsFrom<Write::kFetch, T, A, R, kExact>(args, n, pitches, begin, end);
  }
  RowsFrom<Write::kPlain, T, A, R, kExact>(args, n, pitches, begin, end);
}

// A residual is fused with the activations that networks use around one.
constexpr bool IsCommon(Activation a) {
  return a == Activation::kNone || a == Activation::kRelu || a == Activation::kClip || a == Activation::kLeakyRelu ||
         a == Activation::kHardSwish || a == Activation::kSilu;
}

template <typename T, Activation A, Residual R, bool kExact>
AffineRows RowsWith() {
  return {Planes<T, A, R, kExact>, Pixels<T, A, R, kExact>};
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
