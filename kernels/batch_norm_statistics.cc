// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_statistics.h"

#include <algorithm>
#include <array>

#include "kernels/loop_nest.h"

namespace crease {
namespace {

constexpr int64_t kRunPart = 16384;   // adjacent elements of a plane: parts, as kRowPart
constexpr int64_t kPartsOfGroup = 4;  // row parts that are merged before others

// How the values of one channel of a plain tensor are split: small planes of several images make one
// part, large planes are several.
struct PlaneParts {
  int64_t images, groups;  // images of a group; groups of the batch
  int64_t parts;           // of a plane; 1 if groups have several images

  explicit PlaneParts(const NormTensor& t)
      : images(std::max<int64_t>(1, kMomentsBlock / t.plane)),
        groups(DivideUp(t.batch, images)),
        parts(DivideUp(t.plane, kRunPart)) {}

  int64_t of_channel() const { return groups * parts; }
};

Moments PartMoments(const NormTensor& t, const PlaneParts& split, RunMoments run, int64_t channel, int64_t group,
                    int64_t part) {
  const int64_t image = group * split.images, first = part * kRunPart;
  return run(ElementAt(t, (image * t.channels + channel) * t.plane + first), std::min(kRunPart, t.plane - first),
             std::min(split.images, t.batch - image), t.channels * t.plane);
}

void PlainStatistics(const RunContext& context, const NormTensor& t, NormScratch& scratch, std::span<double> mean,
                     std::span<double> var) {
  const RunMoments run = FindRunMoments(t.dtype);
  const PlaneParts split(t);
  const int64_t of_channel = split.of_channel();
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
      moments_of(ElementAt(t, in.offset + row * in.pitch + column), in.pitch, std::min(kRowPart, in.rows - row),
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

// What RowPartMoments has room for.
struct RowRoom {
  int64_t moments, groups;

  explicit RowRoom(const std::array<Columns, 2>& all)
      : moments(std::max(all[0].moments(), all[1].moments())), groups(std::max(all[0].groups(), all[1].groups())) {}
};

void RowStatistics(const RunContext& context, const NormTensor& t, NormScratch& scratch, std::span<double> mean,
                   std::span<double> var) {
  const std::array<Columns, 2> all = ColumnsOf(t);
  const double inverse = 1 / static_cast<double>(t.values_per_channel());
  const RowRoom room(all);
  const RowPartMoments parts{scratch.Take<double>(room.moments), scratch.Take<double>(room.moments),
                             scratch.Take<bool>(room.groups)};
  ColumnSet channels{0, mean, var};
  for (const Columns& columns : all) ColumnStatistics(context, t, columns, parts, channels);
  for (double& m2 : var) m2 *= inverse;
}

}  // namespace

void ChannelStatistics(const RunContext& context, const NormTensor& t, NormScratch& scratch, std::span<double> mean,
                       std::span<double> var) {
  HasPlanes(t) ? PlainStatistics(context, t, scratch, mean, var) : RowStatistics(context, t, scratch, mean, var);
}

size_t StatisticsBytes(const NormTensor& t) {
  if (HasPlanes(t)) {
    const PlaneParts split(t);
    return AlignedBytes(static_cast<size_t>(t.channels * split.of_channel()) * sizeof(Moments));
  }
  const RowRoom room(ColumnsOf(t));
  return 2 * AlignedBytes(static_cast<size_t>(room.moments) * sizeof(double)) +
         AlignedBytes(static_cast<size_t>(room.groups) * sizeof(bool));
}

}  // namespace crease
