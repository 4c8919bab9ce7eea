// SPDX-License-Identifier: Apache-2.0
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

// A constant that adds the same (n) row to every row of (m, n).
bool IsRow(const Program& program, ValueId id, int64_t n) {
  const Tensor* tensor = program.constant(id);
  return tensor && tensor->dtype() == DType::kFloat32 && tensor->size() == n && tensor->rank() <= 2 &&
         tensor->rank() >= 1 && tensor->shape().back() == n;
}

}  // namespace

void FuseMatMulBias(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    if (!program.ops[i].alive || program.ops[i].type() != "Add" || !program.ops[i].node.domain.empty()) continue;
    const int add = static_cast<int>(i);
    for (size_t side : {0u, 1u}) {
      const ValueId product = program.op(add).input(side), row = program.op(add).input(1 - side);
      const int matmul = program.PrivateProducer(product, "MatMul");
      if (matmul == kNone || program.value(product).rank() != 2 ||
          program.value(program.op(matmul).input(0)).rank() != 2 || !program.constant(program.op(matmul).input(1)) ||
          program.value(program.op(matmul).input(1)).rank() != 2 ||
          !IsRow(program, row, program.value(product).shape[1]) ||
          program.value(program.op(add).output()).shape != program.value(product).shape) {
        continue;
      }
      const ValueId result = program.op(add).output();
      program.op(matmul).fused.push_back(program.op(add).Describe());
      program.Kill(add);
      program.op(matmul).node.op_type = "Gemm";
      program.SetInput(matmul, 2, row);
      program.SetOutput(matmul, result);
      break;
    }
  }
}

}  // namespace crease
