// SPDX-License-Identifier: Apache-2.0
// Passes on a Program: they make fewer, larger operators. Unlike the graph's passes they run once for
// every set of shapes, may use Crease's own operators, and are not written back to a file. Whether a
// kernel takes a fusion is the planner's question: it takes refused ones apart again.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "runtime/program.h"

namespace crease {

struct FusionPass {
  std::string_view name;
  void (*run)(Program& program, ConstantPool& constants);
};

// In the order in which they run.
std::span<const FusionPass> FusionPasses();

// Sum of any number of inputs -> a chain of Adds; Sum and Identity of one input vanish.
void LowerSum(Program& program, ConstantPool& constants);
// min(max(x + b, 0), d) / d -> HardSigmoid; x * HardSigmoid(x) and x * min(max(x + 3, 0), 6) / 6 ->
// HardSwish; x * Sigmoid(x) -> Silu.
void FuseComposedActivations(Program& program, ConstantPool& constants);
// MatMul of rank 2 by a constant, plus a constant row -> Gemm.
void FuseMatMulBias(Program& program, ConstantPool& constants);
// Pad by zeros before Conv and AveragePool -> their own padding.
void FusePad(Program& program, ConstantPool& constants);
// Reshape, Transpose, Reshape that interleave groups of channels -> ChannelShuffle.
void FuseChannelShuffle(Program& program, ConstantPool& constants);
// ReduceMean over every spatial axis -> GlobalAveragePool.
void FuseGlobalAveragePool(Program& program, ConstantPool& constants);
// Conv of 1x1, then GlobalAveragePool or AveragePool with a stride -> the pool, then Conv: a mean of sums is a sum of
// means.
void PoolBeforePointwise(Program& program, ConstantPool& constants);
// Strides of 1x1 convolutions that alone read a map -> into the convolution that makes it.
void SkipUnreadPixels(Program& program, ConstantPool& constants);
// Concat of (a, b) and later of (a, b, c) -> Concat of (a, b) and of (that, c).
void ShareConcatPrefixes(Program& program, ConstantPool& constants);
// Activations and residual Adds into the operator that makes their input.
void FuseEpilogues(Program& program, ConstantPool& constants);
// Affine maps per channel, with their activation, into the Conv or average pool that alone reads them.
void FusePrologues(Program& program, ConstantPool& constants);

// Whether the op is a convolution of single pixels, all of them.
bool IsPointwiseConv(const Program& program, const ProgramOp& op);

// The activation that an op stands for, with its parameters.
struct ActivationOf {
  Activation activation;
  float a = 0, b = 0;
};
std::optional<ActivationOf> AsActivation(const Program& program, const ProgramOp& op);

// The node that does what the epilogue's activation does, between values that the caller sets; `low`
// and `high` are the bounds' values for Clip from opset 11 on (kNone otherwise).
Node ActivationNode(const Epilogue& epilogue, ValueId src, ValueId dst);

// The one element of a constant of one element.
std::optional<double> ScalarConstant(const Program& program, ValueId id);

}  // namespace crease
