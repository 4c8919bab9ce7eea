// SPDX-License-Identifier: Apache-2.0
// Maps that follow each other with no other reader between them: folded as one, so that weights are
// rounded once.
#pragma once

#include <span>
#include <vector>

#include "graph/passes/affine.h"

namespace crease::fold {

// links[i + 1] reads links[i] and nothing else looks at it; all are composable.
struct Chain {
  std::vector<AffineNode> links;

  // The composition of links [begin, end).
  Affine Composed(size_t begin, size_t end) const;
  bool HasBatchNorm(const Graph& graph) const;
};

// Every map of the graph in one chain, in topological order. `refused`: batch-norms that are no maps.
struct Chains {
  std::vector<Chain> chains;
  std::vector<std::pair<NodeId, Refusal>> refused;
};
Chains FindChains(const FoldContext& context);

}  // namespace crease::fold
