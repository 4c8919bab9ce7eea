// SPDX-License-Identifier: Apache-2.0
// Convolution in double precision, as its definition has it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/conv_shape.h"

namespace crease::test {

// The value at image n, row y, column x, channel c; y and x lie in the image.
using ConvSource = std::function<double(int64_t n, int64_t y, int64_t x, int64_t c)>;

// (batch, out_height, out_width, filters). weights: (filters, group_channels, kernel_h, kernel_w); bias: (filters), may
// be null.
std::vector<double> Convolve(const ConvShape& shape, const ConvSource& source, const float* weights, const float* bias);

}  // namespace crease::test
