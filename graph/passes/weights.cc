// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
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

// What a run of products has among it.
struct Found {
  bool too_large = false;  // for the dtype, or NaN
  bool small = false;      // below the normal range, from a weight that is not zero
};

// dst[i] = src[i] * (factor or factors[i]). Written so that compilers vectorize it.
template <bool kEach>
Found MultiplyRun(const std::byte* src, int64_t count, double factor, const double* factors, float* dst) {
  constexpr int32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000, kNormal = 0x00800000;
  int32_t large = 0, small = 0;
  for (int64_t i = 0; i < count; ++i) {
    float weight;
    std::memcpy(&weight, src + static_cast<size_t>(i) * sizeof(float), sizeof(float));
    const auto product = static_cast<float>(static_cast<double>(weight) * (kEach ? factors[i] : factor));
    const int32_t size = std::bit_cast<int32_t>(product) & kMagnitude;
    large |= static_cast<int32_t>(size >= kInfinity);
    small |=
        static_cast<int32_t>(size < kNormal) & static_cast<int32_t>((std::bit_cast<int32_t>(weight) & kMagnitude) != 0);
    dst[i] = product;
  }
  return {large != 0, small != 0};
}

template <bool kEach, typename T>
Found MultiplyRun(const std::byte* src, int64_t count, double factor, const double* factors, DType dtype, T* dst) {
  const Elements<double> weights(src, count);
  const double tiny = SmallestNormal(dtype);
  Found found;
  for (int64_t i = 0; i < count; ++i) {
    const double product = weights[i] * (kEach ? factors[i] : factor);
    found.too_large |= !Fits(product, dtype);
    found.small |= std::abs(product) < tiny && weights[i] != 0;
    dst[i] = static_cast<T>(product);
  }
  return found;
}

template <bool kEach>
Found MultiplyRun(const Tensor& w, int64_t begin, int64_t count, double factor, const double* factors, DType dtype,
                  Tensor* result) {
  const std::byte* src = w.bytes() + static_cast<size_t>(begin) * ByteSize(w.dtype());
  if (result->dtype() == DType::kFloat64) {
    return MultiplyRun<kEach>(src, count, factor, factors, dtype, result->mutable_data<double>() + begin);
  }
  float* dst = result->mutable_data<float>() + begin;
  if (w.dtype() == DType::kFloat64) return MultiplyRun<kEach>(src, count, factor, factors, dtype, dst);
  return MultiplyRun<kEach>(src, count, factor, factors, dst);
}

// The weights of one ScaleWeights, each factor's included.
struct Scaling {
  const Tensor& w;  // float32 or float64
  const std::vector<Factor>& factors;
  const WeightView& view;
  DType dtype;

  double FactorAt(int64_t row, int64_t column) const {
    double product = 1;
    for (const Factor& factor : factors) product *= factor.At(row, column);
    return product;
  }
  bool FactorIsZero(int64_t row, int64_t column) const {
    for (const Factor& factor : factors) {
      if (factor.At(row, column) == 0) return true;
    }
    return false;
  }
  bool OneFactorPerRow() const {
    for (const Factor& factor : factors) {
      if (factor.scale.size() > 1 && factor.view.channel != WeightView::Channel::kRow) return false;
    }
    return true;
  }
};

Found MultiplyAll(const Scaling& s, Tensor* result) {
  const WeightView& view = s.view;
  const bool per_row = s.OneFactorPerRow();
  std::vector<double> factors(per_row ? 0 : static_cast<size_t>(view.columns));
  Found all;
  // A run of one factor; the zeros that a dead channel makes are meant.
  const auto run = [&](int64_t row, int64_t column, int64_t count, double factor) {
    const int64_t begin = (row * view.columns + column) * view.inner;
    const Found found = MultiplyRun<false>(s.w, begin, count, factor, nullptr, s.dtype, result);
    all.too_large |= found.too_large;
    all.small |= found.small && !(factor == 0 && s.FactorIsZero(row, column));
  };
  for (int64_t row = 0; row < view.rows; ++row) {
    if (per_row) {
      run(row, 0, view.columns * view.inner, s.FactorAt(row, 0));
      continue;
    }
    bool zeros = false;
    for (int64_t c = 0; c < view.columns; ++c) {
      factors[static_cast<size_t>(c)] = s.FactorAt(row, c);
      zeros = zeros || factors[static_cast<size_t>(c)] == 0;
    }
    if (view.inner == 1 && !zeros) {
      const Found found = MultiplyRun<true>(s.w, row * view.columns, view.columns, 0, factors.data(), s.dtype, result);
      all.too_large |= found.too_large;
      all.small |= found.small;
      continue;
    }
    for (int64_t c = 0; c < view.columns; ++c) run(row, c, view.inner, factors[static_cast<size_t>(c)]);
  }
  return all;
}

Refusal TooLarge(const Scaling& s) {
  for (int64_t i = 0; i < s.w.size(); ++i) {
    const int64_t row = i / (s.view.columns * s.view.inner), column = i / s.view.inner % s.view.columns;
    const double weight = s.w.AsDouble(i), product = weight * s.FactorAt(row, column);
    if (Fits(product, s.dtype)) continue;
    return {std::isfinite(weight) ? "weight-overflow" : "not-finite", "",
            StrCat("weight ", i, " would become ", product)};
  }
  return {"weight-overflow", "", "a weight would overflow"};
}

// Products below the normal range: zero where that is lost in the channel's sum, else refused.
template <typename T>
Outcome<Done> FlushSmall(const Scaling& s, std::span<const double> biases, T* dst) {
  const double tiny = SmallestNormal(s.dtype), lost = Negligible(s.dtype) * tiny;
  std::vector<double> largest(static_cast<size_t>(s.view.channels()), 0.0);
  std::vector<std::pair<int64_t, size_t>> flushed;  // element, channel
  for (int64_t i = 0; i < s.w.size(); ++i) {
    const int64_t row = i / (s.view.columns * s.view.inner), column = i / s.view.inner % s.view.columns;
    const auto channel = static_cast<size_t>(s.view.ChannelOf(row, column));
    const double weight = s.w.AsDouble(i), size = std::abs(weight * s.FactorAt(row, column));
    largest[channel] = std::max(largest[channel], size);
    const bool normal_before = std::abs(weight) >= tiny;
    // A product that underflows double itself is a lost weight too.
    const bool vanished = size == 0 && weight != 0 && !s.FactorIsZero(row, column);
    if (vanished || (size > 0 && size < tiny && normal_before)) flushed.emplace_back(i, channel);
  }
  for (const auto& [i, channel] : flushed) {
    if (largest[channel] < lost && (biases.empty() || std::abs(biases[channel]) < 0x1p40 * lost)) {
      return Refusal{"denormal-weight", "",
                     StrCat("the weights of channel ", channel, " would be at most ", largest[channel])};
    }
    dst[i] = 0;
  }
  return Done{};
}

Refusal OutOfMemory(const Error& error) { return {"out-of-memory", "", error.message}; }

}  // namespace

int64_t WeightView::channels() const {
  if (channel == Channel::kRow) return rows / batches;
  return channel == Channel::kColumn ? columns : columns * groups;
}

int64_t WeightView::ChannelOf(int64_t row, int64_t column) const {
  if (channel == Channel::kRow) return batches == 1 ? row : row % (rows / batches);
  if (channel == Channel::kColumn) return column;
  return groups == 1 ? column : row / (rows / groups) * columns + column;
}

Outcome<Rounded> ScaleWeights(const Weights& w, const WeightView& view, const Affine& map,
                              std::span<const double> biases) {
  const DType storage = w.dtype == DType::kFloat32 ? DType::kFloat32 : DType::kFloat64;
  const bool as_it_is = w.tensor.dtype() == storage || w.tensor.dtype() == DType::kFloat64;
  Result<Tensor> base = as_it_is ? w.tensor : w.tensor.ConvertedTo(DType::kFloat64);
  Result<Tensor> made = Tensor::Allocate(storage, w.tensor.shape());
  if (!base.ok()) return OutOfMemory(base.error());
  if (!made.ok()) return OutOfMemory(made.error());
  ScaledTensor exact{w.tensor, w.factors};
  exact.factors.push_back({view, map.scale});
  const Scaling scaling{*base, exact.factors, view, w.dtype};
  const Found found = MultiplyAll(scaling, &*made);
  if (found.too_large) return TooLarge(scaling);
  if (found.small) {
    Outcome<Done> flushed = storage == DType::kFloat32 ? FlushSmall(scaling, biases, made->mutable_data<float>())
                                                       : FlushSmall(scaling, biases, made->mutable_data<double>());
    if (!flushed.ok()) return flushed.refusal();
  }
  if (storage == w.dtype) return Rounded{std::move(made).value(), std::move(exact)};
  Result<Tensor> rounded = made->ConvertedTo(w.dtype);
  if (!rounded.ok()) return OutOfMemory(rounded.error());
  return Rounded{std::move(rounded).value(), std::move(exact)};
}

Outcome<Tensor> RoundAgain(const ScaledTensor& exact) {
  Weights before{exact.base, exact.factors, DType::kFloat32};
  const Factor last = std::move(before.factors.back());
  before.factors.pop_back();
  Affine map;
  map.scale = last.scale;
  // What was not refused then is not now.
  const std::vector<double> any_bias(static_cast<size_t>(last.view.channels()),
                                     std::numeric_limits<double>::infinity());
  Outcome<Rounded> made = ScaleWeights(before, last.view, map, any_bias);
  if (!made.ok()) return made.refusal();
  return std::move(made->tensor);
}

std::vector<double> ShiftThroughWeights(const Weights& w, const WeightView& input_view, const WeightView& output_view,
                                        const Affine& map) {
  std::vector<double> sums(static_cast<size_t>(output_view.channels()), 0.0);
  const bool narrow = w.tensor.dtype() == DType::kFloat32;
  const Elements<float> floats(w.tensor.bytes(), w.tensor.size());
  for (int64_t row = 0; row < input_view.rows; ++row) {
    for (int64_t column = 0; column < input_view.columns; ++column) {
      double shift = map.shift_at(static_cast<size_t>(input_view.ChannelOf(row, column)));
      if (shift == 0) continue;
      for (const Factor& factor : w.factors) shift *= factor.At(row, column);
      double taps = 0;
      const int64_t begin = (row * input_view.columns + column) * input_view.inner;
      for (int64_t i = begin; i < begin + input_view.inner; ++i) {
        taps += narrow ? static_cast<double>(floats[i]) : w.tensor.AsDouble(i);
      }
      sums[static_cast<size_t>(output_view.ChannelOf(row, column))] += taps * shift;
    }
  }
  return sums;
}

Outcome<Rounded> RoundTo(std::span<const double> values, DType dtype, Shape shape) {
  for (double value : values) {
    if (!Fits(value, dtype)) {
      return Refusal{std::isfinite(value) ? "weight-overflow" : "not-finite", "",
                     StrCat("a bias would become ", value)};
    }
  }
  Result<Tensor> wide = Tensor::Allocate(DType::kFloat64, std::move(shape));
  if (!wide.ok()) return OutOfMemory(wide.error());
  if (!values.empty()) std::memcpy(wide->mutable_data<double>(), values.data(), values.size_bytes());
  Result<Tensor> rounded = dtype == DType::kFloat64 ? *wide : wide->ConvertedTo(dtype);
  if (!rounded.ok()) return OutOfMemory(rounded.error());
  return Rounded{std::move(rounded).value(), {std::move(wide).value(), {}}};
}

}  // namespace crease::fold
