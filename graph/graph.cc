// SPDX-License-Identifier: Apache-2.0
#include "graph/graph.h"

#include <algorithm>
#include <queue>

namespace crease {
namespace {

// The cycle that `on_cycle` nodes form, as "a -> b -> a"; every one of them has a predecessor there.
std::string DescribeCycle(const Graph& graph, const std::vector<bool>& on_cycle) {
  const auto first = std::find(on_cycle.begin(), on_cycle.end(), true) - on_cycle.begin();
  std::vector<int> position(on_cycle.size(), -1);
  std::vector<NodeId> path;
  auto id = static_cast<NodeId>(first);
  while (position[static_cast<size_t>(id)] < 0) {
    position[static_cast<size_t>(id)] = static_cast<int>(path.size());
    path.push_back(id);
    const Node& node = graph.node(id);
    NodeId previous = kNone;
    for (const auto* list : {&node.inputs, &node.captured}) {
      for (ValueId value : *list) {
        if (value == kNone) continue;
        const NodeId producer = graph.producer(value);
        if (producer != kNone && on_cycle[static_cast<size_t>(producer)]) previous = producer;
      }
    }
    id = previous;
  }
  std::vector<NodeId> cycle(path.begin() + position[static_cast<size_t>(id)], path.end());
  std::reverse(cycle.begin(), cycle.end());
  constexpr size_t kShown = 16;
  std::string text;
  for (size_t i = 0; i < std::min(cycle.size(), kShown); ++i) text += graph.Describe(cycle[i]) + " -> ";
  if (cycle.size() > kShown) text += "... (" + std::to_string(cycle.size()) + " nodes) -> ";
  return text + graph.Describe(cycle.front());
}

bool IsContinuation(unsigned char c) { return (c & 0xC0) == 0x80; }

// Bytes of the valid UTF-8 sequence at text[i], 0 if there is none.
size_t Utf8Length(std::string_view text, size_t i) {
  const auto lead = static_cast<unsigned char>(text[i]);
  const size_t length = lead < 0x80 ? 1 : (lead >> 5) == 6 ? 2 : (lead >> 4) == 14 ? 3 : (lead >> 3) == 30 ? 4 : 0;
  if (length <= 1) return length;
  if (i + length > text.size()) return 0;
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t k = 1; k < length; ++k) {
    const auto next = static_cast<unsigned char>(text[i + k]);
    if (!IsContinuation(next)) return 0;
    code = code << 6 | (next & 0x3Fu);
  }
  const uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return code < least || code > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

TensorType TensorType::Of(DType dtype, const Shape& shape) {
  TensorType type{dtype, true, {}};
  for (int64_t dim : shape) type.dims.push_back({dim, ""});
  return type;
}

TensorType TensorType::OfRank(DType dtype, int rank) {
  return {dtype, true, std::vector<Dim>(static_cast<size_t>(rank))};
}

bool TensorType::is_static() const {
  return has_rank && std::all_of(dims.begin(), dims.end(), [](const Dim& dim) { return dim.known(); });
}

Shape TensorType::shape() const {
  Shape shape;
  for (const Dim& dim : dims) shape.push_back(dim.value);
  return shape;
}

std::string TensorType::ToString() const {
  std::string text = Name(dtype);
  if (!has_rank) return text + " of unknown rank";
  text += " (";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += dims[i].known() ? std::to_string(dims[i].value) : dims[i].symbol.empty() ? "?" : dims[i].symbol;
  }
  return text + ")";
}

const Attribute* Node::FindAttribute(std::string_view attribute_name) const {
  for (const Attribute& attribute : attributes) {
    if (attribute.name == attribute_name) return &attribute;
  }
  return nullptr;
}

int ModelInfo::opset() const {
  const auto found = opsets.find("");
  return found == opsets.end() ? 0 : static_cast<int>(found->second);
}

bool Graph::is_output(ValueId id) const { return std::find(outputs_.begin(), outputs_.end(), id) != outputs_.end(); }

int Graph::use_count(ValueId id) const {
  return static_cast<int>(consumers(id).size() + static_cast<size_t>(std::count(outputs_.begin(), outputs_.end(), id)));
}

const Tensor* Graph::constant(ValueId id) const {
  if (id == kNone) return nullptr;
  const Value& value = this->value(id);
  if (value.constant) return &*value.constant;
  const NodeId producer_id = producer(id);
  if (producer_id == kNone) return nullptr;
  const Node& made_by = node(producer_id);
  if (made_by.op_type != "Constant" || !made_by.domain.empty()) return nullptr;
  const Attribute* attribute = made_by.FindAttribute("value");
  return attribute != nullptr ? std::get_if<Tensor>(&attribute->data) : nullptr;
}

ValueId Graph::FindValue(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? kNone : found->second;
}

std::string Graph::Describe(NodeId id) const {
  const Node& n = node(id);
  std::string text = Printable(n.op_type);
  if (!n.name.empty()) text += " '" + Printable(n.name) + "'";
  for (ValueId output : n.outputs) {
    if (output == kNone) continue;
    return text + " (makes '" + Printable(value(output).name) + "')";
  }
  return text;
}

Result<void> Graph::Reindex() {
  producer_.assign(values_.size(), kNone);
  consumers_.assign(values_.size(), {});
  std::vector<int> missing(nodes_.size(), 0);  // inputs whose producer has not run yet
  size_t alive_count = 0;
  for (NodeId id = 0; id < node_count(); ++id) {
    if (!alive(id)) continue;
    ++alive_count;
    for (ValueId output : node(id).outputs) {
      if (output != kNone) producer_[static_cast<size_t>(output)] = id;
    }
  }
  for (NodeId id = 0; id < node_count(); ++id) {
    if (!alive(id)) continue;
    for (const auto* list : {&node(id).inputs, &node(id).captured}) {
      for (ValueId input : *list) {
        if (input == kNone) continue;
        consumers_[static_cast<size_t>(input)].push_back(id);
        if (producer(input) != kNone) ++missing[static_cast<size_t>(id)];
      }
    }
  }
  order_.clear();
  order_.reserve(alive_count);
  std::priority_queue<NodeId, std::vector<NodeId>, std::greater<>> ready;
  for (NodeId id = 0; id < node_count(); ++id) {
    if (alive(id) && missing[static_cast<size_t>(id)] == 0) ready.push(id);
  }
  while (!ready.empty()) {
    const NodeId id = ready.top();
    ready.pop();
    order_.push_back(id);
    for (ValueId output : node(id).outputs) {
      if (output == kNone) continue;
      for (NodeId consumer : consumers(output)) {
        if (--missing[static_cast<size_t>(consumer)] == 0) ready.push(consumer);
      }
    }
  }
  if (order_.size() == alive_count) return {};
  std::vector<bool> left(alive_);
  for (NodeId id : order_) left[static_cast<size_t>(id)] = false;
  return Error{ErrorCode::kInvalidModel, "the graph has a cycle: " + DescribeCycle(*this, left), ""};
}

GraphBuilder::GraphBuilder() { graph_.info_.opsets[""] = 17; }

ValueId GraphBuilder::GetOrAddValue(std::string_view name) {
  const auto found = graph_.by_name_.find(name);
  if (found != graph_.by_name_.end()) return found->second;
  const auto id = static_cast<ValueId>(graph_.values_.size());
  graph_.values_.emplace_back().name = std::string(name);
  graph_.by_name_.emplace(std::string(name), id);
  return id;
}

size_t GraphBuilder::ReserveName(std::string name) {
  graph_.reserved_names_.insert(std::move(name));
  return graph_.reserved_names_.size();
}

ValueId GraphBuilder::AddInput(std::string_view name, TensorType type) {
  const ValueId id = GetOrAddValue(name);
  value(id).type = std::move(type);
  value(id).is_input = true;
  graph_.inputs_.push_back(id);
  return id;
}

ValueId GraphBuilder::AddConstant(std::string_view name, Tensor tensor) {
  const ValueId id = GetOrAddValue(name);
  value(id).type = TensorType::Of(tensor.dtype(), tensor.shape());
  value(id).constant = std::move(tensor);
  return id;
}

void GraphBuilder::AddOutput(ValueId id) { graph_.outputs_.push_back(id); }

NodeId GraphBuilder::AddNode(Node node) {
  graph_.nodes_.push_back(std::move(node));
  graph_.alive_.push_back(true);
  return static_cast<NodeId>(graph_.nodes_.size()) - 1;
}

ValueId GraphBuilder::Add(std::string_view op_type, std::vector<ValueId> inputs, std::string_view output_name,
                          std::vector<Attribute> attributes) {
  Node node;
  node.op_type = std::string(op_type);
  node.name = std::string(output_name);
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  const ValueId output = GetOrAddValue(output_name);
  node.outputs = {output};
  AddNode(std::move(node));
  return output;
}

Result<Graph> GraphBuilder::Build() && {
  CREASE_RETURN_IF_ERROR(graph_.Reindex());
  CREASE_RETURN_IF_ERROR(Validate(graph_));
  return std::move(graph_);
}

Result<void> Validate(const Graph& graph) {
  std::vector<bool> made(static_cast<size_t>(graph.value_count()), false);
  const auto invalid = [](std::string message, std::string where) {
    return Error{ErrorCode::kInvalidModel, std::move(message), std::move(where)};
  };
  const auto name_of = [&](ValueId id) { return "'" + Printable(graph.value(id).name) + "'"; };
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    made[static_cast<size_t>(id)] = graph.value(id).constant.has_value();
  }
  std::vector<bool> is_input(made.size(), false);
  for (ValueId id : graph.inputs()) {
    if (is_input[static_cast<size_t>(id)]) return invalid("graph input " + name_of(id) + " is there twice", "");
    is_input[static_cast<size_t>(id)] = made[static_cast<size_t>(id)] = true;
  }
  for (NodeId id : graph.topological_order()) {
    for (ValueId output : graph.node(id).outputs) {
      if (output == kNone) continue;
      if (made[static_cast<size_t>(output)]) {
        return invalid("output " + name_of(output) + " is made twice, or is an input or initializer too",
                       graph.Describe(id));
      }
      made[static_cast<size_t>(output)] = true;
    }
  }
  for (NodeId id : graph.topological_order()) {
    for (const auto* list : {&graph.node(id).inputs, &graph.node(id).captured}) {
      for (ValueId input : *list) {
        if (input != kNone && !made[static_cast<size_t>(input)]) {
          return invalid("input " + name_of(input) + " is undefined: no node, input or initializer makes it",
                         graph.Describe(id));
        }
      }
    }
  }
  for (ValueId id : graph.outputs()) {
    if (!made[static_cast<size_t>(id)]) return invalid("graph output " + name_of(id) + " is made by nothing", "");
  }
  return {};
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string Printable(std::string_view name) {
  constexpr size_t kLongest = 200;
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < name.size();) {
    if (text.size() > kLongest) return text + "...";
    const auto c = static_cast<unsigned char>(name[i]);
    const size_t length = Utf8Length(name, i);
    if (length == 0 || c < 0x20 || c == 0x7F) {
      text += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
      ++i;
    } else {
      text.append(name.substr(i, length));
      i += length;
    }
  }
  return text;
}

}  // namespace crease
