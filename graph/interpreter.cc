// SPDX-License-Identifier: Apache-2.0
#include "graph/interpreter.h"

#include <algorithm>

#include "graph/op.h"
#include "graph/ops/common.h"
#include "graph/ops/evaluate.h"

namespace crease {
namespace {

class Interpreter {
 public:
  Interpreter(const Graph& graph, const InterpretOptions& options)
      : graph_(graph),
        options_(options),
        opset_(graph.info().opset()),
        values_(static_cast<size_t>(graph.value_count())),
        known_(static_cast<size_t>(graph.value_count())),
        uses_left_(static_cast<size_t>(graph.value_count())) {
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      known_[static_cast<size_t>(id)] = graph.constant(id) != nullptr;
      uses_left_[static_cast<size_t>(id)] = graph.use_count(id);
    }
  }

  Result<std::vector<Tensor>> Run(const std::map<std::string, Tensor>& inputs) {
    CREASE_RETURN_IF_ERROR(TakeInputs(inputs));
    CREASE_ASSIGN_OR_RETURN(inferred_, InferTypes(graph_, overrides_));
    for (const NodeId id : graph_.topological_order()) {
      Result<void> done = RunNode(graph_.node(id));
      if (done.ok()) continue;
      Error error = std::move(done).error();
      error.where = graph_.Describe(id);
      return error;
    }
    std::vector<Tensor> outputs;
    for (const ValueId id : graph_.outputs()) {
      CREASE_ASSIGN_OR_RETURN(Tensor output, ValueOf(id));
      outputs.push_back(std::move(output));
    }
    return outputs;
  }

 private:
  static Error BadInput(std::string_view name, std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message), ops::StrCat("input '", Printable(name), "'")};
  }

  static Result<void> CheckInput(const Value& value, const Tensor& tensor) {
    const TensorType& type = value.type;
    const bool floats = IsFloat(type.dtype) && IsFloat(tensor.dtype());
    if (type.dtype != DType::kUndefined && type.dtype != tensor.dtype() && !floats) {
      return BadInput(value.name, ops::StrCat("expected ", Name(type.dtype), ", found ", Name(tensor.dtype())));
    }
    bool fits = !type.has_rank || type.rank() == tensor.rank();
    for (int axis = 0; fits && type.has_rank && axis < tensor.rank(); ++axis) {
      const Dim& dim = type.dims[static_cast<size_t>(axis)];
      fits = !dim.known() || dim.value == tensor.dim(axis);
    }
    if (fits) return {};
    return BadInput(value.name, ops::StrCat("expected ", type.ToString(), ", found ", ToString(tensor.shape())));
  }

  Result<void> TakeInputs(const std::map<std::string, Tensor>& inputs) {
    for (const auto& [name, tensor] : inputs) {
      const ValueId id = graph_.FindValue(name);
      if (id == kNone || !graph_.value(id).is_input) return BadInput(name, "the graph has no such input");
    }
    for (const ValueId id : graph_.inputs()) {
      const Value& value = graph_.value(id);
      const auto found = inputs.find(value.name);
      if (found == inputs.end()) {
        if (value.constant) continue;
        return BadInput(value.name, "no value is given");
      }
      CREASE_RETURN_IF_ERROR(CheckInput(value, found->second));
      const DType dtype = value.type.dtype == DType::kUndefined ? found->second.dtype() : value.type.dtype;
      overrides_.push_back({id, TensorType::Of(dtype, found->second.shape())});
      known_[static_cast<size_t>(id)] = false;
      CREASE_ASSIGN_OR_RETURN(values_[static_cast<size_t>(id)], InDouble(found->second));
    }
    return {};
  }

  static Result<Tensor> InDouble(const Tensor& tensor) {
    if (IsFloat(tensor.dtype())) return tensor.ConvertedTo(DType::kFloat64);
    return tensor.Aligned();
  }

  // A computed value, or a constant in double precision.
  Result<Tensor> ValueOf(ValueId id) const {
    const auto i = static_cast<size_t>(id);
    if (values_[i].defined()) return values_[i];
    if (const Tensor* constant = graph_.constant(id)) return InDouble(*constant);
    return Error{ErrorCode::kInternal, ops::StrCat("value '", Printable(graph_.value(id).name), "' is not computed"),
                 ""};
  }

  // Whether the outputs are constants once shapes are known.
  bool IsKnown(const Node& node) const {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      if (id != kNone && !known_[static_cast<size_t>(id)] && ops::ReadsElements(node, i)) return false;
    }
    return true;
  }

  // Constants, and the shapes that come of them, are those that the network in its own precision makes: a
  // Floor, Cast or Equal could tell, and a fold has written them as they are there.
  Result<void> RoundConstant(ValueId id, Tensor& tensor) {
    known_[static_cast<size_t>(id)] = true;
    const DType dtype = inferred_.types[static_cast<size_t>(id)].dtype;
    if (!IsFloat(dtype) || dtype == tensor.dtype()) return {};
    CREASE_ASSIGN_OR_RETURN(tensor, tensor.ConvertedTo(dtype));
    CREASE_ASSIGN_OR_RETURN(tensor, InDouble(tensor));
    return {};
  }

  Result<void> RunNode(const Node& node) {
    CREASE_ASSIGN_OR_RETURN(const OpDef* op, ops::FindDefinition(node, opset_));
    std::vector<Tensor> inputs(node.inputs.size());
    std::vector<const Tensor*> pointers(node.inputs.size(), nullptr);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (node.inputs[i] == kNone) continue;
      CREASE_ASSIGN_OR_RETURN(inputs[i], ValueOf(node.inputs[i]));
      pointers[i] = &inputs[i];
    }
    CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, ops::EvaluateInDouble(*op, node, opset_, pointers));
    const bool known = !node.inputs.empty() && IsKnown(node);  // a Constant node has its type's values already
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i) {
      const ValueId id = node.outputs[i];
      if (id == kNone || !outputs[i].defined()) continue;
      if (known) CREASE_RETURN_IF_ERROR(RoundConstant(id, outputs[i]));
      if (options_.on_value) options_.on_value(id, outputs[i]);
      if (uses_left_[static_cast<size_t>(id)] > 0) values_[static_cast<size_t>(id)] = std::move(outputs[i]);
    }
    for (const ValueId id : node.inputs) {
      if (id != kNone && --uses_left_[static_cast<size_t>(id)] == 0) values_[static_cast<size_t>(id)] = Tensor();
    }
    return {};
  }

  const Graph& graph_;
  const InterpretOptions& options_;
  const int opset_;
  std::vector<InputOverride> overrides_;
  InferredTypes inferred_;
  std::vector<Tensor> values_;  // by ValueId; undefined before and after their life
  std::vector<bool> known_;     // by ValueId: made of constants and shapes alone
  std::vector<int> uses_left_;
};

}  // namespace

Result<std::vector<Tensor>> Interpret(const Graph& graph, const std::map<std::string, Tensor>& inputs,
                                      const InterpretOptions& options) {
  return Interpreter(graph, options).Run(inputs);
}

}  // namespace crease
