// SPDX-License-Identifier: Apache-2.0
// Batch-norms and other per-channel maps into the weights before or behind them, what is left into its
// neighbours, and the reasons for what stays. docs/folding.md has the rules.
#include <algorithm>

#include "graph/ops/common.h"
#include "graph/passes/fold_chain.h"
#include "graph/passes/fold_plan.h"
#include "graph/passes/passes.h"

namespace crease {
namespace {

using fold::Affine;
using fold::AffineNode;
using fold::Chain;
using fold::Done;
using fold::FoldContext;
using fold::FoldPlan;
using fold::Outcome;
using fold::Refusal;
using ops::StrCat;

// One pass over one graph.
class Folder {
 public:
  Folder(const Graph& graph, PassContext& context)
      : graph_(graph),
        pass_(context),
        constants_(graph, context.types, &context.unrounded),
        context_{graph, context.types, constants_, context.unrounded},
        patch_(graph),
        busy_(static_cast<size_t>(graph.node_count()), false) {}

  Result<Patch> Backward();
  Result<Patch> Forward();
  Result<Patch> Merge();
  Result<Patch> Explain();

 private:
  Outcome<FoldPlan> PlanBackward(const Chain& chain, size_t end) const;
  Outcome<FoldPlan> PlanForward(const Chain& chain, size_t begin) const;
  DType RoundedTo(ValueId value) const;
  bool Free(const Chain& chain, size_t begin, size_t end, const FoldPlan& plan) const;
  void Commit(const Chain& chain, size_t begin, size_t end, const FoldPlan& plan, bool forward);
  void MoveOnlookers(const Chain& chain, size_t begin, size_t end, ValueId to);
  void Log(NodeId node, std::string_view code, bool applied, std::string target, std::string message);
  int64_t Elements(ValueId value) const;

  const Graph& graph_;
  PassContext& pass_;
  mutable ConstEval constants_;
  FoldContext context_;
  Patch patch_;
  std::vector<bool> busy_;  // nodes that a plan of this patch uses
};

void Folder::Log(NodeId node, std::string_view code, bool applied, std::string target, std::string message) {
  LogEntry entry;
  entry.code = code;
  entry.applied = applied;
  const Node& n = graph_.node(node);
  entry.node = n.name.empty() ? "#" + std::to_string(node) : n.name;
  entry.op_type = n.op_type;
  entry.target = std::move(target);
  entry.message = std::move(message);
  pass_.log.push_back(std::move(entry));
}

// Of one sample, where the batch is not known; 0 where more is not.
int64_t Folder::Elements(ValueId value) const {
  const TensorType& type = context_.type(value);
  if (!type.has_rank) return 0;
  Shape shape = type.shape();
  if (!shape.empty() && shape[0] < 0) shape[0] = 1;
  const Result<int64_t> count = ElementCount(shape);
  return count.ok() ? *count : 0;
}

// The type that all readers of the value cast it to; none if it is an output or has other readers.
DType Folder::RoundedTo(ValueId value) const {
  DType result = DType::kUndefined;
  if (graph_.is_output(value)) return result;
  for (NodeId reader : graph_.consumers(value)) {
    if (!context_.LooksAt(reader, value)) continue;
    const Node& node = graph_.node(reader);
    if (node.op_type != "Cast" || !node.domain.empty()) return DType::kUndefined;
    const DType dtype = node.outputs[0] == kNone ? DType::kUndefined : context_.type(node.outputs[0]).dtype;
    if (dtype == DType::kUndefined || (result != DType::kUndefined && dtype != result)) return DType::kUndefined;
    result = dtype;
  }
  return result;
}

Outcome<FoldPlan> Folder::PlanBackward(const Chain& chain, size_t end) const {
  const AffineNode& first = chain.links.front();
  FoldPlan plan;
  plan.rounded_to = RoundedTo(chain.links[end - 1].out);
  const Affine map = chain.Composed(0, end);
  Outcome<Done> pushed = PushBackward(context_, first.node, first.slot, map, plan);
  if (!pushed.ok()) return pushed.refusal();
  return plan;
}

Outcome<FoldPlan> Folder::PlanForward(const Chain& chain, size_t begin) const {
  FoldPlan plan;
  const Affine map = chain.Composed(begin, chain.links.size());
  Outcome<Done> pushed = PushForward(context_, chain.links.back().out, chain.links[begin].data, map, plan);
  if (!pushed.ok()) return pushed.refusal();
  return plan;
}

bool Folder::Free(const Chain& chain, size_t begin, size_t end, const FoldPlan& plan) const {
  const auto busy = [&](NodeId id) { return busy_[static_cast<size_t>(id)]; };
  for (size_t i = begin; i < end; ++i) {
    if (busy(chain.links[i].node)) return false;
  }
  return std::none_of(plan.visited().begin(), plan.visited().end(), busy);
}

void Folder::Commit(const Chain& chain, size_t begin, size_t end, const FoldPlan& plan, bool forward) {
  for (NodeId id : plan.visited()) busy_[static_cast<size_t>(id)] = true;
  std::string target;
  for (const auto& [kind, name] : plan.absorbed()) {
    if (target.size() < 400) target += StrCat(target.empty() ? "" : ", ", name);
  }
  const size_t count = plan.absorbed().size();
  std::string code = forward      ? "folded-forward"
                     : count == 1 ? StrCat("folded-into-", plan.absorbed()[0].first)
                                  : "folded-into-several";
  std::string note =
      forward ? StrCat("into ", count, count == 1 ? " reader" : " readers") : "into what makes its input";
  if (plan.left_channels > 0) {
    code = "folded-partly";
    note += StrCat("; ", plan.left_channels, " of ", plan.total_channels, " channels keep a node of their own");
  }
  if (plan.dead_channels > 0) note += StrCat("; ", plan.dead_channels, " dead channels (scale 0)");
  for (size_t i = begin; i < end; ++i) {
    const AffineNode& link = chain.links[i];
    busy_[static_cast<size_t>(link.node)] = true;
    patch_.RemoveNode(link.node);
    Log(link.node, code, true, target, note);
    LogEntry& entry = pass_.log.back();
    const int64_t elements = Elements(link.out);
    entry.macs_saved = plan.total_channels > 0
                           ? elements / plan.total_channels * (plan.total_channels - plan.left_channels)
                           : elements;
    entry.bytes_saved = link.parameter_bytes - (i == begin ? plan.added_bytes : 0);
  }
}

// Who reads what links [begin, end) read, without a look at it, reads `to`: it has the same shape and type.
void Folder::MoveOnlookers(const Chain& chain, size_t begin, size_t end, ValueId to) {
  for (size_t i = begin; i < end; ++i) {
    const ValueId from = chain.links[i].data;
    for (NodeId reader : graph_.consumers(from)) {
      if (context_.LooksAt(reader, from)) continue;
      const std::vector<ValueId>& inputs = graph_.node(reader).inputs;
      patch_.ReplaceInput(reader, static_cast<int>(std::find(inputs.begin(), inputs.end(), from) - inputs.begin()), to);
    }
  }
}

Result<Patch> Folder::Backward() {
  for (const Chain& chain : FindChains(context_).chains) {
    for (size_t end = chain.links.size(); end > 0; --end) {
      Outcome<FoldPlan> plan = PlanBackward(chain, end);
      if (!plan.ok() || plan->absorbed().empty()) continue;
      if (!Free(chain, 0, end, *plan)) break;  // the next time
      const ValueId source = chain.links.front().data, out = chain.links[end - 1].out;
      Commit(chain, 0, end, *plan, false);
      MoveOnlookers(chain, 0, end, out);
      plan->Rename(source, out);
      plan->Apply(patch_);
      if (!plan->IsRemade(source)) {
        const NodeId producer = graph_.producer(source);
        const std::vector<ValueId>& outputs = graph_.node(producer).outputs;
        const auto slot = std::find(outputs.begin(), outputs.end(), source) - outputs.begin();
        patch_.ReplaceOutput(producer, static_cast<int>(slot), out);
      }
      break;
    }
  }
  return std::move(patch_);
}

Result<Patch> Folder::Forward() {
  for (const Chain& chain : FindChains(context_).chains) {
    const size_t end = chain.links.size();
    for (size_t begin = 0; begin < end; ++begin) {
      if (chain.Composed(begin, end).identity()) continue;
      Outcome<FoldPlan> plan = PlanForward(chain, begin);
      if (!plan.ok() || plan->absorbed().empty()) continue;
      if (!Free(chain, begin, end, *plan)) break;
      Commit(chain, begin, end, *plan, true);
      MoveOnlookers(chain, begin + 1, end, chain.links[begin].data);
      plan->Apply(patch_);
      break;
    }
  }
  return std::move(patch_);
}

Result<Patch> Folder::Merge() {
  for (const Chain& chain : FindChains(context_).chains) {
    const size_t count = chain.links.size();
    const Affine map = chain.Composed(0, count);
    const AffineNode &first = chain.links.front(), &last = chain.links.back();
    const int rank = context_.rank(first.data);
    const int needed = AffineNodeCount(map, rank);
    if (needed == 0 || static_cast<size_t>(needed) >= count || map.identity()) continue;
    if (!CheckAffine(map, first.dtype).ok()) continue;
    const Node& head = graph_.node(first.node);
    int64_t bytes = 0;
    MoveOnlookers(chain, 1, count, last.out);
    for (const AffineNode& link : chain.links) {
      patch_.RemoveNode(link.node);
      bytes += link.parameter_bytes;
      Log(link.node, "merged", true, Printable(head.name), StrCat("one node for ", count));
      pass_.log.back().macs_saved = &link == &first ? 0 : Elements(link.out);
    }
    EmitAffine(context_, patch_, map, rank, first.dtype, first.data, last.out, head.name);
  }
  return std::move(patch_);
}

Result<Patch> Folder::Explain() {
  fold::Chains found = FindChains(context_);
  for (const auto& [node, refusal] : found.refused) {
    if (graph_.node(node).op_type == "BatchNormalization")
      Log(node, refusal.code, false, refusal.target, refusal.message);
  }
  for (const Chain& chain : found.chains) {
    const Affine map = chain.Composed(0, chain.links.size());
    // Other maps are reported where they look like a batch-norm in pieces.
    const bool in_pieces = chain.links.size() > 1 && !map.uniform() && map.has_scale() && map.has_shift();
    if (!chain.HasBatchNorm(graph_) && !in_pieces) continue;
    Outcome<FoldPlan> backward = PlanBackward(chain, chain.links.size());
    Outcome<FoldPlan> forward = PlanForward(chain, 0);
    const Refusal why = backward.ok() ? Refusal{"cost", "", "it would save nothing"} : backward.refusal();
    const Refusal why_forward = forward.ok() ? Refusal{"cost", "", "it would save nothing"} : forward.refusal();
    for (const AffineNode& link : chain.links) {
      Log(link.node, why.code, false, why.target,
          StrCat("backward: ", why.message, " (", why.target, "); forward: ", why_forward.code, ": ",
                 why_forward.message, " (", why_forward.target, ")"));
    }
  }
  return std::move(patch_);
}

}  // namespace

Result<Patch> FoldBackward(const Graph& graph, PassContext& context) { return Folder(graph, context).Backward(); }
Result<Patch> FoldForward(const Graph& graph, PassContext& context) { return Folder(graph, context).Forward(); }
Result<Patch> MergeAffine(const Graph& graph, PassContext& context) { return Folder(graph, context).Merge(); }
Result<Patch> ExplainUnfolded(const Graph& graph, PassContext& context) { return Folder(graph, context).Explain(); }

}  // namespace crease
