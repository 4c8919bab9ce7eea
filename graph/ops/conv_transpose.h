// SPDX-License-Identifier: Apache-2.0
// ConvTranspose as ONNX defines it.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/conv.h"

namespace crease::ops {

struct ConvTransposeAttributes : ConvAttributes {
  std::vector<int64_t> output_padding;  // one a spatial axis
  std::vector<int64_t> output_shape;    // one a spatial axis, or empty
};

Result<ConvTransposeAttributes> ParseConvTranspose(const Node& node, int spatial_rank,
                                                   std::span<const int64_t> weight_kernel = {});

// The window along one axis: auto_pad, output_shape and output_padding worked in.
Result<WindowAxis> ResolveTransposedAxis(const ConvTransposeAttributes& attributes, int axis, int64_t input);

// Checks X and W against each other and against the attributes. Input i adds through tap k to output
// i * stride + k * dilation - pad_begin where that lies in [0, output); an output that nothing adds to is the bias.
Result<ConvShape> ResolveConvTranspose(const Node& node, const Shape& x, const Shape& w);

}  // namespace crease::ops
