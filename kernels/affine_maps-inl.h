// SPDX-License-Identifier: Apache-2.0
// The per-channel map over planes and over channels-last rows, with an epilogue, as functions to point to. Per-target
// header.
#include "kernels/affine_rows.h"
#include "kernels/rounding.h"
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
#include <numeric>
#include <type_traits>

#include "kernels/affine_plane-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

template <typename T, Activation A, Residual R, bool kExact>
void Planes(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end) {
  const PlanePattern<Wide<T>> pattern(plane, end - begin, InPages(args));
  MapPlanes<T, A, R, kExact>(args, pattern, channels, plane, begin, end);
  if (args.stream) hwy::FlushStream();
}

// How many rows share a reading of the parameters, and how many columns a block of them has.
//
// AVX2 (Zen 1), caches hold the tensor: 4, left to the prefetchers. 3 MB in L3, rows of 1 KB and of 8 KB, two threads:
// 79 and 74 us, 84 and 77 with the source fetched; one by one 119. Past the caches one: streaming stores want one
// stream.
//
// AVX-512 (Zen 4): 188 KB in L2, rows of 960 floats: 4.4 us by 4 whole rows, 3.5 by 7 in blocks of 128 columns (memcpy
// 3.3); 7, since maps mostly have a multiple of 7 pixels. Past L2, where it is filled lines of L1 that bind, one by
// one, whole: 3 MB in L3, rows of 768 floats 66 to 67 us, of 1280 66 to 70 (memcpy 66; 7 in blocks 89 to 109, 74 to
// 77); not rows whose parameters L1 does not hold, nor few columns, which stay in turns. Else rows that lie alike in
// their pages evict each other from L1, and a load waits for the store to the row before: rows of 8 KB, 3 MB in L3: 92
// us one by one, 107 by 4, 196 by 7, 74 by 2, half a row at a time; rows of 2 KB in L2 by 2 as well. Past the caches
// one row, 5.6 ms for 98 MB by rows of 1 KB where 4 take 8.5, and 4.2 where they are dense (StreamRows); with
// parameters that L1 does not hold (2048 columns) 4, 7.8 ms and 9.2.
constexpr int64_t kTurns = 4, kManyTurns = 7;
constexpr int64_t kAlike = 2048;  // bytes: rows a multiple of it apart
constexpr size_t kFewColumns = 256, kColumns = 128;
constexpr size_t kRowBytes = 5120;        // of a row's parameters of one kind, for rows one by one
constexpr size_t kPairBytes = 4096;       // ... for rows by twos
constexpr int64_t kWorthCopy = 16;        // rows: their parameters are copied for so many, or more
constexpr size_t kParametersInL1 = 1024;  // columns
constexpr size_t kStreamedAtOnce = 4;     // vectors
constexpr int64_t kMaxCycle = 8;          // vectors of parameters that stay in registers: three times as many

// Columns [c, end) of kRows rows, `step` apart, in turns: one reading of the parameters, and as many streams from
// memory.
template <size_t kRows, Write kWrite, bool kOrdered, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void RowsOf(const AffineArgs& args, size_t c, size_t end, const AffinePitches& pitches, int64_t row,
                       int64_t step) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  [[maybe_unused]] const auto* pivot = static_cast<const Wide<T>*>(args.pivot);
  const float a = args.a, b = args.b;
  // Steps from row to row, which needs fewer registers than a pointer for each; of many rows also the result is known
  // by its distance from the source alone.
  constexpr bool kOnePitch = kRows == kManyTurns;
  struct Cursor {
    const T* src;
    const T* residual;
    uintptr_t to_dst;
    int64_t src_step, residual_step, more_step;
    HWY_INLINE Cursor At(size_t column) const {
      return {src + column, R == Residual::kNone ? nullptr : residual + column, to_dst, src_step, residual_step,
              more_step};
    }
    HWY_INLINE T* dst() const { return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(src) + to_dst); }
    HWY_INLINE void Next() {
      src += src_step;
      if constexpr (R != Residual::kNone) residual += residual_step;
      if constexpr (!kOnePitch) to_dst += static_cast<uintptr_t>(more_step) * sizeof(T);
    }
  };
  const T* src = static_cast<const T*>(args.src) + row * pitches.src;
  const T* dst = static_cast<T*>(args.dst) + row * pitches.dst;
  const Cursor rows = {src,
                       R == Residual::kNone ? nullptr : static_cast<const T*>(args.residual) + row * pitches.residual,
                       reinterpret_cast<uintptr_t>(dst) - reinterpret_cast<uintptr_t>(src),
                       step * pitches.src,
                       step * pitches.residual,
                       step * (pitches.dst - pitches.src)};
  // Whole lines at a time, for one fetch each.
  constexpr size_t kVectors = kOrdered ? kVectorsOfLine<T> : 1;
  for (; kVectors > 1 && c + kVectors * lanes <= end; c += kVectors * lanes) {
    V s[kVectors], t[kVectors], p[kVectors];
    for (size_t v = 0; v < kVectors; ++v) {
      s[v] = hn::LoadU(d, scale + c + v * lanes);
      t[v] = hn::LoadU(d, shift + c + v * lanes);
      p[v] = kExact ? hn::LoadU(d, pivot + c + v * lanes) : s[v];
    }
    Cursor at = rows.At(c);
    for (size_t k = 0; k < kRows; ++k, at.Next()) {
      FetchSource<kWrite, kStreamRowsAhead>(at.src);
      for (size_t v = 0; v < kVectors; ++v) {
        const V y = Map<kExact>(LoadWide(d, at.src + v * lanes), s[v], t[v], p[v]);
        const V r = R == Residual::kNone ? y : LoadWide(d, at.residual + v * lanes);
        WriteWide<kWrite>(Finish<A, R>(d, y, r, a, b), d, at.dst() + v * lanes);
      }
    }
  }
  for (; c + lanes <= end; c += lanes) {
    Cursor at = rows.At(c);
    const V s = hn::LoadU(d, scale + c), t = hn::LoadU(d, shift + c), p = kExact ? hn::LoadU(d, pivot + c) : s;
    for (size_t k = 0; k < kRows; ++k, at.Next()) {
      if constexpr (kOrdered) FetchSource<kWrite, kStreamRowsAhead>(at.src);
      if constexpr (!kOrdered && kWrite == Write::kFetch) __builtin_prefetch(at.dst() + kStoreAhead, 1, 3);
      const V y = Map<kExact>(LoadWide(d, at.src), s, t, p);
      const V r = R == Residual::kNone ? y : LoadWide(d, at.residual);
      WriteWide<kWrite>(Finish<A, R>(d, y, r, a, b), d, at.dst());
    }
  }
  if (c == end) return;
  const size_t left = end - c;
  const V s = hn::LoadN(d, scale + c, left), t = hn::LoadN(d, shift + c, left);
  const V p = kExact ? hn::LoadN(d, pivot + c, left) : s;
  Cursor at = rows.At(c);
  for (size_t k = 0; k < kRows; ++k, at.Next()) {
    const V y = Map<kExact>(LoadWideN(d, at.src, left), s, t, p);
    const V r = R == Residual::kNone ? y : LoadWideN(d, at.residual, left);
    StoreWideN(Finish<A, R>(d, y, r, a, b), d, at.dst(), left);
  }
}

// Rows [row, end) of n columns in groups of kRows, `step` apart within a group, in blocks of `block` columns.
template <int64_t kRows, Write kWrite, bool kOrdered, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void RowGroups(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end,
                          int64_t step, size_t block) {
  const int64_t each = kRows * step, whole = row + (end - row) / each * each;
  for (size_t c = 0; c < n; c += block) {
    const size_t stop = std::min(n, c + block);
    for (int64_t first = row; first < whole; first += each) {
      for (int64_t i = first; i < first + step; ++i) {
        RowsOf<kRows, kWrite, kOrdered, T, A, R, kExact>(args, c, stop, pitches, i, step);
      }
    }
    for (int64_t i = whole; i < end; ++i) {
      RowsOf<1, kWrite, kOrdered, T, A, R, kExact>(args, c, stop, pitches, i, 0);
    }
  }
}

// The parameters of up to kMost columns of rows whose results lie alike in their pages, or in halves of them. A load
// waits for a store of some vectors before whose address has the same low bits; so parameters which results follow
// closely, in the direction of the columns, are copied to elsewhere (Zen 4, 3 MB in L3, rows of 512 by twos: 90 to 93
// us, 77 to 82 so).
template <typename W, int64_t kMost, bool kExact, bool kDown>
class PlacedParameters {
 public:
  const W *scale, *shift, *pivot;

  // Those from column `first` on, for `rows` rows whose results of that column go to `dst`. Copied where that is needed
  // and worth it.
  HWY_INLINE PlacedParameters(const AffineArgs& args, int64_t first, int64_t columns, const void* dst, int64_t rows)
      : scale(static_cast<const W*>(args.scale) + first),
        shift(static_cast<const W*>(args.shift) + first),
        pivot(kExact ? static_cast<const W*>(args.pivot) + first : nullptr) {
    if (rows < kWorthCopy || !(IsNear(scale, dst) || IsNear(shift, dst) || (kExact && IsNear(pivot, dst)))) return;
    W* to = copies_ + (AheadInPage(copies_, dst) + kApart) % kAlike / kLine * kLine / sizeof(W);
    for (const W** from : {&scale, &shift, &pivot}) {
      if (!kExact && from == &pivot) break;
      std::copy_n(*from, columns, to);
      *from = to;
      to += kEach;
    }
  }
  PlacedParameters(const PlacedParameters&) = delete;
  PlacedParameters& operator=(const PlacedParameters&) = delete;

 private:
  // Bytes. The copies lie around the middle between results, as far as halves of pages go.
  static constexpr uintptr_t kNear = 512, kApart = 704, kLine = 64;
  static constexpr int64_t kHalf = kAlike / static_cast<int64_t>(sizeof(W));
  static constexpr int64_t kEach = RoundUp(kMost, kHalf) + 320 / static_cast<int64_t>(sizeof(W));

  // Whether results have just been where parameters are read from, or are in the same line or the one before, but for
  // whole halves of pages.
  static HWY_INLINE bool IsNear(const W* from, const void* dst) {
    const uintptr_t behind = kDown ? AheadInPage(dst, from) : AheadInPage(from, dst);
    return (behind + kLine) % kAlike <= kLine + kNear;
  }

  HWY_ALIGN W copies_[3 * kEach + kHalf];
};

// Where rows begin, and how far apart.
template <typename T>
struct RowsAt {
  const T* src;
  const T* residual;  // null without one
  T* dst;
  AffinePitches pitches;

  template <Residual R>
  HWY_INLINE void Next(int64_t rows) {
    src += rows * pitches.src;
    if constexpr (R != Residual::kNone) residual += rows * pitches.residual;
    dst += rows * pitches.dst;
  }
};

// Some columns, whole vectors of them, of `rows` rows, a multiple of kRows, as many at once. kDown: from the last
// column to the first. A function of its own, so that registers hold all of it: what is loaded from the stack between
// rows may wait for results that have the same low bits of addresses (Zen 4, 3 MB in L3, rows of 512 floats: 77 us, 67
// so).
template <int64_t kRows, bool kDown, typename T, typename W, Activation A, Residual R, bool kExact>
HWY_NOINLINE void MapColumns(RowsAt<T> at, const W* scale, const W* shift, const W* pivot, int64_t columns,
                             int64_t rows, float a, float b) {
  const hn::ScalableTag<W> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto map = [&](int64_t c) HWY_ATTR {
    const V s = hn::LoadU(d, scale + c), t = hn::LoadU(d, shift + c), p = kExact ? hn::LoadU(d, pivot + c) : s;
    V y[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      const V x = LoadWide(d, at.src + r * at.pitches.src + c);
      const V added = R == Residual::kNone ? x : LoadWide(d, at.residual + r * at.pitches.residual + c);
      y[r] = Finish<A, R>(d, Map<kExact>(x, s, t, p), added, a, b);
    }
    for (int64_t r = 0; r < kRows; ++r) StoreWide(y[r], d, at.dst + r * at.pitches.dst + c);
  };
  for (; rows > 0; rows -= kRows, at.template Next<R>(kRows)) {
    if constexpr (kDown) {
      for (int64_t c = columns - lanes; c >= 0; c -= lanes) map(c);
    } else {
      for (int64_t c = 0; c < columns; c += lanes) map(c);
    }
  }
}

// Rows [row, end) of n columns, kRows at a time and up to kMost columns. kDown: as above. A function of its own for
// what it has on the stack.
template <int64_t kRows, int64_t kMost, bool kDown, typename T, Activation A, Residual R, bool kExact>
HWY_NOINLINE void FewRows(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end) {
  using W = Wide<T>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<W>())), all = static_cast<int64_t>(n);
  const int64_t whole = all / lanes * lanes, last = (whole - 1) / kMost * kMost, left = (end - row) % kRows;
  // Else the distance of results from parameters changes from vector to vector, or from row to row.
  const bool alike = std::is_same_v<T, W> && pitches.dst * static_cast<int64_t>(sizeof(T)) % kAlike == 0;
  for (int64_t begin = 0; begin < whole; begin += kMost) {
    const int64_t first = kDown ? last - begin : begin, columns = std::min(whole - first, kMost);
    const RowsAt<T> top = {static_cast<const T*>(args.src) + first,
                           R == Residual::kNone ? nullptr : static_cast<const T*>(args.residual) + first,
                           static_cast<T*>(args.dst) + first, pitches};
    const PlacedParameters<W, kMost, kExact, kDown> of(args, first, columns, top.dst + row * pitches.dst,
                                                       alike ? end - row : 0);
    const auto map = [&](auto rows, int64_t i, int64_t count) HWY_ATTR {
      if (count == 0) return;
      RowsAt<T> at = top;
      at.template Next<R>(kDown ? i + count - 1 : i);
      if constexpr (kDown) at.pitches = {-pitches.src, -pitches.residual, -pitches.dst};
      MapColumns<decltype(rows)::value, kDown, T, W, A, R, kExact>(at, of.scale, of.shift, of.pivot, columns, count,
                                                                   args.a, args.b);
    };
    map(std::integral_constant<int64_t, kRows>(), row, end - row - left);
    if constexpr (kRows > 1) map(std::integral_constant<int64_t, 1>(), end - left, left);
  }
  for (int64_t i = row; whole < all && i < end; ++i) {
    RowsOf<1, Write::kPlain, true, T, A, R, kExact>(args, static_cast<size_t>(whole), n, pitches, i, 0);
  }
}

// FewRows, in the better direction.
template <int64_t kRows, int64_t kMost, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void FewRowsOf(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end) {
  IsBetterDown(args) ? FewRows<kRows, kMost, true, T, A, R, kExact>(args, n, pitches, row, end)
                     : FewRows<kRows, kMost, false, T, A, R, kExact>(args, n, pitches, row, end);
}

// Elements [i, end) of dense rows of n columns, kVectors vectors at once, which n is a multiple of, past the caches. No
// branch depends on where a row ends: every one that is not foreseen takes back the lines that were asked for ahead.
template <size_t kVectors, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void StreamRows(const AffineArgs& args, size_t n, int64_t i, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  constexpr size_t kLanes = HWY_MAX_LANES_D(decltype(d));
  const auto* scale = static_cast<const Wide<T>*>(args.scale);
  const auto* shift = static_cast<const Wide<T>*>(args.shift);
  const auto* pivot = static_cast<const Wide<T>*>(kExact ? args.pivot : args.scale);
  const auto* src = static_cast<const T*>(args.src);
  [[maybe_unused]] const auto* residual = static_cast<const T*>(args.residual);
  auto* dst = static_cast<T*>(args.dst);
  const float a = args.a, b = args.b;
  size_t c = 0;
  for (; i < end; i += static_cast<int64_t>(kVectors * kLanes)) {
    for (size_t v = 0; v < kVectors; ++v) {
      const T* from = src + i + v * kLanes;
      const size_t at = c + v * kLanes;
      FetchSource<Write::kStream, kStreamRowsAhead>(from);
      const auto y =
          Map<kExact>(LoadWide(d, from), hn::LoadU(d, scale + at), hn::LoadU(d, shift + at), hn::LoadU(d, pivot + at));
      const auto r = R == Residual::kNone ? y : LoadWide(d, residual + i + v * kLanes);
      StreamWide(Finish<A, R>(d, y, r, a, b), d, dst + i + v * kLanes);
    }
    c += kVectors * kLanes;
    c &= size_t{0} - static_cast<size_t>(c != n);
  }
}

// Elements [begin, end) of dense rows whose parameters fill kVectors vectors, which stay in registers. kDown: from the
// last vector to the first.
template <size_t kVectors, Write kWrite, bool kDown, typename T, Activation A, bool kExact>
HWY_INLINE void MapCycles(const AffineArgs& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* src = static_cast<const T*>(args.src);
  auto* dst = static_cast<T*>(args.dst);
  const float a = args.a, b = args.b;
  V s[kVectors], t[kVectors], p[kVectors];
  for (size_t v = 0; v < kVectors; ++v) {
    const auto of = [&](const void* values) HWY_ATTR {
      return hn::LoadU(d, static_cast<const Wide<T>*>(values) + static_cast<int64_t>(v) * lanes);
    };
    s[v] = of(args.scale);
    t[v] = of(args.shift);
    p[v] = kExact ? of(args.pivot) : s[v];
  }
  const auto map = [&](size_t v, int64_t i) HWY_ATTR {
    FetchSource<kWrite>(src + i);
    const V y = Map<kExact>(LoadWide(d, src + i), s[v], t[v], p[v]);
    WriteWide<kWrite>(Finish<A, Residual::kNone>(d, y, y, a, b), d, dst + i);
  };
  if constexpr (kDown) {
    for (int64_t i = end; i > begin;) {
      for (size_t v = kVectors; v-- > 0;) map(v, i -= lanes);
    }
  } else {
    for (int64_t i = begin; i < end;) {
      for (size_t v = 0; v < kVectors; ++v, i += lanes) map(v, i);
    }
  }
}

// MapCycles for `vectors` <= kVectors.
template <size_t kVectors, Write kWrite, typename T, Activation A, bool kExact>
HWY_INLINE void MapCyclesOf(size_t vectors, const AffineArgs& args, int64_t begin, int64_t end) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return MapCyclesOf<kVectors - 1, kWrite, T, A, kExact>(vectors, args, begin, end);
  }
  if constexpr (kWrite == Write::kPlain) {
    if (IsBetterDown(args)) return MapCycles<kVectors, kWrite, true, T, A, kExact>(args, begin, end);
  }
  MapCycles<kVectors, kWrite, false, T, A, kExact>(args, begin, end);
}

// Which maps are compiled in this way for every number of vectors: those of few instructions, with one source.
template <Write kWrite, Activation A, Residual R>
constexpr bool kKeepsCycles = kIsBare<A, R> ||
                              (R == Residual::kNone && A != Activation::kSilu && kWrite == Write::kPlain);

// Vectors that hold the parameters of a whole number of pixels, where MapCycles can keep them and rows of n columns
// are such; else 0.
template <typename T>
HWY_INLINE size_t CycleVectors(const AffineArgs& args, size_t n) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<Wide<T>>()));
  if (args.cycle <= 0 || args.cycle > kMaxCycle * lanes) return 0;
  const int64_t columns = std::lcm(args.cycle, lanes);
  return columns <= kMaxCycle * lanes && n > 0 && static_cast<int64_t>(n) % columns == 0
             ? static_cast<size_t>(columns / lanes)
             : 0;
}

// In order. 64 channels, 188 KB in L2, Zen 4: with Relu 4.0 us by 7 rows, 3.6 with the parameters in registers.
template <Write kWrite, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void OrderedRows(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end) {
  const auto groups = [&](auto rows, size_t block) HWY_ATTR {
    RowGroups<decltype(rows)::value, kWrite, true, T, A, R, kExact>(args, n, pitches, row, end, 1, block);
  };
  const auto turns = std::integral_constant<int64_t, kTurns>();
  const size_t lanes = hn::Lanes(hn::ScalableTag<Wide<T>>());
  const auto width = static_cast<int64_t>(n);
  if constexpr (kKeepsCycles<kWrite, A, R>) {
    if (const size_t vectors = CycleVectors<T>(args, n); vectors > 0 && row < end) {
      return MapCyclesOf<static_cast<size_t>(kMaxCycle), kWrite, T, A, kExact>(vectors, args, row * width, end * width);
    }
  }
  if constexpr (kWrite == Write::kStream) {
    if (n > kParametersInL1) {
      groups(turns, n);
    } else if (pitches.src != width || pitches.dst != width || (R != Residual::kNone && pitches.residual != width)) {
      groups(std::integral_constant<int64_t, 1>(), n);
    } else if (n % (kStreamedAtOnce * lanes) == 0) {
      StreamRows<kStreamedAtOnce, T, A, R, kExact>(args, n, row * width, end * width);
    } else {
      StreamRows<1, T, A, R, kExact>(args, n, row * width, end * width);
    }
  } else if (args.stream) {
    groups(turns, n);  // as it would be past the caches, but for parts of lines: whole rows, to read memory in order
  } else if (args.past_l2 && n > kColumns && n % lanes == 0 && n * sizeof(Wide<T>) <= kRowBytes) {
    FewRowsOf<1, kRowBytes / sizeof(Wide<T>), T, A, R, kExact>(args, n, pitches, row, end);
  } else if (pitches.src * static_cast<int64_t>(sizeof(T)) % kAlike == 0) {
    FewRowsOf<2, kPairBytes / sizeof(Wide<T>), T, A, R, kExact>(args, n, pitches, row, end);
  } else {
    const size_t block = n <= kFewColumns ? n : kColumns;
    // With a residual few columns one by one: 64 channels, 188 KB, 5.5 us where 7 rows take 6.6.
    if (R != Residual::kNone && n <= kFewColumns) return groups(std::integral_constant<int64_t, 1>(), n);
    pitches.src == pitches.dst ? groups(std::integral_constant<int64_t, kManyTurns>(), block) : groups(turns, block);
  }
}

template <Write kWrite, typename T, Activation A, Residual R, bool kExact>
HWY_INLINE void RowsFrom(const AffineArgs& args, size_t n, const AffinePitches& pitches, int64_t row, int64_t end) {
  if constexpr (!kHasAllWays<T, A, R> || (!kKnowsPages && kWrite == Write::kStream)) {
    RowGroups<1, kWrite, true, T, A, R, kExact>(args, n, pitches, row, end, 1, n);
  } else if constexpr (!kKnowsPages) {
    // With an epilogue, Zen 4 by AVX2: 2048 channels, 3 MB, 132 us one by one, 91 by 4; 960, 188 KB, 3.8 and 4.6.
    if (kIsBare<A, R> || n > kParametersInL1) {
      RowGroups<kTurns, kWrite, true, T, A, R, kExact>(args, n, pitches, row, end, 1, n);
    } else {
      RowGroups<1, kWrite, true, T, A, R, kExact>(args, n, pitches, row, end, 1, n);
    }
  } else {
    if constexpr (kWrite != Write::kFetch) {
      if (!InPages(args)) return OrderedRows<kWrite, T, A, R, kExact>(args, n, pitches, row, end);
    }
    const int64_t page = static_cast<int64_t>(kStreamElements) / std::max<int64_t>(1, pitches.src);
    const int64_t step = kWrite == Write::kStream ? std::max<int64_t>(1, page) : 1;
    RowGroups<kTurns, kWrite, false, T, A, R, kExact>(args, n, pitches, row, end, step, n);
  }
}

template <typename T, Activation A, Residual R, bool kExact>
void Pixels(const AffineArgs& args, int64_t channels, const AffinePitches& pitches, int64_t begin, int64_t end) {
  const size_t lanes = hn::Lanes(hn::ScalableTag<Wide<T>>());
  const auto n = static_cast<size_t>(channels);
  if constexpr (kHasAllWays<T, A, R>) {
    if (kIsWide<T> && args.stream && n % lanes == 0 && pitches.dst % static_cast<int64_t>(lanes) == 0 &&
        reinterpret_cast<uintptr_t>(args.dst) % (lanes * sizeof(T)) == 0) {
      RowsFrom<Write::kStream, T, A, R, kExact>(args, n, pitches, begin, end);
      return hwy::FlushStream();
    }
    if (InPages(args) && args.fetch) return RowsFrom<Write::kFetch, T, A, R, kExact>(args, n, pitches, begin, end);
  }
  RowsFrom<Write::kPlain, T, A, R, kExact>(args, n, pitches, begin, end);
}

template <typename T, Activation A, Residual R, bool kExact>
AffineRows RowsWith() {
  return {Planes<T, A, R, kExact>, Pixels<T, A, R, kExact>};
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
