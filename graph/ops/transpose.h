// SPDX-License-Identifier: Apache-2.0
// Transpose: output axis i is input axis perm[i].
#pragma once

#include <vector>

#include "graph/graph.h"

namespace crease::ops {

// The attribute perm, or the reversal of all axes. Errors: not a permutation of [0, rank).
Result<std::vector<int>> ParseTranspose(const Node& node, int rank);

}  // namespace crease::ops
