// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "graph/passes/passes.h"

namespace crease {

Result<Patch> EliminateDeadCode(const Graph& graph, PassContext& context) {
  Patch patch(graph);
  std::vector<int> uses(static_cast<size_t>(graph.value_count()));
  for (ValueId id = 0; id < graph.value_count(); ++id) uses[static_cast<size_t>(id)] = graph.use_count(id);
  const std::vector<NodeId>& order = graph.topological_order();
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId output) {
      return output != kNone && uses[static_cast<size_t>(output)] > 0;
    });
    if (used) continue;
    for (const auto* list : {&node.inputs, &node.captured}) {
      for (ValueId input : *list) {
        if (input != kNone) --uses[static_cast<size_t>(input)];
      }
    }
    patch.RemoveNode(*it);
    LogEntry entry;
    entry.code = "removed";
    entry.applied = true;
    entry.node = node.name.empty() ? "#" + std::to_string(*it) : node.name;
    entry.op_type = node.op_type;
    entry.message = "nothing uses its outputs";
    context.log.push_back(std::move(entry));
  }
  return patch;
}

}  // namespace crease
