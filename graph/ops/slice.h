// SPDX-License-Identifier: Apache-2.0
// Slice: attributes before opset 10, inputs from then on.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace crease::ops {

// One entry an axis of the input: output index i reads start + i * step, for i in [0, output).
struct SlicePlan {
  std::vector<int64_t> start, step;
  Shape output;
};

// The slicing of one axis of `size`: NumPy's clamping. step != 0.
struct SliceRange {
  int64_t start = 0, count = 0;
};
SliceRange ClampSlice(int64_t start, int64_t end, int64_t step, int64_t size);

// `starts`, `ends`, `axes`, `steps`: inputs 1 to 4 from opset 10 on, null where absent; ignored
// before. Errors: lengths that differ, axes out of range or twice, step 0.
Result<SlicePlan> ResolveSlice(const Node& node, int opset, const Shape& input, const Tensor* starts,
                               const Tensor* ends, const Tensor* axes, const Tensor* steps);

}  // namespace crease::ops
