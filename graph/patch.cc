// SPDX-License-Identifier: Apache-2.0
#include "graph/patch.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace crease {

Patch::Patch(const Graph& graph) : graph_(graph), touched_(static_cast<size_t>(graph.node_count()), false) {}

// Many equal hints take no quadratic time: each goes on from the suffix of the one before.
template <typename IsTaken>
std::string Patch::UniqueName(const std::string& hint, const IsTaken& is_taken, Names& given) {
  const auto taken = [&](const std::string& name) { return given.contains(name) || is_taken(name); };
  std::string name = hint;
  if (taken(name)) {
    int& suffix = given[hint];
    do {
      name = hint + "_" + std::to_string(++suffix);
    } while (taken(name));
  }
  given.emplace(name, 0);
  return name;
}

// onnxruntime refuses a graph with two nodes of one name.
void Patch::NameNewNodes(Graph& graph) const {
  const NodeId first_new = graph.node_count() - static_cast<NodeId>(new_nodes_.size());
  std::unordered_set<std::string_view> kept;
  for (NodeId id = 0; id < first_new; ++id) {
    if (graph.alive(id)) kept.insert(graph.node(id).name);
  }
  const auto is_kept = [&](const std::string& name) { return kept.contains(name); };
  Names given;
  for (NodeId id = first_new; id < graph.node_count(); ++id) {
    std::string& name = graph.nodes_[static_cast<size_t>(id)].name;
    if (!name.empty()) name = UniqueName(name, is_kept, given);
  }
}

void Patch::Touch(NodeId id) {
  ++edits_;
  if (id < graph_.node_count()) touched_[static_cast<size_t>(id)] = true;
}

ValueId Patch::AddValue(std::string_view name_hint, TensorType type) {
  const auto is_taken = [&](const std::string& name) { return graph_.IsTaken(name); };
  Value value;
  value.name = UniqueName(std::string(name_hint.empty() ? "crease" : name_hint), is_taken, new_names_);
  value.type = std::move(type);
  new_values_.push_back(std::move(value));
  return graph_.value_count() + static_cast<ValueId>(new_values_.size()) - 1;
}

ValueId Patch::AddConstant(std::string_view name_hint, Tensor tensor) {
  const ValueId id = AddValue(name_hint, TensorType::Of(tensor.dtype(), tensor.shape()));
  new_values_.back().constant = std::move(tensor);
  return id;
}

NodeId Patch::AddNode(Node node) {
  ++edits_;
  new_nodes_.push_back(std::move(node));
  return graph_.node_count() + static_cast<NodeId>(new_nodes_.size()) - 1;
}

void Patch::RemoveNode(NodeId id) {
  Touch(id);
  removed_.push_back(id);
}

void Patch::ReplaceUses(ValueId from, ValueId to) {
  ++edits_;
  for (NodeId consumer : graph_.consumers(from)) Touch(consumer);
  replaced_uses_.emplace_back(from, to);
}

void Patch::ReplaceInput(NodeId node, int slot, ValueId value) {
  Touch(node);
  slots_.push_back({node, slot, value, false});
}

void Patch::ReplaceOutput(NodeId node, int slot, ValueId value) {
  Touch(node);
  slots_.push_back({node, slot, value, true});
}

void Patch::SetAttribute(NodeId node, Attribute attribute) {
  Touch(node);
  attributes_.push_back({node, std::move(attribute), false});
}

void Patch::RemoveAttribute(NodeId node, std::string_view attribute_name) {
  Touch(node);
  Attribute attribute;
  attribute.name = std::string(attribute_name);
  attributes_.push_back({node, std::move(attribute), true});
}

void Patch::SetType(ValueId value, TensorType type) {
  ++edits_;
  types_.emplace_back(value, std::move(type));
}

bool Patch::touches(NodeId id) const { return id < graph_.node_count() && touched_[static_cast<size_t>(id)]; }

Result<void> Patch::ApplyTo(Graph& graph) && {
  if (&graph != &graph_) return Error{ErrorCode::kInternal, "a patch was applied to another graph", ""};
  // What an error must bring back; constants are shared, so this copies structure, not weights.
  Graph before = graph;
  for (Value& value : new_values_) {
    graph.by_name_.emplace(value.name, graph.value_count());
    graph.values_.push_back(std::move(value));
  }
  for (Node& node : new_nodes_) {
    graph.nodes_.push_back(std::move(node));
    graph.alive_.push_back(true);
  }
  for (auto& [id, type] : types_) graph.values_[static_cast<size_t>(id)].type = std::move(type);
  for (NodeId id : removed_) graph.alive_[static_cast<size_t>(id)] = false;
  if (!new_nodes_.empty()) NameNewNodes(graph);

  // Uses are replaced in the nodes that had them when the patch was made; chains a->b, b->c follow.
  std::unordered_map<ValueId, ValueId> replaced(replaced_uses_.begin(), replaced_uses_.end());
  const auto follow = [&](ValueId id) {
    for (size_t step = 0; step <= replaced.size(); ++step) {
      const auto found = replaced.find(id);
      if (found == replaced.end()) break;
      id = found->second;
    }
    return id;
  };
  for (const auto& [from, to] : replaced_uses_) {
    for (NodeId consumer : before.consumers(from)) {
      Node& node = graph.nodes_[static_cast<size_t>(consumer)];
      std::replace(node.inputs.begin(), node.inputs.end(), from, follow(to));
      std::replace(node.captured.begin(), node.captured.end(), from, follow(to));
    }
  }
  for (const Use& use : slots_) {
    Node& node = graph.nodes_[static_cast<size_t>(use.node)];
    std::vector<ValueId>& list = use.output ? node.outputs : node.inputs;
    if (use.slot >= static_cast<int>(list.size())) list.resize(static_cast<size_t>(use.slot) + 1, kNone);
    list[static_cast<size_t>(use.slot)] = use.value;
  }
  for (AttributeEdit& edit : attributes_) {
    std::vector<Attribute>& list = graph.nodes_[static_cast<size_t>(edit.node)].attributes;
    const auto found =
        std::find_if(list.begin(), list.end(), [&](const Attribute& a) { return a.name == edit.attribute.name; });
    if (edit.remove) {
      if (found != list.end()) list.erase(found);
    } else if (found != list.end()) {
      *found = std::move(edit.attribute);
    } else {
      list.push_back(std::move(edit.attribute));
    }
  }
  Result<void> valid = graph.Reindex();
  if (valid.ok()) valid = Validate(graph);
  if (!valid.ok()) graph = std::move(before);
  return valid;
}

}  // namespace crease
