// SPDX-License-Identifier: Apache-2.0
// Operators with weights that take a map of their input.
#include <algorithm>

#include "graph/ops/common.h"
#include "graph/passes/absorb.h"

namespace crease::fold {
namespace {

using ops::StrCat;

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

// b' = b + what the shift makes of the weights; adds a bias where there was none.
Outcome<Done> PlanShift(const FoldContext& context, NodeId id, const Linear& conv, const Affine& map, FoldPlan& plan) {
  Outcome<Weights> bias = ConstantBias(context, id, 2);
  if (!bias.ok()) return bias.refusal();
  std::vector<double> sums = ShiftThroughWeights(conv.weights, conv.input, conv.output, map);
  const auto channels = static_cast<int64_t>(sums.size());
  if (bias->tensor.defined() && bias->tensor.size() != channels) {
    return Refusal{"parameter-length", context.graph.Describe(id), "its bias has another length than its outputs"};
  }
  for (int64_t c = 0; bias->tensor.defined() && c < channels; ++c)
    sums[static_cast<size_t>(c)] += bias->tensor.AsDouble(c);
  return PlanBias(context, id, sums, {channels}, conv.weights.dtype, plan);
}

Outcome<Done> AbsorbConv(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  Outcome<Linear> conv = ReadConv(context, id);
  if (!conv.ok()) return conv.refusal();
  Outcome<Affine> full = RequireChannels(context, id, map, 1, conv->input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift()) {
    if (!EveryTapEverywhere(node, conv->weights.tensor)) {
      return Refusal{"zero-padding", context.graph.Describe(id), "at the border the shift would not reach the padding"};
    }
    Outcome<Done> done = PlanShift(context, id, *conv, *full, plan);
    if (!done.ok()) return done.refusal();
  }
  Outcome<Done> scaled = PlanWeights(context, id, 1, conv->weights, conv->input, *full, {}, plan);
  if (!scaled.ok()) return scaled.refusal();
  plan.Absorbed(node.op_type == "ConvTranspose" ? "conv-transpose" : "conv", context.graph.Describe(id));
  return Done{};
}

Outcome<Done> AbsorbGemm(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan) {
  const Result<ops::GemmAttributes> attributes = ops::ParseGemm(context.graph.node(id));
  if (!attributes.ok()) return Refusal{"unsupported-producer", context.graph.Describe(id), attributes.error().message};
  Outcome<Linear> gemm = ReadGemm(context, id, *attributes);
  if (!gemm.ok()) return gemm.refusal();
  Outcome<Affine> full = RequireChannels(context, id, map, attributes->trans_a ? 0 : 1, gemm->input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift()) {
    const int64_t columns = gemm->output.channels();
    Outcome<GemmBias> bias = ReadGemmBias(context, id, columns, attributes->beta);
    if (!bias.ok()) return bias.refusal();
    const std::vector<double> sums = ShiftThroughWeights(gemm->weights, gemm->input, gemm->output, *full);
    for (size_t i = 0; i < bias->values.size(); ++i) {
      bias->values[i] += static_cast<double>(attributes->alpha) * sums[i % static_cast<size_t>(columns)];
    }
    Outcome<Done> done = PlanGemmBias(context, id, *bias, gemm->weights.dtype, attributes->beta, plan);
    if (!done.ok()) return done.refusal();
  }
  Outcome<Done> scaled = PlanWeights(context, id, 1, gemm->weights, gemm->input, *full, {}, plan);
  if (!scaled.ok()) return scaled.refusal();
  plan.Absorbed("gemm", context.graph.Describe(id));
  return Done{};
}

// A MatMul takes a scale. With a shift, a matrix product becomes a Gemm; others are left: an Add
// behind would be one pass over memory for the one that goes.
Outcome<Done> AbsorbMatMul(const FoldContext& context, NodeId id, size_t slot, const Affine& map, FoldPlan& plan) {
  const std::string self = context.graph.Describe(id);
  Outcome<Linear> product = ReadMatMul(context, id, 1 - slot);
  if (!product.ok()) return product.refusal();
  const Weights& w = product->weights;
  const int data_rank = context.rank(context.graph.node(id).inputs[slot]);
  const int axis = slot == 0 ? data_rank - 1 : data_rank - 2;
  Outcome<Affine> full = RequireChannels(context, id, map, axis, product->input.channels());
  if (!full.ok()) return full.refusal();
  if (full->has_shift() && (slot != 0 || data_rank != 2 || w.tensor.rank() != 2)) {
    return Refusal{"cost", self, "its shift would be an Add behind the MatMul"};
  }
  plan.Absorbed("matmul", self);
  if (!full->has_shift()) return PlanWeights(context, id, 1 - slot, w, product->input, *full, {}, plan);
  return PlanAsGemm(context, id, *product, product->input, *full,
                    ShiftThroughWeights(w, product->input, product->output, *full), plan);
}

}  // namespace

bool AbsorbsForward(const Node& node) { return AbsorbsBackward(node); }

Outcome<Done> AbsorbForward(const FoldContext& context, NodeId id, int slot, const Affine& map, FoldPlan& plan) {
  const Node& node = context.graph.node(id);
  if (node.op_type == "MatMul") return AbsorbMatMul(context, id, static_cast<size_t>(slot), map, plan);
  if (slot != 0)
    return Refusal{"weights-not-constant", context.graph.Describe(id), "the value is its weights or its bias"};
  return node.op_type == "Gemm" ? AbsorbGemm(context, id, map, plan) : AbsorbConv(context, id, map, plan);
}

}  // namespace crease::fold
