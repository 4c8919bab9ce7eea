// SPDX-License-Identifier: Apache-2.0
// Softmax, LogSoftmax and Hardmax: along one axis from opset 13 on; before, along all axes from
// `axis`.
#pragma once

#include "graph/graph.h"

namespace crease::ops {

// The input as (outer, length, inner); each of the outer * inner vectors is normalized by itself.
// inner is 1 before opset 13. The axis defaults to -1, before opset 13 to 1.
struct SoftmaxShape {
  int64_t outer = 1, length = 1, inner = 1;
};

Result<SoftmaxShape> ResolveSoftmax(const Node& node, int opset, const Shape& input);

}  // namespace crease::ops
