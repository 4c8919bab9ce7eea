// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"
#include "graph/passes/affine.h"
#include "graph/passes/passes.h"

namespace crease {
namespace {

using fold::FoldContext;

bool Is(const Node& node, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), node.op_type) != list.end();
}

// All inputs beyond the first `from`, where there, are known before the run.
bool Constants(const FoldContext& context, const Node& node, size_t from) {
  for (size_t i = from; i < node.inputs.size(); ++i) {
    if (node.inputs[i] != kNone && context.constants.Get(node.inputs[i]) == nullptr) return false;
  }
  return true;
}

const Tensor* ConstantInput(const FoldContext& context, const Node& node, size_t slot) {
  return slot < node.inputs.size() && node.inputs[slot] != kNone ? context.constants.Get(node.inputs[slot]) : nullptr;
}

bool DropsNothing(const FoldContext& context, const Node& node) {
  if (node.outputs.size() > 1 && node.outputs[1] != kNone && context.graph.use_count(node.outputs[1]) > 0) return false;
  if (node.inputs.size() < 3 || node.inputs[2] == kNone) return true;
  const Tensor* training = ConstantInput(context, node, 2);
  return training != nullptr && training->size() == 1 && training->AsInt64(0) == 0;
}

// Same elements in the same order: one unknown dimension follows from the others.
bool SameShape(const TensorType& a, const TensorType& b) {
  if (!a.has_rank || !b.has_rank || a.rank() != b.rank()) return false;
  int unknown = 0;
  for (size_t i = 0; i < a.dims.size(); ++i) {
    if (a.dims[i].known() != b.dims[i].known()) return false;
    if (!a.dims[i].known()) {
      ++unknown;
    } else if (a.dims[i].value != b.dims[i].value || a.dims[i].value == 0) {
      return false;
    }
  }
  return unknown <= 1;
}

bool PadsNothing(const FoldContext& context, const Node& node) {
  std::vector<int64_t> pads;
  if (context.opset() >= 11) {
    const Tensor* tensor = ConstantInput(context, node, 1);
    if (tensor == nullptr) return false;
    for (int64_t i = 0; i < tensor->size(); ++i) pads.push_back(tensor->AsInt64(i));
  } else {
    Result<std::vector<int64_t>> attribute = AttrInts(node, "pads", {1});
    if (!attribute.ok()) return false;
    pads = std::move(attribute).value();
  }
  return std::all_of(pads.begin(), pads.end(), [](int64_t p) { return p == 0; });
}

bool SlicesNothing(const FoldContext& context, const Node& node) {
  const TensorType& in = context.type(node.inputs[0]);
  if (!in.is_static() || !Constants(context, node, 1)) return false;
  Result<ops::SlicePlan> plan = ops::ResolveSlice(node, context.opset(), in.shape(), ConstantInput(context, node, 1),
                                                  ConstantInput(context, node, 2), ConstantInput(context, node, 3),
                                                  ConstantInput(context, node, 4));
  if (!plan.ok() || plan->output != in.shape()) return false;
  return std::all_of(plan->step.begin(), plan->step.end(), [](int64_t step) { return step == 1; });
}

bool TransposesNothing(const FoldContext& context, const Node& node) {
  const int rank = context.rank(node.inputs[0]);
  if (rank < 0) return false;
  Result<std::vector<int>> perm = ops::ParseTranspose(node, rank);
  return perm.ok() && std::is_sorted(perm->begin(), perm->end());
}

// Why the node's first output is its first input; null if it is not so. `data`: that input.
const char* WhyIdentity(const FoldContext& context, NodeId id, ValueId* data) {
  const Node& node = context.graph.node(id);
  if (!node.domain.empty() || node.outputs.empty() || node.outputs[0] == kNone) return nullptr;
  const auto affine = fold::MatchAffine(context, id);
  if (affine.ok() && affine->affine.identity() && node.outputs.size() == 1) {
    *data = affine->data;
    return "scale 1 and shift 0";
  }
  if (node.inputs.empty() || node.inputs[0] == kNone) return nullptr;
  *data = node.inputs[0];
  const TensorType &in = context.type(*data), &out = context.type(node.outputs[0]);
  if (Is(node, {"Identity"})) return "it copies";
  if (Is(node, {"Dropout"}) && DropsNothing(context, node)) return "dropout does nothing at inference";
  if (Is(node, {"Cast"}) && in.dtype == out.dtype && in.dtype != DType::kUndefined) return "it casts to the same type";
  if (Is(node, {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}) && SameShape(in, out)) return "the shape stays the same";
  if (Is(node, {"Concat", "Sum", "Max", "Min", "Mean"}) && node.inputs.size() == 1) return "it has one operand";
  if (Is(node, {"Pad"}) && PadsNothing(context, node)) return "all pads are zero";
  if (Is(node, {"Slice"}) && SlicesNothing(context, node)) return "it takes everything";
  if (Is(node, {"Transpose"}) && TransposesNothing(context, node)) return "the axes keep their order";
  return nullptr;
}

// The value's readers are nodes that can be given another value: no subgraph names it.
bool Replaceable(const Graph& graph, const Patch& patch, ValueId value) {
  if (graph.is_output(value)) return false;
  for (NodeId consumer : graph.consumers(value)) {
    if (patch.touches(consumer) || !graph.node(consumer).captured.empty()) return false;
  }
  return true;
}

bool Remove(const Graph& graph, NodeId id, ValueId data, Patch& patch) {
  const ValueId out = graph.node(id).outputs[0];
  if (Replaceable(graph, patch, out)) {
    patch.ReplaceUses(out, data);
    patch.RemoveNode(id);
    return true;
  }
  // The name must stay: what makes the input makes it under that name.
  const NodeId producer = graph.producer(data);
  if (!graph.is_output(out) || producer == kNone || patch.touches(producer) || graph.use_count(data) != 1 ||
      graph.is_output(data) || graph.constant(data) != nullptr) {
    return false;
  }
  const std::vector<ValueId>& outputs = graph.node(producer).outputs;
  patch.RemoveNode(id);
  patch.ReplaceOutput(producer, static_cast<int>(std::find(outputs.begin(), outputs.end(), data) - outputs.begin()),
                      out);
  return true;
}

}  // namespace

Result<Patch> EliminateIdentity(const Graph& graph, PassContext& pass) {
  Patch patch(graph);
  ConstEval constants(graph, pass.types);
  const FoldContext context{graph, pass.types, constants, pass.unrounded};
  for (NodeId id : graph.topological_order()) {
    if (patch.touches(id)) continue;
    ValueId data = kNone;
    const char* why = WhyIdentity(context, id, &data);
    if (why == nullptr || !Remove(graph, id, data, patch)) continue;
    const Node& node = graph.node(id);
    LogEntry entry;
    entry.code = "removed";
    entry.applied = true;
    entry.node = node.name.empty() ? "#" + std::to_string(id) : node.name;
    entry.op_type = node.op_type;
    entry.message = why;
    pass.log.push_back(std::move(entry));
  }
  return patch;
}

}  // namespace crease
