// SPDX-License-Identifier: Apache-2.0
// Operators with weights that take a map of their output.
#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/gemm.h"
#include "graph/passes/absorb.h"
#include "graph/passes/commute.h"

namespace crease::fold {
namespace {

using ops::StrCat;

// b'[c] = scale[c] * b[c] + shift[c]; no bias is b = 0.
Outcome<std::vector<double>> BiasValues(const FoldContext& context, NodeId id, const Affine& map, const Weights& bias) {
  std::vector<double> values(map.shift);
  if (!bias.tensor.defined()) return values;
  if (bias.tensor.size() != static_cast<int64_t>(map.size())) {
    return Refusal{"parameter-length", context.graph.Describe(id),
                   StrCat("a bias of ", bias.tensor.size(), " for ", map.size(), " channels")};
  }
  for (size_t c = 0; c < map.size(); ++c) values[c] += map.scale[c] * bias.tensor.AsDouble(static_cast<int64_t>(c));
  return values;
}

// b' in input 2; none is made where there was none and all would be zero.
Outcome<Done> PlanMappedBias(const FoldContext& context, NodeId id, const Affine& map,
                             const std::vector<double>& values, const Weights& bias, DType dtype, FoldPlan& plan) {
  if (!bias.tensor.defined() && !map.has_shift()) return Done{};
  return PlanBias(context, id, values, {static_cast<int64_t>(values.size())}, dtype, plan);
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
  // One scale for all becomes one a channel, which a zero point of one element would not fit: 0 is what none means.
  const bool zero_point = !HasNoZeroPoint(context, source);
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
  // The convolution's type need not be the scale's (output_dtype): the bias has it, and the scale if it is the wider.
  const DType of_scale = context.constants.dtype(source.inputs[1]), of_data = context.type(node.inputs[0]).dtype;
  if (!IsFloat(of_data) && HasAttr(source, "output_dtype")) return refuse("their type is not known");
  const DType dtype = IsFloat(of_data) ? of_data : of_scale;
  Outcome<Rounded> rounded = RoundTo(scales, HoldsEvery(dtype, of_scale) ? dtype : of_scale, {channels});
  if (!rounded.ok()) return At(context, id, rounded.refusal());
  Outcome<std::vector<double>> biases = BiasValues(context, id, *full, *bias);
  if (!biases.ok()) return biases.refusal();
  Outcome<Done> done = PlanMappedBias(context, id, *full, *biases, *bias, dtype, plan);
  if (!done.ok()) return done.refusal();
  plan.Add([&context, id, dequantize, spread, constant = std::move(*rounded)](Patch& patch, const FoldPlan&) {
    Node scaled = context.graph.node(dequantize);
    scaled.raw = {};
    scaled.name += "_folded";
    if (spread) scaled.inputs.resize(2);
    scaled.inputs[1] =
        context.unrounded.AddConstant(patch, context.graph.value(scaled.inputs[1]).name + "_folded", constant);
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
  Outcome<Linear> conv = ReadConv(context, id);
  if (!conv.ok()) return conv.refusal();
  const Weights& w = conv->weights;
  Outcome<Affine> full = RequireChannels(context, id, map, 1, conv->output.channels());
  if (!full.ok()) return full.refusal();
  Outcome<Weights> bias = ConstantBias(context, id, 2);
  if (!bias.ok()) return bias.refusal();
  Outcome<std::vector<double>> biases = BiasValues(context, id, *full, *bias);
  if (!biases.ok()) return biases.refusal();
  Outcome<Done> scaled = PlanWeights(context, id, 1, w, conv->output, *full, *biases, plan);
  if (!scaled.ok()) return scaled.refusal();
  Outcome<Done> done = PlanMappedBias(context, id, *full, *biases, *bias, w.dtype, plan);
  if (!done.ok()) return done.refusal();
  plan.Absorbed(transposed ? "conv-transpose" : "conv", context.graph.Describe(id));
  return Done{};
}

Outcome<Done> AbsorbGemm(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const Result<ops::GemmAttributes> attributes = ops::ParseGemm(node);
  if (!attributes.ok()) return Refusal{"unsupported-producer", context.graph.Describe(id), attributes.error().message};
  Outcome<Linear> gemm = ReadGemm(context, id, *attributes);
  if (!gemm.ok()) return gemm.refusal();
  Outcome<Affine> full = RequireChannels(context, id, map, 1, gemm->output.channels());
  if (!full.ok()) return full.refusal();
  Outcome<GemmBias> bias = ReadGemmBias(context, id, gemm->output.channels(), attributes->beta);
  if (!bias.ok()) return bias.refusal();
  for (size_t i = 0; i < bias->values.size(); ++i) {
    const size_t c = i % full->size();
    bias->values[i] = full->scale[c] * bias->values[i] + full->shift[c];
  }
  const std::span<const double> anchors =
      bias->rows == 1 ? std::span<const double>(bias->values) : std::span<const double>();
  Outcome<Done> scaled = PlanWeights(context, id, 1, gemm->weights, gemm->output, *full, anchors, plan);
  if (!scaled.ok()) return scaled.refusal();
  const bool had_bias = node.inputs.size() > 2 && node.inputs[2] != kNone;
  if (had_bias || full->has_shift()) {
    Outcome<Done> done = PlanGemmBias(context, id, *bias, gemm->weights.dtype, attributes->beta, plan);
    if (!done.ok()) return done.refusal();
  }
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
  plan.Add([&context, id, out, shift, dtype, rank = context.rank(out), type = context.type(out),
            name = NewName(context, id, 1, "_bias")](Patch& patch, const FoldPlan& p) {
    const ValueId product = patch.AddValue(name + "_product", type);
    patch.ReplaceOutput(id, 0, product);
    EmitAffine(context, patch, shift, rank, dtype, product, p.NameOf(out), name);
  });
}

Outcome<Done> AbsorbMatMul(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  const size_t slot = node.inputs.size() == 2 && context.constants.IsConstant(node.inputs[1]) ? 1 : 0;
  Outcome<Linear> product = ReadMatMul(context, id, slot);
  if (!product.ok()) return product.refusal();
  const Weights& w = product->weights;
  const int rank = context.rank(node.outputs[0]);
  if (rank < 0) return Refusal{"shape-unknown", self, "its rank is unknown"};
  Outcome<Affine> full = RequireChannels(context, id, map, slot == 1 ? rank - 1 : rank - 2, product->output.channels());
  if (!full.ok()) return full.refusal();
  plan.Absorbed("matmul", self);
  if (full->has_shift() && slot == 1 && context.rank(node.inputs[0]) == 2 && w.tensor.rank() == 2) {
    return PlanAsGemm(context, id, *product, product->output, *full, full->shift, plan);
  }
  if (!full->has_scale()) return Refusal{"cost", self, "a MatMul takes no shift: the Add stays one Add"};
  if (full->has_shift()) {
    Outcome<Rounded> fits = RoundTo(full->shift, w.dtype, {product->output.channels()});
    if (!fits.ok()) return At(context, id, fits.refusal());
    PlanAdd(context, id, *full, w.dtype, plan);
  }
  return PlanWeights(context, id, slot, w, product->output, *full, {}, plan);
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
