// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "graph/ops/batch_norm.h"
#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

// scale and shift of an op that is one affine map per channel, as float32 (C).
bool ReadAffine(const Program& program, const ProgramOp& op, ConstantPool& constants, FusedPrologue* prologue) {
  for (size_t i = 1; i < op.node.inputs.size(); ++i) {
    if (!program.constant(op.input(i))) return false;
  }
  if (op.type() == "Affine" && op.node.domain == kInternalDomain && op.node.inputs.size() == 3) {
    if (program.constant(op.input(1))->dtype() != DType::kFloat32) return false;
    const Result<Tensor> scale = constants.Aligned(*program.constant(op.input(1)));
    const Result<Tensor> shift = constants.Aligned(*program.constant(op.input(2)));
    if (!scale.ok() || !shift.ok()) return false;
    prologue->scale = *scale;
    prologue->shift = *shift;
    return true;
  }
  if (op.type() != "BatchNormalization" || !op.node.domain.empty() || op.node.inputs.size() != 5) return false;
  const auto attributes = ops::ParseBatchNorm(op.node, program.opset);
  if (!attributes.ok() || attributes->training) return false;
  const auto affine = ops::ResolveBatchNorm(*attributes, *program.constant(op.input(1)), *program.constant(op.input(2)),
                                            *program.constant(op.input(3)), *program.constant(op.input(4)));
  if (!affine.ok()) return false;
  const std::vector<float> scale(affine->scale.begin(), affine->scale.end());
  const std::vector<float> shift(affine->shift.begin(), affine->shift.end());
  const Shape shape = {static_cast<int64_t>(scale.size())};
  prologue->scale = constants.Intern(Tensor::From<float>(shape, std::span<const float>(scale)));
  prologue->shift = constants.Intern(Tensor::From<float>(shape, std::span<const float>(shift)));
  return true;
}

}  // namespace

void FusePrologues(Program& program, ConstantPool& constants) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const int reader = static_cast<int>(i);
    const ProgramOp& op = program.op(reader);
    if (!op.alive || !op.node.domain.empty()) continue;
    if (op.type() != "Conv" && op.type() != "AveragePool" && op.type() != "GlobalAveragePool") continue;
    const ValueId x = op.input(0);
    if (program.value(x).dtype != DType::kFloat32) continue;
    int affine = program.PrivateProducer(x, "BatchNormalization");
    if (affine == kNone) affine = program.PrivateProducer(x, "Affine");
    if (affine == kNone || program.op(affine).epilogue.residual != Residual::kNone || op.residual == x) continue;
    FusedPrologue prologue;
    if (!ReadAffine(program, program.op(affine), constants, &prologue)) continue;
    prologue.activation = program.op(affine).epilogue.activation;
    prologue.a = program.op(affine).epilogue.a;
    prologue.b = program.op(affine).epilogue.b;
    const ValueId source = program.op(affine).input(0);
    std::vector<std::string>& fused = program.op(reader).fused;
    fused.push_back("before it: " + program.op(affine).Describe());
    program.op(reader).prologue = std::move(prologue);
    program.Kill(affine);
    program.SetInput(reader, 0, source);
  }
}

}  // namespace crease
