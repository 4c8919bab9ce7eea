// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm.h"

#include <algorithm>

#include "kernels/batch_norm_columns.h"
#include "kernels/batch_norm_map.h"
#include "kernels/batch_norm_rows.h"
#include "kernels/batch_norm_statistics.h"
#include "kernels/cache_sizes.h"
#include "kernels/loop_nest.h"
#include "kernels/moments_rows.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr int64_t kLeastColumns = 64;  // of a part of wide rows
constexpr int64_t kMinChannels = 16;   // to split by; fewer would leave threads idle

// A channel up to this size is normalized while its values are still in L2, and the next one is read meanwhile. Where
// L2 is small, while they are in the last-level cache: Zen 1 (512 KB, 8 MB), channels of 0.4 MB: 17.5 -> 15.1 ms on one
// thread, 13.5 -> 10.9 on two; of 0.8 MB 3.46 -> 3.16, 2.44 -> 2.20.
int64_t CachedBytes() {
  constexpr int64_t kEnough = 1 << 20;  // beyond it nothing was measured
  return std::max(static_cast<int64_t>(GetCacheSizes().l2) / 2, std::min(LastLevelBytes() / 8, kEnough));
}

template <typename T>
void MapWith(const RunContext& context, const NormTensor& t, const NormParameters& parameters, NormScratch& scratch,
             std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue) {
  const NormMapView<T> map = scratch.TakeMap<T>(t.channels);
  map.Set(parameters, mean, var);
  ApplyMap(context, t, map, epilogue);
}

// Whether columns of rows in caches are summed up and mapped some at a time, by ColumnNorm. Not by the number of
// workers, on which no result may depend: those of large tensors want several units each. Not on CPUs that walk by
// pages, where it was not measured. Not where rows, or every second or fourth, lie alike in their pages, or a little
// before that: loads would wait for stores to rows before. Zen 4: 49 rows of 1024 7.9 us, so 8 to 16, of 1016 8.8, so
// 12.6; 196 rows of 256, two threads, 4.1, so 4.5; but 49 rows of 1000 8.7, so 6.1, of 1280 7.1, so 5.1.
bool IsDoneByColumns(const NormTensor& t, const ColumnNorm& norm) {
  constexpr int64_t kLeastChannels = 256, kFewRows = 64, kNear = 64;
  const int64_t rows = t.values_per_channel(), alike = rows <= kFewRows ? 2048 : 1024;
  const auto lie_alike = [&](int64_t pitch) {
    return (pitch * static_cast<int64_t>(ByteSize(t.dtype)) + kNear) % alike <= kNear;
  };
  return !HasPlanes(t) && rows <= norm.most_rows && WhereFrom(t) == ReadFrom::kCaches && !lie_alike(RowPitch(t)) &&
         !lie_alike(DstPitch(t)) && (t.channels >= kLeastChannels || t.channels * rows < kWorthwhile);
}

// Few and wide channels-last rows, whose columns are each summed up by one worker.
bool IsSummedByColumns(const NormTensor& t) {
  return !HasPlanes(t) && t.values_per_channel() <= kRowPart && t.channels >= 4 * kLeastColumns;
}

// Such rows where not IsDoneByColumns. Whoever has summed up some columns also computes their map. Then rows are mapped
// as always, each by one core: neighbours in a network deal out rows, too. track(first, last): once the statistics of
// these channels are known.
template <typename T, typename Track>
void NormalizeWideRows(const RunContext& context, const NormTensor& t, const NormParameters& parameters,
                       NormScratch& scratch, std::span<double> mean, std::span<double> var, const Track& track) {
  const int64_t rows = t.values_per_channel(), pitch = RowPitch(t);
  const double inverse = 1 / static_cast<double>(rows);
  const NormMapView<T> map = scratch.TakeMap<T>(t.channels);
  const ColumnMoments moments_of = FindColumnMoments(t.dtype);
  const ReadFrom from = WhereFrom(t);
  // Columns do not depend on each other: parts may follow the number of workers.
  const int64_t share = DivideUp(t.channels, context.executor.workers());
  const int64_t part = std::min(kMaxColumns, RoundUp(share, kLeastColumns));
  ParallelForCost(context, DivideUp(t.channels, part), rows * t.channels, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * part, last = std::min(end * part, t.channels);
    for (int64_t c = first; c < last; c += part) {
      moments_of(ElementAt(t, c), pitch, rows, std::min(part, last - c), from, inverse, mean.data() + c,
                 var.data() + c);
    }
    map.SetSome(parameters, mean, var, first, last - first);
    track(first, last);
  });
  map.Repeat();
  ApplyMap(context, t, map, {});
}

void MapAny(const RunContext& context, const NormTensor& t, const NormParameters& parameters, NormScratch& scratch,
            std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue) {
  if (t.dtype == DType::kFloat64) {
    MapWith<double>(context, t, parameters, scratch, mean, var, epilogue);
  } else {
    MapWith<float>(context, t, parameters, scratch, mean, var, epilogue);
  }
}

}  // namespace

template <typename T>
auto NormMap::View(AlignedVector<T>& values) const {
  values.resize(static_cast<size_t>(NormMapView<T>::Room(period_)));
  return NormMapView<T>::In(values.data(), channels_, period_);
}

NormMap::NormMap(DType dtype, const NormParameters& parameters, std::span<const double> mean,
                 std::span<const double> var)
    : channels_(static_cast<int64_t>(mean.size())), period_(PatternPeriod(channels_)) {
  dtype == DType::kFloat64 ? View(doubles_).Set(parameters, mean, var) : View(floats_).Set(parameters, mean, var);
}

void NormMap::Apply(const RunContext& context, const NormTensor& tensor, const Epilogue& epilogue) const {
  if (tensor.values_per_channel() == 0) return;
  const auto apply = [&](const auto& values) {
    using T = std::remove_const_t<std::remove_reference_t<decltype(values[0])>>;
    ApplyMap(context, tensor, NormMapView<T>::In(const_cast<T*>(values.data()), channels_, period_), epilogue);
  };
  tensor.dtype == DType::kFloat64 ? apply(doubles_) : apply(floats_);
}

bool CanFuse(DType dtype, const Epilogue& epilogue) {
  return FindExactRows(dtype, epilogue.activation, epilogue.residual).planes != nullptr;
}

size_t NormScratchBytes(const NormTensor& t) {
  return StatisticsBytes(t) +
         AlignedBytes(static_cast<size_t>(NormMapView<double>::Room(PatternPeriod(t.channels))) * sizeof(double));
}

void RunningStatistics::Track(DType dtype, int64_t count, std::span<const double> batch_mean,
                              std::span<const double> batch_var, int64_t first, int64_t last) const {
  const AverageRows move = FindMoveAverages();
  const bool single = dtype != DType::kFloat64;
  const double unbiased = static_cast<double>(count) / static_cast<double>(count - 1);
  move(1 - factor, factor, single, last - first, batch_mean.data() + first, mean.data() + first);
  move(1 - factor, factor * unbiased, single, last - first, batch_var.data() + first, var.data() + first);
}

void BatchStatistics(const RunContext& context, const NormTensor& tensor, std::span<double> mean,
                     std::span<double> var) {
  NormScratch scratch(context);
  ChannelStatistics(context, tensor, scratch, mean, var);
}

void NormalizeWith(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                   std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue) {
  if (tensor.values_per_channel() == 0) return;
  NormScratch scratch(context);
  MapAny(context, tensor, parameters, scratch, mean, var, epilogue);
}

void NormalizeByBatch(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                      std::span<double> mean, std::span<double> var, const RunningStatistics* running) {
  // By those who have computed them: the caller would have to fetch them from another core.
  const auto track = [&](int64_t begin, int64_t end) {
    if (running != nullptr) running->Track(tensor.dtype, tensor.values_per_channel(), mean, var, begin, end);
  };
  const auto element = static_cast<int64_t>(ByteSize(tensor.dtype));
  const int64_t channel_bytes = tensor.values_per_channel() * element;
  if (HasPlanes(tensor) && channel_bytes <= CachedBytes() && tensor.channels >= kMinChannels) {
    const ChannelNorm norm = FindChannelNorm(tensor.dtype);
    const int64_t bytes = tensor.channels * channel_bytes;
    // A channel is mapped beside the reading of the next one, which wants plain results in caches only where both fit:
    // 19 MB, two threads, Zen 4, 0.70 ms past the caches, 1.15 into them.
    const ChannelWalk walk = {bytes > LastLevelBytes(), ShouldStream(bytes), PreferredWalk()};
    const int64_t unit = norm.unit(tensor, walk);
    ParallelForCost(context, DivideUp(tensor.channels, unit), tensor.channels * tensor.values_per_channel(),
                    [&](int64_t begin, int64_t end) {
                      const int64_t first = begin * unit, last = std::min(end * unit, tensor.channels);
                      norm.run(tensor, parameters, walk, first, last, mean.data(), var.data());
                      track(first, last);
                    });
    return;
  }
  if (const ColumnNorm norm = FindColumnNorm(tensor.dtype); IsDoneByColumns(tensor, norm)) {
    ParallelForCost(context, DivideUp(tensor.channels, norm.unit), tensor.channels * tensor.values_per_channel(),
                    [&](int64_t begin, int64_t end) {
                      const int64_t first = begin * norm.unit, last = std::min(end * norm.unit, tensor.channels);
                      norm.run(tensor, RowPitch(tensor), DstPitch(tensor), parameters, first, last, mean.data(),
                               var.data());
                      track(first, last);
                    });
    return;
  }
  NormScratch scratch(context);
  if (IsSummedByColumns(tensor)) {
    return tensor.dtype == DType::kFloat64
               ? NormalizeWideRows<double>(context, tensor, parameters, scratch, mean, var, track)
               : NormalizeWideRows<float>(context, tensor, parameters, scratch, mean, var, track);
  }
  ChannelStatistics(context, tensor, scratch, mean, var);
  track(0, tensor.channels);
  MapAny(context, tensor, parameters, scratch, mean, var, {});
}

}  // namespace crease
