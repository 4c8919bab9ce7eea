// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/reduce.h"
#include "runtime/fusion/fusion.h"

namespace crease {

void FuseGlobalAveragePool(Program& program, ConstantPool&) {
  std::vector<ProgramOp> ops;
  ops.reserve(program.ops.size());
  for (ProgramOp& op : program.ops) {
    ops.push_back(std::move(op));
    ProgramOp& mean = ops.back();
    if (mean.type() != "ReduceMean" || !mean.node.domain.empty()) continue;
    const ProgramValue& x = program.value(mean.input(0));
    if (x.rank() < 3 || x.dtype != DType::kFloat32) continue;
    if (mean.input(1) != kNone && !program.constant(mean.input(1))) continue;
    const auto plan = ops::ResolveReduce(mean.node, program.opset, x.shape, program.constant(mean.input(1)));
    if (!plan.ok()) continue;
    bool spatial = !plan->reduced[0] && !plan->reduced[1];
    for (size_t axis = 2; axis < plan->reduced.size(); ++axis) spatial = spatial && plan->reduced[axis];
    if (!spatial) continue;
    mean.node.op_type = "GlobalAveragePool";
    mean.node.inputs.resize(1);
    mean.node.attributes.clear();
    mean.fused.push_back("ReduceMean");
    if (plan->keepdims) continue;
    const ValueId result = mean.output();
    Shape kept(x.shape.begin(), x.shape.begin() + 2);
    kept.resize(x.shape.size(), 1);
    const ValueId pooled = program.AddValue(program.value(result).name + "/pooled", x.dtype, std::move(kept));
    mean.node.outputs[0] = pooled;
    ProgramOp flatten;
    flatten.node.op_type = "Flatten";
    flatten.node.inputs = {pooled};
    flatten.node.outputs = {result};
    ops.push_back(std::move(flatten));
  }
  program.ops = std::move(ops);
  program.Reindex();
}

}  // namespace crease
