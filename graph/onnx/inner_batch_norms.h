// SPDX-License-Identifier: Apache-2.0
// The batch-norms of a file that its Graph has no nodes of.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace crease {

// One in a body of If, Loop or Scan, or in a local function: kept as bytes, neither folded nor run.
struct InnerBatchNorm {
  std::string name;    // the node's, or that of what it makes
  std::string inside;  // "If 'condition' (makes 'y')", "function 'Block'"
  bool training = false;
};

// In the file's order, subgraphs at any depth; those of local functions last, once for each function.
std::vector<InnerBatchNorm> InnerBatchNorms(const Graph& graph);

}  // namespace crease
