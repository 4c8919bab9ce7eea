// SPDX-License-Identifier: Apache-2.0
// Operators with weights that take a map of their output.
#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/gemm.h"
#include "graph/passes/absorb.h"

namespace crease::fold {
namespace {

using Channel = WeightView::Channel;
using ops::StrCat;

Refusal At(const FoldContext& context, NodeId id, Refusal refusal) {
  if (refusal.target.empty()) refusal.target = context.graph.Describe(id);
  return refusal;
}

// b'[c] = scale[c] * b[c] + shift[c]; no bias is b = 0.
Outcome<std::vector<double>> BiasValues(const FoldContext& context, NodeId id, const Affine& map, const Weights& bias) {
  std::vector<double> values(map.shift);
  if (bias.tensor == nullptr) return values;
  if (bias.tensor->size() != static_cast<int64_t>(map.size())) {
    return Refusal{"parameter-length", context.graph.Describe(id),
                   StrCat("a bias of ", bias.tensor->size(), " for ", map.size(), " channels")};
  }
  for (size_t c = 0; c < map.size(); ++c) values[c] += map.scale[c] * bias.tensor->AsDouble(static_cast<int64_t>(c));
  return values;
}

// The bias in input 2; none is made where all would be zero.
Outcome<Done> PlanBias(const FoldContext& context, NodeId id, const Affine& map, const std::vector<double>& values,
                       const Weights& bias, DType dtype, FoldPlan& plan) {
  if (bias.tensor == nullptr && !map.has_shift()) return Done{};
  Outcome<Tensor> rounded = RoundTo(values, dtype, {static_cast<int64_t>(values.size())});
  if (!rounded.ok()) return At(context, id, rounded.refusal());
  const std::string name =
      bias.tensor != nullptr ? NewName(context, id, 2, "_folded") : NewName(context, id, 1, "_bias");
  PlanInput(context, id, 2, std::move(*rounded), name, plan);
  return Done{};
}

// Weights from DequantizeLinear keep their integers: its scale, one for each output channel, takes the
// map. Scales must stay positive.
Outcome<Done> AbsorbQuantizedConv(const FoldContext& context, NodeId id, NodeId dequantize, const Affine& map,
                                  FoldPlan& plan) {
  const Node &node = context.graph.node(id), &source = context.graph.node(dequantize);
  const std::string self = context.graph.Describe(id);
  const auto refuse = [&](std::string message) { return Refusal{"quantized-weights", self, std::move(message)}; };
  const Tensor* values = context.constants.Get(source.inputs[0]);
  const Tensor* scale = source.inputs.size() > 1 ? context.constants.Get(source.inputs[1]) : nullptr;
  const Result<int64_t> axis = AttrInt(source, "axis", 1), block = AttrInt(source, "block_size", 0),
                        group = AttrInt(node, "group", 1);
  if (values == nullptr || scale == nullptr || values->rank() < 3 || !axis.ok() || !block.ok() || !group.ok()) {
    return refuse("its quantized weights are not constant");
  }
  const int64_t channels = values->dim(0);
  const bool zero_point = source.inputs.size() > 2 && source.inputs[2] != kNone;
  // One scale for all becomes one a channel, which a zero point of one element would not fit.
  const bool spread = scale->size() == 1 && (scale->rank() == 0 || channels > 1);
  if (*block != 0 || (spread ? zero_point : *axis != 0 && *axis != -values->rank()) ||
      (!spread && scale->size() != channels)) {
    return refuse("its scale is not one for each output channel");
  }
  Outcome<Affine> full = RequireChannels(context, id, map, 1, channels);
  if (!full.ok()) return full.refusal();
  if (full->min_scale() <= 0) return refuse("a scale would not be positive");
  Outcome<Weights> bias = ConstantBias(context, id, 2);
  if (!bias.ok()) return bias.refusal();
  std::vector<double> scales(full->scale);
  for (size_t c = 0; c < scales.size(); ++c) scales[c] *= scale->AsDouble(spread ? 0 : static_cast<int64_t>(c));
  const DType dtype = context.constants.dtype(source.inputs[1]);
  Outcome<Tensor> rounded = RoundTo(scales, dtype, {channels});
  if (!rounded.ok()) return At(context, id, rounded.refusal());
  Outcome<std::vector<double>> biases = BiasValues(context, id, *full, *bias);
  if (!biases.ok()) return biases.refusal();
  Outcome<Done> done = PlanBias(context, id, *full, *biases, *bias, dtype, plan);
  if (!done.ok()) return done.refusal();
  plan.Add([&context, id, dequantize, tensor = std::move(*rounded)](Patch& patch, const FoldPlan&) {
    Node scaled = context.graph.node(dequantize);
    scaled.raw = {};
    scaled.name += "_folded";
    scaled.inputs[1] = patch.AddConstant(context.graph.value(scaled.inputs[1]).name + "_folded", tensor);
    const ValueId old = scaled.outputs[0];
    scaled.outputs[0] = patch.AddValue(context.graph.value(old).name + "_folded", context.type(old));
    std::erase_if(scaled.attributes, [](const Attribute& a) { return a.name == "axis"; });
    scaled.attributes.push_back(MakeAttr("axis", int64_t{0}));
    patch.ReplaceInput(id, 1, scaled.outputs[0]);
    patch.AddNode(std::move(scaled));
  });
  plan.Absorbed("conv", self);
  return Done{};
}

Outcome<Done> AbsorbConv(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const bool transposed = node.op_type == "ConvTranspose";
  const NodeId made_by =
      node.inputs.size() > 1 && node.inputs[1] != kNone ? context.graph.producer(node.inputs[1]) : kNone;
  if (!transposed && made_by != kNone && context.graph.node(made_by).op_type == "DequantizeLinear" &&
      context.opset() >= 13) {
    return AbsorbQuantizedConv(context, id, made_by, map, plan);
  }
  Outcome<Weights> w = ConstantWeights(context, id, 1);
  if (!w.ok()) return w.refusal();
  const Result<int64_t> group = AttrInt(node, "group", 1);
  if (!group.ok() || *group < 1 || w->tensor->rank() < 3 || w->tensor->dim(0) < 1 || w->tensor->dim(0) % *group != 0) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its weights do not fit its groups"};
  }
  const WeightView view{w->tensor->dim(0), w->tensor->dim(1), InnerSize(*w->tensor, 2), *group,
                        transposed ? Channel::kGroupedColumn : Channel::kRow};
  Outcome<Affine> full = RequireChannels(context, id, map, 1, view.channels());
  if (!full.ok()) return full.refusal();
  Outcome<Weights> bias = ConstantBias(context, id, 2);
  if (!bias.ok()) return bias.refusal();
  Outcome<std::vector<double>> biases = BiasValues(context, id, *full, *bias);
  if (!biases.ok()) return biases.refusal();
  if (full->has_scale()) {
    Outcome<Tensor> scaled = ScaleWeights(*w->tensor, w->dtype, view, *full, *biases);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    PlanInput(context, id, 1, std::move(*scaled), NewName(context, id, 1, "_folded"), plan);
  }
  Outcome<Done> done = PlanBias(context, id, *full, *biases, *bias, w->dtype, plan);
  if (!done.ok()) return done.refusal();
  plan.dead_channels += full->zero_scales();
  plan.Absorbed(transposed ? "conv-transpose" : "conv", context.graph.Describe(id));
  return Done{};
}

Outcome<Done> AbsorbGemm(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  Result<ops::GemmAttributes> attributes = ops::ParseGemm(node);
  if (!attributes.ok()) return Refusal{"unsupported-producer", context.graph.Describe(id), attributes.error().message};
  Outcome<Weights> b = ConstantWeights(context, id, 1);
  if (!b.ok()) return b.refusal();
  if (b->tensor->rank() != 2) return Refusal{"parameter-length", context.graph.Describe(id), "its B is no matrix"};
  const WeightView view{b->tensor->dim(0), b->tensor->dim(1), 1, 1,
                        attributes->trans_b ? Channel::kRow : Channel::kColumn};
  Outcome<Affine> full = RequireChannels(context, id, map, 1, view.channels());
  if (!full.ok()) return full.refusal();
  Outcome<GemmBias> bias = ReadGemmBias(context, id, view.channels(), b->dtype, attributes->beta);
  if (!bias.ok()) return bias.refusal();
  const int64_t columns = view.channels();
  for (size_t i = 0; i < bias->values.size(); ++i) {
    const size_t c = i % static_cast<size_t>(columns);
    bias->values[i] = full->scale[c] * bias->values[i] + full->shift[c];
  }
  const bool had_bias = node.inputs.size() > 2 && node.inputs[2] != kNone;
  if (full->has_scale()) {
    const std::span<const double> anchors =
        bias->rows == 1 ? std::span<const double>(bias->values) : std::span<const double>();
    Outcome<Tensor> scaled = ScaleWeights(*b->tensor, b->dtype, view, *full, anchors);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    PlanInput(context, id, 1, std::move(*scaled), NewName(context, id, 1, "_folded"), plan);
  }
  if (had_bias || full->has_shift()) {
    Outcome<Tensor> rounded =
        RoundTo(bias->values, b->dtype, bias->rows == 1 ? Shape{columns} : Shape{bias->rows, columns});
    if (!rounded.ok()) return At(context, id, rounded.refusal());
    PlanInput(context, id, 2, std::move(*rounded),
              had_bias ? NewName(context, id, 2, "_folded") : NewName(context, id, 1, "_bias"), plan);
    if (attributes->beta != 1.0f) {
      plan.Add([id](Patch& patch, const FoldPlan&) { patch.SetAttribute(id, MakeAttr("beta", 1.0f)); });
    }
  }
  plan.dead_channels += full->zero_scales();
  plan.Absorbed("gemm", context.graph.Describe(id));
  return Done{};
}

// Products of other ranks get an Add behind.
void PlanAdd(const FoldContext& context, NodeId id, const Affine& map, DType dtype, FoldPlan& plan) {
  const ValueId out = context.graph.node(id).outputs[0];
  plan.added_bytes += static_cast<int64_t>(map.size() * ByteSize(dtype));
  plan.new_nodes += 1;
  plan.Remade(out);
  Affine shift = map;
  std::fill(shift.scale.begin(), shift.scale.end(), 1.0);
  plan.Add([id, out, shift, dtype, rank = context.rank(out), type = context.type(out),
            name = NewName(context, id, 1, "_bias")](Patch& patch, const FoldPlan& p) {
    const ValueId product = patch.AddValue(name + "_product", type);
    patch.ReplaceOutput(id, 0, product);
    EmitAffine(patch, shift, rank, dtype, product, p.NameOf(out), name);
  });
}

Outcome<Done> AbsorbMatMul(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  if (node.inputs.size() != 2) return Refusal{"unsupported-producer", self, "it has not two inputs"};
  const size_t slot = context.constants.IsConstant(node.inputs[1]) ? 1 : 0;
  Outcome<Weights> w = ConstantWeights(context, id, slot);
  if (!w.ok()) return w.refusal();
  const int rank = context.rank(node.outputs[0]), data_rank = context.rank(node.inputs[1 - slot]),
            weight_rank = w->tensor->rank();
  if (rank < 0 || data_rank < 0) return Refusal{"shape-unknown", self, "its rank is unknown"};
  if (data_rank < 2 || weight_rank < 2) return Refusal{"axis-mismatch", self, "a vector takes part"};
  // Columns of a constant right matrix, rows of a left one; leading axes are batches.
  const int64_t rows = w->tensor->dim(weight_rank - 2), columns = w->tensor->dim(weight_rank - 1);
  if (w->tensor->size() == 0) return Refusal{"parameter-length", self, "its weights are empty"};
  const int64_t batches = w->tensor->size() / (rows * columns);
  const WeightView view = slot == 1 ? WeightView{batches * rows, columns, 1, 1, Channel::kColumn}
                                    : WeightView{batches, rows, columns, 1, Channel::kColumn};
  Outcome<Affine> full = RequireChannels(context, id, map, slot == 1 ? rank - 1 : rank - 2, view.channels());
  if (!full.ok()) return full.refusal();
  const bool as_gemm = slot == 1 && data_rank == 2 && weight_rank == 2 && full->has_shift();
  if (!full->has_scale() && !as_gemm) {
    return Refusal{"cost", self, "a MatMul takes no shift: the Add stays one Add"};
  }
  Tensor weights;
  if (full->has_scale()) {
    Outcome<Tensor> scaled = ScaleWeights(*w->tensor, w->dtype, view, *full);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    weights = std::move(*scaled);
  }
  if (full->has_shift()) {
    Outcome<Tensor> bias = RoundTo(full->shift, w->dtype, {view.channels()});
    if (!bias.ok()) return At(context, id, bias.refusal());
    if (as_gemm) {
      PlanGemm(context, id, weights, std::move(*bias), plan);
    } else {
      PlanAdd(context, id, *full, w->dtype, plan);
    }
  }
  if (!as_gemm) PlanInput(context, id, slot, std::move(weights), NewName(context, id, slot, "_folded"), plan);
  plan.dead_channels += full->zero_scales();
  plan.Absorbed("matmul", self);
  return Done{};
}

struct Rule {
  std::string_view op;
  Outcome<Done> (*absorb)(const FoldContext&, NodeId, const Affine&, FoldPlan&);
};
constexpr Rule kRules[] = {
    {"Conv", AbsorbConv}, {"ConvTranspose", AbsorbConv}, {"Gemm", AbsorbGemm}, {"MatMul", AbsorbMatMul}};

const Rule* FindRule(const Node& node) {
  for (const Rule& rule : kRules) {
    if (node.domain.empty() && rule.op == node.op_type) return &rule;
  }
  return nullptr;
}

}  // namespace

bool AbsorbsBackward(const Node& node) { return FindRule(node) != nullptr; }

Outcome<Done> AbsorbBackward(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  return FindRule(context.graph.node(id))->absorb(context, id, map, plan);
}

}  // namespace crease::fold
