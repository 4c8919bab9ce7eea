// SPDX-License-Identifier: Apache-2.0
// Hard sigmoids that exporters write as Add, Clip and Div. Before folding: afterwards the Add is part of
// the convolution in front and the Div of the one behind, and nobody sees the activation any more.
#include <cmath>
#include <optional>
#include <string>

#include "graph/ops/activation.h"
#include "graph/passes/affine.h"
#include "graph/passes/passes.h"

namespace crease {
namespace {

using fold::FoldContext;

// What exporters write as 1/6 differs in the last bits.
bool Near(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

// The value of a constant of one element that does not add axes to what it is combined with.
std::optional<double> Scalar(const FoldContext& context, ValueId id, ValueId other) {
  const Tensor* tensor = id == kNone ? nullptr : context.constants.Get(id);
  if (tensor == nullptr || tensor->size() != 1 || !IsFloat(tensor->dtype())) return std::nullopt;
  if (tensor->rank() > std::max(context.rank(other), 0)) return std::nullopt;
  return tensor->AsDouble(0);
}

// The node that makes the value, if it is of that type and nobody else reads the value.
const Node* PrivateProducer(const Graph& graph, ValueId id, std::string_view op_type) {
  if (id == kNone || graph.use_count(id) != 1 || graph.producer(id) == kNone) return nullptr;
  const Node& node = graph.node(graph.producer(id));
  return node.op_type == op_type && node.domain.empty() ? &node : nullptr;
}

struct Scaled {
  ValueId value;
  double factor;
};

// The node as value * factor: Mul or Div by a scalar.
std::optional<Scaled> AsScaled(const FoldContext& context, const Node& node) {
  if (!node.domain.empty() || node.inputs.size() != 2) return std::nullopt;
  const ValueId a = node.inputs[0], b = node.inputs[1];
  if (node.op_type == "Div") {
    const auto divisor = Scalar(context, b, a);
    if (divisor && *divisor != 0) return Scaled{a, 1 / *divisor};
  } else if (node.op_type == "Mul") {
    if (const auto factor = Scalar(context, b, a)) return Scaled{a, *factor};
    if (const auto factor = Scalar(context, a, b)) return Scaled{b, *factor};
  }
  return std::nullopt;
}

struct Ramp {  // min(max(x + offset, 0), top)
  ValueId x;
  double offset, top;
  NodeId clip, add;
};

std::optional<Ramp> AsRamp(const FoldContext& context, ValueId id) {
  const Graph& graph = context.graph;
  const Node* clip = PrivateProducer(graph, id, "Clip");
  if (clip == nullptr) return std::nullopt;
  const auto bound = [&](size_t slot) {
    return slot < clip->inputs.size() && clip->inputs[slot] != kNone ? context.constants.Get(clip->inputs[slot])
                                                                     : nullptr;
  };
  const Result<ops::ClipBounds> bounds = ops::ParseClip(*clip, context.opset(), bound(1), bound(2));
  if (!bounds.ok() || bounds->low != 0 || !std::isfinite(bounds->high) || bounds->high <= 0) return std::nullopt;
  const Node* add = PrivateProducer(graph, clip->inputs[0], "Add");
  if (add == nullptr) return std::nullopt;
  for (size_t side : {0u, 1u}) {
    if (const auto offset = Scalar(context, add->inputs[side], add->inputs[1 - side])) {
      return Ramp{add->inputs[1 - side], *offset, bounds->high, graph.producer(id), graph.producer(clip->inputs[0])};
    }
  }
  return std::nullopt;
}

Node HardSigmoid(const Ramp& ramp, const std::string& name, ValueId dst) {
  Node node;
  node.op_type = "HardSigmoid";
  node.name = name;
  node.inputs = {ramp.x};
  node.outputs = {dst};
  node.attributes = {MakeAttr("alpha", static_cast<float>(1 / ramp.top)),
                     MakeAttr("beta", static_cast<float>(ramp.offset / ramp.top))};
  return node;
}

// Clip(x + b, 0, d) / d is HardSigmoid(x); x * Clip(x + b, 0, d) / d is x times that, which the runtime
// makes one HardSwish of.
bool Compose(const FoldContext& context, NodeId id, Patch& patch) {
  const Graph& graph = context.graph;
  const Node& node = graph.node(id);
  const auto scaled = AsScaled(context, node);
  if (!scaled) return false;
  if (const auto ramp = AsRamp(context, scaled->value); ramp && Near(scaled->factor * ramp->top, 1)) {
    if (patch.touches(ramp->clip) || patch.touches(ramp->add)) return false;
    patch.AddNode(HardSigmoid(*ramp, node.name, node.outputs[0]));
    for (NodeId dead : {id, ramp->clip, ramp->add}) patch.RemoveNode(dead);
    return true;
  }
  const Node* product = PrivateProducer(graph, scaled->value, "Mul");
  if (product == nullptr) return false;
  for (size_t side : {0u, 1u}) {
    const auto ramp = AsRamp(context, product->inputs[side]);
    if (!ramp || ramp->x != product->inputs[1 - side] || !Near(scaled->factor * ramp->top, 1)) continue;
    const NodeId mul = graph.producer(scaled->value);
    if (patch.touches(mul) || patch.touches(ramp->clip) || patch.touches(ramp->add)) return false;
    const ValueId gate = patch.AddValue(graph.value(node.outputs[0]).name + "_gate", context.type(ramp->x));
    patch.AddNode(HardSigmoid(*ramp, node.name + "_gate", gate));
    Node gated;
    gated.op_type = "Mul";
    gated.name = node.name;
    gated.inputs = {ramp->x, gate};
    gated.outputs = node.outputs;
    patch.AddNode(std::move(gated));
    for (NodeId dead : {id, mul, ramp->clip, ramp->add}) patch.RemoveNode(dead);
    return true;
  }
  return false;
}

}  // namespace

Result<Patch> ComposeActivations(const Graph& graph, PassContext& pass) {
  Patch patch(graph);
  ConstEval constants(graph, pass.types);
  const FoldContext context{graph, pass.types, constants, pass.unrounded};
  for (NodeId id : graph.topological_order()) {
    if (patch.touches(id) || !Compose(context, id, patch)) continue;
    LogEntry entry;
    entry.code = "composed";
    entry.applied = true;
    entry.node = graph.node(id).name.empty() ? "#" + std::to_string(id) : graph.node(id).name;
    entry.op_type = graph.node(id).op_type;
    entry.message = "a hard sigmoid in parts";
    pass.log.push_back(std::move(entry));
  }
  return patch;
}

}  // namespace crease
