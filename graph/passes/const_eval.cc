// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/const_eval.h"

#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/evaluate.h"
#include "graph/passes/unrounded.h"

namespace crease {
namespace {

// A ConstantOfShape without its double twin: some exporters leave out whole networks' weights this way.
Result<Tensor> Splat(const Node& node, const TensorType& type) {
  const Attribute* attribute = node.FindAttribute("value");
  const Tensor* value = attribute != nullptr ? std::get_if<Tensor>(&attribute->data) : nullptr;
  CREASE_ASSIGN_OR_RETURN(Tensor result, Tensor::Allocate(DType::kFloat32, type.shape()));
  if (value == nullptr || result.size() == 0) return result;
  std::fill_n(result.mutable_data<float>(), result.size(), value->elements<float>()[0]);
  return result;
}

bool IsSplat(const Node& node, DType dtype) {
  if (node.op_type != "ConstantOfShape" || !node.domain.empty() || dtype != DType::kFloat32) return false;
  const Attribute* attribute = node.FindAttribute("value");
  const Tensor* value = attribute != nullptr ? std::get_if<Tensor>(&attribute->data) : nullptr;
  return attribute == nullptr || (value != nullptr && value->dtype() == DType::kFloat32 && value->size() == 1);
}

bool IsConstantNode(const Node& node) { return node.op_type == "Constant" && node.domain.empty(); }

}  // namespace

ConstEval::ConstEval(const Graph& graph, const InferredTypes& types, const fold::Unrounded* unrounded,
                     int64_t max_elements)
    : graph_(graph),
      types_(types),
      unrounded_(unrounded),
      max_elements_(max_elements),
      constant_(static_cast<size_t>(graph.value_count()), false),
      memo_(static_cast<size_t>(graph.value_count())),
      failed_(static_cast<size_t>(graph.node_count()), false) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    constant_[static_cast<size_t>(id)] = graph.constant(id) != nullptr;
  }
  const int opset = graph.info().opset();
  for (NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    if (IsConstantNode(node) || !node.captured.empty() || node.inputs.empty()) continue;
    bool known = true;
    for (size_t i = 0; known && i < node.inputs.size(); ++i) known = !Needs(node, i) || IsConstant(node.inputs[i]);
    if (!known) continue;
    const OpDef* op = FindOp(node.domain, node.op_type, opset);
    if (op == nullptr || op->eval == nullptr) continue;
    for (ValueId output : node.outputs) {
      if (output != kNone) constant_[static_cast<size_t>(output)] = true;
    }
  }
}

bool ConstEval::Needs(const Node& node, size_t slot) const {
  return node.inputs[slot] != kNone &&
         !(ops::ReadsTypeAlone(node, slot) && dtype(node.inputs[slot]) != DType::kUndefined);
}

DType ConstEval::dtype(ValueId id) const {
  const Tensor* stored = graph_.constant(id);
  return stored != nullptr ? stored->dtype() : types_.types[static_cast<size_t>(id)].dtype;
}

const Tensor* ConstEval::Get(ValueId id) {
  if (!IsConstant(id)) return nullptr;
  if (const Tensor* stored = graph_.constant(id)) {
    const fold::ScaledTensor* exact = unrounded_ != nullptr ? unrounded_->Find(id) : nullptr;
    return exact != nullptr && exact->factors.empty() ? &exact->base : stored;
  }
  Tensor& memo = memo_[static_cast<size_t>(id)];
  // Depth first with a stack of its own: constant chains may be as long as a file likes.
  std::vector<NodeId> stack;
  if (!memo.defined()) stack.push_back(graph_.producer(id));
  while (!stack.empty()) {
    const NodeId node_id = stack.back();
    NodeId missing = kNone;
    const Node& node = graph_.node(node_id);
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId input = node.inputs[i];
      if (!Needs(node, i) || graph_.constant(input) != nullptr) continue;
      if (memo_[static_cast<size_t>(input)].defined()) continue;
      missing = graph_.producer(input);
      if (failed_[static_cast<size_t>(missing)]) return nullptr;
      break;
    }
    if (missing != kNone) {
      stack.push_back(missing);
      continue;
    }
    if (failed_[static_cast<size_t>(node_id)] || !Evaluate(node_id)) {
      failed_[static_cast<size_t>(node_id)] = true;
      return nullptr;
    }
    stack.pop_back();
  }
  return memo.defined() ? &memo : nullptr;
}

bool ConstEval::Evaluate(NodeId id) {
  const Node& node = graph_.node(id);
  for (ValueId output : node.outputs) {
    if (output == kNone) continue;
    const TensorType& type = types_.types[static_cast<size_t>(output)];
    if (!type.is_static()) return false;
    const Result<int64_t> count = ElementCount(type.shape());
    if (!count.ok() || *count > max_elements_) return false;
  }
  if (IsSplat(node, types_.types[static_cast<size_t>(node.outputs[0])].dtype)) {
    Result<Tensor> splat = Splat(node, types_.types[static_cast<size_t>(node.outputs[0])]);
    if (splat.ok()) memo_[static_cast<size_t>(node.outputs[0])] = std::move(splat).value();
    return splat.ok();
  }
  std::vector<const Tensor*> inputs(node.inputs.size(), nullptr);
  Tensor of_type;  // in place of an input whose type alone matters
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId input = node.inputs[i];
    if (input == kNone) continue;
    if (!Needs(node, i)) {
      Result<Tensor> empty = Tensor::Allocate(dtype(input), {0});
      if (!empty.ok()) return false;
      of_type = std::move(empty).value();
      inputs[i] = &of_type;
      continue;
    }
    inputs[i] = graph_.constant(input);
    if (inputs[i] == nullptr) inputs[i] = &memo_[static_cast<size_t>(input)];
  }
  const int opset = graph_.info().opset();
  const OpDef* op = FindOp(node.domain, node.op_type, opset);
  const Result<std::vector<Tensor>> outputs = ops::EvaluateRounded(*op, node, opset, inputs);
  if (!outputs.ok() || outputs->size() > node.outputs.size()) return false;
  for (size_t i = 0; i < outputs->size(); ++i) {
    if (node.outputs[i] != kNone) memo_[static_cast<size_t>(node.outputs[i])] = (*outputs)[i];
  }
  for (ValueId output : node.outputs) {
    if (output != kNone && !memo_[static_cast<size_t>(output)].defined()) return false;
  }
  return true;
}

}  // namespace crease
