// SPDX-License-Identifier: Apache-2.0
#include "graph/op.h"
#include "runtime/plan.h"

namespace crease {

double Flops(const Program& program, const ProgramOp& op) {
  const ProgramValue& dst = program.value(op.output());
  double elements = static_cast<double>(dst.size());
  const double extra = (op.epilogue.activation != Activation::kNone) + (op.epilogue.residual != Residual::kNone);
  const auto taps = [&](ValueId weights) {  // of one output channel, or one input channel if transposed
    double count = 1;
    const Shape& shape = program.value(weights).shape;
    for (size_t axis = 1; axis < shape.size(); ++axis) count *= static_cast<double>(shape[axis]);
    return count;
  };
  if (op.type() == "Conv") return elements * (2 * taps(op.input(1)) + extra);
  if (op.type() == "ConvTranspose") {
    return 2 * static_cast<double>(program.value(op.input(0)).size()) * taps(op.input(1)) + elements * extra;
  }
  if (op.type() == "Gemm" || op.type() == "MatMul") {
    const ProgramValue& a = program.value(op.input(0));
    if (a.rank() == 0) return elements;
    const Result<int64_t> trans = AttrInt(op.node, "transA", 0);
    const bool first = op.type() == "Gemm" && trans.ok() && *trans != 0;
    return elements * (2 * static_cast<double>(first ? a.shape.front() : a.shape.back()) + extra);
  }
  if (op.type() == "GlobalAveragePool" || op.type().starts_with("Reduce")) {
    elements = static_cast<double>(program.value(op.input(0)).size());
  }
  if (op.type() == "MaxPool" || op.type() == "AveragePool") {
    const Result<std::vector<int64_t>> kernel = AttrInts(op.node, "kernel_shape", {});
    if (kernel.ok()) {
      for (const int64_t size : *kernel) elements *= static_cast<double>(size);
    }
  }
  return elements * (1 + extra);
}

double Plan::flops() const {
  double sum = 0;
  for (const PlanStep& step : steps) sum += step.flops;
  return sum;
}

}  // namespace crease
