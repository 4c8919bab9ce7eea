// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "graph/passes/const_eval.h"
#include "graph/passes/passes.h"

namespace crease {
namespace {

// A reader that is not itself a constant's maker needs the value.
bool NeededByRest(const Graph& graph, const ConstEval& constants, ValueId value) {
  for (NodeId consumer : graph.consumers(value)) {
    const std::vector<ValueId>& outputs = graph.node(consumer).outputs;
    const bool constant =
        std::all_of(outputs.begin(), outputs.end(), [&](ValueId o) { return o == kNone || constants.IsConstant(o); });
    if (!constant) return true;
  }
  return false;
}

}  // namespace

Result<Patch> FoldConstants(const Graph& graph, PassContext& context) {
  Patch patch(graph);
  ConstEval constants(graph, context.types, nullptr, kMaxFoldedElements);
  for (NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    bool replaced = false;
    for (ValueId output : node.outputs) {
      if (output == kNone || !constants.IsConstant(output) || !NeededByRest(graph, constants, output)) continue;
      const auto& readers = graph.consumers(output);
      if (std::any_of(readers.begin(), readers.end(),
                      [&](NodeId reader) { return !graph.node(reader).captured.empty(); }))
        continue;
      const Tensor* value = constants.Get(output);
      if (value == nullptr) continue;
      const DType dtype = constants.dtype(output);
      Tensor tensor = *value;
      if (dtype != DType::kUndefined && dtype != tensor.dtype()) {
        CREASE_ASSIGN_OR_RETURN(tensor, value->ConvertedTo(dtype));
      }
      patch.ReplaceUses(output, patch.AddConstant(graph.value(output).name + "_value", std::move(tensor)));
      replaced = true;
    }
    if (!replaced) continue;
    LogEntry entry;
    entry.code = "evaluated";
    entry.applied = true;
    entry.node = node.name.empty() ? "#" + std::to_string(id) : node.name;
    entry.op_type = node.op_type;
    entry.message = "its inputs are constants";
    context.log.push_back(std::move(entry));
  }
  return patch;
}

}  // namespace crease
