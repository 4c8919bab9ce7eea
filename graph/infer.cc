// SPDX-License-Identifier: Apache-2.0
// Types of every value of a graph, and the small integer values that shapes are made of.
#include <algorithm>
#include <optional>

#include "graph/op.h"
#include "graph/ops/common.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/shape_values.h"

namespace crease {
namespace {

// Floats are computed for shape arithmetic only (scales of a Resize), so that weights made by operators
// cost nothing here.
constexpr int64_t kMaxComputedElements = 1024;
constexpr int64_t kMaxComputedFloats = 64;

class Inference {
 public:
  Inference(const Graph& graph, bool strict) : graph_(graph), opset_(graph.info().opset()), strict_(strict) {
    const auto count = static_cast<size_t>(graph.value_count());
    known_.types.resize(count);
    known_.constants.resize(count);
    partial_.resize(count);
  }

  Result<InferredTypes> Run(std::span<const InputOverride> overrides) {
    SetOrigins(overrides);
    for (const NodeId id : graph_.topological_order()) {
      const Node& node = graph_.node(id);
      // The folding tool keeps operators that Crease does not know, or does not know in this form: nothing is known
      // behind them.
      if (!FindOp(node.domain, node.op_type, opset_)) continue;
      Result<void> inferred = InferNode(node);
      if (inferred.ok() || (!strict_ && inferred.error().code == ErrorCode::kUnsupported)) continue;
      Error error = std::move(inferred).error();
      error.where = graph_.Describe(id);
      return error;
    }
    return std::move(known_);
  }

 private:
  // Graph inputs, initializers.
  void SetOrigins(std::span<const InputOverride> overrides) {
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      const Value& value = graph_.value(id);
      const auto i = static_cast<size_t>(id);
      if (value.is_input) known_.types[i] = value.type;
      if (!value.constant) continue;
      known_.types[i] = TensorType::Of(value.constant->dtype(), value.constant->shape());
      known_.constants[i] = *value.constant;
    }
    for (const InputOverride& entry : overrides) {
      known_.types[static_cast<size_t>(entry.value)] = entry.type;
      known_.constants[static_cast<size_t>(entry.value)] = Tensor();  // an IR 3 default that the caller replaces
    }
  }

  struct NodeInputs {
    std::vector<const TensorType*> types;
    std::vector<const Tensor*> constants;
    std::vector<const ops::ShapeValue*> partial;
    bool all_known = true;
    bool small = true;
  };

  NodeInputs InputsOf(const Node& node) const {
    NodeInputs inputs;
    for (const ValueId id : node.inputs) {
      const auto i = static_cast<size_t>(id);
      const bool present = id != kNone;
      const Tensor* constant = present && known_.constants[i].defined() ? &known_.constants[i] : nullptr;
      inputs.types.push_back(present ? &known_.types[i] : nullptr);
      inputs.constants.push_back(constant);
      inputs.partial.push_back(present && !constant && partial_[i] ? &*partial_[i] : nullptr);
      inputs.all_known = inputs.all_known && (!present || constant);
      inputs.small = inputs.small && (!constant || constant->size() <= kMaxComputedElements);
    }
    return inputs;
  }

  Result<void> InferNode(const Node& node) {
    CREASE_ASSIGN_OR_RETURN(const OpDef* op, ops::FindDefinition(node, opset_));
    const NodeInputs inputs = InputsOf(node);
    std::vector<TensorType> outputs(node.outputs.size());
    InferContext context(node, opset_, inputs.types, inputs.constants, outputs, inputs.partial, strict_);
    CREASE_RETURN_IF_ERROR(op->infer(context));
    for (const TensorType& type : outputs) {
      if (type.is_static()) CREASE_RETURN_IF_ERROR(ElementCount(type.shape()));
    }
    CREASE_RETURN_IF_ERROR(Compute(*op, node, inputs, outputs));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i] != kNone) known_.types[static_cast<size_t>(node.outputs[i])] = std::move(outputs[i]);
    }
    return {};
  }

  Result<void> Compute(const OpDef& op, const Node& node, const NodeInputs& inputs,
                       const std::vector<TensorType>& outputs) {
    if (node.op_type == "Constant" && node.outputs[0] != kNone) {
      if (const Tensor* constant = graph_.constant(node.outputs[0])) {
        Keep(node.outputs[0], *constant);
        return {};
      }
    }
    if (inputs.all_known && inputs.small && SmallOutputs(node, outputs)) {
      CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> values,
                              ops::EvaluateRounded(op, node, opset_, inputs.constants));
      for (size_t i = 0; i < values.size(); ++i) {
        if (node.outputs[i] != kNone && values[i].defined()) Keep(node.outputs[i], values[i]);
      }
      return {};
    }
    if (node.outputs.empty() || node.outputs[0] == kNone) return {};
    std::optional<ops::ShapeValue> value =
        ops::ComputeShapeValue({node, opset_, inputs.types, inputs.constants, inputs.partial, outputs[0]});
    if (!value) return {};
    const auto i = static_cast<size_t>(node.outputs[0]);
    if (const std::optional<Tensor> tensor = ops::KnownTensor(*value, outputs[0])) {
      known_.constants[i] = *tensor;
    } else {
      partial_[i] = std::move(value);
    }
    return {};
  }

  void Keep(ValueId id, const Tensor& tensor) { known_.constants[static_cast<size_t>(id)] = tensor; }

  static bool SmallOutputs(const Node& node, const std::vector<TensorType>& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i] == kNone) continue;
      if (!outputs[i].is_static()) return false;
      const Result<int64_t> count = ElementCount(outputs[i].shape());
      if (!count.ok() || *count > (IsFloat(outputs[i].dtype) ? kMaxComputedFloats : kMaxComputedElements)) return false;
    }
    return true;
  }

  const Graph& graph_;
  const int opset_;
  const bool strict_;
  InferredTypes known_;
  std::vector<std::optional<ops::ShapeValue>> partial_;
};

}  // namespace

Result<InferredTypes> InferTypes(const Graph& graph, std::span<const InputOverride> overrides, bool strict) {
  return Inference(graph, strict).Run(overrides);
}

}  // namespace crease
