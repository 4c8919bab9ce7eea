// SPDX-License-Identifier: Apache-2.0
// What absorbing operators share: their constant weights, and how a plan replaces them.
#pragma once

#include <string>

#include "graph/passes/fold_plan.h"
#include "graph/passes/weights.h"

namespace crease::fold {

struct Weights {
  const Tensor* tensor = nullptr;
  DType dtype = DType::kUndefined;  // in the graph; computed ones are float64 here
};

// Input `slot` of the node as constant weights; refuses run-time, quantized and integer ones.
Outcome<Weights> ConstantWeights(const FoldContext& context, NodeId id, size_t slot);

// A bias: absent (tensor null), or a constant. Refuses run-time ones.
Outcome<Weights> ConstantBias(const FoldContext& context, NodeId id, size_t slot);

// Replaces input `slot` by a new initializer, never an edit of the old one.
void PlanInput(const FoldContext& context, NodeId id, size_t slot, Tensor tensor, const std::string& name,
               FoldPlan& plan);

// A name for what replaces input `slot`.
std::string NewName(const FoldContext& context, NodeId id, size_t slot, std::string_view suffix);

// Product of the weights' dimensions from `axis` on.
int64_t InnerSize(const Tensor& tensor, int axis);

// Refuses a map that does not have `channels` along `axis`; uniform ones are spread.
Outcome<Affine> RequireChannels(const FoldContext& context, NodeId id, const Affine& map, int axis, int64_t channels);

// A Gemm's C as (rows, columns) with rows 1 or m: what `at` reads is broadcast. Empty: no C.
struct GemmBias {
  int64_t rows = 1;
  std::vector<double> values;  // rows x columns
};
Outcome<GemmBias> ReadGemmBias(const FoldContext& context, NodeId id, int64_t columns, DType dtype, double beta);

// Makes a MatMul of two matrices, the second constant, a Gemm of the same name with a C. `weights`:
// new ones, or undefined to keep the old.
void PlanGemm(const FoldContext& context, NodeId id, Tensor weights, Tensor bias, FoldPlan& plan);

}  // namespace crease::fold
