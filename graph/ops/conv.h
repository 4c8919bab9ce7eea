// SPDX-License-Identifier: Apache-2.0
// Conv as ONNX defines it, 1 to kMaxRank - 2 spatial axes.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/window.h"

namespace crease::ops {

struct ConvAttributes {
  WindowAttributes window;
  int64_t group = 1;
};

// A convolution of known shapes: X (batch, input_channels, axes[].input), W (output_channels,
// input_channels / group, axes[].kernel), Y (batch, output_channels, axes[].output). Both channel
// counts are multiples of group.
struct ConvShape {
  int64_t batch = 0, group = 1;
  int64_t input_channels = 0, output_channels = 0;
  std::vector<WindowAxis> axes;

  int64_t group_inputs() const { return input_channels / group; }
  int64_t group_outputs() const { return output_channels / group; }
  bool depthwise() const { return group == input_channels && group > 1; }
  Shape output() const;
};

// `weight_kernel`: W's spatial dimensions, empty while unknown.
Result<ConvAttributes> ParseConv(const Node& node, int spatial_rank, std::span<const int64_t> weight_kernel = {});

// Checks X and W against each other and against the attributes.
Result<ConvShape> ResolveConv(const Node& node, const Shape& x, const Shape& w);

}  // namespace crease::ops
