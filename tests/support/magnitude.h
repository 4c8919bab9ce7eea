// SPDX-License-Identifier: Apache-2.0
// The condition of a network's sums: what rounding errors are relative to.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"

namespace crease::testing {

// The same network with every subtraction an addition and every constant its magnitude: from the inputs'
// magnitudes it computes, element by element, the sum of the magnitudes of the terms that each value is
// made of. Activations count as their steepest line (PRelu's by its slopes, Sigmoid with 1 added for its own
// rounding). For the operators of RandomGraph.
Result<Graph> MagnitudeGraph(const Graph& graph);

std::map<std::string, Tensor> Magnitudes(const std::map<std::string, Tensor>& inputs);

}  // namespace crease::testing
