// SPDX-License-Identifier: Apache-2.0
#include "runtime/fusion/fusion.h"

namespace crease {

void LowerSum(Program& program, ConstantPool&) {
  std::vector<ProgramOp> ops;
  ops.reserve(program.ops.size());
  for (ProgramOp& op : program.ops) {
    if (op.type() != "Sum" || !op.node.domain.empty() || op.node.inputs.size() < 2) {
      if (op.type() == "Sum" && op.node.domain.empty()) op.node.op_type = "Identity";
      ops.push_back(std::move(op));
      continue;
    }
    const std::vector<ValueId> inputs = op.node.inputs;
    const ValueId result = op.output();
    const DType dtype = program.value(result).dtype;
    ValueId sum = inputs[0];
    for (size_t i = 1; i < inputs.size(); ++i) {
      ProgramOp add;
      add.node.op_type = "Add";
      add.node.name = op.node.name;
      const bool last = i + 1 == inputs.size();
      Shape shape = program.value(result).shape;
      // Broadcasting in steps: the partial sum has its operands' common shape.
      if (!last) {
        const Shape& a = program.value(sum).shape;
        const Shape& b = program.value(inputs[i]).shape;
        shape.assign(std::max(a.size(), b.size()), 1);
        for (size_t axis = 0; axis < shape.size(); ++axis) {
          const int64_t da = axis < a.size() ? a[a.size() - 1 - axis] : 1;
          const int64_t db = axis < b.size() ? b[b.size() - 1 - axis] : 1;
          shape[shape.size() - 1 - axis] = da == 1 ? db : da;
        }
      }
      const ValueId partial =
          last ? result
               : program.AddValue(program.value(result).name + "/sum_" + std::to_string(i), dtype, std::move(shape));
      add.node.inputs = {sum, inputs[i]};
      add.node.outputs = {partial};
      sum = partial;
      ops.push_back(std::move(add));
    }
  }
  program.ops = std::move(ops);
  program.Reindex();
}

}  // namespace crease
