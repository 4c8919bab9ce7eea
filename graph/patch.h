// SPDX-License-Identifier: Apache-2.0
// The only way to change a Graph. A pass builds a Patch against a const Graph; the driver applies it
// and validates the result.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace crease {

class Patch {
 public:
  explicit Patch(const Graph& graph);

  bool empty() const { return edits_ == 0; }
  int edits() const { return edits_; }

  // New values get ids that are valid once the patch is applied; names are made unique by a suffix, also
  // among those in subgraphs. The same graph and the same calls give the same names.
  ValueId AddValue(std::string_view name_hint, TensorType type = {});
  ValueId AddConstant(std::string_view name_hint, Tensor tensor);
  // ApplyTo makes its name unique by a suffix among the nodes that stay: it may take that of one that the
  // patch removes. No name stays none.
  NodeId AddNode(Node node);
  void RemoveNode(NodeId id);
  // Every node input and captured use of `from` becomes `to`. Graph outputs do not change: use
  // MoveOutputName for these.
  void ReplaceUses(ValueId from, ValueId to);
  void ReplaceInput(NodeId node, int slot, ValueId value);  // slot may be one past the last
  void ReplaceOutput(NodeId node, int slot, ValueId value);
  void SetAttribute(NodeId node, Attribute attribute);  // added or replaced
  void RemoveAttribute(NodeId node, std::string_view attribute_name);
  void SetType(ValueId value, TensorType type);

  // Whether this patch already changes the node (passes leave it for the next round then).
  bool touches(NodeId id) const;

  // Applies all edits, reindexes, validates. On an error the graph is as before.
  Result<void> ApplyTo(Graph& graph) &&;

 private:
  struct Use {
    NodeId node;
    int slot;
    ValueId value;
    bool output;
  };
  struct AttributeEdit {
    NodeId node;
    Attribute attribute;
    bool remove;
  };
  // Names given so far, and those that got a suffix, with their last one.
  using Names = std::map<std::string, int, std::less<>>;
  template <typename IsTaken>
  static std::string UniqueName(const std::string& hint, const IsTaken& is_taken, Names& given);
  void NameNewNodes(Graph& graph) const;
  void Touch(NodeId id);

  const Graph& graph_;
  int edits_ = 0;
  std::vector<Value> new_values_;
  Names new_names_;
  std::vector<Node> new_nodes_;
  std::vector<NodeId> removed_;
  std::vector<std::pair<ValueId, ValueId>> replaced_uses_;
  std::vector<Use> slots_;
  std::vector<AttributeEdit> attributes_;
  std::vector<std::pair<ValueId, TensorType>> types_;
  std::vector<bool> touched_;
};

}  // namespace crease
