// SPDX-License-Identifier: Apache-2.0
// The sum that convolution and transposed convolution are, in double precision: a matrix product over
// gathered columns, blocked so that a network of a few GMAC takes seconds.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace crease::ops {

// dst[n][g * M + m][p] = bias + sum over c < C and taps t of
//   weights[g * weight_group + m * weight_output + c * weight_input + t] * src[n][g * C + c][source(p, t)]
// with M outputs and C inputs a group; terms whose source is negative are left out.
struct WindowedSum {
  int64_t batch = 0, group = 1;
  int64_t group_inputs = 0, group_outputs = 0;
  int64_t src_pixels = 0, dst_pixels = 0, taps = 0;
  int64_t weight_group = 0, weight_output = 0, weight_input = 0;
  const double* src = nullptr;
  const double* weights = nullptr;
  const double* bias = nullptr;  // group * group_outputs, or null
  double* dst = nullptr;
  // Fills sources[t] for output pixel p, for every tap.
  using Sources = std::function<void(int64_t p, std::span<int64_t> sources)>;
  Sources sources;
};

void ComputeWindowedSum(const WindowedSum& sum);

}  // namespace crease::ops
