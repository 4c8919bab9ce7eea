// SPDX-License-Identifier: Apache-2.0
// Runs a graph by its operators' definitions, in double precision, one obvious loop at a time. It is
// the oracle for `fold --verify`, `diff` and the tests; nothing fast depends on it.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace crease {

// One node's outputs from its inputs, by the operator's definition: what constant folding needs. Inputs
// and outputs have the file's dtypes (floats are computed in float64 and rounded once); absent inputs
// are null, absent outputs undefined tensors. Errors: an unknown operator, what its rules forbid; without
// the node's name.
Result<std::vector<Tensor>> EvaluateNode(const Node& node, int opset, std::span<const Tensor* const> inputs);

struct InterpretOptions {
  // Called with every computed value, in order; for finding the first layer that differs.
  std::function<void(ValueId, const Tensor&)> on_value;
};

// `inputs`: one tensor for every graph input without a constant, by name. Floating values are float64
// throughout (weights converted exactly); what nodes make of constants and shapes alone is rounded to its
// type at each node. Returns the outputs in the graph's order.
// Errors: a missing input, a shape that contradicts the graph, an operator without a meaning here.
Result<std::vector<Tensor>> Interpret(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                                      const InterpretOptions& options = {});

}  // namespace crease
