// SPDX-License-Identifier: Apache-2.0
#include "tests/support/magnitude.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "graph/op.h"

namespace crease::testing {
namespace {

Tensor Map(const Tensor& tensor, const std::function<double(double)>& f) {
  if (!IsFloat(tensor.dtype())) return tensor;
  std::vector<double> values(static_cast<size_t>(tensor.size()));
  for (int64_t i = 0; i < tensor.size(); ++i) values[static_cast<size_t>(i)] = f(tensor.AsDouble(i));
  return *Tensor::From<double>(tensor.shape(), std::span<const double>(values)).ConvertedTo(tensor.dtype());
}

Tensor Magnitude(const Tensor& tensor) {
  return Map(tensor, [](double v) { return std::abs(v); });
}

class Builder {
 public:
  explicit Builder(const Graph& graph) : graph_(graph) { builder_.info() = graph.info(); }

  Result<Graph> Build() && {
    for (ValueId id : graph_.inputs()) builder_.AddInput(graph_.value(id).name, graph_.value(id).type);
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      const Value& value = graph_.value(id);
      if (value.constant) builder_.AddConstant(value.name, Magnitude(*value.constant));
    }
    for (NodeId id : graph_.topological_order()) AddNode(graph_.node(id));
    for (ValueId id : graph_.outputs()) builder_.AddOutput(ValueOf(id));
    return std::move(builder_).Build();
  }

 private:
  ValueId ValueOf(ValueId id) { return id == kNone ? kNone : builder_.GetOrAddValue(graph_.value(id).name); }

  void AddNode(Node node) {
    const std::string& out = graph_.value(node.outputs[0]).name;
    const Tensor* last = node.inputs.empty() ? nullptr : graph_.constant(node.inputs.back());
    if (node.op_type == "PRelu") {
      const Tensor slopes = Map(*last, [](double v) { return std::max(1.0, std::abs(v)); });
      node.op_type = "Mul";
      return Add(node, {ValueOf(node.inputs[0]), builder_.AddConstant(out + "_slopes", slopes)});
    }
    if (node.op_type == "Sigmoid") {
      const TensorType& type = graph_.value(graph_.inputs()[0]).type;
      const Tensor one = *Tensor::Scalar(1.0).ConvertedTo(type.dtype);
      node.op_type = "Add";
      return Add(node, {ValueOf(node.inputs[0]), builder_.AddConstant(out + "_one", one)});
    }
    std::vector<ValueId> inputs;
    for (ValueId input : node.inputs) inputs.push_back(ValueOf(input));
    if (node.op_type == "BatchNormalization") {
      const Tensor mean = Map(*graph_.constant(node.inputs[3]), [](double v) { return -std::abs(v); });
      inputs[3] = builder_.AddConstant(out + "_mean", mean);
    }
    if (node.op_type == "Relu" || node.op_type == "LeakyRelu") {
      node.op_type = "Identity";
      node.attributes.clear();
    }
    if (node.op_type == "Sub") node.op_type = "Add";
    for (Attribute& attribute : node.attributes) {
      if (float* number = std::get_if<float>(&attribute.data)) *number = std::abs(*number);
      if (Tensor* tensor = std::get_if<Tensor>(&attribute.data)) *tensor = Magnitude(*tensor);
    }
    Add(node, std::move(inputs));
  }

  void Add(Node node, std::vector<ValueId> inputs) {
    node.inputs = std::move(inputs);
    for (ValueId& output : node.outputs) output = ValueOf(output);
    builder_.AddNode(std::move(node));
  }

  const Graph& graph_;
  GraphBuilder builder_;
};

}  // namespace

Result<Graph> MagnitudeGraph(const Graph& graph) { return Builder(graph).Build(); }

std::map<std::string, Tensor> Magnitudes(const std::map<std::string, Tensor>& inputs) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : inputs) result[name] = Magnitude(tensor);
  return result;
}

}  // namespace crease::testing
