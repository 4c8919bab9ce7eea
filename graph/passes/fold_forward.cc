// SPDX-License-Identifier: Apache-2.0
// The map's way forward: every reader of the value must take it, or nothing is won.
#include <algorithm>
#include <set>

#include "graph/ops/common.h"
#include "graph/passes/absorb.h"
#include "graph/passes/commute.h"

namespace crease::fold {
namespace {

using ops::StrCat;

// The reader is a map itself: one node of both.
Outcome<Done> ComposeWith(const FoldContext& context, const AffineNode& other, const Affine& map, FoldPlan& plan) {
  const std::string self = context.graph.Describe(other.node);
  const int rank = context.rank(other.out);
  if (!Composable(map, other.affine)) return Refusal{"axis-mismatch", self, "it maps another axis"};
  const Affine both = Compose(map, other.affine);
  if (!both.finite()) return Refusal{"not-finite", self, "the composed map is not finite"};
  if (AffineNodeCount(both, rank) != 1) return Refusal{"cost", self, "the composed map would be two nodes"};
  Outcome<Done> fits = CheckAffine(both, other.dtype);
  if (!fits.ok()) return Refusal{fits.refusal().code, self, fits.refusal().message};
  plan.Add([&context, other, both, rank, name = context.graph.node(other.node).name](Patch& patch, const FoldPlan& p) {
    patch.RemoveNode(other.node);
    EmitAffine(context, patch, both, rank, other.dtype, p.InputOf(other.node, other.slot, other.data), other.out, name);
  });
  plan.Absorbed("affine", self);
  return Done{};
}

// The map on one operand of a Concat is a map of the whole that leaves the other channels alone.
Outcome<Affine> EmbedInConcat(const FoldContext& context, NodeId id, ValueId value, const Affine& map) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  const int rank = context.rank(node.outputs[0]);
  const Result<int64_t> attribute = AttrInt(node, "axis", 1);
  if (rank < 0 || !attribute.ok()) return Refusal{"shape-unknown", self, "its rank is unknown"};
  const int axis = static_cast<int>(*attribute < 0 ? *attribute + rank : *attribute);
  const bool all = std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId input) { return input == value; });
  if (!map.uniform() && map.axis != axis) {
    if (all) return map;
    return Refusal{"uneven-channels", self, "its operands share their channels"};
  }
  Affine result{axis, {}, {}};
  for (ValueId input : node.inputs) {
    const int64_t size = context.dim(input, axis);
    if (size < 1) return Refusal{"shape-unknown", self, "an operand's size is unknown"};
    const bool mapped = input == value;
    if (mapped && !map.uniform() && size != static_cast<int64_t>(map.size())) {
      return Refusal{"parameter-length", self, "channel counts differ"};
    }
    for (size_t c = 0; c < static_cast<size_t>(size); ++c) {
      result.scale.push_back(mapped ? map.scale_at(c) : 1.0);
      result.shift.push_back(mapped ? map.shift_at(c) : 0.0);
    }
  }
  return result;
}

Outcome<Done> PushInto(const FoldContext& context, NodeId id, ValueId value, ValueId source, const Affine& map,
                       FoldPlan& plan, int depth) {
  const Graph& graph = context.graph;
  const Node& node = graph.node(id);
  const std::string self = graph.Describe(id);
  if (std::count(node.captured.begin(), node.captured.end(), value) > 0) {
    return Refusal{"captured-by-subgraph", self, "its subgraph reads the value"};
  }
  const bool looks = context.LooksAt(id, value);
  if (looks && !plan.Visit(id)) return Refusal{"other-consumers", self, "it reads the value on two ways"};
  const auto uses = std::count(node.inputs.begin(), node.inputs.end(), value);
  const bool concat = node.domain.empty() && node.op_type == "Concat";
  if (looks && uses != 1 && !concat) return Refusal{"other-consumers", self, "it reads the value twice"};
  const auto slot = static_cast<int>(std::find(node.inputs.begin(), node.inputs.end(), value) - node.inputs.begin());
  for (size_t i = 0; source != kNone && i < node.inputs.size(); ++i) {
    if (node.inputs[i] != value) continue;
    const auto rewired = static_cast<int>(i);
    plan.Rewire(id, rewired, source);
    plan.Add([id, rewired, source](Patch& patch, const FoldPlan&) { patch.ReplaceInput(id, rewired, source); });
  }
  if (!looks) return Done{};
  if (AbsorbsForward(node)) return AbsorbForward(context, id, slot, map, plan);
  const Outcome<AffineNode> affine = MatchAffine(context, id);
  if (affine.ok()) return ComposeWith(context, *affine, map, plan);
  if (concat) {
    Outcome<Affine> whole = EmbedInConcat(context, id, value, map);
    if (!whole.ok()) return whole.refusal();
    return PushForward(context, node.outputs[0], kNone, *whole, plan, depth + 1);
  }
  if (slot != 0) return Refusal{"unsupported-producer", self, StrCat("the value is its input ", slot)};
  if (const std::optional<Shuffled> shuffled = CommuteShuffle(context, id, map, Direction::kForward)) {
    if (!plan.Visit(shuffled->transpose) || !plan.Visit(shuffled->join)) {
      return Refusal{"other-consumers", self, "it reads the value on two ways"};
    }
    return PushForward(context, graph.node(shuffled->join).outputs[0], kNone, shuffled->map, plan, depth + 1);
  }
  for (size_t output = 0; output < node.outputs.size(); ++output) {
    if (node.outputs[output] == kNone) continue;
    Outcome<Affine> through = Commute(context, id, static_cast<int>(output), map, Direction::kForward);
    if (!through.ok()) return through.refusal();
    if (output > 0 && node.op_type != "Split") continue;  // MaxPool's indices, Dropout's mask: unchanged
    Outcome<Done> pushed = PushForward(context, node.outputs[output], kNone, *through, plan, depth + 1);
    if (!pushed.ok()) return pushed.refusal();
  }
  return Done{};
}

}  // namespace

Outcome<Done> PushForward(const FoldContext& context, ValueId value, ValueId source, const Affine& map, FoldPlan& plan,
                          int depth) {
  const Graph& graph = context.graph;
  const std::string name = "'" + Printable(graph.value(value).name) + "'";
  if (map.identity()) return Done{};
  if (depth > kMaxFoldDepth) return Refusal{"too-deep", name, "the way is too long"};
  if (graph.is_output(value)) return Refusal{"graph-output", name, StrCat(name, " is a graph output")};
  const std::span<const NodeId> consumers = graph.consumers(value);
  if (consumers.empty()) return Refusal{"no-consumer", name, StrCat("nothing reads ", name)};
  const std::set<NodeId> readers(consumers.begin(), consumers.end());
  for (NodeId reader : readers) {
    Outcome<Done> pushed = PushInto(context, reader, value, source, map, plan, depth);
    if (!pushed.ok()) return pushed.refusal();
  }
  return Done{};
}

}  // namespace crease::fold
