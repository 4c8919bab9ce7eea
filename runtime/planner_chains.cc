// SPDX-License-Identifier: Apache-2.0
// Convolutions that run as one step, by bands of rows (kernels/conv_chain.h).
#include <algorithm>

#include "kernels/kernels.h"
#include "runtime/planner.h"

namespace crease {
namespace {

constexpr KernelEntry kChainEntry = {"Conv", "chain", LayoutRule::kMixed, nullptr};

bool IsPlainConv(const ProgramOp& op) {
  return op.type() == "Conv" && op.node.domain.empty() && op.node.outputs.size() == 1 && !op.prologue.scale.defined();
}

}  // namespace

// Convs of which each alone reads the one before, from `first` on; residuals only in the last.
std::vector<int> Planner::RunOfConvs(int first) const {
  std::vector<int> run;
  for (int at = first; at != kNone && IsPlainConv(program_.op(at)) && chain_of_[static_cast<size_t>(at)] == kNone;) {
    const ProgramOp& op = program_.op(at);
    if (!run.empty() && (op.input(0) != program_.op(run.back()).output() || op.residual == op.input(0))) break;
    run.push_back(at);
    at = op.residual == kNone ? program_.OnlyUser(op.output()) : kNone;
  }
  return run;
}

// `source`: the layout in which the first op reads its own.
Planner::StageRequests Planner::RequestsFor(const std::vector<int>& ops, Layout source) const {
  StageRequests made;
  made.operands.reserve(2 * ops.size());  // requests hold spans of its elements
  for (const int id : ops) {
    const ProgramOp& op = program_.op(id);
    std::vector<Operand> src;
    for (const ValueId input : op.node.inputs) {
      src.push_back(OperandFor(input, id == ops.front() ? source : Layout::kChannelsLast));
    }
    if (op.epilogue.residual != Residual::kNone) src.push_back(OperandFor(op.residual, Layout::kChannelsLast));
    made.operands.push_back(std::move(src));
    const std::vector<Operand>& sources = made.operands.back();
    made.operands.push_back({OperandFor(op.output(), Layout::kChannelsLast)});
    made.requests.push_back(KernelRequest{op.node,
                                          program_.opset,
                                          sources,
                                          made.operands.back(),
                                          op.epilogue,
                                          {},
                                          false,
                                          options_.workers,
                                          options_.exact,
                                          options_.packs,
                                          options_.executor});
  }
  return made;
}

// Plain first, for a network's input as it is, where the value is there in that layout.
std::vector<Layout> Planner::ChainSourceLayouts(int first) const {
  const ValueId source = program_.op(first).input(0);
  if (source == kNone || tensor_of(source, Layout::kPlain) == kNone) return {Layout::kChannelsLast};
  return {Layout::kPlain, Layout::kChannelsLast};
}

void Planner::AssignChains() {
  for (size_t i = 0; i < program_.ops.size(); ++i) {
    std::vector<int> run = RunOfConvs(static_cast<int>(i));
    if (run.size() < 2) continue;
    size_t length = 0;
    for (const Layout source : ChainSourceLayouts(run.front())) {
      if (length < 2) length = ConvChainLength(RequestsFor(run, source).requests);
    }
    if (length < 2) continue;
    run.resize(length);
    for (const int op : run) chain_of_[static_cast<size_t>(op)] = static_cast<int>(chains_.size());
    chains_.push_back(std::move(run));
  }
}

// All ops of a chain run where its last one stands; as they are if no kernel takes the chain.
Result<void> Planner::AddChain(const std::vector<int>& ops) {
  Choice choice;
  choice.entry = &kChainEntry;
  choice.layout = Layout::kChannelsLast;
  KernelResult kernel = Error{ErrorCode::kUnsupported, "", ""};
  for (const Layout source : ChainSourceLayouts(ops.front())) {
    if (kernel.ok()) break;
    kernel = MakeConvChain(RequestsFor(ops, source).requests);
    choice.mixed = source == Layout::kPlain;
  }
  if (!kernel.ok()) {
    for (const int id : ops) {
      const ProgramOp op = program_.op(id);
      CREASE_RETURN_IF_ERROR(AddTunedOp(op));
      FinishUses(op);
    }
    return {};
  }
  ProgramOp whole = program_.op(ops.back());
  whole.node.inputs = {program_.op(ops.front()).input(0)};
  whole.fused.clear();
  double flops = 0;
  for (const int id : ops) {
    const ProgramOp& op = program_.op(id);
    whole.node.inputs.insert(whole.node.inputs.end(), op.node.inputs.begin() + 1, op.node.inputs.end());
    if (id != ops.back()) whole.fused.push_back(op.Describe());
    whole.fused.insert(whole.fused.end(), op.fused.begin(), op.fused.end());
    flops += Flops(program_, op);
  }
  choice.kernel = std::move(kernel).value();
  CREASE_RETURN_IF_ERROR(Emit(whole, std::move(choice), flops));
  for (const int id : ops) FinishUses(program_.op(id));
  return {};
}

}  // namespace crease
