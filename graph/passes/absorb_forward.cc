// SPDX-License-Identifier: Apache-2.0
// Operators with weights that take a map of their input.
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

bool AllEqual(const std::vector<int64_t>& values, int64_t wanted) {
  return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
}

// Whether every output element is made from all taps: then a shift of the input is a bias. Zero
// padding (Conv) and partial overlap (ConvTranspose) leave taps out at the border.
bool EveryTapEverywhere(const Node& node, const Tensor& w) {
  const Result<std::vector<int64_t>> pads = AttrInts(node, "pads", {}), strides = AttrInts(node, "strides", {}),
                                     extra = AttrInts(node, "output_padding", {}),
                                     shape = AttrInts(node, "output_shape", {});
  const Result<std::string> auto_pad = AttrString(node, "auto_pad", "NOTSET");
  if (!pads.ok() || !strides.ok() || !extra.ok() || !shape.ok() || !auto_pad.ok()) return false;
  const bool one_tap = InnerSize(w, 2) == 1;
  if (!AllEqual(*pads, 0)) return false;
  if (node.op_type == "ConvTranspose") {
    const bool plain = *auto_pad == "NOTSET" || *auto_pad == "VALID";
    return one_tap && plain && AllEqual(*strides, 1) && AllEqual(*extra, 0) && shape->empty();
  }
  // A SAME convolution of one tap pads nothing, whatever its stride.
  return *auto_pad == "NOTSET" || *auto_pad == "VALID" || one_tap;
}

// b' = b + sums; adds a bias where there was none.
Outcome<Done> PlanSums(const FoldContext& context, NodeId id, std::vector<double> sums, const Weights& bias,
                       DType dtype, FoldPlan& plan) {
  const auto channels = static_cast<int64_t>(sums.size());
  if (bias.tensor != nullptr && bias.tensor->size() != channels) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its bias has another length than its outputs"};
  }
  for (int64_t c = 0; bias.tensor != nullptr && c < channels; ++c)
    sums[static_cast<size_t>(c)] += bias.tensor->AsDouble(c);
  Outcome<Tensor> rounded = RoundTo(sums, dtype, {channels});
  if (!rounded.ok()) return At(context, id, rounded.refusal());
  const std::string name =
      bias.tensor != nullptr ? NewName(context, id, 2, "_folded") : NewName(context, id, 1, "_bias");
  PlanInput(context, id, 2, std::move(*rounded), name, plan);
  return Done{};
}

Outcome<Done> AbsorbConv(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const bool transposed = node.op_type == "ConvTranspose";
  Outcome<Weights> w = ConstantWeights(context, id, 1);
  if (!w.ok()) return w.refusal();
  const Result<int64_t> group = AttrInt(node, "group", 1);
  if (!group.ok() || *group < 1 || w->tensor->rank() < 3 || w->tensor->dim(0) < 1 || w->tensor->dim(0) % *group != 0) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its weights do not fit its groups"};
  }
  WeightView input{w->tensor->dim(0), w->tensor->dim(1), InnerSize(*w->tensor, 2), *group,
                   transposed ? Channel::kRow : Channel::kGroupedColumn};
  WeightView output = input;
  output.channel = transposed ? Channel::kGroupedColumn : Channel::kRow;
  Outcome<Affine> full = RequireChannels(context, id, map, 1, input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift()) {
    if (!EveryTapEverywhere(node, *w->tensor)) {
      return Refusal{"zero-padding", context.graph.Describe(id), "at the border the shift would not reach the padding"};
    }
    Outcome<Weights> bias = ConstantBias(context, id, 2);
    if (!bias.ok()) return bias.refusal();
    Outcome<Done> done =
        PlanSums(context, id, ShiftThroughWeights(*w->tensor, input, output, *full), *bias, w->dtype, plan);
    if (!done.ok()) return done.refusal();
  }
  if (full->has_scale()) {
    Outcome<Tensor> scaled = ScaleWeights(*w->tensor, w->dtype, input, *full);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    PlanInput(context, id, 1, std::move(*scaled), NewName(context, id, 1, "_folded"), plan);
  }
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
  WeightView input{b->tensor->dim(0), b->tensor->dim(1), 1, 1, attributes->trans_b ? Channel::kColumn : Channel::kRow};
  WeightView output = input;
  output.channel = attributes->trans_b ? Channel::kRow : Channel::kColumn;
  Outcome<Affine> full = RequireChannels(context, id, map, attributes->trans_a ? 0 : 1, input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift()) {
    const int64_t columns = output.channels();
    Outcome<GemmBias> bias = ReadGemmBias(context, id, columns, b->dtype, attributes->beta);
    if (!bias.ok()) return bias.refusal();
    const std::vector<double> sums = ShiftThroughWeights(*b->tensor, input, output, *full);
    for (size_t i = 0; i < bias->values.size(); ++i) {
      bias->values[i] += static_cast<double>(attributes->alpha) * sums[i % static_cast<size_t>(columns)];
    }
    Outcome<Tensor> rounded =
        RoundTo(bias->values, b->dtype, bias->rows == 1 ? Shape{columns} : Shape{bias->rows, columns});
    if (!rounded.ok()) return At(context, id, rounded.refusal());
    const bool had = node.inputs.size() > 2 && node.inputs[2] != kNone;
    PlanInput(context, id, 2, std::move(*rounded),
              had ? NewName(context, id, 2, "_folded") : NewName(context, id, 1, "_bias"), plan);
    if (attributes->beta != 1.0f) {
      plan.Add([id](Patch& patch, const FoldPlan&) { patch.SetAttribute(id, MakeAttr("beta", 1.0f)); });
    }
  }
  if (full->has_scale()) {
    Outcome<Tensor> scaled = ScaleWeights(*b->tensor, b->dtype, input, *full);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    PlanInput(context, id, 1, std::move(*scaled), NewName(context, id, 1, "_folded"), plan);
  }
  plan.dead_channels += full->zero_scales();
  plan.Absorbed("gemm", context.graph.Describe(id));
  return Done{};
}

// A MatMul takes a scale. With a shift, a matrix product becomes a Gemm; others are left: an Add
// behind would be one pass over memory for the one that goes.
Outcome<Done> AbsorbMatMul(const FoldContext& context, NodeId id, int slot, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  if (node.inputs.size() != 2) return Refusal{"unsupported-producer", self, "it has not two inputs"};
  const size_t weight_slot = slot == 0 ? 1 : 0;
  Outcome<Weights> w = ConstantWeights(context, id, weight_slot);
  if (!w.ok()) return w.refusal();
  const int data_rank = context.rank(node.inputs[static_cast<size_t>(slot)]), weight_rank = w->tensor->rank();
  if (data_rank < 0) return Refusal{"shape-unknown", self, "its rank is unknown"};
  if (data_rank < 2 || weight_rank < 2 || w->tensor->size() == 0)
    return Refusal{"axis-mismatch", self, "a vector takes part"};
  const int64_t rows = w->tensor->dim(weight_rank - 2), columns = w->tensor->dim(weight_rank - 1);
  const int64_t batches = w->tensor->size() / (rows * columns);
  const WeightView input = slot == 0 ? WeightView{batches, rows, columns, 1, Channel::kColumn}
                                     : WeightView{batches * rows, columns, 1, 1, Channel::kColumn};
  Outcome<Affine> full = RequireChannels(context, id, map, slot == 0 ? data_rank - 1 : data_rank - 2, input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift() && (slot != 0 || data_rank != 2 || weight_rank != 2)) {
    return Refusal{"cost", self, "its shift would be an Add behind the MatMul"};
  }
  Tensor weights;
  if (full->has_scale()) {
    Outcome<Tensor> scaled = ScaleWeights(*w->tensor, w->dtype, input, *full);
    if (!scaled.ok()) return At(context, id, scaled.refusal());
    weights = std::move(*scaled);
  }
  if (full->has_shift()) {
    const WeightView by_row{rows, columns, 1, 1, Channel::kRow}, by_column{rows, columns, 1, 1, Channel::kColumn};
    Outcome<Tensor> bias = RoundTo(ShiftThroughWeights(*w->tensor, by_row, by_column, *full), w->dtype, {columns});
    if (!bias.ok()) return At(context, id, bias.refusal());
    PlanGemm(context, id, std::move(weights), std::move(*bias), plan);
  } else {
    PlanInput(context, id, weight_slot, std::move(weights), NewName(context, id, weight_slot, "_folded"), plan);
  }
  plan.dead_channels += full->zero_scales();
  plan.Absorbed("matmul", self);
  return Done{};
}

}  // namespace

bool AbsorbsForward(const Node& node) { return AbsorbsBackward(node); }

Outcome<Done> AbsorbForward(const FoldContext& context, NodeId id, int slot, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  if (node.op_type == "MatMul") return AbsorbMatMul(context, id, slot, map, plan);
  if (slot != 0)
    return Refusal{"weights-not-constant", context.graph.Describe(id), "the value is its weights or its bias"};
  return node.op_type == "Gemm" ? AbsorbGemm(context, id, map, plan) : AbsorbConv(context, id, map, plan);
}

}  // namespace crease::fold
