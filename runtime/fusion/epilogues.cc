// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

bool IsOneOf(std::string_view type, std::initializer_list<std::string_view> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

bool TakesActivation(const ProgramOp& op) {
  return op.epilogue.activation == Activation::kNone && op.epilogue.residual != Residual::kAfterActivation &&
         IsOneOf(op.type(), {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "BatchNormalization", "Affine"});
}

bool TakesResidual(const ProgramOp& op) {
  return op.epilogue.residual == Residual::kNone &&
         IsOneOf(op.type(), {"Conv", "ConvTranspose", "Gemm", "Mul", "BatchNormalization", "Affine"});
}

// The op whose only result is `id`, read by one op alone.
int PrivateProducer(const Program& program, ValueId id) {
  if (id == kNone || program.producer(id) == kNone || program.OnlyUser(id) == kNone) return kNone;
  const ProgramOp& op = program.op(program.producer(id));
  const bool single =
      std::count_if(op.node.outputs.begin(), op.node.outputs.end(), [](ValueId out) { return out != kNone; }) == 1;
  return single && program.value(id).dtype == DType::kFloat32 ? program.producer(id) : kNone;
}

// `consumer` becomes a part of `op`, which then makes its result.
void Absorb(Program& program, int op, int consumer) {
  const ValueId result = program.op(consumer).output();
  program.op(op).fused.push_back(program.op(consumer).Describe());
  program.Kill(consumer);
  program.SetOutput(op, result);
}

bool FuseActivation(Program& program, int op_id) {
  const auto activation = AsActivation(program, program.op(op_id));
  if (!activation) return false;
  const int producer = PrivateProducer(program, program.op(op_id).input(0));
  if (producer == kNone || !TakesActivation(program.op(producer))) return false;
  Epilogue& epilogue = program.op(producer).epilogue;
  epilogue.activation = activation->activation;
  epilogue.a = activation->a;
  epilogue.b = activation->b;
  Absorb(program, producer, op_id);
  return true;
}

// Convolutions have their bias as the third input, so that the residual is never mistaken for it.
void PadInputs(ProgramOp& op) {
  if (IsOneOf(op.type(), {"Conv", "ConvTranspose", "Gemm"}) && op.node.inputs.size() < 3) {
    op.node.inputs.resize(3, kNone);
  }
}

void FuseResidual(Program& program, int add) {
  const ProgramOp& op = program.op(add);
  if (op.type() != "Add" || !op.node.domain.empty() || op.node.inputs.size() != 2 || !op.epilogue.empty()) return;
  const ValueId sides[2] = {op.input(0), op.input(1)};
  if (sides[0] == sides[1]) return;
  int best = kNone;
  ValueId residual = kNone;
  for (int side = 0; side < 2; ++side) {
    const ValueId made = sides[side], other = sides[1 - side];
    const int producer = PrivateProducer(program, made);
    if (producer == kNone || !TakesResidual(program.op(producer)) || program.constant(other) ||
        program.value(made).shape != program.value(op.output()).shape ||
        program.value(other).shape != program.value(op.output()).shape) {
      continue;
    }
    // The later of two producers: the other operand exists when it runs.
    if (producer > best) {
      best = producer;
      residual = other;
    }
  }
  if (best == kNone) return;
  PadInputs(program.op(best));
  const Residual kind = program.op(best).epilogue.activation == Activation::kNone ? Residual::kBeforeActivation
                                                                                  : Residual::kAfterActivation;
  const int other_producer = program.producer(residual);
  Absorb(program, best, add);
  program.SetResidual(best, residual, kind);
  if (other_producer != kNone && other_producer > best) program.MoveTo(best, add);
}

}  // namespace

void FuseEpilogues(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const int op = static_cast<int>(i);
    if (!program.op(op).alive || program.op(op).node.outputs.size() != 1) continue;
    if (!FuseActivation(program, op)) FuseResidual(program, op);
  }
}

}  // namespace crease
