// SPDX-License-Identifier: Apache-2.0
// Values that are known before the run: initializers, Constant nodes, and whatever operators make of
// them (ConstantOfShape, Unsqueeze, Sqrt, ...), computed when asked for. Each node's result is rounded to
// its type, as the network in its own precision makes it: a Floor, Cast or Equal behind it can tell.
#pragma once

#include <vector>

#include "graph/graph.h"
#include "graph/op.h"

namespace crease {

namespace fold {
class Unrounded;
}

class ConstEval {
 public:
  // Keeps references: all must outlive it. Values of more than `max_elements` are not computed.
  ConstEval(const Graph& graph, const InferredTypes& types, const fold::Unrounded* unrounded = nullptr,
            int64_t max_elements = int64_t{1} << 28);

  // Whether the value depends on constants alone (and on types, which a CastLike reads), through operators with a
  // definition.
  bool IsConstant(ValueId id) const { return id != kNone && constant_[static_cast<size_t>(id)]; }

  // The value, or null where it is not constant, too big or its operator fails. It has its dtype in the
  // graph, but for vectors that a fold made: float64, as they were before they were rounded. Valid as long
  // as this object.
  const Tensor* Get(ValueId id);

  // The dtype that the value has in the graph.
  DType dtype(ValueId id) const;

 private:
  bool Evaluate(NodeId id);
  bool Needs(const Node& node, size_t slot) const;  // whether the node's result takes the input's elements

  const Graph& graph_;
  const InferredTypes& types_;
  const fold::Unrounded* unrounded_;
  const int64_t max_elements_;
  std::vector<bool> constant_;  // by value
  std::vector<Tensor> memo_;    // by value; undefined where not computed
  std::vector<bool> failed_;    // by node
};

}  // namespace crease
