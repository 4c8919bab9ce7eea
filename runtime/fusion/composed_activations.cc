// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "graph/op.h"
#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

// What exporters write as 1/6 differs in the last bits.
bool Near(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

struct Scaled {
  ValueId value;
  double factor;
};

// `op` as value * factor: Mul or Div by a constant of one element.
std::optional<Scaled> AsScaled(const Program& program, const ProgramOp& op) {
  if (!op.node.domain.empty()) return std::nullopt;
  if (op.type() == "Mul") {
    for (size_t side : {0u, 1u}) {
      if (const auto factor = ScalarConstant(program, op.input(side))) return Scaled{op.input(1 - side), *factor};
    }
  }
  if (op.type() == "Div") {
    if (const auto divisor = ScalarConstant(program, op.input(1)); divisor && *divisor != 0) {
      return Scaled{op.input(0), 1 / *divisor};
    }
  }
  return std::nullopt;
}

struct Ramp {  // min(max(x + offset, 0), top)
  ValueId x;
  double offset, top;
  int clip, add;  // the ops
};

// The value as a ramp that only `reader` uses.
std::optional<Ramp> AsRamp(const Program& program, ValueId id) {
  const int clip = program.PrivateProducer(id, "Clip");
  if (clip == kNone) return std::nullopt;
  const auto activation = AsActivation(program, program.op(clip));
  if (!activation || activation->a != 0 || !std::isfinite(activation->b) || activation->b <= 0) return std::nullopt;
  const int add = program.PrivateProducer(program.op(clip).input(0), "Add");
  if (add == kNone) return std::nullopt;
  for (size_t side : {0u, 1u}) {
    if (const auto offset = ScalarConstant(program, program.op(add).input(side))) {
      return Ramp{program.op(add).input(1 - side), *offset, activation->b, clip, add};
    }
  }
  return std::nullopt;
}

void Become(Program& program, int op, std::string_view type, std::string_view domain, ValueId input,
            std::vector<Attribute> attributes, std::initializer_list<int> replaced) {
  for (const int dead : replaced) {
    program.op(op).fused.push_back(program.op(dead).Describe());
    program.Kill(dead);
  }
  ProgramOp& target = program.op(op);
  const size_t inputs = target.node.inputs.size();
  for (size_t slot = 1; slot < inputs; ++slot) program.SetInput(op, slot, kNone);
  program.SetInput(op, 0, input);
  target.node.inputs.resize(1);
  target.node.op_type = type;
  target.node.domain = domain;
  target.node.attributes = std::move(attributes);
}

bool SameShape(const Program& program, ValueId a, ValueId b) {
  return a != kNone && program.value(a).shape == program.value(b).shape;
}

// min(max(x + b, 0), d) * (1 / d) = min(max(x / d + b / d, 0), 1).
bool ToHardSigmoid(Program& program, int op) {
  const auto scaled = AsScaled(program, program.op(op));
  if (!scaled || !SameShape(program, scaled->value, program.op(op).output())) return false;
  const auto ramp = AsRamp(program, scaled->value);
  if (!ramp || !Near(scaled->factor * ramp->top, 1)) return false;
  const float alpha = static_cast<float>(1 / ramp->top), beta = static_cast<float>(ramp->offset / ramp->top);
  Become(program, op, "HardSigmoid", "", ramp->x, {MakeAttr("alpha", alpha), MakeAttr("beta", beta)},
         {ramp->clip, ramp->add});
  return true;
}

// x * min(max(x + 3, 0), 6) / 6, multiplied in this order.
bool ToHardSwish(Program& program, int op) {
  const auto scaled = AsScaled(program, program.op(op));
  if (!scaled || !Near(scaled->factor, 1.0 / 6) || !SameShape(program, scaled->value, program.op(op).output())) {
    return false;
  }
  const int mul = program.PrivateProducer(scaled->value, "Mul");
  if (mul == kNone) return false;
  for (size_t side : {0u, 1u}) {
    const auto ramp = AsRamp(program, program.op(mul).input(side));
    if (ramp && ramp->x == program.op(mul).input(1 - side) && Near(ramp->top, 6) && Near(ramp->offset, 3)) {
      const ValueId x = ramp->x;
      Become(program, op, "HardSwish", "", x, {}, {mul, ramp->clip, ramp->add});
      return true;
    }
  }
  return false;
}

// x * f(x), where only this op reads f(x): Silu for Sigmoid, HardSwish for HardSigmoid(1/6, 1/2).
bool GateToActivation(Program& program, int op) {
  if (program.op(op).type() != "Mul" || !program.op(op).node.domain.empty()) return false;
  for (size_t side : {0u, 1u}) {
    const ValueId gate = program.op(op).input(side), x = program.op(op).input(1 - side);
    if (const int sigmoid = program.PrivateProducer(gate, "Sigmoid");
        sigmoid != kNone && program.op(sigmoid).input(0) == x) {
      Become(program, op, "Silu", kInternalDomain, x, {}, {sigmoid});
      return true;
    }
    const int hard = program.PrivateProducer(gate, "HardSigmoid");
    if (hard == kNone || program.op(hard).input(0) != x) continue;
    const auto activation = AsActivation(program, program.op(hard));
    if (activation && Near(activation->a, 1.0 / 6) && Near(activation->b, 0.5)) {
      Become(program, op, "HardSwish", "", x, {}, {hard});
      return true;
    }
  }
  return false;
}

}  // namespace

void FuseComposedActivations(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const int op = static_cast<int>(i);
    if (!program.ops[i].alive || program.value(program.ops[i].output()).dtype != DType::kFloat32) continue;
    static_cast<void>(ToHardSigmoid(program, op) || ToHardSwish(program, op) || GateToActivation(program, op));
  }
}

}  // namespace crease
