// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm.h"

#include <algorithm>
#include <array>
#include <memory>

#include "kernels/batch_norm_columns.h"
#include "kernels/batch_norm_map.h"
#include "kernels/batch_norm_rows.h"
#include "kernels/cache_sizes.h"
#include "kernels/loop_nest.h"
#include "kernels/moments_rows.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// Parts into which statistics are split, whatever the number of threads.
constexpr int64_t kRunPart = 16384;    // adjacent elements of a plane
constexpr int64_t kRowPart = 512;      // pixels
constexpr int64_t kPartsOfGroup = 4;   // row parts that are merged before others
constexpr int64_t kLeastColumns = 64;  // of a part of wide rows
constexpr int64_t kMinChannels = 16;   // to split by; fewer would leave threads idle

// A channel up to this size is normalized while its values are still in L2, and the next one is read meanwhile. Where
// L2 is small, while they are in the last-level cache: Zen 1 (512 KB, 8 MB), channels of 0.4 MB: 17.5 -> 15.1 ms on one
// thread, 13.5 -> 10.9 on two; of 0.8 MB 3.46 -> 3.16, 2.44 -> 2.20.
int64_t CachedBytes() {
  constexpr int64_t kEnough = 1 << 20;  // beyond it nothing was measured
  return std::max(static_cast<int64_t>(GetCacheSizes().l2) / 2, std::min(LastLevelBytes() / 8, kEnough));
}

// Rounded up, so that what follows is aligned.
size_t Aligned(size_t bytes) { return static_cast<size_t>(RoundUp(static_cast<int64_t>(bytes), 64)); }

// Hands out pieces of a call's scratch.
class Scratch {
 public:
  explicit Scratch(const RunContext& context) : at_(context.scratch) {}
  template <typename T>
  std::span<T> Take(int64_t count) {
    auto* first = reinterpret_cast<T*>(at_);
    at_ += Aligned(static_cast<size_t>(count) * sizeof(T));
    std::uninitialized_default_construct_n(first, count);
    return {first, static_cast<size_t>(count)};
  }
  template <typename T>
  NormMapView<T> TakeMap(int64_t channels) {
    const int64_t period = PatternPeriod(channels);
    return NormMapView<T>::In(Take<T>(NormMapView<T>::Room(period)).data(), channels, period);
  }

 private:
  std::byte* at_;
};

const std::byte* At(const NormTensor& t, int64_t element) {
  return static_cast<const std::byte*>(t.src) + element * static_cast<int64_t>(ByteSize(t.dtype));
}

// How the values of one channel of a plain tensor are split: small planes of several images make one
// part, large planes are several.
struct PlaneParts {
  int64_t images, groups;  // images of a group; groups of the batch
  int64_t parts;           // of a plane; 1 if groups have several images

  explicit PlaneParts(const NormTensor& t)
      : images(std::max<int64_t>(1, kMomentsBlock / t.plane)),
        groups(DivideUp(t.batch, images)),
        parts(DivideUp(t.plane, kRunPart)) {}
};

Moments PartMoments(const NormTensor& t, const PlaneParts& split, RunMoments run, int64_t channel, int64_t group,
                    int64_t part) {
  const int64_t image = group * split.images, first = part * kRunPart;
  return run(At(t, (image * t.channels + channel) * t.plane + first), std::min(kRunPart, t.plane - first),
             std::min(split.images, t.batch - image), t.channels * t.plane);
}

void PlainStatistics(const RunContext& context, const NormTensor& t, Scratch& scratch, std::span<double> mean,
                     std::span<double> var) {
  const RunMoments run = FindRunMoments(t.dtype);
  const PlaneParts split(t);
  const int64_t of_channel = split.groups * split.parts;
  const std::span<Moments> partial = scratch.Take<Moments>(t.channels * of_channel);
  ParallelForCost(context, t.channels * of_channel, t.batch * t.channels * t.plane, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      partial[static_cast<size_t>(i)] =
          PartMoments(t, split, run, i / of_channel, i % of_channel / split.parts, i % split.parts);
    }
  });
  for (int64_t c = 0; c < t.channels; ++c) {
    Moments moments;
    for (int64_t i = 0; i < of_channel; ++i) moments.Merge(partial[static_cast<size_t>(c * of_channel + i)]);
    mean[static_cast<size_t>(c)] = moments.mean;
    var[static_cast<size_t>(c)] = moments.m2 / moments.count;
  }
}

// Moments of many columns, each of `count` values.
struct ColumnSet {
  double count = 0;
  std::span<double> mean, m2;

  // Those of as many other columns into these, one by one (as Moments::Merge).
  void Merge(const ColumnSet& other) {
    if (count == 0) {
      std::copy(other.mean.begin(), other.mean.end(), mean.begin());
      std::copy(other.m2.begin(), other.m2.end(), m2.begin());
      count = other.count;
      return;
    }
    const double share = other.count / (count + other.count), cross = share * count;
    for (size_t i = 0; i < mean.size(); ++i) {
      const double delta = other.mean[i] - mean[i];
      mean[i] += delta * share;
      m2[i] += other.m2[i] + delta * delta * cross;
    }
    count += other.count;
  }
};

// Tensors without planes: adjacent columns of rows that are `pitch` apart, from element `offset` on. A
// column belongs to channel column % channels.
struct Columns {
  int64_t offset, rows, columns, pitch;

  int64_t row_parts() const { return DivideUp(rows, kRowPart); }
  int64_t groups() const { return DivideUp(row_parts(), kPartsOfGroup); }
  int64_t moments() const { return row_parts() * columns; }
};

// The moments of the parts of rows, columns.moments() entries of each kind, and which groups of parts are merged into
// their first.
struct RowPartMoments {
  std::span<double> mean, m2;
  std::span<bool> merged;

  // Of the rows from that part on, `parts` parts or as many as there are.
  ColumnSet From(const Columns& in, int64_t part, int64_t parts) const {
    const auto at = static_cast<size_t>(part * in.columns), count = static_cast<size_t>(in.columns);
    return {static_cast<double>(std::min(parts * kRowPart, in.rows - part * kRowPart)), mean.subspan(at, count),
            m2.subspan(at, count)};
  }

  void MergeGroup(const Columns& in, int64_t group) const {
    const int64_t first = group * kPartsOfGroup, last = std::min(first + kPartsOfGroup, in.row_parts());
    ColumnSet all = From(in, first, 1);
    for (int64_t part = first + 1; part < last; ++part) all.Merge(From(in, part, 1));
    merged[static_cast<size_t>(group)] = true;
  }
};

ReadFrom WhereFrom(const NormTensor& t) {
  const int64_t bytes = t.values_per_channel() * t.channels * static_cast<int64_t>(ByteSize(t.dtype));
  if (PreferredWalk() == Walk::kPages) return ReadFrom::kMemory;
  return ShouldStream(bytes) ? ReadFrom::kFetched : ReadFrom::kCaches;
}

// The tensor's rows; and what is left where rows are taken several at a time: dense channels that fill
// no vector are columns of a period that does.
std::array<Columns, 2> ColumnsOf(const NormTensor& t) {
  const int64_t pixels = t.values_per_channel();
  const int64_t pitch = RowPitch(t);
  const int64_t period = PatternPeriod(t.channels);
  if (pitch != t.channels || t.channels % 16 == 0 || period == t.channels) {
    return {Columns{0, pixels, t.channels, pitch}, Columns{}};
  }
  const int64_t rows = pixels * t.channels / period, done = rows * period;
  return {Columns{0, rows, period, period}, Columns{done, pixels - done / t.channels, t.channels, t.channels}};
}

// The moments of each part of the rows, and of the groups of them that one worker has done all of: what another would
// have to fetch from its core is a fourth.
void PartStatistics(const RunContext& context, const NormTensor& t, const Columns& in, const RowPartMoments& parts) {
  const ColumnMoments moments_of = FindColumnMoments(t.dtype);
  const int64_t column_parts = DivideUp(in.columns, kMaxColumns), count = in.row_parts() * column_parts;
  const ReadFrom from = WhereFrom(t);
  ParallelForCost(context, count, in.rows * in.columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / column_parts * kRowPart, column = i % column_parts * kMaxColumns;
      const int64_t at = i / column_parts * in.columns + column;
      moments_of(At(t, in.offset + row * in.pitch + column), in.pitch, std::min(kRowPart, in.rows - row),
                 std::min(kMaxColumns, in.columns - column), from, 1, parts.mean.data() + at, parts.m2.data() + at);
    }
    const int64_t group = kPartsOfGroup * column_parts;
    for (int64_t g = DivideUp(begin, group); g * group < end && std::min((g + 1) * group, count) <= end; ++g) {
      parts.MergeGroup(in, g);
    }
  });
}

// Adds them to the channels' moments.
void ColumnStatistics(const RunContext& context, const NormTensor& t, const Columns& in, const RowPartMoments& parts,
                      ColumnSet& channels) {
  if (in.rows == 0) return;
  std::fill_n(parts.merged.begin(), in.groups(), false);
  PartStatistics(context, t, in, parts);
  ColumnSet all = parts.From(in, 0, kPartsOfGroup);
  for (int64_t group = 0; group < in.groups(); ++group) {
    if (!parts.merged[static_cast<size_t>(group)]) parts.MergeGroup(in, group);
    if (group > 0) all.Merge(parts.From(in, group * kPartsOfGroup, kPartsOfGroup));
  }
  for (int64_t i = 0; i < in.columns; i += t.channels) {
    const auto first = static_cast<size_t>(i), count = static_cast<size_t>(t.channels);
    channels.Merge({all.count, all.mean.subspan(first, count), all.m2.subspan(first, count)});
  }
}

void RowStatistics(const RunContext& context, const NormTensor& t, Scratch& scratch, std::span<double> mean,
                   std::span<double> var) {
  const std::array<Columns, 2> all = ColumnsOf(t);
  const double inverse = 1 / static_cast<double>(t.values_per_channel());
  const int64_t moments = std::max(all[0].moments(), all[1].moments());
  const RowPartMoments parts{scratch.Take<double>(moments), scratch.Take<double>(moments),
                             scratch.Take<bool>(std::max(all[0].groups(), all[1].groups()))};
  ColumnSet channels{0, mean, var};
  for (const Columns& columns : all) ColumnStatistics(context, t, columns, parts, channels);
  for (double& m2 : var) m2 *= inverse;
}

void Statistics(const RunContext& context, const NormTensor& t, Scratch& scratch, std::span<double> mean,
                std::span<double> var) {
  HasPlanes(t) ? PlainStatistics(context, t, scratch, mean, var) : RowStatistics(context, t, scratch, mean, var);
}

// Of the scratch that Statistics takes.
size_t StatisticsBytes(const NormTensor& t) {
  if (HasPlanes(t)) {
    const PlaneParts split(t);
    return Aligned(static_cast<size_t>(t.channels * split.groups * split.parts) * sizeof(Moments));
  }
  const std::array<Columns, 2> all = ColumnsOf(t);
  return 2 * Aligned(static_cast<size_t>(std::max(all[0].moments(), all[1].moments())) * sizeof(double)) +
         Aligned(static_cast<size_t>(std::max(all[0].groups(), all[1].groups())) * sizeof(bool));
}

template <typename T>
void MapWith(const RunContext& context, const NormTensor& t, const NormParameters& parameters, Scratch& scratch,
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

constexpr uintptr_t kPage = 4096, kLine = 64;

// How far into a page the result begins.
uintptr_t PastPage(const NormTensor& t) { return reinterpret_cast<uintptr_t>(t.dst) % kPage; }

// Whether a worker maps the columns that it has summed up, `share` of them, and needs nothing from another. Of many
// rows only whole pages of the result: a core fetches ahead what lies after what it writes, but not past a page, and
// takes it from the core that writes it. Two threads, Zen 4: 392 rows of 2048 62.0 us, by pages 59.7, by halves of
// pages that begin anywhere 66 to 69; 49 rows of 2048 10.1, so 8.6, of 1024 5.4, so 4.4, wherever they begin.
bool OwnsColumns(const NormTensor& t, int64_t share) {
  constexpr int64_t kFewRows = 64;
  if (WhereFrom(t) != ReadFrom::kCaches) return false;
  if (t.values_per_channel() <= kFewRows) return true;
  const auto bytes = [&](int64_t elements) { return static_cast<uintptr_t>(elements) * ByteSize(t.dtype); };
  return t.channels % share == 0 && bytes(share) % kPage == 0 && bytes(DstPitch(t)) % kPage == 0 &&
         PastPage(t) <= kLine;
}

// Columns [first, last) by a worker that OwnsColumns. The line of them that lies in the next page, as results do that
// begin a line after a page, comes last: 392 rows of 2048 where cores share no cache, two threads, 76 us, so 68.7.
template <typename T>
void MapOwnColumns(const NormTensor& t, const NormMapView<T>& map, int64_t first, int64_t last) {
  const bool shared = last - first < t.channels && PastPage(t) <= kLine;
  const int64_t over = shared ? static_cast<int64_t>(PastPage(t) / ByteSize(t.dtype)) : 0;
  const int64_t border = std::max(first, last - over);
  ApplyToColumns(t, map, first, border);
  ApplyToColumns(t, map, border, last);
}

// Such rows where not IsDoneByColumns. Whoever has summed up some columns also computes their map. Then rows are mapped
// as always, each by one core, unless it OwnsColumns. track(first, last): once the statistics of these channels are
// known.
template <typename T, typename Track>
void NormalizeWideRows(const RunContext& context, const NormTensor& t, const NormParameters& parameters,
                       Scratch& scratch, std::span<double> mean, std::span<double> var, const Track& track) {
  const int64_t rows = t.values_per_channel(), pitch = RowPitch(t);
  const double inverse = 1 / static_cast<double>(rows);
  const NormMapView<T> map = scratch.TakeMap<T>(t.channels);
  const ColumnMoments moments_of = FindColumnMoments(t.dtype);
  const ReadFrom from = WhereFrom(t);
  // Columns do not depend on each other: parts may follow the number of workers.
  const int64_t share = RoundUp(DivideUp(t.channels, context.executor.workers()), kLeastColumns);
  const bool owned = OwnsColumns(t, share);
  const int64_t part = owned ? share : std::min(kMaxColumns, share);
  ParallelForCost(context, DivideUp(t.channels, part), rows * t.channels, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * part, last = std::min(end * part, t.channels);
    for (int64_t c = first; c < last; c += kMaxColumns) {
      moments_of(At(t, c), pitch, rows, std::min(kMaxColumns, last - c), from, inverse, mean.data() + c,
                 var.data() + c);
    }
    map.SetSome(parameters, mean, var, first, last - first);
    track(first, last);
    if (owned) MapOwnColumns(t, map, first, last);
  });
  if (owned) return;
  map.Repeat();
  ApplyMap(context, t, map, {});
}

void MapAny(const RunContext& context, const NormTensor& t, const NormParameters& parameters, Scratch& scratch,
            std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue) {
  if (t.dtype == DType::kFloat64) {
    MapWith<double>(context, t, parameters, scratch, mean, var, epilogue);
  } else {
    MapWith<float>(context, t, parameters, scratch, mean, var, epilogue);
  }
}

}  // namespace

template <typename T>
auto NormMap::View(std::vector<T>& values) const {
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
         Aligned(static_cast<size_t>(NormMapView<double>::Room(PatternPeriod(t.channels))) * sizeof(double));
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
  Scratch scratch(context);
  Statistics(context, tensor, scratch, mean, var);
}

void NormalizeWith(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                   std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue) {
  if (tensor.values_per_channel() == 0) return;
  Scratch scratch(context);
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
  Scratch scratch(context);
  if (IsSummedByColumns(tensor)) {
    return tensor.dtype == DType::kFloat64
               ? NormalizeWideRows<double>(context, tensor, parameters, scratch, mean, var, track)
               : NormalizeWideRows<float>(context, tensor, parameters, scratch, mean, var, track);
  }
  Statistics(context, tensor, scratch, mean, var);
  track(0, tensor.channels);
  MapAny(context, tensor, parameters, scratch, mean, var, {});
}

}  // namespace crease
