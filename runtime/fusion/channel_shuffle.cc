// SPDX-License-Identifier: Apache-2.0
#include "graph/op.h"
#include "graph/ops/transpose.h"
#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"

namespace crease {

// (N, C, ...) -> (N, g, C/g, ...) -> axes 1 and 2 exchanged -> (N, C, ...): channel g' * (C/g) + i goes
// to i * g + g'.
void FuseChannelShuffle(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const int last = static_cast<int>(i);
    if (!program.op(last).alive || program.op(last).type() != "Reshape") continue;
    const int transpose = program.PrivateProducer(program.op(last).input(0), "Transpose");
    if (transpose == kNone) continue;
    const int first = program.PrivateProducer(program.op(transpose).input(0), "Reshape");
    if (first == kNone) continue;
    const ValueId source = program.op(first).input(0);
    const Shape& x = program.value(source).shape;
    const Shape& split = program.value(program.op(transpose).input(0)).shape;
    if (x.size() < 3 || program.value(program.op(last).output()).shape != x || split.size() != x.size() + 1 ||
        split[0] != x[0] || split[1] * split[2] != x[1] || !std::equal(x.begin() + 2, x.end(), split.begin() + 3)) {
      continue;
    }
    const auto perm = ops::ParseTranspose(program.op(transpose).node, static_cast<int>(split.size()));
    if (!perm.ok()) continue;
    bool exchanges = (*perm)[1] == 2 && (*perm)[2] == 1;
    for (size_t axis = 0; axis < perm->size(); ++axis) {
      if (axis != 1 && axis != 2) exchanges = exchanges && (*perm)[axis] == static_cast<int>(axis);
    }
    if (!exchanges) continue;
    const int64_t groups = split[1];
    ProgramOp& op = program.op(last);
    op.fused = {program.op(first).Describe(), program.op(transpose).Describe()};
    program.Kill(transpose);
    program.Kill(first);
    program.SetInput(last, 1, kNone);
    program.SetInput(last, 0, source);
    op.node.inputs.resize(1);
    op.node.op_type = "ChannelShuffle";
    op.node.domain = kInternalDomain;
    op.node.attributes = {MakeAttr("groups", groups)};
  }
}

}  // namespace crease
