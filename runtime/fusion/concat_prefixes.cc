// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "graph/op.h"
#include "runtime/fusion/fusion.h"

namespace crease {

// Dense blocks concatenate all earlier features again and again. Chained, each Concat adds its last
// operand only, and the planner lets all of them share one buffer.
void ShareConcatPrefixes(Program& program, ConstantPool&) {
  std::vector<std::vector<int>> by_first(program.values.size());  // Concats by their first operand
  std::vector<int> prefix_of(program.ops.size(), kNone);
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const ProgramOp& op = program.ops[i];
    if (op.type() != "Concat" || !op.node.domain.empty() || op.node.inputs.size() < 2) continue;
    const Result<int64_t> axis = AttrInt(op.node, "axis", 1);
    const int rank = program.value(op.output()).rank();
    if (!axis.ok() || rank < 3 || (*axis != 1 && *axis != 1 - rank)) continue;
    const std::vector<ValueId> inputs = op.node.inputs;
    int best = kNone;
    size_t best_length = 1;
    for (const int earlier : by_first[static_cast<size_t>(inputs[0])]) {
      const std::vector<ValueId>& prefix = program.op(earlier).node.inputs;
      if (prefix.size() < inputs.size() && prefix.size() > best_length &&
          std::equal(prefix.begin(), prefix.end(), inputs.begin())) {
        best = earlier;
        best_length = prefix.size();
      }
    }
    by_first[static_cast<size_t>(inputs[0])].push_back(static_cast<int>(i));
    if (best == kNone) continue;
    prefix_of[i] = best;
  }
  // Backwards: what an op is compared with must still be whole.
  for (size_t i = program.ops.size(); i-- > 0;) {
    if (prefix_of[i] == kNone) continue;
    ProgramOp& op = program.ops[i];
    const ProgramOp& prefix = program.op(prefix_of[i]);
    op.fused.push_back("prefix of " + prefix.Describe());
    std::vector<ValueId> inputs = {prefix.output()};
    inputs.insert(inputs.end(), op.node.inputs.begin() + static_cast<std::ptrdiff_t>(prefix.node.inputs.size()),
                  op.node.inputs.end());
    op.node.inputs = std::move(inputs);
  }
  program.Reindex();
}

}  // namespace crease
