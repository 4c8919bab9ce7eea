// SPDX-License-Identifier: Apache-2.0
// Running one definition: the checks that every caller needs around infer and eval.
#pragma once

#include <vector>

#include "graph/op.h"

namespace crease::ops {

// The definition of a node's operator, and whether its numbers of inputs and outputs are allowed and
// the required ones present.
Result<const OpDef*> FindDefinition(const Node& node, int opset);

// Evaluates in double precision: float inputs of any dtype are converted to float64, others aligned.
Result<std::vector<Tensor>> EvaluateInDouble(const OpDef& op, const Node& node, int opset,
                                             std::span<const Tensor* const> inputs);

// Infers, evaluates and rounds floats to the inferred dtype.
Result<std::vector<Tensor>> EvaluateRounded(const OpDef& op, const Node& node, int opset,
                                            std::span<const Tensor* const> inputs);

}  // namespace crease::ops
