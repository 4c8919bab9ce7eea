// SPDX-License-Identifier: Apache-2.0
// What absorbing operators share: their constant weights, and how a plan replaces them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops/gemm.h"
#include "graph/passes/fold_plan.h"
#include "graph/passes/weights.h"

namespace crease::fold {

// Input `slot` of the node as constant weights; refuses run-time, quantized and integer ones.
Outcome<Weights> ConstantWeights(const FoldContext& context, NodeId id, size_t slot);

// Whether a DequantizeLinear has no zero point, or zeros.
bool HasNoZeroPoint(const FoldContext& context, const Node& dequantize);

// A bias: absent (no tensor), or a constant, also one from a DequantizeLinear of int32. Refuses run-time ones.
Outcome<Weights> ConstantBias(const FoldContext& context, NodeId id, size_t slot);

// Constant weights with their channels seen as the operator's inputs and as its outputs.
struct Linear {
  Weights weights;
  WeightView input, output;
};
Outcome<Linear> ReadConv(const FoldContext& context, NodeId id);  // ConvTranspose too
Outcome<Linear> ReadGemm(const FoldContext& context, NodeId id, const ops::GemmAttributes& attributes);
// A product of ranks 2 and more whose operand `slot` is constant.
Outcome<Linear> ReadMatMul(const FoldContext& context, NodeId id, size_t slot);

// The refusal, about the node where it names nothing.
Refusal At(const FoldContext& context, NodeId id, Refusal refusal);

// Replaces input `slot` by a new initializer, never an edit of the old one.
void PlanInput(const FoldContext& context, NodeId id, size_t slot, Rounded constant, const std::string& name,
               FoldPlan& plan);
// Input `slot` becomes the weights scaled; nothing where every scale is 1. `biases` as for ScaleWeights.
Outcome<Done> PlanWeights(const FoldContext& context, NodeId id, size_t slot, const Weights& w, const WeightView& view,
                          const Affine& map, std::span<const double> biases, FoldPlan& plan);
// Input 2 becomes the bias, of that shape; it need not have been there.
Outcome<Done> PlanBias(const FoldContext& context, NodeId id, std::span<const double> values, Shape shape, DType dtype,
                       FoldPlan& plan);

// Product of the weights' dimensions from `axis` on.
int64_t InnerSize(const Tensor& tensor, int axis);

// A name for what replaces input `slot`.
std::string NewName(const FoldContext& context, NodeId id, size_t slot, std::string_view suffix);

// Refuses a map that does not have `channels` along `axis`; uniform ones are spread.
Outcome<Affine> RequireChannels(const FoldContext& context, NodeId id, const Affine& map, int axis, int64_t channels);

// beta * C of a Gemm as (rows, columns) with rows 1 or m: what is broadcast is repeated.
struct GemmBias {
  int64_t rows = 1;
  std::vector<double> values;  // rows x columns; zeros where there is no C
};
Outcome<GemmBias> ReadGemmBias(const FoldContext& context, NodeId id, int64_t columns, double beta);
// C becomes these, beta 1.
Outcome<Done> PlanGemmBias(const FoldContext& context, NodeId id, const GemmBias& bias, DType dtype, double beta,
                           FoldPlan& plan);

// Makes a MatMul of two matrices, the second constant, a Gemm of the same name: the weights scaled by the
// map along `view`, C `bias`.
Outcome<Done> PlanAsGemm(const FoldContext& context, NodeId id, const Linear& product, const WeightView& view,
                         const Affine& map, const std::vector<double>& bias, FoldPlan& plan);

}  // namespace crease::fold
