// SPDX-License-Identifier: Apache-2.0
// Conv as ONNX defines it, 1 to kMaxRank - 2 spatial axes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/op.h"
#include "graph/ops/window.h"
#include "graph/ops/windowed_sum.h"

namespace crease::ops {

struct ConvAttributes {
  WindowAttributes window;
  int64_t group = 1;
};

// A convolution of known shapes, or a transposed one: X (batch, input_channels, axes[].input), Y (batch,
// output_channels, axes[].output), W (output_channels, input_channels / group, axes[].kernel) or, transposed,
// (input_channels, output_channels / group, axes[].kernel). Both channel counts are multiples of group.
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

// What Conv and ConvTranspose have in common:

// Checks the types of X, W and B and the ranks of X and W. That rank, or 0 where neither has one.
Result<int> InferConvRank(const InferContext& context);

// W's spatial dimensions, empty while one is unknown.
std::vector<int64_t> KernelOf(const TensorType& w);

// Fills Y; all inputs are float64. `sources`: which input pixel adds to an output pixel through every tap.
void ComputeConv(const EvalContext& context, const ConvShape& shape, bool transposed, WindowedSum::Sources sources,
                 Tensor& y);

}  // namespace crease::ops
