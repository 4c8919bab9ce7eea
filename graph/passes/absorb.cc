// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/absorb.h"

#include "graph/ops/common.h"

namespace crease::fold {

using ops::StrCat;

Outcome<Weights> ConstantWeights(const FoldContext& context, NodeId id, size_t slot) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  const ValueId value = slot < node.inputs.size() ? node.inputs[slot] : kNone;
  if (value == kNone) return Refusal{"weights-not-constant", self, "it has no weights"};
  const NodeId made_by = context.graph.producer(value);
  if (made_by != kNone && context.graph.node(made_by).op_type == "DequantizeLinear") {
    return Refusal{"quantized-weights", self, "its weights come from DequantizeLinear"};
  }
  const std::string name = "'" + Printable(context.graph.value(value).name) + "'";
  const Tensor* tensor = context.constants.Get(value);
  if (tensor == nullptr)
    return Refusal{"weights-not-constant", self, StrCat("its weights ", name, " are not a constant")};
  const DType dtype = context.constants.dtype(value);
  if (!IsFloat(dtype) || !IsFloat(tensor->dtype())) {
    return Refusal{"quantized-weights", self, StrCat("its weights ", name, " are ", Name(dtype))};
  }
  return Weights{tensor, dtype};
}

Outcome<Weights> ConstantBias(const FoldContext& context, NodeId id, size_t slot) {
  const Node& node = context.graph.node(id);
  if (slot >= node.inputs.size() || node.inputs[slot] == kNone) return Weights{};
  const Tensor* tensor = context.constants.Get(node.inputs[slot]);
  if (tensor == nullptr || !IsFloat(tensor->dtype())) {
    return Refusal{"bias-not-constant", context.graph.Describe(id),
                   StrCat("its bias '", Printable(context.graph.value(node.inputs[slot]).name), "' is not a constant")};
  }
  return Weights{tensor, context.constants.dtype(node.inputs[slot])};
}

std::string NewName(const FoldContext& context, NodeId id, size_t slot, std::string_view suffix) {
  const Node& node = context.graph.node(id);
  const ValueId value = slot < node.inputs.size() ? node.inputs[slot] : kNone;
  return (value != kNone ? context.graph.value(value).name : node.name) + std::string(suffix);
}

void PlanInput(const FoldContext& context, NodeId id, size_t slot, Tensor tensor, const std::string& name,
               FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  plan.added_bytes += static_cast<int64_t>(tensor.byte_size());
  const ValueId old = slot < node.inputs.size() ? node.inputs[slot] : kNone;
  if (old != kNone && context.graph.use_count(old) == 1) {
    const Tensor* before = context.graph.constant(old);
    if (before != nullptr) plan.added_bytes -= static_cast<int64_t>(before->byte_size());
  }
  plan.Add([id, slot, tensor = std::move(tensor), name](Patch& patch, const FoldPlan&) {
    patch.ReplaceInput(id, static_cast<int>(slot), patch.AddConstant(name, tensor));
  });
}

int64_t InnerSize(const Tensor& tensor, int axis) {
  int64_t product = 1;
  for (int i = axis; i < tensor.rank(); ++i) product *= tensor.dim(i);
  return product;
}

Outcome<Affine> RequireChannels(const FoldContext& context, NodeId id, const Affine& map, int axis, int64_t channels) {
  const std::string self = context.graph.Describe(id);
  if (channels < 1) return Refusal{"parameter-length", self, "it has no channels"};
  if (!map.uniform() && map.axis != axis) {
    return Refusal{"axis-mismatch", self, StrCat("the map is along axis ", map.axis, ", the weights are along ", axis)};
  }
  if (!map.uniform() && static_cast<int64_t>(map.size()) != channels) {
    return Refusal{"parameter-length", self, StrCat(map.size(), " parameters for ", channels, " channels")};
  }
  return map.Broadcast(axis, static_cast<size_t>(channels));
}

Outcome<GemmBias> ReadGemmBias(const FoldContext& context, NodeId id, int64_t columns, DType, double beta) {
  Outcome<Weights> c = ConstantBias(context, id, 2);
  if (!c.ok()) return c.refusal();
  GemmBias bias;
  bias.values.assign(static_cast<size_t>(columns), 0.0);
  const Tensor* tensor = c->tensor;
  if (tensor == nullptr || beta == 0) return bias;
  const int rank = tensor->rank();
  const int64_t width = rank == 0 ? 1 : tensor->dim(rank - 1);
  bias.rows = rank < 2 ? 1 : tensor->dim(0);
  if (rank > 2 || (width != 1 && width != columns) || bias.rows < 1) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its C has an unexpected shape"};
  }
  bias.values.resize(static_cast<size_t>(bias.rows * columns));
  for (int64_t row = 0; row < bias.rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      bias.values[static_cast<size_t>(row * columns + column)] =
          beta * tensor->AsDouble(row * width + (width == 1 ? 0 : column));
    }
  }
  return bias;
}

void PlanGemm(const FoldContext& context, NodeId id, Tensor weights, Tensor bias, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  plan.Remade(node.outputs[0]);
  plan.added_bytes += static_cast<int64_t>(bias.byte_size());
  const std::string weights_name = NewName(context, id, 1, "_folded"), bias_name = NewName(context, id, 1, "_bias");
  plan.Add([id, &node, weights_name, bias_name, weights = std::move(weights), bias = std::move(bias)](
               Patch& patch, const FoldPlan& p) {
    Node gemm;
    gemm.op_type = "Gemm";
    gemm.name = node.name;
    const ValueId b = weights.defined() ? patch.AddConstant(weights_name, weights) : node.inputs[1];
    gemm.inputs = {p.InputOf(id, 0, node.inputs[0]), b, patch.AddConstant(bias_name, bias)};
    gemm.outputs = {p.NameOf(node.outputs[0])};
    patch.RemoveNode(id);
    patch.AddNode(std::move(gemm));
  });
}

}  // namespace crease::fold
