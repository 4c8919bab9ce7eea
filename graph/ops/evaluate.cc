// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/evaluate.h"

#include "graph/interpreter.h"
#include "graph/ops/common.h"

namespace crease::ops {
namespace {

std::string Bounds(int low, int high) {
  if (high < 0) return StrCat(low, " or more");
  return low == high ? StrCat(low) : StrCat(low, " to ", high);
}

Result<void> CheckCount(const char* what, size_t count, int low, int high) {
  if (count >= static_cast<size_t>(low) && (high < 0 || count <= static_cast<size_t>(high))) return {};
  return InvalidModel("expected ", Bounds(low, high), " ", what, ", found ", count);
}

}  // namespace

Result<const OpDef*> FindDefinition(const Node& node, int opset) {
  const OpDef* op = FindOp(node.domain, node.op_type, opset);
  if (!op) {
    return Unsupported("unknown operator ",
                       node.domain.empty() ? "" : Printable(node.domain) + "::", Printable(node.op_type), " at opset ",
                       opset);
  }
  CREASE_RETURN_IF_ERROR(CheckCount("inputs", node.inputs.size(), op->min_inputs, op->max_inputs));
  CREASE_RETURN_IF_ERROR(CheckCount("outputs", node.outputs.size(), op->min_outputs, op->max_outputs));
  const size_t required = op->max_inputs < 0 ? node.inputs.size() : static_cast<size_t>(op->min_inputs);
  for (size_t i = 0; i < required; ++i) {
    if (node.inputs[i] == kNone) return InvalidModel("input ", i, " is required, it is absent");
  }
  return op;
}

Result<std::vector<Tensor>> EvaluateInDouble(const OpDef& op, const Node& node, int opset,
                                             std::span<const Tensor* const> inputs) {
  std::vector<Tensor> converted(inputs.size());
  std::vector<const Tensor*> pointers(inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]) continue;
    if (IsFloat(inputs[i]->dtype())) {
      CREASE_ASSIGN_OR_RETURN(converted[i], inputs[i]->ConvertedTo(DType::kFloat64));
    } else {
      converted[i] = *inputs[i];
    }
    CREASE_ASSIGN_OR_RETURN(converted[i], converted[i].Aligned());
    pointers[i] = &converted[i];
  }
  return op.eval(EvalContext{node, opset, pointers, static_cast<int>(node.outputs.size())});
}

Result<std::vector<Tensor>> EvaluateRounded(const OpDef& op, const Node& node, int opset,
                                            std::span<const Tensor* const> inputs) {
  std::vector<TensorType> types(inputs.size()), output_types(node.outputs.size());
  std::vector<const TensorType*> pointers(inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]) continue;
    types[i] = TensorType::Of(inputs[i]->dtype(), inputs[i]->shape());
    pointers[i] = &types[i];
  }
  InferContext context(node, opset, pointers, inputs, output_types);
  CREASE_RETURN_IF_ERROR(op.infer(context));
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, EvaluateInDouble(op, node, opset, inputs));
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].defined()) continue;
    CREASE_ASSIGN_OR_RETURN(outputs[i], outputs[i].ConvertedTo(output_types[i].dtype));
  }
  return outputs;
}

}  // namespace crease::ops

namespace crease {

Result<std::vector<Tensor>> EvaluateNode(const Node& node, int opset, std::span<const Tensor* const> inputs) {
  CREASE_ASSIGN_OR_RETURN(const OpDef* op, ops::FindDefinition(node, opset));
  return ops::EvaluateRounded(*op, node, opset, inputs);
}

}  // namespace crease
