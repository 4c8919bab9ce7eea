// SPDX-License-Identifier: Apache-2.0
// The Reduce family: axes as an attribute before opset 18 (ReduceSum: 13), as an input from then
// on.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace crease::ops {

struct ReducePlan {
  std::vector<bool> reduced;  // one entry an axis of the input; all false for noop_with_empty_axes
  bool keepdims = true;
  Shape output;
};

// Whether the opset takes the axes from input 1.
bool ReduceAxesAreInput(const Node& node, int opset);

// `axes`: input 1 where the opset has it, null where absent; ignored else. No axes: all of them, or
// none with noop_with_empty_axes.
Result<ReducePlan> ResolveReduce(const Node& node, int opset, const Shape& input, const Tensor* axes);

}  // namespace crease::ops
