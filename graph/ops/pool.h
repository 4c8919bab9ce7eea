// SPDX-License-Identifier: Apache-2.0
// MaxPool and AveragePool as ONNX defines them.
#pragma once

#include <vector>

#include "graph/ops/window.h"

namespace crease::ops {

struct PoolAttributes {
  WindowAttributes window;
  bool count_include_pad = false;  // AveragePool only
};

// X (batch, channels, axes[].input) to Y (batch, channels, axes[].output).
// MaxPool ignores padding. AveragePool divides by the taps inside [0, input), or with
// count_include_pad by those inside [-pad_begin, input + pad_end).
struct PoolShape {
  int64_t batch = 0, channels = 0;
  bool count_include_pad = false;
  std::vector<WindowAxis> axes;

  Shape output() const;
};

// For MaxPool and AveragePool. Errors: those of ParseWindow, no kernel_shape, a pad that is not
// smaller than the dilated kernel, storage_order other than 0.
Result<PoolAttributes> ParsePool(const Node& node, int spatial_rank);

Result<PoolShape> ResolvePool(const Node& node, const Shape& x);

}  // namespace crease::ops
