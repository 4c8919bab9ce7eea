// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/fold_chain.h"

#include <algorithm>

namespace crease::fold {
namespace {

// Longer ones are taken in pieces: every prefix may be tried.
constexpr size_t kMaxLinks = 64;

}  // namespace

Affine Chain::Composed(size_t begin, size_t end) const {
  Affine map = links[begin].affine;
  for (size_t i = begin + 1; i < end; ++i) map = Compose(map, links[i].affine);
  return map;
}

bool Chain::HasBatchNorm(const Graph& graph) const {
  return std::any_of(links.begin(), links.end(),
                     [&](const AffineNode& link) { return graph.node(link.node).op_type == "BatchNormalization"; });
}

Chains FindChains(const FoldContext& context) {
  const Graph& graph = context.graph;
  Chains result;
  std::vector<Affine> composed;                                             // of each chain so far
  std::vector<int> chain_of(static_cast<size_t>(graph.value_count()), -1);  // chain whose last link makes the value
  for (NodeId id : graph.topological_order()) {
    Outcome<AffineNode> match = MatchAffine(context, id);
    if (!match.ok()) {
      if (!match.refusal().code.empty()) result.refused.emplace_back(id, match.refusal());
      continue;
    }
    if (context.constants.IsConstant(match->data)) continue;
    int chain = chain_of[static_cast<size_t>(match->data)];
    if (chain >= 0) {
      const Chain& open = result.chains[static_cast<size_t>(chain)];
      const Affine& before = composed[static_cast<size_t>(chain)];
      const bool fits = open.links.size() < kMaxLinks && context.LookingUses(match->data) == 1 &&
                        !graph.is_output(match->data) && Composable(before, match->affine) &&
                        Compose(before, match->affine).finite();
      if (!fits) chain = -1;
    }
    if (chain < 0) {
      chain = static_cast<int>(result.chains.size());
      result.chains.emplace_back();
      composed.push_back(match->affine);
    } else {
      Affine& whole = composed[static_cast<size_t>(chain)];
      whole = Compose(whole, match->affine);
    }
    chain_of[static_cast<size_t>(match->out)] = chain;
    result.chains[static_cast<size_t>(chain)].links.push_back(std::move(*match));
  }
  return result;
}

}  // namespace crease::fold
