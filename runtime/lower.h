// SPDX-License-Identifier: Apache-2.0
// From a graph and the shapes of its inputs to a Program.
#pragma once

#include <span>

#include "crease/session.h"
#include "graph/graph.h"
#include "runtime/program.h"

namespace crease {

struct LowerOptions {
  Limits limits;
  bool fuse = true;  // run the passes of runtime/fusion/
};

// `input_shapes`: one for every graph input without a constant, in the graph's order. What follows from
// constants and shapes alone is computed here and gone from the program. Errors: a shape that contradicts
// the graph, a tensor over max_tensor_bytes, a shape that depends on data, an operator nobody defined.
Result<Program> Lower(const Graph& graph, std::span<const Shape> input_shapes, ConstantPool& constants,
                      const LowerOptions& options);

// Graph inputs that a caller must give: those without a constant.
std::vector<ValueId> RequiredInputs(const Graph& graph);
// The others whose constant is but a default: from IR 4 on a caller may replace an initializer that is an input.
// Before, every initializer had to be one.
std::vector<ValueId> InputsWithDefaults(const Graph& graph);

}  // namespace crease
