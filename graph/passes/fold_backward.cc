// SPDX-License-Identifier: Apache-2.0
// The map's way back: through operators that it commutes with, split over Concat and Add, to weights.
#include <algorithm>

#include "graph/ops/common.h"
#include "graph/passes/absorb.h"
#include "graph/passes/commute.h"

namespace crease::fold {
namespace {

using ops::StrCat;

struct Step {
  const FoldContext& context;
  NodeId id;  // the operator that makes the value
  const Affine& map;
  FoldPlan& plan;
  int depth;

  const Node& node() const { return context.graph.node(id); }
  std::string self() const { return context.graph.Describe(id); }
  Outcome<Done> Push(int slot, const Affine& part) const {
    return PushBackward(context, id, slot, part, plan, depth + 1);
  }
};

// A constant gets the map itself; the reader gets a constant of its own.
Outcome<Done> AbsorbConstant(const FoldContext& context, NodeId user, int slot, ValueId value, const Affine& map,
                             FoldPlan& plan) {
  const std::string name = "'" + Printable(context.graph.value(value).name) + "'";
  const Tensor* tensor = context.constants.Get(value);
  const DType dtype = context.constants.dtype(value);
  if (tensor == nullptr || !IsFloat(dtype))
    return Refusal{"weights-not-constant", name, "it has no value of a float type"};
  if (!map.uniform() && (map.axis >= tensor->rank() || tensor->dim(map.axis) != static_cast<int64_t>(map.size()))) {
    return Refusal{"axis-mismatch", name, "the constant has no such channel axis"};
  }
  const int64_t inner = map.uniform() ? 1 : InnerSize(*tensor, map.axis + 1);
  std::vector<double> values(static_cast<size_t>(tensor->size()));
  for (int64_t i = 0; i < tensor->size(); ++i) {
    const auto c = map.uniform() ? 0 : static_cast<size_t>(i / inner) % map.size();
    values[static_cast<size_t>(i)] = map.scale[c] * tensor->AsDouble(i) + map.shift[c];
  }
  Outcome<Rounded> rounded = RoundTo(values, dtype, tensor->shape());
  if (!rounded.ok()) return rounded.refusal();
  PlanInput(context, user, static_cast<size_t>(slot), std::move(*rounded),
            NewName(context, user, static_cast<size_t>(slot), "_folded"), plan);
  plan.Absorbed("constant", name);
  return Done{};
}

// Another map in the way becomes the composition of both, as one node.
Outcome<Done> AbsorbAffine(const Step& step, const AffineNode& other) {
  const int rank = step.context.rank(other.out);
  if (!Composable(other.affine, step.map)) return Refusal{"axis-mismatch", step.self(), "it maps another axis"};
  const Affine both = Compose(other.affine, step.map);
  if (!both.finite()) return Refusal{"not-finite", step.self(), "the composed map is not finite"};
  if (AffineNodeCount(both, rank) != 1) return Refusal{"cost", step.self(), "the composed map would be two nodes"};
  Outcome<Done> fits = CheckAffine(both, other.dtype);
  if (!fits.ok()) return Refusal{fits.refusal().code, step.self(), fits.refusal().message};
  step.plan.Remade(other.out);
  step.plan.Add(
      [&context = step.context, other, both, rank, name = step.node().name](Patch& patch, const FoldPlan& plan) {
        patch.RemoveNode(other.node);
        EmitAffine(context, patch, both, rank, other.dtype, plan.InputOf(other.node, other.slot, other.data),
                   plan.NameOf(other.out), name);
      });
  step.plan.Absorbed("affine", step.self());
  return Done{};
}

// Scales both operands; the shift goes to the one that takes it. `signs`: -1 for Sub's second.
Outcome<Done> PushThroughSum(const Step& step) {
  const Node& node = step.node();
  const bool subtract = node.op_type == "Sub";
  if (node.inputs.empty() || (node.op_type != "Sum" && node.inputs.size() != 2)) {
    return Refusal{"unsupported-producer", step.self(), "its inputs are not two"};
  }
  const ValueId out = node.outputs[0];
  const int rank = step.context.rank(out);
  if (rank < 0) return Refusal{"shape-unknown", step.self(), "its rank is unknown"};
  for (ValueId input : node.inputs) {
    // A broadcast operand has fewer elements than the map: only whole channels are handled.
    const bool whole =
        step.context.rank(input) == rank &&
        (step.map.uniform() || step.context.dim(input, step.map.axis) == static_cast<int64_t>(step.map.size()));
    if (!whole)
      return Refusal{"shape-unknown", step.self(),
                     "an operand is broadcast along the channels, or its shape is unknown"};
  }
  Affine scale = step.map;
  std::fill(scale.shift.begin(), scale.shift.end(), 0.0);
  // A scale of 1 touches no operand: the shift alone travels on, to the first that takes it.
  Refusal last{"unsupported-producer", step.self(), "no operand takes the shift"};
  const FoldPlan::Mark start = step.plan.Save();
  for (size_t shifted = 0; shifted < node.inputs.size(); ++shifted) {
    bool all = true;
    for (size_t slot = 0; all && slot < node.inputs.size(); ++slot) {
      Affine part = slot == shifted ? step.map : scale;
      if (subtract && slot == 1)
        std::transform(part.shift.begin(), part.shift.end(), part.shift.begin(), [](double t) { return -t; });
      Outcome<Done> pushed = step.Push(static_cast<int>(slot), part);
      if (!pushed.ok()) last = pushed.refusal();
      all = pushed.ok();
    }
    if (all) return Done{};
    step.plan.Restore(start);
    if (!step.map.has_shift()) break;  // every order is the same
  }
  return last;
}

// One part of the map for each operand. Parts that cannot go on stay behind as nodes, if enough go.
Outcome<Done> PushThroughConcat(const Step& step) {
  const Node& node = step.node();
  const int rank = step.context.rank(node.outputs[0]);
  const Result<int64_t> attribute = AttrInt(node, "axis", 1);
  if (rank < 0 || !attribute.ok()) return Refusal{"shape-unknown", step.self(), "its rank is unknown"};
  const int axis = static_cast<int>(*attribute < 0 ? *attribute + rank : *attribute);
  const bool split = !step.map.uniform() && step.map.axis == axis;
  size_t begin = 0;
  int64_t absorbed = 0, total = 0;
  int left = 0;
  Refusal last;
  for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
    const ValueId input = node.inputs[slot];
    const int64_t size = step.context.dim(input, axis);
    Affine part = step.map;
    if (size < 0) return Refusal{"shape-unknown", step.self(), "an operand's size is unknown"};
    if (split) {
      const size_t end = begin + static_cast<size_t>(size);
      if (size == 0 || end > step.map.size())
        return Refusal{"parameter-length", step.self(), "its operands do not add up to the parameters"};
      part = {
          axis,
          {step.map.scale.begin() + static_cast<int64_t>(begin), step.map.scale.begin() + static_cast<int64_t>(end)},
          {step.map.shift.begin() + static_cast<int64_t>(begin), step.map.shift.begin() + static_cast<int64_t>(end)}};
      begin = end;
    }
    total += size;
    const FoldPlan::Mark mark = step.plan.Save();
    Outcome<Done> pushed = step.Push(static_cast<int>(slot), part);
    if (pushed.ok()) {
      absorbed += size;
      continue;
    }
    step.plan.Restore(mark);
    last = pushed.refusal();
    const DType dtype = step.context.type(input).dtype;
    Outcome<Done> fits = IsFloat(dtype) ? CheckAffine(part, dtype)
                                        : Outcome<Done>(Refusal{"shape-unknown", step.self(), "a type is unknown"});
    if (!fits.ok() || AffineNodeCount(part, rank) != 1) return last;
    ++left;
    step.plan.new_nodes += 1;
    step.plan.left_channels += size;
    step.plan.Add([&context = step.context, id = step.id, slot, part, rank, dtype, input,
                   type = step.context.type(input),
                   name = node.name + "_branch" + std::to_string(slot)](Patch& patch, const FoldPlan&) {
      const ValueId mapped = patch.AddValue(name + "_mapped", type);
      EmitAffine(context, patch, part, rank, dtype, input, mapped, name);
      patch.ReplaceInput(id, static_cast<int>(slot), mapped);
    });
  }
  step.plan.total_channels += total;
  if (left == 0) return Done{};
  // Fewer channels left do not pay: at run time the one node on the whole value may be fused into its reader.
  return absorbed > 0 && 2 * absorbed >= total ? Outcome<Done>(Done{}) : last;
}

// A Slice or Gather of channels that the map leaves as they are.
bool IsUntouched(const FoldContext& context, NodeId reader, ValueId value, const Affine& map) {
  const Node& node = context.graph.node(reader);
  const bool alone = node.outputs.size() == 1 && !node.inputs.empty() && node.inputs[0] == value &&
                     std::count(node.inputs.begin(), node.inputs.end(), value) == 1 && node.captured.empty();
  if (!alone) return false;
  const Outcome<Affine> through = Commute(context, reader, 0, map, Direction::kForward);
  return through.ok() && through->identity();
}

// Whether the map changes nothing for other readers of the value than `user`, which reads it once. Right behind the map
// the value gets its result's name, so that others must not look at all.
bool OthersMayStay(const FoldContext& context, NodeId user, ValueId value, const Affine& map, int depth) {
  if (context.LookingUses(value) == 1) return true;
  const std::span<const NodeId> readers = context.graph.consumers(value);
  constexpr size_t kMostReaders = 32;  // each is asked once for each of the others: 256 took 15 s
  return depth > 0 && readers.size() <= kMostReaders && std::count(readers.begin(), readers.end(), user) == 1 &&
         std::all_of(readers.begin(), readers.end(), [&](NodeId reader) {
           return reader == user || !context.LooksAt(reader, value) || IsUntouched(context, reader, value, map);
         });
}

}  // namespace

Outcome<Done> PushBackward(const FoldContext& context, NodeId user, int slot, const Affine& map, FoldPlan& plan,
                           int depth) {
  const Graph& graph = context.graph;
  const ValueId value = graph.node(user).inputs[static_cast<size_t>(slot)];
  if (map.identity()) return Done{};
  if (value == kNone) return Refusal{"unsupported-producer", graph.Describe(user), "an input is missing"};
  if (depth > kMaxFoldDepth) return Refusal{"too-deep", graph.Describe(user), "the way is too long"};
  if (context.constants.IsConstant(value)) return AbsorbConstant(context, user, slot, value, map, plan);
  const NodeId id = graph.producer(value);
  const std::string name = "'" + Printable(graph.value(value).name) + "'";
  if (id == kNone) return Refusal{"graph-input", name, StrCat("the value ", name, " is a graph input")};
  const Node& node = graph.node(id);
  if (graph.is_output(value))
    return Refusal{"graph-output", name, StrCat("the value ", name, " is a graph output too")};
  if (!OthersMayStay(context, user, value, map, depth)) {
    std::string readers;
    for (NodeId consumer : graph.consumers(value)) {
      const Node& reader = graph.node(consumer);
      if (std::count(reader.captured.begin(), reader.captured.end(), value) > 0) {
        return Refusal{"captured-by-subgraph", graph.Describe(consumer), StrCat("its subgraph reads ", name)};
      }
      if (consumer != user && readers.size() < 200 && context.LooksAt(consumer, value))
        readers += StrCat(readers.empty() ? "" : ", ", graph.Describe(consumer));
    }
    return Refusal{"other-consumers", graph.Describe(id),
                   StrCat(name, " is read by ", readers.empty() ? "the same node twice" : readers, " too")};
  }
  if (!plan.Visit(id))
    return Refusal{"too-deep", graph.Describe(id), "the search met it twice, or took too many steps"};
  if (AbsorbsBackward(node)) return AbsorbBackward(context, id, map, plan);
  const Outcome<AffineNode> affine = MatchAffine(context, id);
  const Step step{context, id, map, plan, depth};
  if (affine.ok()) return AbsorbAffine(step, *affine);
  if (!affine.refusal().code.empty()) return affine.refusal();
  if (node.domain.empty() && (node.op_type == "Add" || node.op_type == "Sub" || node.op_type == "Sum"))
    return PushThroughSum(step);
  if (node.domain.empty() && node.op_type == "Concat") return PushThroughConcat(step);
  if (const std::optional<Shuffled> shuffled = CommuteShuffle(context, id, map, Direction::kBackward)) {
    if (!plan.Visit(shuffled->transpose) || !plan.Visit(shuffled->cut)) {
      return Refusal{"too-deep", graph.Describe(id), "the search took too many steps"};
    }
    return PushBackward(context, shuffled->cut, 0, shuffled->map, plan, depth + 1);
  }
  int output = 0;
  while (node.outputs[static_cast<size_t>(output)] != value) ++output;
  const DType rounded_to = depth == 0 ? plan.rounded_to : DType::kUndefined;
  Outcome<Affine> through = Commute(context, id, output, map, Direction::kBackward, rounded_to);
  if (!through.ok()) return through.refusal();
  return PushBackward(context, id, 0, *through, plan, depth + 1);
}

}  // namespace crease::fold
