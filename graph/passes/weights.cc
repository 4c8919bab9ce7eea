// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/weights.h"

#include <cmath>
#include <limits>

#include "graph/ops/common.h"

namespace crease::fold {
namespace {

using ops::StrCat;

// Start of the normal range; for float16 the smallest denormal: trained weights use these, and
// processors convert them at full speed.
double SmallestNormal(DType dtype) {
  if (dtype == DType::kFloat64) return std::numeric_limits<double>::min();
  if (dtype == DType::kFloat16) return 0x1p-24;
  return std::numeric_limits<float>::min();
}

// A weight this many times smaller than another of its channel is lost in the sum's rounding.
double Negligible(DType dtype) {
  if (dtype == DType::kFloat64) return 0x1p55;
  return dtype == DType::kFloat16 ? 0x1p13 : 0x1p26;
}

double Largest(DType dtype) {
  if (dtype == DType::kFloat64) return std::numeric_limits<double>::max();
  // Values from here on round to infinity: the largest finite one plus half a unit in the last place.
  if (dtype == DType::kFloat32) return 0x1.ffffffp127;
  if (dtype == DType::kBFloat16) return 0x1.ffp127;
  return 65520.0;
}

bool Fits(double value, DType dtype) {
  return dtype == DType::kFloat64 ? std::isfinite(value) : std::abs(value) < Largest(dtype);
}

// Reads T, multiplies, stores U (the storage of a double or a float result).
template <typename T, typename U>
Outcome<Done> Scale(const Tensor& w, DType dtype, const WeightView& view, const Affine& map,
                    std::span<const double> biases, U* dst) {
  const Elements<T> src = w.elements<T>();
  const double tiny = SmallestNormal(dtype);
  std::vector<double> largest(static_cast<size_t>(view.channels()), 0.0);
  std::vector<int64_t> flushed;  // indices; few or none in any sane network
  for (int64_t row = 0; row < view.rows; ++row) {
    for (int64_t column = 0; column < view.columns; ++column) {
      const auto channel = static_cast<size_t>(view.ChannelOf(row, column));
      const double scale = map.scale_at(channel);
      const int64_t begin = (row * view.columns + column) * view.inner;
      double top = largest[channel];
      for (int64_t i = begin; i < begin + view.inner; ++i) {
        const double old_weight = static_cast<double>(src[i]);
        const double product = old_weight * scale;
        const double size = std::abs(product);
        if (!Fits(product, dtype)) {
          return Refusal{std::isfinite(old_weight) ? "weight-overflow" : "not-finite", "",
                         StrCat("weight ", i, " would become ", product)};
        }
        if (size < tiny && size > 0 && std::abs(old_weight) >= tiny) flushed.push_back(i);
        // A product that underflows double itself is a lost weight too.
        if (size == 0 && old_weight != 0 && scale != 0) flushed.push_back(i);
        if (size > top) top = size;
        dst[i] = static_cast<U>(product);
      }
      largest[channel] = top;
    }
  }
  for (int64_t i : flushed) {
    const int64_t row = i / (view.columns * view.inner);
    const auto channel = static_cast<size_t>(view.ChannelOf(row, i / view.inner % view.columns));
    const double lost = Negligible(dtype) * tiny;
    if (largest[channel] < lost && (biases.empty() || std::abs(biases[channel]) < 0x1p40 * lost)) {
      return Refusal{"denormal-weight", "",
                     StrCat("the weights of channel ", channel, " would be at most ", largest[channel])};
    }
    dst[i] = 0;
  }
  return Done{};
}

template <typename U>
Outcome<Done> ScaleInto(const Tensor& w, DType dtype, const WeightView& view, const Affine& map,
                        std::span<const double> biases, U* dst) {
  if (w.dtype() == DType::kFloat32) return Scale<float>(w, dtype, view, map, biases, dst);
  if (w.dtype() == DType::kFloat64) return Scale<double>(w, dtype, view, map, biases, dst);
  Result<Tensor> wide = w.ConvertedTo(DType::kFloat64);
  if (!wide.ok()) return Refusal{"out-of-memory", "", wide.error().message};
  return Scale<double>(*wide, dtype, view, map, biases, dst);
}

}  // namespace

int64_t WeightView::channels() const {
  if (channel == Channel::kRow) return rows;
  return channel == Channel::kColumn ? columns : columns * groups;
}

int64_t WeightView::ChannelOf(int64_t row, int64_t column) const {
  if (channel == Channel::kRow) return row;
  if (channel == Channel::kColumn) return column;
  return row / (rows / groups) * columns + column;
}

Outcome<Tensor> ScaleWeights(const Tensor& w, DType dtype, const WeightView& view, const Affine& map,
                             std::span<const double> biases) {
  const DType storage = dtype == DType::kFloat32 ? DType::kFloat32 : DType::kFloat64;
  Result<Tensor> made = Tensor::Allocate(storage, w.shape());
  if (!made.ok()) return Refusal{"out-of-memory", "", made.error().message};
  Outcome<Done> scaled = storage == DType::kFloat32
                             ? ScaleInto(w, dtype, view, map, biases, made->mutable_data<float>())
                             : ScaleInto(w, dtype, view, map, biases, made->mutable_data<double>());
  if (!scaled.ok()) return scaled.refusal();
  if (storage == dtype) return std::move(made).value();
  Result<Tensor> rounded = made->ConvertedTo(dtype);
  if (!rounded.ok()) return Refusal{"out-of-memory", "", rounded.error().message};
  return std::move(rounded).value();
}

std::vector<double> ShiftThroughWeights(const Tensor& w, const WeightView& input_view, const WeightView& output_view,
                                        const Affine& map) {
  std::vector<double> sums(static_cast<size_t>(output_view.channels()), 0.0);
  for (int64_t row = 0; row < input_view.rows; ++row) {
    for (int64_t column = 0; column < input_view.columns; ++column) {
      const double shift = map.shift_at(static_cast<size_t>(input_view.ChannelOf(row, column)));
      if (shift == 0) continue;
      double taps = 0;
      const int64_t begin = (row * input_view.columns + column) * input_view.inner;
      for (int64_t i = begin; i < begin + input_view.inner; ++i) taps += w.AsDouble(i);
      sums[static_cast<size_t>(output_view.ChannelOf(row, column))] += taps * shift;
    }
  }
  return sums;
}

Outcome<Tensor> RoundTo(std::span<const double> values, DType dtype, Shape shape) {
  for (double value : values) {
    if (!Fits(value, dtype)) {
      return Refusal{std::isfinite(value) ? "weight-overflow" : "not-finite", "",
                     StrCat("a bias would become ", value)};
    }
  }
  Result<Tensor> wide = Tensor::Allocate(DType::kFloat64, std::move(shape));
  if (!wide.ok()) return Refusal{"out-of-memory", "", wide.error().message};
  for (size_t i = 0; i < values.size(); ++i) wide->mutable_data<double>()[i] = values[i];
  if (dtype == DType::kFloat64) return std::move(wide).value();
  Result<Tensor> rounded = wide->ConvertedTo(dtype);
  if (!rounded.ok()) return Refusal{"out-of-memory", "", rounded.error().message};
  return std::move(rounded).value();
}

}  // namespace crease::fold
