// SPDX-License-Identifier: Apache-2.0
// The per-channel map of one vector, and how it is read and written. Per-target header.
#include "kernels/affine_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_AFFINE_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_AFFINE_VECTOR_INL_H_
#undef CREASE_KERNELS_AFFINE_VECTOR_INL_H_
#else
#define CREASE_KERNELS_AFFINE_VECTOR_INL_H_
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

// What networks have behind a batch-norm; a residual is fused with these alone.
constexpr bool IsCommon(Activation a) {
  return a == Activation::kNone || a == Activation::kRelu || a == Activation::kClip || a == Activation::kLeakyRelu ||
         a == Activation::kHardSwish || a == Activation::kSilu;
}

template <Activation A, Residual R>
constexpr bool kIsBare = A == Activation::kNone&& R == Residual::kNone;

// Maps that may run at the speed of memory, which have all the ways to move it. The conversions of 16-bit types with an
// epilogue, or the other activations, are slower than that; for them the ways would but multiply the code.
template <typename T, Activation A, Residual R>
constexpr bool kHasAllWays = kIsBare<A, R> || (std::is_same_v<T, float> && IsCommon(A));

// The epilogue on one vector; `r` is loaded only where there is a residual. a and b are to be copies of the caller's
// own: those of AffineArgs would be loaded again after every store.
template <Activation A, Residual R, class D, class V>
HWY_INLINE V Finish(D d, V y, [[maybe_unused]] V r, [[maybe_unused]] float a, [[maybe_unused]] float b) {
  if constexpr (kIsBare<A, R>) {
    return y;
  } else {
    return ApplyEpilogue<A, R>(d, y, r, hn::Set(d, a), hn::Set(d, b));
  }
}

template <bool kExact, class V>
HWY_INLINE V Map(V x, V scale, V shift, V pivot) {
  if constexpr (kExact) x = hn::Sub(x, pivot);
  return hn::MulAdd(x, scale, shift);
}

// Walk::kPages, Sapphire Rapids with AVX-512: what goes past the caches is read as 4 streams, about a page of float32
// apart, since prefetchers follow a stream within a page only and wait at every border (two threads, best of 15: 22.9
// GB/s, one stream 18.7; nothing is gained where caches hold the tensor, 0.95 to 1.03 times), and lines of a plain
// result are fetched before they are written (3 MB from L3 and back: 276 us, 298 without).
//
// Walk::kOrder: everything in the order in which it lies.
//  - Zen 4 with AVX-512: 98 MB past the caches, one thread and two: 4.8 and 3.4 ms with the source fetched 1 KB ahead
//    for one use, 5.6 and 3.5 without, 4 streams 6.9 and 4.3. 3 MB from L3 and back: 64 us as memcpy, 78 with the
//    source's lines fetched, 79 with the result's: in caches nothing is.
//  - Zen 1 with AVX2: 4 streams of 98 MB run at 16.3 GB/s, one thread; one stream at 18.0, and at 20.8 where lines are
//    fetched 512 bytes ahead, for one use; on two threads 25.3, 24.9, 27.3. 3 MB from L3 and back, the source fetched:
//    212 us, 252 without, 2 threads 118 and 150; fetching the result's lines gains nothing.
constexpr bool kKnowsPages = HWY_TARGET <= HWY_AVX3;
HWY_INLINE bool InPages(const AffineArgs& args) { return kKnowsPages && args.walk == Walk::kPages; }
constexpr size_t kStreams = 4;
constexpr size_t kStreamElements = 1024;
constexpr size_t kStoreAhead = 512;                        // elements
constexpr size_t kStreamAhead = 1024, kFetchAhead = 1024;  // bytes
// Of rows with a parameter a column, whose loop has twice the instructions: 98 MB on Zen 1 take 10.4 ms (1024: 11.0,
// 512: 12.4).
constexpr size_t kStreamRowsAhead = 2048;

// Vectors of T that are fetched together: a line of 64 bytes, at most 2.
template <typename T>
constexpr size_t kVectorsOfLine = HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>) * sizeof(T) >= 64 ? 1 : 2;

// How results reach memory: as they are, past the caches, or as they are with lines fetched before: the result's in
// pages, the source's in order.
enum class Write : uint8_t { kPlain, kFetch, kStream };

// In order: the source's line that will be due soon. An address past the tensor's end is never read.
template <Write kWrite, size_t kAhead = kStreamAhead, typename T>
HWY_INLINE void FetchSource(const T* src) {
  if constexpr (kWrite == Write::kStream) __builtin_prefetch(src + kAhead / sizeof(T), 0, 0);
  if constexpr (kWrite == Write::kFetch) __builtin_prefetch(src + kFetchAhead / sizeof(T), 0, 3);
}

// How far `dst` lies after `src` by the low 12 bits of addresses, which a load and the stores before it are compared
// by: it waits for one that lies as it does.
constexpr uintptr_t kCompared = 4096;
HWY_INLINE uintptr_t AheadInPage(const void* src, const void* dst) {
  return (reinterpret_cast<uintptr_t>(dst) - reinterpret_cast<uintptr_t>(src)) % kCompared;
}

// Whether the first result lies so little after its source in its page, as when a program allocates two tensors of
// whole pages, one after the other, that vectors are better done from the last one to the first, so that no load waits
// for the stores before it. Zen 4, 3 MB in L3, rows of 2048 floats by twos: 64 bytes further on 100 to 110 us upwards,
// 76 where two vectors are read ahead, 75 downwards; 192 bytes 78, 92 and 75; 512 bytes 74 upwards and 76 downwards.
constexpr uintptr_t kBetterDown = 256;
HWY_INLINE bool IsBetterDown(const AffineArgs& args, uintptr_t within = kBetterDown) {
  return AheadInPage(args.src, args.dst) - 1 < within ||
         (args.residual != nullptr && AheadInPage(args.residual, args.dst) - 1 < within);
}

template <Write kWrite, class D, typename T>
HWY_INLINE void WriteWide(hn::Vec<D> v, D d, T* dst) {
  if constexpr (kWrite == Write::kStream) {
    StreamWide(v, d, dst);
  } else {
    StoreWide(v, d, dst);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
