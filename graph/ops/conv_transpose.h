// SPDX-License-Identifier: Apache-2.0
// ConvTranspose as ONNX defines it.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/window.h"

namespace crease::ops {

struct ConvTransposeAttributes {
  WindowAttributes window;
  int64_t group = 1;
  std::vector<int64_t> output_padding;  // one a spatial axis
  std::vector<int64_t> output_shape;    // one a spatial axis, or empty
};

// X (batch, input_channels, axes[].input), W (input_channels, output_channels / group,
// axes[].kernel), Y (batch, output_channels, axes[].output). Input i adds through tap k to output
// i * stride + k * dilation - pad_begin where that lies in [0, output); an output that nothing adds
// to is the bias.
struct ConvTransposeShape {
  int64_t batch = 0, group = 1;
  int64_t input_channels = 0, output_channels = 0;
  std::vector<WindowAxis> axes;

  int64_t group_inputs() const { return input_channels / group; }
  int64_t group_outputs() const { return output_channels / group; }
  Shape output() const;
};

Result<ConvTransposeAttributes> ParseConvTranspose(const Node& node, int spatial_rank,
                                                   std::span<const int64_t> weight_kernel = {});

// The window along one axis: auto_pad, output_shape and output_padding worked in.
Result<WindowAxis> ResolveTransposedAxis(const ConvTransposeAttributes& attributes, int axis, int64_t input);

Result<ConvTransposeShape> ResolveConvTranspose(const Node& node, const Shape& x, const Shape& w);

}  // namespace crease::ops
