// SPDX-License-Identifier: Apache-2.0
// Pad: attributes before opset 11, inputs from then on, axes from 18 on, wrap from 19 on.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace crease::ops {

enum class PadMode : uint8_t { kConstant, kReflect, kEdge, kWrap };

// One entry an axis; negative pads cut. Output size: input + begin + end.
struct PadPlan {
  PadMode mode = PadMode::kConstant;
  std::vector<int64_t> begin, end;
  double value = 0;
  Shape output;
};

// `pads`, `value`, `axes`: inputs 1 to 3 from opset 11 on, null where absent; ignored before.
// Errors: lengths, an output size below 0, reflect past the input's size - 1 or edge or wrap of an
// empty axis.
Result<PadPlan> ResolvePad(const Node& node, int opset, const Shape& input, const Tensor* pads, const Tensor* value,
                           const Tensor* axes);

// Index in [0, size) that output index `dst - begin` = `position` reads along an axis of `size`, or
// -1 for the constant value.
int64_t PadSource(PadMode mode, int64_t position, int64_t size);

}  // namespace crease::ops
