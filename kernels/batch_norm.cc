// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/affine.h"
#include "kernels/loop_nest.h"
#include "kernels/moments_rows.h"

namespace crease {
namespace {

// Parts into which statistics are split, whatever the number of threads.
constexpr int64_t kRunPart = 16384;   // adjacent elements of a plane
constexpr int64_t kRowPart = 1024;    // pixels
constexpr int64_t kChannelPart = 64;  // channels of these pixels
// A channel that is this small is normalized while its values are still in L2.
constexpr int64_t kCachedBytes = 1 << 20;
constexpr int64_t kMinChannels = 16;  // fewer would leave threads idle

bool IsPlain(const NormTensor& t) { return t.layout == Layout::kPlain && t.plane > 1; }

// Scale, shift and pivot as the rows want them: float, or double for float64.
template <typename T>
struct Map {
  std::vector<T> scale, shift, pivot;

  explicit Map(size_t channels) : scale(channels), shift(channels), pivot(channels) {}
  void Set(size_t c, const NormParameters& p, double mean, double var) {
    const double s = (p.weight.empty() ? 1.0 : p.weight[c]) / std::sqrt(var + p.eps);
    scale[c] = static_cast<T>(s);
    pivot[c] = static_cast<T>(mean);
    // What rounding took from the pivot.
    shift[c] = static_cast<T>((p.bias.empty() ? 0.0 : p.bias[c]) - (mean - static_cast<double>(pivot[c])) * s);
  }
};

AffineArgs ArgsOf(const NormTensor& t) {
  AffineArgs args;
  args.src = t.src;
  args.dst = t.dst;
  return args;
}

template <typename T>
void Bind(const Map<T>& map, AffineArgs* args) {
  args->scale = map.scale.data();
  args->shift = map.shift.data();
  args->pivot = map.pivot.data();
}

template <typename T>
void Apply(const RunContext& context, const NormTensor& t, Map<T>& map) {
  AffineArgs args = ArgsOf(t);
  const int64_t pixels = t.batch * t.plane;
  if (IsPlain(t)) {
    Bind(map, &args);
    RunAffinePlain(context, FindExactPlanes(t.dtype), args, t.dtype, t.batch, t.channels, t.plane);
    return;
  }
  const bool plain = t.layout == Layout::kPlain;
  if (plain || (t.src_pitch == t.channels && t.dst_pitch == t.channels)) {
    const int64_t period = PatternPeriod(t.channels);
    RepeatTo(period, map.scale);
    RepeatTo(period, map.shift);
    RepeatTo(period, map.pivot);
    Bind(map, &args);
    RunAffineDense(context, FindExactPixels(t.dtype), args, t.dtype, period, pixels * t.channels);
    return;
  }
  Bind(map, &args);
  RunAffinePitched(context, FindExactPixels(t.dtype), args, t.channels, {t.src_pitch, 0, t.dst_pitch}, pixels);
}

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
        groups((t.batch + images - 1) / images),
        parts((t.plane + kRunPart - 1) / kRunPart) {}
};

Moments PartMoments(const NormTensor& t, const PlaneParts& split, RunMoments run, int64_t channel, int64_t group,
                    int64_t part) {
  const int64_t image = group * split.images, first = part * kRunPart;
  return run(At(t, (image * t.channels + channel) * t.plane + first), std::min(kRunPart, t.plane - first),
             std::min(split.images, t.batch - image), t.channels * t.plane);
}

// All of one channel of a plain tensor, by one thread.
Moments ChannelMoments(const NormTensor& t, RunMoments run, int64_t channel) {
  const PlaneParts split(t);
  Moments moments;
  for (int64_t group = 0; group < split.groups; ++group) {
    for (int64_t part = 0; part < split.parts; ++part) {
      moments.Merge(PartMoments(t, split, run, channel, group, part));
    }
  }
  return moments;
}

void PlainStatistics(const RunContext& context, const NormTensor& t, std::vector<Moments>& result) {
  const RunMoments run = FindRunMoments(t.dtype);
  const PlaneParts split(t);
  const int64_t of_channel = split.groups * split.parts;
  std::vector<Moments> partial(static_cast<size_t>(t.channels * of_channel));
  ParallelForCost(context, t.channels * of_channel, t.batch * t.channels * t.plane, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      partial[static_cast<size_t>(i)] =
          PartMoments(t, split, run, i / of_channel, i % of_channel / split.parts, i % split.parts);
    }
  });
  // In the order of ChannelMoments, so that both give the same bits.
  for (size_t i = 0; i < partial.size(); ++i) result[i / static_cast<size_t>(of_channel)].Merge(partial[i]);
}

// `columns` adjacent columns of `rows` rows; columns are merged into the channels they belong to.
void ColumnStatistics(const RunContext& context, const NormTensor& t, int64_t offset, int64_t rows, int64_t columns,
                      int64_t pitch, std::vector<Moments>& result) {
  if (rows == 0) return;
  const ColumnMoments moments_of = FindColumnMoments(t.dtype);
  const int64_t row_parts = (rows + kRowPart - 1) / kRowPart;
  const int64_t column_parts = (columns + kChannelPart - 1) / kChannelPart;
  std::vector<Moments> partial(static_cast<size_t>(row_parts * columns));
  ParallelForCost(context, row_parts * column_parts, rows * columns, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / column_parts * kRowPart, column = i % column_parts * kChannelPart;
      moments_of(At(t, offset + row * pitch + column), pitch, std::min(kRowPart, rows - row),
                 std::min(kChannelPart, columns - column), partial.data() + (i / column_parts * columns + column));
    }
  });
  for (int64_t i = 0; i < row_parts * columns; ++i) {
    result[static_cast<size_t>(i % columns % t.channels)].Merge(partial[static_cast<size_t>(i)]);
  }
}

std::vector<Moments> MomentsOf(const RunContext& context, const NormTensor& t) {
  std::vector<Moments> result(static_cast<size_t>(t.channels));
  if (IsPlain(t)) {
    PlainStatistics(context, t, result);
    return result;
  }
  const int64_t pixels = t.batch * t.plane;
  const int64_t pitch = t.layout == Layout::kPlain ? t.channels : t.src_pitch;
  const int64_t period = PatternPeriod(t.channels);
  if (pitch != t.channels || t.channels % 16 == 0 || period == t.channels) {
    ColumnStatistics(context, t, 0, pixels, t.channels, pitch, result);
    return result;
  }
  // Dense with channels that fill no vector: columns of a period that does.
  const int64_t rows = pixels * t.channels / period;
  ColumnStatistics(context, t, 0, rows, period, period, result);
  const int64_t done = rows * period;
  ColumnStatistics(context, t, done, pixels - done / t.channels, t.channels, t.channels, result);
  return result;
}

// Channel by channel, each read from memory once.
template <typename T>
void NormalizeChannels(const RunContext& context, const NormTensor& t, const NormParameters& parameters,
                       std::span<double> mean, std::span<double> var) {
  const RunMoments run = FindRunMoments(t.dtype);
  const AffinePlanes rows = FindExactPlanes(t.dtype);
  Map<T> map(static_cast<size_t>(t.channels));
  const int64_t size = t.batch * t.channels * t.plane * static_cast<int64_t>(ByteSize(t.dtype));
  const bool stream = ShouldStream(size);
  ParallelForCost(context, t.channels, t.batch * t.channels * t.plane, [&](int64_t begin, int64_t end) {
    for (int64_t channel = begin; channel < end; ++channel) {
      const auto c = static_cast<size_t>(channel);
      const Moments moments = ChannelMoments(t, run, channel);
      mean[c] = moments.mean;
      var[c] = moments.m2 / moments.count;
      map.Set(c, parameters, mean[c], var[c]);
      AffineArgs args;
      args.scale = &map.scale[c];
      args.shift = &map.shift[c];
      args.pivot = &map.pivot[c];
      args.stream = stream;
      // Backwards: what was read last is nearest.
      for (int64_t n = t.batch; n-- > 0;) {
        const int64_t offset = (n * t.channels + channel) * t.plane;
        args.src = At(t, offset);
        args.dst = static_cast<std::byte*>(t.dst) + offset * static_cast<int64_t>(ByteSize(t.dtype));
        rows(args, 1, t.plane, 0, t.plane);
      }
    }
  });
}

template <typename T>
void NormalizeTwoPass(const RunContext& context, const NormTensor& t, const NormParameters& parameters,
                      std::span<double> mean, std::span<double> var) {
  BatchStatistics(context, t, mean, var);
  Map<T> map(static_cast<size_t>(t.channels));
  for (size_t c = 0; c < map.scale.size(); ++c) map.Set(c, parameters, mean[c], var[c]);
  Apply(context, t, map);
}

}  // namespace

void BatchStatistics(const RunContext& context, const NormTensor& tensor, std::span<double> mean,
                     std::span<double> var) {
  const std::vector<Moments> moments = MomentsOf(context, tensor);
  for (size_t c = 0; c < moments.size(); ++c) {
    mean[c] = moments[c].mean;
    var[c] = moments[c].m2 / moments[c].count;
  }
}

void NormalizeWith(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                   std::span<const double> mean, std::span<const double> var) {
  if (tensor.values_per_channel() == 0) return;
  const auto run = [&](auto map) {
    for (size_t c = 0; c < map.scale.size(); ++c) map.Set(c, parameters, mean[c], var[c]);
    Apply(context, tensor, map);
  };
  const auto channels = static_cast<size_t>(tensor.channels);
  tensor.dtype == DType::kFloat64 ? run(Map<double>(channels)) : run(Map<float>(channels));
}

void NormalizeByBatch(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                      std::span<double> mean, std::span<double> var) {
  const int64_t channel_bytes = tensor.values_per_channel() * static_cast<int64_t>(ByteSize(tensor.dtype));
  const bool cached = IsPlain(tensor) && channel_bytes <= kCachedBytes && tensor.channels >= kMinChannels;
  const bool is_double = tensor.dtype == DType::kFloat64;
  if (cached) {
    is_double ? NormalizeChannels<double>(context, tensor, parameters, mean, var)
              : NormalizeChannels<float>(context, tensor, parameters, mean, var);
  } else {
    is_double ? NormalizeTwoPass<double>(context, tensor, parameters, mean, var)
              : NormalizeTwoPass<float>(context, tensor, parameters, mean, var);
  }
}

}  // namespace crease
