// SPDX-License-Identifier: Apache-2.0
// What a network is: values, nodes that make values from values, and what the file said besides.
// A Graph is changed by patches only (graph/patch.h); passes and the runtime see it const.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/status.h"
#include "graph/tensor.h"

namespace crease {

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr int32_t kNone = -1;  // an absent optional input or output; no producer

// One dimension: a number, or unknown with a name where the file gives one.
struct Dim {
  static constexpr int64_t kUnknown = -1;
  int64_t value = kUnknown;
  std::string symbol;

  bool known() const { return value >= 0; }
  friend bool operator==(const Dim&, const Dim&) = default;
};

// What is known of a value before it is computed.
struct TensorType {
  DType dtype = DType::kUndefined;
  bool has_rank = false;
  std::vector<Dim> dims;  // meaningful if has_rank

  static TensorType Of(DType dtype, const Shape& shape);
  static TensorType OfRank(DType dtype, int rank);  // every dimension unknown
  bool is_static() const;                           // rank and every dimension known
  int rank() const { return has_rank ? static_cast<int>(dims.size()) : -1; }
  Shape shape() const;  // needs is_static()
  std::string ToString() const;
};

// Bytes of the file that are kept as they are. `owner` keeps them alive.
struct RawBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// A GraphProto inside an attribute (If, Loop, Scan): kept as bytes, not executed. `captures` are the
// names of outer values that it uses.
struct Subgraph {
  RawBytes raw;
  std::vector<std::string> captures;
};

struct Attribute {
  using Data = std::variant<std::monostate /* a type Crease keeps but does not read */, int64_t, float, std::string,
                            Tensor, std::vector<int64_t>, std::vector<float>, std::vector<std::string>, Subgraph>;
  std::string name;
  Data data;
  RawBytes raw;  // the AttributeProto, empty for attributes that a pass made
};

struct Value {
  std::string name;  // unique in its graph
  TensorType type;
  std::optional<Tensor> constant;  // initializers; outputs of Constant nodes keep their node
  bool is_input = false;           // IR 3 initializers can be inputs as well
  RawBytes raw;                    // the TensorProto of an untouched initializer
};

struct Node {
  std::string op_type;
  std::string domain;             // "" is ai.onnx
  std::string name;               // may be empty; a file's need not be unique, a patch's are
  std::vector<ValueId> inputs;    // kNone where an optional one is absent
  std::vector<ValueId> outputs;   // likewise
  std::vector<ValueId> captured;  // outer values that its subgraphs use
  std::vector<Attribute> attributes;
  RawBytes raw;  // the NodeProto, kept for its unknown fields and doc_string

  const Attribute* FindAttribute(std::string_view attribute_name) const;
};

// What the file said besides the graph; the exporter writes it back.
struct ModelInfo {
  int64_t ir_version = 8;
  std::map<std::string, int64_t> opsets;  // domain -> version, "" is ai.onnx
  std::string producer_name, producer_version, graph_name;
  std::vector<std::pair<std::string, std::string>> metadata;
  RawBytes raw;  // the whole ModelProto, for the fields the exporter copies as they are

  int opset() const;  // of ai.onnx; 0 if not imported
};

class Patch;

class Graph {
 public:
  ModelInfo& info() { return info_; }
  const ModelInfo& info() const { return info_; }

  // Ids are stable: a removed node leaves a hole, nodes() skips none, alive() tells.
  int value_count() const { return static_cast<int>(values_.size()); }
  int node_count() const { return static_cast<int>(nodes_.size()); }
  const Value& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  bool alive(NodeId id) const { return alive_[static_cast<size_t>(id)]; }

  const std::vector<ValueId>& inputs() const { return inputs_; }    // in the file's order
  const std::vector<ValueId>& outputs() const { return outputs_; }  // likewise
  bool is_output(ValueId id) const;

  NodeId producer(ValueId id) const { return producer_[static_cast<size_t>(id)]; }  // or kNone
  // Nodes that read the value, once for every input slot (or captured use) that does.
  std::span<const NodeId> consumers(ValueId id) const { return consumers_[static_cast<size_t>(id)]; }
  // Uses by nodes, plus one for each time it is a graph output.
  int use_count(ValueId id) const;

  // The constant of an initializer, or of a Constant node's output; null if neither. A value that a
  // caller may overwrite (an IR 3 initializer that is also an input) counts as constant: that is its
  // default, and folding states that it used it.
  const Tensor* constant(ValueId id) const;

  ValueId FindValue(std::string_view name) const;  // or kNone
  // Whether no new value may have the name: a value has it, or it is reserved.
  bool IsTaken(std::string_view name) const { return by_name_.contains(name) || reserved_names_.contains(name); }

  // Alive nodes, producers before consumers; ties in the file's order.
  const std::vector<NodeId>& topological_order() const { return order_; }

  // "Conv 'layer1.0.conv1' -> 'x_12'": how messages name a node (control characters escaped).
  std::string Describe(NodeId id) const;

 private:
  friend class GraphBuilder;
  friend class Patch;
  Result<void> Reindex();  // producers, consumers, order; fails on a cycle

  ModelInfo info_;
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<bool> alive_;
  std::vector<ValueId> inputs_, outputs_;
  std::vector<NodeId> producer_;
  std::vector<std::vector<NodeId>> consumers_;
  std::vector<NodeId> order_;
  std::map<std::string, ValueId, std::less<>> by_name_;
  std::set<std::string, std::less<>> reserved_names_;
};

// Makes a Graph: the ONNX importer, and tests. Names must be unique; Build checks the whole.
class GraphBuilder {
 public:
  GraphBuilder();
  ModelInfo& info() { return graph_.info_; }
  // The value of that name, made if new.
  ValueId GetOrAddValue(std::string_view name);
  bool HasValue(std::string_view name) const { return graph_.FindValue(name) != kNone; }
  Value& value(ValueId id) { return graph_.values_[static_cast<size_t>(id)]; }
  // Keeps a name from new values: one that a subgraph makes, or that the file says something else of. Returns
  // how many are reserved.
  size_t ReserveName(std::string name);
  ValueId AddInput(std::string_view name, TensorType type);
  ValueId AddConstant(std::string_view name, Tensor tensor);
  void AddOutput(ValueId id);
  NodeId AddNode(Node node);
  // Short form for tests: one output of the given name.
  ValueId Add(std::string_view op_type, std::vector<ValueId> inputs, std::string_view output_name,
              std::vector<Attribute> attributes = {});
  // Errors: a value made twice, an input that nothing makes, an output that nothing makes, a cycle
  // (printed), all named.
  Result<Graph> Build() &&;

 private:
  Graph graph_;
};

// Structure only: every value has one origin, every use exists, no cycle. O(nodes + edges).
Result<void> Validate(const Graph& graph);

bool IsUtf8(std::string_view text);

// A name for messages: control characters and invalid UTF-8 escaped, cut past 200 bytes.
std::string Printable(std::string_view name);

}  // namespace crease
