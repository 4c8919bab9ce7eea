// SPDX-License-Identifier: Apache-2.0
// MaxPool and AveragePool as ONNX defines them.
#pragma once

#include <vector>

#include "graph/ops/window.h"

namespace crease::ops {

struct PoolAttributes {
  WindowAttributes window;
  bool count_include_pad = false;  // AveragePool only
  bool column_major = false;       // MaxPool's storage_order, which says how Indices count pixels
};

// X (batch, channels, axes[].input) to Y (batch, channels, axes[].output).
// MaxPool ignores padding. AveragePool divides by the taps inside [0, input), or with
// count_include_pad by those inside [-pad_begin, input + pad_end). MaxPool's Indices count all elements of X, planes
// in order, and inside a plane the pixels with the last axis fastest or, column_major, the first.
struct PoolShape {
  int64_t batch = 0, channels = 0;
  bool count_include_pad = false;
  bool column_major = false;
  std::vector<WindowAxis> axes;

  Shape output() const;
};

// For MaxPool and AveragePool. Errors: those of ParseWindow, no kernel_shape, a pad that is not
// smaller than the dilated kernel, storage_order other than 0 and 1.
Result<PoolAttributes> ParsePool(const Node& node, int spatial_rank);

Result<PoolShape> ResolvePool(const Node& node, const Shape& x);

}  // namespace crease::ops
