// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/absorb.h"

#include "graph/ops/common.h"

namespace crease::fold {

using Channel = WeightView::Channel;
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
  const ScaledTensor* exact = context.unrounded.Find(value);
  if (exact != nullptr) return Weights{exact->base, exact->factors, dtype};
  return Weights{*tensor, {}, dtype};
}

bool HasNoZeroPoint(const FoldContext& context, const Node& dequantize) {
  if (dequantize.inputs.size() < 3 || dequantize.inputs[2] == kNone) return true;
  const Tensor* zeros = context.constants.Get(dequantize.inputs[2]);
  if (zeros == nullptr || IsFloat(zeros->dtype())) return false;
  for (int64_t i = 0; i < zeros->size(); ++i) {
    if (zeros->AsInt64(i) != 0) return false;
  }
  return true;
}

namespace {

// The float32 vector that a DequantizeLinear makes of constants, as a quantizer writes a bias; no tensor if it is
// another. Both factors are float32, their product is rounded.
Tensor DequantizedBias(const FoldContext& context, ValueId value) {
  const NodeId made_by = context.graph.producer(value);
  if (made_by == kNone) return {};
  const Node& node = context.graph.node(made_by);
  if (node.op_type != "DequantizeLinear" || !node.domain.empty() || node.inputs.size() < 2) return {};
  const Tensor *integers = context.constants.Get(node.inputs[0]), *scale = context.constants.Get(node.inputs[1]);
  if (integers == nullptr || scale == nullptr || integers->dtype() != DType::kInt32 || integers->rank() != 1) return {};
  const Result<int64_t> axis = AttrInt(node, "axis", 1);
  const bool each = axis.ok() && (*axis == 0 || *axis == -1) && scale->rank() == 1 && scale->size() == integers->size();
  if (scale->dtype() != DType::kFloat32 || (scale->size() != 1 && !each) || HasAttr(node, "block_size") ||
      HasAttr(node, "output_dtype") || !HasNoZeroPoint(context, node)) {
    return {};
  }
  std::vector<float> values(static_cast<size_t>(integers->size()));
  for (int64_t i = 0; i < integers->size(); ++i) {
    const auto by = static_cast<float>(scale->AsDouble(each ? i : 0));
    values[static_cast<size_t>(i)] = static_cast<float>(integers->AsInt64(i)) * by;
  }
  return Tensor::From<float>(integers->shape(), std::span<const float>(values));
}

}  // namespace

Outcome<Weights> ConstantBias(const FoldContext& context, NodeId id, size_t slot) {
  const Node& node = context.graph.node(id);
  if (slot >= node.inputs.size() || node.inputs[slot] == kNone) return Weights{};
  if (Tensor made = DequantizedBias(context, node.inputs[slot]); made.defined()) {
    return Weights{std::move(made), {}, DType::kFloat32};
  }
  const Tensor* tensor = context.constants.Get(node.inputs[slot]);
  if (tensor == nullptr || !IsFloat(tensor->dtype())) {
    return Refusal{"bias-not-constant", context.graph.Describe(id),
                   StrCat("its bias '", Printable(context.graph.value(node.inputs[slot]).name), "' is not a constant")};
  }
  return Weights{*tensor, {}, context.constants.dtype(node.inputs[slot])};
}

Outcome<Linear> ReadConv(const FoldContext& context, NodeId id) {
  const Node& node = context.graph.node(id);
  Outcome<Weights> w = ConstantWeights(context, id, 1);
  if (!w.ok()) return w.refusal();
  const Result<int64_t> group = AttrInt(node, "group", 1);
  const Tensor& tensor = w->tensor;
  if (!group.ok() || *group < 1 || tensor.rank() < 3 || tensor.dim(0) < 1 || tensor.dim(0) % *group != 0) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its weights do not fit its groups"};
  }
  const WeightView view{tensor.dim(0), tensor.dim(1), InnerSize(tensor, 2), *group, 1, Channel::kRow};
  WeightView grouped = view;
  grouped.channel = Channel::kGroupedColumn;
  const bool transposed = node.op_type == "ConvTranspose";
  return Linear{std::move(*w), transposed ? view : grouped, transposed ? grouped : view};
}

Outcome<Linear> ReadGemm(const FoldContext& context, NodeId id, const ops::GemmAttributes& attributes) {
  Outcome<Weights> b = ConstantWeights(context, id, 1);
  if (!b.ok()) return b.refusal();
  if (b->tensor.rank() != 2) return Refusal{"parameter-length", context.graph.Describe(id), "its B is no matrix"};
  const WeightView by_row{b->tensor.dim(0), b->tensor.dim(1), 1, 1, 1, Channel::kRow};
  WeightView by_column = by_row;
  by_column.channel = Channel::kColumn;
  return Linear{std::move(*b), attributes.trans_b ? by_column : by_row, attributes.trans_b ? by_row : by_column};
}

Outcome<Linear> ReadMatMul(const FoldContext& context, NodeId id, size_t slot) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  if (node.inputs.size() != 2) return Refusal{"unsupported-producer", self, "it has not two inputs"};
  Outcome<Weights> w = ConstantWeights(context, id, slot);
  if (!w.ok()) return w.refusal();
  const int data_rank = context.rank(node.inputs[1 - slot]), weight_rank = w->tensor.rank();
  if (data_rank < 0) return Refusal{"shape-unknown", self, "its rank is unknown"};
  if (data_rank < 2 || weight_rank < 2) return Refusal{"axis-mismatch", self, "a vector takes part"};
  if (w->tensor.size() == 0) return Refusal{"parameter-length", self, "its weights are empty"};
  // Leading axes are batches.
  const int64_t rows = w->tensor.dim(weight_rank - 2), columns = w->tensor.dim(weight_rank - 1);
  const int64_t batches = w->tensor.size() / (rows * columns);
  const WeightView by_row{batches * rows, columns, 1, 1, batches, Channel::kRow};
  WeightView by_column = by_row;
  by_column.channel = Channel::kColumn;
  return Linear{std::move(*w), slot == 1 ? by_row : by_column, slot == 1 ? by_column : by_row};
}

Refusal At(const FoldContext& context, NodeId id, Refusal refusal) {
  if (refusal.target.empty()) refusal.target = context.graph.Describe(id);
  return refusal;
}

std::string NewName(const FoldContext& context, NodeId id, size_t slot, std::string_view suffix) {
  const Node& node = context.graph.node(id);
  const ValueId value = slot < node.inputs.size() ? node.inputs[slot] : kNone;
  return (value != kNone ? context.graph.value(value).name : node.name) + std::string(suffix);
}

void PlanInput(const FoldContext& context, NodeId id, size_t slot, Rounded constant, const std::string& name,
               FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  plan.added_bytes += static_cast<int64_t>(constant.tensor.byte_size());
  const ValueId old = slot < node.inputs.size() ? node.inputs[slot] : kNone;
  if (old != kNone && context.graph.use_count(old) == 1) {
    const Tensor* before = context.graph.constant(old);
    if (before != nullptr) plan.added_bytes -= static_cast<int64_t>(before->byte_size());
  }
  plan.Add([&context, id, slot, constant = std::move(constant), name](Patch& patch, const FoldPlan&) {
    patch.ReplaceInput(id, static_cast<int>(slot), context.unrounded.AddConstant(patch, name, constant));
  });
}

Outcome<Done> PlanWeights(const FoldContext& context, NodeId id, size_t slot, const Weights& w, const WeightView& view,
                          const Affine& map, std::span<const double> biases, FoldPlan& plan) {
  plan.dead_channels += map.zero_scales();
  if (!map.has_scale()) return Done{};
  Outcome<Rounded> scaled = ScaleWeights(w, view, map, biases);
  if (!scaled.ok()) return At(context, id, scaled.refusal());
  PlanInput(context, id, slot, std::move(*scaled), NewName(context, id, slot, "_folded"), plan);
  return Done{};
}

Outcome<Done> PlanBias(const FoldContext& context, NodeId id, std::span<const double> values, Shape shape, DType dtype,
                       FoldPlan& plan) {
  Outcome<Rounded> rounded = RoundTo(values, dtype, std::move(shape));
  if (!rounded.ok()) return At(context, id, rounded.refusal());
  const Node& node = context.graph.node(id);
  const bool had = node.inputs.size() > 2 && node.inputs[2] != kNone;
  PlanInput(context, id, 2, std::move(*rounded),
            had ? NewName(context, id, 2, "_folded") : NewName(context, id, 1, "_bias"), plan);
  return Done{};
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

Outcome<GemmBias> ReadGemmBias(const FoldContext& context, NodeId id, int64_t columns, double beta) {
  Outcome<Weights> c = ConstantBias(context, id, 2);
  if (!c.ok()) return c.refusal();
  GemmBias bias;
  bias.values.assign(static_cast<size_t>(columns), 0.0);
  const Tensor& tensor = c->tensor;
  if (!tensor.defined() || beta == 0) return bias;
  const int rank = tensor.rank();
  const int64_t width = rank == 0 ? 1 : tensor.dim(rank - 1);
  bias.rows = rank < 2 ? 1 : tensor.dim(0);
  if (rank > 2 || (width != 1 && width != columns) || bias.rows < 1) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its C has an unexpected shape"};
  }
  bias.values.resize(static_cast<size_t>(bias.rows * columns));
  for (int64_t row = 0; row < bias.rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      bias.values[static_cast<size_t>(row * columns + column)] =
          beta * tensor.AsDouble(row * width + (width == 1 ? 0 : column));
    }
  }
  return bias;
}

Outcome<Done> PlanGemmBias(const FoldContext& context, NodeId id, const GemmBias& bias, DType dtype, double beta,
                           FoldPlan& plan) {
  const int64_t columns = static_cast<int64_t>(bias.values.size()) / bias.rows;
  Outcome<Done> done =
      PlanBias(context, id, bias.values, bias.rows == 1 ? Shape{columns} : Shape{bias.rows, columns}, dtype, plan);
  if (!done.ok()) return done.refusal();
  if (beta != 1.0) {
    plan.Add([id](Patch& patch, const FoldPlan&) { patch.SetAttribute(id, MakeAttr("beta", 1.0f)); });
  }
  return Done{};
}

Outcome<Done> PlanAsGemm(const FoldContext& context, NodeId id, const Linear& product, const WeightView& view,
                         const Affine& map, const std::vector<double>& bias, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  std::optional<Rounded> weights;
  if (map.has_scale()) {
    Outcome<Rounded> scaled = ScaleWeights(product.weights, view, map);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    weights = std::move(*scaled);
  }
  Outcome<Rounded> c = RoundTo(bias, product.weights.dtype, {static_cast<int64_t>(bias.size())});
  if (!c.ok()) return At(context, id, c.refusal());
  plan.dead_channels += map.zero_scales();
  plan.Remade(node.outputs[0]);
  plan.added_bytes += static_cast<int64_t>(c->tensor.byte_size());
  const std::string weights_name = NewName(context, id, 1, "_folded"), bias_name = NewName(context, id, 1, "_bias");
  plan.Add([&context, id, &node, weights_name, bias_name, weights = std::move(weights), c = std::move(*c)](
               Patch& patch, const FoldPlan& p) {
    Node gemm;
    gemm.op_type = "Gemm";
    gemm.name = node.name;
    const ValueId b = weights ? context.unrounded.AddConstant(patch, weights_name, *weights) : node.inputs[1];
    gemm.inputs = {p.InputOf(id, 0, node.inputs[0]), b, context.unrounded.AddConstant(patch, bias_name, c)};
    gemm.outputs = {p.NameOf(node.outputs[0])};
    patch.RemoveNode(id);
    patch.AddNode(std::move(gemm));
  });
  return Done{};
}

}  // namespace crease::fold
