// SPDX-License-Identifier: Apache-2.0
// Batch normalization of one channel in double precision.
#pragma once

#include <cmath>
#include <cstdint>

namespace crease::test {

struct ChannelMoments {
  double mean = 0;
  double squares = 0;  // the sum of squared deviations from the mean
  double var = 0;      // biased: squares / count
};

// Of value(0) to value(count - 1), in two passes.
template <typename Value>
ChannelMoments MomentsOf(int64_t count, const Value& value) {
  ChannelMoments moments;
  const auto n = static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) moments.mean += value(i);
  moments.mean /= n;
  for (int64_t i = 0; i < count; ++i) moments.squares += std::pow(value(i) - moments.mean, 2);
  moments.var = moments.squares / n;
  return moments;
}

// How a channel is mapped: (x - mean) / sqrt(var + eps) * weight + bias.
struct ChannelMap {
  double mean, var, weight, bias;
  double eps = 1e-5;

  // Without the bias, by whose size and its own the sum rounds.
  double Scaled(double x) const { return (x - mean) * weight / std::sqrt(var + eps); }
  double operator()(double x) const { return Scaled(x) + bias; }
};

}  // namespace crease::test
