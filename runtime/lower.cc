// SPDX-License-Identifier: Apache-2.0
#include "runtime/lower.h"

#include <algorithm>

#include "graph/op.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

// Constants computed while lowering are kept for the session: only what shape code and small tables need.
constexpr int64_t kMaxComputedElements = int64_t{1} << 22;

class Lowering {
 public:
  Lowering(const Graph& graph, ConstantPool& constants, const Limits& limits)
      : graph_(graph), constants_(constants), limits_(limits) {}

  Result<Program> Run(std::span<const Shape> input_shapes) {
    std::vector<InputOverride> overrides;
    program_.inputs = RequiredInputs(graph_);
    for (size_t i = 0; i < program_.inputs.size(); ++i) {
      const ValueId id = program_.inputs[i];
      overrides.push_back({id, TensorType::Of(graph_.value(id).type.dtype, input_shapes[i])});
    }
    CREASE_ASSIGN_OR_RETURN(types_, InferTypes(graph_, overrides));
    program_.opset = graph_.info().opset();
    program_.outputs = graph_.outputs();
    AddValues();
    for (const NodeId id : graph_.topological_order()) CREASE_RETURN_IF_ERROR(AddNode(id));
    program_.Compact();
    CREASE_RETURN_IF_ERROR(CheckValues());
    return std::move(program_);
  }

 private:
  void AddValues() {
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      const Value& value = graph_.value(id);
      const TensorType& type = types_.types[static_cast<size_t>(id)];
      program_.values.push_back({value.name, type.dtype, type.is_static() ? type.shape() : Shape{}, {}});
      if (const Tensor* constant = graph_.constant(id)) {
        program_.values.back().constant = *constant;
      } else if (const Tensor& computed = types_.constants[static_cast<size_t>(id)]; computed.defined()) {
        program_.values.back().constant = constants_.Intern(computed);
      }
    }
  }

  Result<void> AddNode(NodeId id) {
    const Node& node = graph_.node(id);
    const auto known = [&](ValueId value) { return value == kNone || program_.constant(value); };
    if (std::all_of(node.outputs.begin(), node.outputs.end(), known)) return {};
    const OpDef* def = FindOp(node.domain, node.op_type, program_.opset);
    if (def == nullptr) {
      return Error{ErrorCode::kUnsupported, "operator is not supported in opset " + std::to_string(program_.opset),
                   graph_.Describe(id)};
    }
    if (std::all_of(node.inputs.begin(), node.inputs.end(), known) && node.captured.empty()) {
      CREASE_ASSIGN_OR_RETURN(const bool done, Compute(node, *def, id));
      if (done) return {};
    }
    ProgramOp op;
    op.node.op_type = node.op_type;
    op.node.domain = node.domain;
    op.node.name = node.name;
    op.node.inputs = node.inputs;
    op.node.outputs = node.outputs;
    op.node.attributes = node.attributes;
    program_.ops.push_back(std::move(op));
    return {};
  }

  // Evaluates a node of constants. False: too large to keep, or without a definition to evaluate by.
  Result<bool> Compute(const Node& node, const OpDef& def, NodeId id) {
    if (def.eval == nullptr) return false;
    for (const ValueId out : node.outputs) {
      if (out == kNone) continue;
      const TensorType& type = types_.types[static_cast<size_t>(out)];
      if (!type.is_static()) return false;
      CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(type.shape()));
      if (count > kMaxComputedElements) return false;
    }
    std::vector<Tensor> widened(node.inputs.size());
    std::vector<const Tensor*> inputs(node.inputs.size(), nullptr);
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Tensor* constant = program_.constant(node.inputs[i]);
      if (constant == nullptr) continue;
      CREASE_ASSIGN_OR_RETURN(widened[i], constant->Aligned());
      if (IsFloat(constant->dtype())) {
        CREASE_ASSIGN_OR_RETURN(widened[i], constant->ConvertedTo(DType::kFloat64));
      }
      inputs[i] = &widened[i];
    }
    const EvalContext context{node, program_.opset, inputs, static_cast<int>(node.outputs.size())};
    Result<std::vector<Tensor>> results = def.eval(context);
    if (!results.ok()) {
      Error error = std::move(results).error();
      if (error.where.empty()) error.where = graph_.Describe(id);
      return error;
    }
    for (size_t i = 0; i < node.outputs.size() && i < results->size(); ++i) {
      if (node.outputs[i] == kNone) continue;
      ProgramValue& value = program_.values[static_cast<size_t>(node.outputs[i])];
      Tensor result = (*results)[i];
      if (result.dtype() != value.dtype && value.dtype != DType::kUndefined) {
        CREASE_ASSIGN_OR_RETURN(result, result.ConvertedTo(value.dtype));
      }
      value.constant = constants_.Intern(result);
      value.shape = value.constant.shape();
      value.dtype = value.constant.dtype();
    }
    return true;
  }

  Result<void> CheckValues() const {
    const auto check = [&](ValueId id) -> Result<void> {
      if (id == kNone || program_.constant(id)) return {};
      const std::string where = "tensor '" + Printable(program_.value(id).name) + "'";
      const bool graph_value = id < graph_.value_count();
      const TensorType& type = types_.types[static_cast<size_t>(id)];
      if (graph_value && (!type.is_static() || type.dtype == DType::kUndefined)) {
        return Error{ErrorCode::kUnsupported, "its type is not known before the run: found " + type.ToString(), where};
      }
      if (type.rank() > kMaxRank) {
        return Error{ErrorCode::kLimitExceeded,
                     "rank " + std::to_string(type.rank()) + ", at most " + std::to_string(kMaxRank) + " is supported",
                     where};
      }
      CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(program_.value(id).shape));
      const int64_t size = static_cast<int64_t>(ByteSize(program_.value(id).dtype));
      if (count > limits_.max_tensor_bytes / std::max<int64_t>(size, 1)) {
        return Error{ErrorCode::kLimitExceeded,
                     "shape " + ToString(program_.value(id).shape) +
                         " needs more than max_tensor_bytes = " + std::to_string(limits_.max_tensor_bytes),
                     where};
      }
      return {};
    };
    for (const ProgramOp& op : program_.ops) {
      for (const ValueId id : op.node.inputs) CREASE_RETURN_IF_ERROR(check(id));
      for (const ValueId id : op.node.outputs) CREASE_RETURN_IF_ERROR(check(id));
    }
    for (const ValueId id : program_.outputs) CREASE_RETURN_IF_ERROR(check(id));
    return {};
  }

  const Graph& graph_;
  ConstantPool& constants_;
  const Limits& limits_;
  InferredTypes types_;
  Program program_;
};

}  // namespace

std::vector<ValueId> RequiredInputs(const Graph& graph) {
  std::vector<ValueId> required;
  for (const ValueId id : graph.inputs()) {
    if (graph.constant(id) == nullptr) required.push_back(id);
  }
  return required;
}

std::vector<ValueId> InputsWithDefaults(const Graph& graph) {
  constexpr int64_t kFirstIrWithDefaults = 4;
  std::vector<ValueId> defaults;
  if (graph.info().ir_version < kFirstIrWithDefaults) return defaults;
  std::copy_if(graph.inputs().begin(), graph.inputs().end(), std::back_inserter(defaults),
               [&](ValueId id) { return graph.constant(id) != nullptr; });
  return defaults;
}

Result<Program> Lower(const Graph& graph, std::span<const Shape> input_shapes, ConstantPool& constants,
                      const LowerOptions& options) {
  CREASE_ASSIGN_OR_RETURN(Program program, Lowering(graph, constants, options.limits).Run(input_shapes));
  if (options.fuse) {
    for (const FusionPass& pass : FusionPasses()) {
      pass.run(program, constants);
      program.Compact();
    }
  }
  return program;
}

}  // namespace crease
