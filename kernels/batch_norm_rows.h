// SPDX-License-Identifier: Apache-2.0
// The vector code of batch normalization beyond the map itself. Compiled for every target.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/affine_rows.h"
#include "kernels/batch_norm.h"

namespace crease {

// scale, shift and pivot of channels with these statistics; T: float, or double for float64 tensors.
// weight and bias may be null (1 and 0).
template <typename T>
struct MapArgs {
  const double *weight, *bias, *mean, *var;
  double eps;
  T *scale, *shift, *pivot;

  // From channel `first` on; mean and var are those of channel 0.
  static MapArgs From(int64_t first, const NormParameters& p, const double* mean, const double* var, T* scale, T* shift,
                      T* pivot) {
    const auto from = [first](std::span<const double> values) {
      return values.empty() ? nullptr : values.data() + first;
    };
    return {from(p.weight), from(p.bias), mean + first, var + first, p.eps, scale, shift, pivot};
  }
};
using SetFloatMap = void (*)(const MapArgs<float>& args, int64_t channels);
using SetDoubleMap = void (*)(const MapArgs<double>& args, int64_t channels);
SetFloatMap FindSetFloatMap();
SetDoubleMap FindSetDoubleMap();

// averages[c] = keep * averages[c] + factor * values[c]; `single`: rounded to float32.
using AverageRows = void (*)(double keep, double factor, bool single, int64_t channels, const double* values,
                             double* averages);
AverageRows FindMoveAverages();

struct ChannelWalk {
  bool from_memory;  // caches do not hold the tensor that is read
  bool stream;       // results past the caches
  Walk walk;
};

// Each channel of a plain tensor with planes by its own mean and biased variance.
struct ChannelNorm {
  // What channels are dealt out in multiples of, all but the last ones: more than 1 where vectors of small planes may
  // have two channels.
  int64_t (*unit)(const NormTensor& tensor, ChannelWalk walk);
  // Channels [begin, end), whose mean and variance go to mean[] and var[]. Values of one channel are read from memory
  // once if twice as many fit into L2. The same bits however channels are dealt out, if in multiples of unit().
  void (*run)(const NormTensor& tensor, const NormParameters& parameters, ChannelWalk walk, int64_t begin, int64_t end,
              double* mean, double* var);
};
ChannelNorm FindChannelNorm(DType dtype);

}  // namespace crease
