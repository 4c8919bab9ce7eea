// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_rows.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <hwy/cache_control.h>

#include "kernels/rounding.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_plane-inl.h"
#include "kernels/moments_planes-inl.h"
#include "kernels/norm_factors-inl.h"
#include "kernels/planes_of_49-inl.h"
#include "kernels/side_by_side-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Small channels that are done together stay in L2, and are long enough for the prefetchers to follow.
constexpr int64_t kGroupBytes = 256 << 10;
// In order, with AVX-512, less of an image: 3 MB of 8 images of 7x7 planes, Zen 4, two threads, before those were read
// side by side, by runs of 9 KB 59.7 us, of 12 KB 61.5, of 16 KB 62.8, of 31 KB 63.5.
constexpr int64_t kRunBytes = 12 << 10;
constexpr int64_t kMaxGroup = kMaxColumns;
// Of images side by side, where unit() channels of them are no more: what L1 holds, and a little beside it.
constexpr size_t kBesideBytes = 28 << 10;
constexpr int64_t kWorkerBytes = 1 << 20;  // what a worker may well have in its L2

template <typename T>
void SetMap(const MapArgs<T>& a, int64_t channels) {
  const hn::ScalableTag<double> d;
  const size_t lanes = hn::Lanes(d), count = static_cast<size_t>(channels);
  for (size_t c = 0; c < count; c += lanes) {
    const size_t n = std::min(lanes, count - c);
    SetFactors(d, a, c, n, LoadUpTo(d, a.mean + c, n), LoadUpTo(d, a.var + c, n));
  }
}

// Maps a channel beside the reading of another, which lies in the same way.
template <typename T, Write kWrite>
struct MapTask {
  static constexpr bool kApart = false;
  using D = hn::ScalableTag<Wide<T>>;
  using V = hn::Vec<D>;
  const T* src;
  T* dst;
  V scale, shift, pivot;

  HWY_INLINE MapTask From(size_t at) const { return {src + at, dst + at, scale, shift, pivot}; }
  HWY_INLINE void Whole(size_t at) const {
    const D d;
    const V y = Map<true>(LoadWide(d, src + at), scale, shift, pivot);
    if constexpr (kWrite == Write::kFetch) __builtin_prefetch(dst + at + kStoreAhead, 1, 3);
    WriteWide<kWrite>(y, d, dst + at);
  }
  HWY_INLINE void Part(size_t at, size_t count) const {
    const D d;
    StoreWideN(Map<true>(LoadWideN(d, src + at, count), scale, shift, pivot), d, dst + at, count);
  }
};

// Moments of a channel at src, beside a task on another. `in_turns`: from memory, as AddTurns reads it; the channel
// `next` is read after this one.
template <typename T, class Task>
Moments ChannelMoments(const NormTensor& t, const T* src, bool in_turns, const T* next, const Task& task) {
  const auto plane = static_cast<size_t>(t.plane), stride = static_cast<size_t>(t.channels * t.plane);
  const auto batch = static_cast<size_t>(t.batch), images = std::max<size_t>(1, kBlock / plane);
  Moments moments;
  size_t n = 0;
  if constexpr (kKnowsPages) {
    for (; in_turns && n + kChains <= batch; n += kChains) {
      const size_t more = n + kChains;
      AddTurns(src + n * stride, plane, stride, more + kChains <= batch ? src + more * stride : next,
               task.From(n * stride), moments);
    }
  }
  for (; n < batch; n += images) {
    for (size_t after = n + images; after < std::min(batch, n + 2 * images); ++after) {
      FetchPageStarts(src + after * stride, std::min(plane, kBlock));
    }
    AddRuns(src + n * stride, plane, std::min(images, batch - n), stride, task.From(n * stride), moments);
  }
  return moments;
}

// What a worker does to its channels, in whichever order.
struct ChannelRange {
  const NormTensor& tensor;
  const NormParameters& parameters;
  ChannelWalk walk;
  int64_t begin, end;
  double *mean, *var;

  template <typename T>
  MapArgs<T> Args(int64_t first, T* scale, T* shift, T* pivot) const {
    return MapArgs<T>::From(first, parameters, mean, var, scale, shift, pivot);
  }

  // Mean and var of `count` channels from `first` on, by the moments of all their values, and their map.
  template <typename T>
  HWY_INLINE void Set(int64_t first, int64_t count, const ColumnSums<T>& sums, Wide<T>* scale, Wide<T>* shift,
                      Wide<T>* pivot) const {
    const hn::ScalableTag<double> d;
    const MapArgs<Wide<T>> args = Args(first, scale, shift, pivot);
    const auto inverse = hn::Set(d, 1 / static_cast<double>(tensor.values_per_channel()));
    const size_t channels = static_cast<size_t>(count);
    for (size_t c = 0; c < channels; c += hn::Lanes(d)) {
      const size_t n = std::min(hn::Lanes(d), channels - c);
      SetChannels(d, args, mean + first, var + first, c, n, hn::Load(d, sums.mean + c),
                  hn::Mul(hn::Load(d, sums.m2 + c), inverse));
    }
  }
};

// One channel after the other: while one is mapped the next one is read, so that memory is never idle. But long
// channels that caches hold are mapped by themselves, from the last vector to the first, where that is better: of one
// plane, whose end is still in L1 (Zen 4, 3 MB in L3: 256 of 56x56 105 us for 95, 64 of 112x112 105 for 101; but 256 of
// 40x40 48 for 53), and where a load of the map would wait for a store (4 images, 64 of 56x56, 123 us for 108; 192
// bytes further on 109 for 108, and 8 images, 256 of 28x28, 245 for 257).
constexpr int64_t kLongChannel = 2500;      // values
constexpr uintptr_t kMuchBetterDown = 128;  // as kBetterDown
template <typename T, Write kWrite>
void NormalizePlanes(const ChannelRange& range) {
  const hn::ScalableTag<Wide<T>> d;
  const NormTensor& t = range.tensor;
  const bool in_order =
      kKnowsPages && range.walk.walk == Walk::kOrder && t.plane > static_cast<int64_t>(kMaxSmallPlane);
  const bool in_turns = in_order && range.walk.from_memory;
  const auto measure = [&](int64_t c, const auto& task) HWY_ATTR {
    const T* src = static_cast<const T*>(t.src) + c * t.plane;
    const Moments moments = ChannelMoments(t, src, in_turns, c + 1 < range.end ? src + t.plane : src, task);
    range.mean[c] = moments.mean;
    range.var[c] = moments.m2 / moments.count;
  };
  AffineArgs args{t.src, nullptr, t.dst};
  args.stream = kWrite == Write::kStream;
  args.walk = range.walk.walk;
  constexpr bool kMayBeApart = kKnowsPages && kWrite == Write::kPlain && kIsWide<T>;
  const bool apart = kMayBeApart && in_order && t.values_per_channel() >= kLongChannel &&
                     ((t.batch == 1 && !range.walk.from_memory) || IsBetterDown(args, kMuchBetterDown));
  const PlanePattern<Wide<T>> pattern(t.plane, t.plane, InPages(args));
  if (range.begin < range.end) measure(range.begin, NoTask<false>());
  for (int64_t c = range.begin; c < range.end; ++c) {
    Wide<T> scale, shift, pivot;
    SetMap(range.Args(c, &scale, &shift, &pivot), 1);
    const T* src = static_cast<const T*>(t.src) + c * t.plane;
    T* dst = static_cast<T*>(t.dst) + c * t.plane;
    const bool more = c + 1 < range.end;
    if (more && !apart) {
      measure(c + 1, MapTask<T, kWrite>{src, dst, hn::Set(d, scale), hn::Set(d, shift), hn::Set(d, pivot)});
      continue;
    }
    args.scale = &scale;
    args.shift = &shift;
    args.pivot = &pivot;
    for (int64_t n = t.batch - 1; n >= 0; --n) {  // the last one was read last
      const int64_t at = n * t.channels * t.plane;
      args.src = src + at;
      args.dst = dst + at;
      if constexpr (kMayBeApart) {
        if (apart) {
          OrderedMap<kWrite, true, T, Activation::kNone, Residual::kNone, true>::Run(args, 1, t.plane, 0, t.plane);
          continue;
        }
      }
      MapPlanes<T, Activation::kNone, Residual::kNone, true>(args, pattern, 1, t.plane, 0, t.plane);
    }
    if (more) measure(c + 1, NoTask<false>());
  }
}

// Planes that NormalizeSmallPlanes takes: the channels of a vector fit into L2.
template <typename T>
HWY_INLINE bool IsSmall(const NormTensor& t) {
  const int64_t vector_bytes =
      t.values_per_channel() * static_cast<int64_t>(sizeof(T) * hn::Lanes(hn::ScalableTag<Wide<T>>()));
  return t.plane <= static_cast<int64_t>(kMaxSmallPlane) && vector_bytes <= kWorkerBytes;
}

// Small planes: a group of channels at a time, so that sums across lanes, divisions and roots run as vectors and
// results are written in whole lines.
template <typename T>
void NormalizeSmallPlanes(const ChannelRange& range) {
  const NormTensor& t = range.tensor;
  const int64_t channel_bytes = t.values_per_channel() * static_cast<int64_t>(sizeof(T));
  const auto lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<Wide<T>>()));
  const bool in_order = kKnowsPages && range.walk.walk == Walk::kOrder;
  const int64_t bytes = in_order ? std::min(kGroupBytes, t.batch * kRunBytes) : kGroupBytes;
  const int64_t group = std::clamp<int64_t>(bytes / channel_bytes / lanes * lanes, lanes, kMaxGroup);
  ColumnSums<T> sums;
  Wide<T> scale[kMaxGroup], shift[kMaxGroup], pivot[kMaxGroup];
  AffineArgs args{nullptr, nullptr, nullptr, scale, shift, pivot};
  args.stream = range.walk.stream;
  args.walk = range.walk.walk;
  const PlanePattern<Wide<T>> pattern(t.plane, (range.end - range.begin) * t.plane, InPages(args));
  for (int64_t first = range.begin; first < range.end; first += group) {
    const int64_t count = std::min(group, range.end - first);
    const T* src = static_cast<const T*>(t.src) + first * t.plane;
    T* dst = static_cast<T*>(t.dst) + first * t.plane;
    SmallPlaneMoments(src, static_cast<size_t>(count), static_cast<size_t>(t.plane), static_cast<size_t>(t.batch),
                      static_cast<size_t>(t.channels * t.plane), sums);
    range.Set(first, count, sums, scale, shift, pivot);
    // Backwards: what was read last is nearest.
    for (int64_t n = t.batch; n-- > 0;) {
      const int64_t at = n * t.channels * t.plane;
      args.src = src + at;
      args.dst = dst + at;
      MapPlanes<T, Activation::kNone, Residual::kNone, true>(args, pattern, count, t.plane, 0, count * t.plane);
    }
  }
}

// Ways for small planes that are faster on Zen 4; no other CPU was measured. Those that walk by pages do without.
template <typename T>
HWY_INLINE bool IsSmallInCaches(const NormTensor& t, ChannelWalk walk) {
  return walk.walk == Walk::kOrder && !walk.stream && IsSmall<T>(t);
}

template <typename T>
HWY_INLINE bool IsSideBySide(const NormTensor& t, ChannelWalk walk) {
  using Planes = PlanesSideBySide<T>;
  constexpr int64_t kLeastImages = 4;      // 512 channels of 7x7, 4 images, 12.5 us in place of 13.7
  constexpr int64_t kLeastChannels = 128;  // so that workers have some, where they are dealt out many at a time
  return IsSmallInCaches<T>(t, walk) && t.batch >= kLeastImages && t.channels >= kLeastChannels &&
         t.plane >= static_cast<int64_t>(Planes::kLeastPlane) && t.plane <= static_cast<int64_t>(Planes::kMaxPlane);
}

// Where not IsSideBySide, which takes 0.87 of the time.
template <typename T>
HWY_INLINE bool InBlocksOf49(const NormTensor& t, ChannelWalk walk) {
  using Planes = PlanesOf49<T>;
  constexpr int64_t kMostImages = 8;  // of 100 channels, 4 images 1.11 times as fast as without, 8 1.04, 32 0.97
  return Planes::kFaster && IsSmallInCaches<T>(t, walk) && t.batch <= kMostImages &&
         t.plane == static_cast<int64_t>(Planes::kPlane);
}

template <typename T>
int64_t UnitOfChannels(const NormTensor& t, ChannelWalk walk) {
  if (IsSideBySide<T>(t, walk)) {
    return static_cast<int64_t>(PlanesSideBySide<T>(static_cast<size_t>(t.plane), 0).unit());
  }
  return InBlocksOf49<T>(t, walk) ? static_cast<int64_t>(PlanesOf49<T>::kChannels) : 1;
}

// Blocks of planes of 49: the next one is summed up beside the map of one, so that neither what a block's statistics
// take nor the traffic of its results is waited for. Of the range's channels, which fill blocks.
template <typename T>
HWY_NOINLINE void NormalizePlanesOf49(const ChannelRange& range) {
  using Planes = PlanesOf49<T>;
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<double> dd;
  const NormTensor& t = range.tensor;
  constexpr auto kChannels = static_cast<int64_t>(Planes::kChannels);
  const auto images = static_cast<size_t>(t.batch), stride = static_cast<size_t>(t.channels * t.plane);
  const auto src = [&](int64_t c) { return static_cast<const float*>(t.src) + c * t.plane; };
  const auto dst = [&](int64_t c) { return static_cast<float*>(t.dst) + c * t.plane; };
  const size_t count = images * Planes::kPlane;
  const PivotCheck<float> check(kGoodShortPivot, count);
  const auto inverse = hn::Set(dd, 1 / static_cast<double>(count));
  struct Block {
    HWY_ALIGN float pivots[Planes::kChannels];
    typename Planes::Factors factors;
  } blocks[2];
  // A block ahead: of pivots that it has just seen stored, the compiler makes permutations in place of loads.
  const auto sample = [&](int64_t c, Block& to) HWY_ATTR {
    if (c < range.end) hn::Store(Planes::Sample(src(c)), d, to.pivots);
  };
  Block *own = &blocks[0], *next = &blocks[1];
  sample(range.begin, *own);
  sample(range.begin + kChannels, *next);
  typename Planes::Sums sums = Planes::SumAlone(src(range.begin), images, stride, own->pivots);
  for (int64_t c = range.begin;; c += kChannels, std::swap(own, next)) {
    auto pivot = hn::Load(d, own->pivots);
    const auto better = check.Better(pivot, sums.sum, sums.square);
    if (HWY_UNLIKELY(!hn::AllTrue(d, hn::Eq(better, pivot)))) {
      pivot = better;
      hn::Store(pivot, d, own->pivots);
      sums = Planes::SumAlone(src(c), images, stride, own->pivots);
    }
    const MapArgs<float> args = range.Args(c, own->factors.scale, own->factors.shift, own->factors.pivot);
    const auto set = [&](size_t at, auto pivots, auto sum, auto square) HWY_ATTR {
      const auto of = MeanOf(dd, inverse, pivots, sum, square);
      SetChannels(dd, args, range.mean + c, range.var + c, at, hn::Lanes(dd), of.mean, hn::Mul(of.m2, inverse));
    };
    set(0, hn::PromoteLowerTo(dd, pivot), hn::PromoteLowerTo(dd, sums.sum), hn::PromoteLowerTo(dd, sums.square));
    set(hn::Lanes(dd), hn::PromoteUpperTo(dd, pivot), hn::PromoteUpperTo(dd, sums.sum),
        hn::PromoteUpperTo(dd, sums.square));
    if (c + kChannels == range.end) return Planes::MapAlone(src(c), dst(c), images, stride, own->factors);
    sample(c + 2 * kChannels, *own);
    sums = {hn::Zero(d), hn::Zero(d)};
    for (size_t image = 0; image < images; ++image) {
      const size_t at = image * stride;
      sums.Add(Planes::Sum(src(c + kChannels) + at, next->pivots, {src(c) + at, dst(c) + at, own->factors}));
    }
  }
}

// Small planes of images side by side, some channels at a time, as many as fill whole vectors. All of it in one
// function: 8 images of 2048 channels of 7x7, Zen 4, in several 118 us, by NormalizeSmallPlanes 116, so 106.
template <typename T, bool kDown>
HWY_NOINLINE void NormalizeSideBySide(const ChannelRange& range) {
  using W = Wide<T>;
  using Planes = PlanesSideBySide<T>;
  const NormTensor& t = range.tensor;
  const auto plane = static_cast<size_t>(t.plane), batch = static_cast<size_t>(t.batch);
  const size_t stride = static_cast<size_t>(t.channels) * plane;
  const Planes planes(plane, stride);
  const size_t block = planes.block(), fit = kBesideBytes / (batch * plane * sizeof(T));
  const size_t most = std::clamp(hwy::RoundDownTo(fit, planes.unit()), planes.unit(), Planes::kMaxChannels);
  ColumnSums<T> sums;
  W scale[Planes::kMaxChannels], shift[Planes::kMaxChannels], pivot[Planes::kMaxChannels];
  for (int64_t first = range.begin; first < range.end; first += static_cast<int64_t>(most)) {
    const int64_t count = std::min(static_cast<int64_t>(most), range.end - first);
    const auto channels = static_cast<size_t>(count);
    const T* src = static_cast<const T*>(t.src) + first * t.plane;
    T* dst = static_cast<T*>(t.dst) + first * t.plane;
    planes.Sample(src, channels, sums.pivot);
    for (size_t image = 0; image < batch; image += block) {
      const size_t images = std::min(block, batch - image);
      if (image > 0) PivotsFromMeans(channels, sums);
      AddBlockOfColumns(kGoodShortPivot, image * plane, images * plane, channels, sums, [&]() HWY_ATTR {
        planes.Sum(src + image * stride, channels, images, sums.pivot, sums.sum, sums.square);
      });
    }
    range.Set(first, count, sums, scale, shift, pivot);
    planes.template Map<kDown>(src, dst, channels, batch, scale, shift, pivot);
  }
}

template <typename T>
void NormalizeSmall(const ChannelRange& range) {
  const NormTensor& t = range.tensor;
  const int64_t unit = UnitOfChannels<T>(t, range.walk);
  ChannelRange units = range, rest = range;
  units.end = rest.begin = range.begin + RoundDown(range.end - range.begin, unit);
  if (IsSideBySide<T>(t, range.walk)) {
    // Down where the result lies up to half a page after the source, so that no load waits for the stores before it:
    // 64 bytes after it, in a program of its own 99 us, upwards 135.
    const uintptr_t ahead = AheadInPage(t.src, t.dst);
    const auto normalize =
        ahead > 0 && ahead < kCompared / 2 ? NormalizeSideBySide<T, true> : NormalizeSideBySide<T, false>;
    if (units.begin < units.end) normalize(units);
  } else if (InBlocksOf49<T>(t, range.walk)) {
    if constexpr (PlanesOf49<T>::kFaster) {
      if (units.begin < units.end) NormalizePlanesOf49<T>(units);
    }
  } else {
    rest.begin = range.begin;
  }
  if (rest.begin < rest.end) NormalizeSmallPlanes<T>(rest);
}

template <typename T>
void NormalizeChannels(const NormTensor& t, const NormParameters& parameters, ChannelWalk walk, int64_t begin,
                       int64_t end, double* mean, double* var) {
  // Whole planes past the caches only from where a line begins to where one ends.
  const bool lines =
      t.plane * static_cast<int64_t>(sizeof(T)) % 64 == 0 && reinterpret_cast<uintptr_t>(t.dst) % 64 == 0;
  const ChannelRange range{t, parameters, walk, begin, end, mean, var};
  if (IsSmall<T>(t)) {
    NormalizeSmall<T>(range);
  } else if (walk.stream && lines && kIsWide<T>) {
    NormalizePlanes<T, Write::kStream>(range);
  } else if (kKnowsPages && walk.walk == Walk::kPages) {
    NormalizePlanes<T, Write::kFetch>(range);
  } else {
    NormalizePlanes<T, Write::kPlain>(range);
  }
  if (walk.stream) hwy::FlushStream();
}

void MoveAverages(double keep, double factor, bool single, int64_t channels, const double* values, double* averages) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const size_t lanes = hn::Lanes(d), n = static_cast<size_t>(channels);
  const auto old_share = hn::Set(d, keep), share = hn::Set(d, factor);
  for (size_t c = 0; c < n; c += lanes) {
    auto moved = hn::Mul(LoadUpTo(d, values + c, n - c), share);
    moved = hn::MulAdd(LoadUpTo(d, averages + c, n - c), old_share, moved);
    if (single) moved = hn::PromoteTo(d, hn::DemoteTo(df, moved));
    StoreUpTo(moved, d, averages + c, n - c);
  }
}

AverageRows GetMoveAverages() { return MoveAverages; }
SetFloatMap GetSetFloatMap() { return SetMap<float>; }
SetDoubleMap GetSetDoubleMap() { return SetMap<double>; }

template <typename T>
ChannelNorm ChannelNormOf() {
  return {UnitOfChannels<T>, NormalizeChannels<T>};
}

ChannelNorm GetChannelNorm(DType dtype) {
  if (dtype == DType::kFloat32) return ChannelNormOf<float>();
  if (dtype == DType::kFloat64) return ChannelNormOf<double>();
  if (dtype == DType::kFloat16) return ChannelNormOf<hwy::float16_t>();
  if (dtype == DType::kBFloat16) return ChannelNormOf<hwy::bfloat16_t>();
  return {};
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetMoveAverages);
HWY_EXPORT(GetSetFloatMap);
HWY_EXPORT(GetSetDoubleMap);
HWY_EXPORT(GetChannelNorm);
}  // namespace

AverageRows FindMoveAverages() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetMoveAverages)();
}

SetFloatMap FindSetFloatMap() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetSetFloatMap)();
}

SetDoubleMap FindSetDoubleMap() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetSetDoubleMap)();
}

ChannelNorm FindChannelNorm(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetChannelNorm)(dtype);
}

}  // namespace crease
#endif  // HWY_ONCE
