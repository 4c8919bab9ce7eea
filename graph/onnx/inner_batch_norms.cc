// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/inner_batch_norms.h"

#include "graph/onnx/schema.h"
#include "graph/onnx/wire.h"

namespace crease {
namespace onnx {
namespace {

// The importer refuses subgraphs that nest deeper; functions it does not read.
constexpr int kDeepest = 50;

class Finder {
 public:
  explicit Finder(std::vector<InnerBatchNorm>* found) : found_(found) {}

  // Of a GraphProto or a FunctionProto, whose nodes have this number.
  void Nodes(ByteSpan message, uint32_t number, const std::string& inside, int depth) {
    if (depth > kDeepest) return;
    WireReader reader(message, message.data());
    for (Field field; reader.Next(&field);) {
      if (field.number == number) Node(reader.Bytes(field), inside, depth);
    }
  }

  // Of an AttributeProto that holds graphs.
  void Attribute(ByteSpan message, const std::string& inside, int depth) {
    WireReader reader(message, message.data());
    for (Field field; reader.Next(&field);) {
      const bool graph = field.number == kAttributeG || field.number == kAttributeGraphs;
      if (graph) Nodes(reader.Bytes(field), kGraphNode, inside, depth + 1);
    }
  }

 private:
  void Node(ByteSpan message, const std::string& inside, int depth) {
    InnerBatchNorm node{"", inside};
    std::string_view op_type, domain, output;
    WireReader reader(message, message.data());
    for (Field field; reader.Next(&field);) {
      if (field.number == kNodeName) node.name = std::string(reader.String(field));
      if (field.number == kNodeOpType) op_type = reader.String(field);
      if (field.number == kNodeDomain) domain = reader.String(field);
      if (field.number == kNodeOutput && output.empty()) output = reader.String(field);
      if (field.number != kNodeAttribute) continue;
      node.training = node.training || IsTraining(reader.Bytes(field));
      Attribute(reader.Bytes(field), inside, depth);
    }
    if (op_type != "BatchNormalization" || !(domain.empty() || domain == "ai.onnx")) return;
    if (node.name.empty()) node.name = std::string(output);
    found_->push_back(std::move(node));
  }

  static bool IsTraining(ByteSpan attribute) {
    std::string_view name;
    int64_t value = 0;
    WireReader reader(attribute, attribute.data());
    for (Field field; reader.Next(&field);) {
      if (field.number == kAttributeName) name = reader.String(field);
      if (field.number == kAttributeI) value = reader.Int(field);
    }
    return name == "training_mode" && value != 0;
  }

  std::vector<InnerBatchNorm>* found_;
};

}  // namespace
}  // namespace onnx

std::vector<InnerBatchNorm> InnerBatchNorms(const Graph& graph) {
  std::vector<InnerBatchNorm> found;
  onnx::Finder finder(&found);
  for (NodeId id : graph.topological_order()) {
    for (const Attribute& attribute : graph.node(id).attributes) {
      finder.Attribute(attribute.raw.bytes, graph.Describe(id), 0);
    }
  }
  const onnx::ByteSpan model = graph.info().raw.bytes;
  onnx::WireReader reader(model, model.data());
  for (onnx::Field field; reader.Next(&field);) {
    if (field.number != onnx::kModelFunctions) continue;
    std::string name;
    onnx::WireReader function = reader.Message(field);
    for (onnx::Field inner; function.Next(&inner);) {
      if (inner.number == onnx::kFunctionName) name = std::string(function.String(inner));
    }
    finder.Nodes(reader.Bytes(field), onnx::kFunctionNode, "function '" + Printable(name) + "'", 1);
  }
  return found;
}

}  // namespace crease
