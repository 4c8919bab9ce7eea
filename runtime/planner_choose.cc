// SPDX-License-Identifier: Apache-2.0
// Which kernel runs an op, in which layout, and whether what was fused stays fused.
#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"
#include "runtime/planner.h"
#include "runtime/tuning.h"

namespace crease {
namespace {

// Ops whose result at an element depends on their sources at that element alone, where shapes agree.
bool IsElementWise(std::string_view type) {
  static constexpr std::string_view kTypes[] = {"Abs",        "Add",         "Affine",    "BatchNormalization",
                                                "Ceil",       "Clip",        "Cos",       "Div",
                                                "Elu",        "Erf",         "Exp",       "Floor",
                                                "Gelu",       "HardSigmoid", "HardSwish", "LeakyRelu",
                                                "Log",        "Max",         "Min",       "Mish",
                                                "Mul",        "Neg",         "PRelu",     "Pow",
                                                "Reciprocal", "Relu",        "Round",     "Selu",
                                                "Sigmoid",    "Silu",        "Sin",       "Softplus",
                                                "Softsign",   "Sqrt",        "Sub",       "Tanh"};
  return std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes);
}

}  // namespace

// The layout of the largest source; an op is worth no Reorder of it.
Layout Planner::PreferredLayout(const ProgramOp& op) const {
  Layout layout = Layout::kPlain;
  int64_t largest = -1;
  const auto look = [&](ValueId id) {
    if (id == kNone || program_.constant(id) || !fits_channels_last(id) || program_.value(id).bytes() <= largest)
      return;
    largest = program_.value(id).bytes();
    layout = tensor_of(id, Layout::kChannelsLast) != kNone ? Layout::kChannelsLast : Layout::kPlain;
  };
  for (const ValueId id : op.node.inputs) look(id);
  look(op.residual);
  return layout;
}

Operand Planner::OperandFor(ValueId value, Layout layout) const {
  Operand operand;
  if (value == kNone) return operand;
  operand.present = true;
  operand.dtype = program_.value(value).dtype;
  operand.shape = program_.value(value).shape;
  operand.constant = program_.constant(value);
  operand.rectified = rectified_[static_cast<size_t>(value)];
  if (operand.constant || !fits_channels_last(value) || layout == Layout::kPlain) return operand;
  operand.layout = Layout::kChannelsLast;
  const int tensor = tensor_of(value, layout);
  operand.pitch = tensor == kNone ? operand.shape[1] : plan_->tensors[static_cast<size_t>(tensor)].pitch;
  return operand;
}

Layout Planner::SourceLayout(ValueId value, const Choice& choice) const {
  if (value == kNone || program_.constant(value)) return Layout::kPlain;
  if (!choice.mixed) return choice.layout;
  return tensor_of(value, Layout::kPlain) != kNone ? Layout::kPlain : Layout::kChannelsLast;
}

// Nothing that lies in the buffer is needed once the op has run.
bool Planner::DeadAfter(int buffer, const ProgramOp& op) const {
  if (plan_->buffers[static_cast<size_t>(buffer)].kind != PlanBuffer::Kind::kArena) return false;
  for (const ValueId id : values_in_[static_cast<size_t>(buffer)]) {
    const auto own = std::count(op.node.inputs.begin(), op.node.inputs.end(), id) + (op.residual == id ? 1 : 0);
    if (uses_left_[static_cast<size_t>(id)] > own) return false;
  }
  return true;
}

// The source's tensor, if the op may write its result there.
int Planner::ShareableTensor(const ProgramOp& op, ValueId id, Layout layout, bool element_wise) const {
  if (id == kNone || program_.constant(id) || tensor_of(id, layout) == kNone) return kNone;
  const ProgramValue& dst = program_.value(op.output());
  const int tensor_id = tensor_of(id, layout);
  const PlanTensor& tensor = plan_->tensors[static_cast<size_t>(tensor_id)];
  if (tensor.shape != dst.shape || tensor.dtype != dst.dtype || !DeadAfter(tensor.buffer, op)) return kNone;
  // No other source may lie in that buffer, but for the very same elements of an element-wise op.
  const auto apart = [&](ValueId other) {
    if (other == kNone || program_.constant(other)) return true;
    const int other_tensor = tensor_of(other, fits_channels_last(other) ? layout : Layout::kPlain);
    if (other_tensor == kNone || plan_->tensors[static_cast<size_t>(other_tensor)].buffer != tensor.buffer) return true;
    return element_wise && other_tensor == tensor_id;
  };
  const bool all_apart = std::all_of(op.node.inputs.begin(), op.node.inputs.end(), apart);
  return all_apart && (op.residual == id || apart(op.residual)) ? tensor_id : kNone;
}

// The source whose memory the result may take: the residual, or an element-wise op's operand.
int Planner::FindInPlace(const ProgramOp& op, const KernelEntry& entry, Layout layout) const {
  if (op.node.outputs.size() != 1) return kNone;
  const ValueId dst = op.output();
  if (!fits_channels_last(dst)) layout = Layout::kPlain;
  if (layout == Layout::kChannelsLast && slice_of_[static_cast<size_t>(dst)].concat != kNone) return kNone;
  const bool element_wise = entry.layout == LayoutRule::kAny && IsElementWise(op.type());
  if (op.residual != kNone) {
    if (const int tensor = ShareableTensor(op, op.residual, layout, element_wise); tensor != kNone) return tensor;
  }
  if (!element_wise) return kNone;
  for (const ValueId id : op.node.inputs) {
    if (const int tensor = ShareableTensor(op, id, layout, true); tensor != kNone) return tensor;
  }
  return kNone;
}

std::optional<Planner::Choice> Planner::Try(const ProgramOp& op, const KernelEntry& entry, Layout layout,
                                            std::vector<Refusal>& refusals) {
  Choice choice;
  choice.entry = &entry;
  choice.layout = layout;
  choice.in_place = FindInPlace(op, entry, layout);
  std::vector<Operand> src, dst;
  choice.mixed = entry.layout == LayoutRule::kMixed;
  for (const ValueId id : op.node.inputs) src.push_back(OperandFor(id, SourceLayout(id, choice)));
  if (op.epilogue.residual != Residual::kNone)
    src.push_back(OperandFor(op.residual, SourceLayout(op.residual, choice)));
  for (const ValueId id : op.node.outputs) {
    Operand operand = OperandFor(id, layout);
    if (operand.layout == Layout::kChannelsLast) {
      if (choice.in_place != kNone) {
        operand.pitch = plan_->tensors[static_cast<size_t>(choice.in_place)].pitch;
      } else if (slice_of_[static_cast<size_t>(id)].concat != kNone) {
        operand.pitch = plan_->tensors[static_cast<size_t>(SliceTensor(id))].pitch;
      }
    }
    dst.push_back(std::move(operand));
  }
  Prologue prologue;
  if (op.prologue.scale.defined()) {
    prologue = {op.prologue.scale.data<float>(), op.prologue.shift.data<float>(), op.prologue.activation, op.prologue.a,
                op.prologue.b};
  }
  const bool residual_in_place = op.residual != kNone && choice.in_place != kNone &&
                                 plan_->tensors[static_cast<size_t>(choice.in_place)].value == op.residual;
  const KernelRequest request{op.node,
                              program_.opset,
                              src,
                              dst,
                              op.epilogue,
                              prologue,
                              residual_in_place,
                              options_.workers,
                              options_.exact,
                              options_.packs,
                              options_.executor,
                              entry.name == wanted_kernel_};
  Result<std::unique_ptr<Kernel>> kernel = entry.make(request);
  if (!kernel.ok()) {
    refusals.push_back({std::string(entry.name), kernel.error().message});
    return std::nullopt;
  }
  choice.kernel = std::move(kernel).value();
  return choice;
}

// A kernel that refuses to write into a Concat's result may still be the best one, with a copy after it.
std::optional<Planner::Choice> Planner::TryWithSlices(const ProgramOp& op, const KernelEntry& entry, Layout layout,
                                                      std::vector<Refusal>& refusals) {
  std::optional<Choice> choice = Try(op, entry, layout, refusals);
  if (choice || layout != Layout::kChannelsLast) return choice;
  std::vector<std::pair<ValueId, Slice>> dropped;
  for (const ValueId id : op.node.outputs) {
    if (id == kNone || slice_of_[static_cast<size_t>(id)].concat == kNone) continue;
    dropped.emplace_back(id, std::exchange(slice_of_[static_cast<size_t>(id)], Slice{}));
  }
  if (dropped.empty()) return choice;
  std::vector<Refusal> again;  // the first reason is the telling one
  choice = Try(op, entry, layout, again);
  if (!choice) {
    for (const auto& [id, slice] : dropped) slice_of_[static_cast<size_t>(id)] = slice;
  }
  return choice;
}

Result<Planner::Choice> Planner::Choose(const ProgramOp& op) {
  std::vector<Refusal> refusals;
  const Layout preferred = PreferredLayout(op);
  const auto has_rank = [&](ValueId id) { return id != kNone && !program_.constant(id) && fits_channels_last(id); };
  const bool has_layouts = std::any_of(op.node.inputs.begin(), op.node.inputs.end(), has_rank) ||
                           std::any_of(op.node.outputs.begin(), op.node.outputs.end(), has_rank);
  std::vector<const KernelEntry*> candidates;
  for (const KernelEntry& entry : KernelsFor(op.type())) candidates.push_back(&entry);
  std::stable_partition(candidates.begin(), candidates.end(),
                        [&](const KernelEntry* entry) { return entry->name == wanted_kernel_; });
  int rank = 0;
  for (const KernelEntry* entry : candidates) {
    std::vector<Layout> layouts;
    if (!has_layouts || entry->layout == LayoutRule::kPlain) {
      layouts = {Layout::kPlain};
    } else if (entry->layout == LayoutRule::kChannelsLast) {
      layouts = {Layout::kChannelsLast};
    } else if (entry->layout == LayoutRule::kMixed) {
      layouts = {Layout::kPlain, Layout::kChannelsLast};
    } else {
      layouts = {preferred, preferred == Layout::kPlain ? Layout::kChannelsLast : Layout::kPlain};
    }
    for (const Layout layout : layouts) {
      if (std::optional<Choice> choice = TryWithSlices(op, *entry, layout, refusals)) {
        choice->rank = rank;
        choice->refusals = std::move(refusals);
        return std::move(*choice);
      }
    }
    ++rank;
  }
  std::string reasons;
  for (const Refusal& refusal : refusals) {
    reasons += (reasons.empty() ? " (" : "; ") + refusal.kernel + ": " + refusal.reason;
  }
  std::string where = op.Describe();
  if (op.output() != kNone) where += " -> '" + Printable(program_.value(op.output()).name) + "'";
  return Error{ErrorCode::kUnsupported, "no kernel takes it" + reasons + (reasons.empty() ? "" : ")"), where};
}

std::vector<std::vector<ProgramOp>> Planner::Unfused(const ProgramOp& op) {
  const Epilogue& full = op.epilogue;
  std::vector<std::vector<ProgramOp>> variants;
  const auto temporary = [&](const char* part) {
    const ProgramValue& result = program_.value(op.output());
    return AddTemporary(result.name + part, result.dtype, Shape(result.shape));
  };
  const auto activate = [&](ValueId src, ValueId dst) {
    ProgramOp part;
    part.node = ActivationNode(full, src, dst);
    part.node.name = op.node.name;
    if (full.activation == Activation::kClip && program_.opset >= 11) {
      for (const float bound : {full.a, full.b}) {
        const ValueId id = AddTemporary("", DType::kFloat32, {});
        program_.values[static_cast<size_t>(id)].constant = options_.constants->Intern(Tensor::Scalar<float>(bound));
        part.node.inputs.push_back(id);
      }
    } else if (full.activation == Activation::kClip) {
      part.node.attributes = {MakeAttr("min", full.a), MakeAttr("max", full.b)};
    }
    return part;
  };
  const auto add = [&](ValueId src, ValueId dst) {
    ProgramOp part;
    part.node.op_type = "Add";
    part.node.name = op.node.name;
    part.node.inputs = {src, op.residual};
    part.node.outputs = {dst};
    return part;
  };
  const auto base = [&](ValueId dst, Activation activation, Residual residual) {
    ProgramOp part = op;
    part.fused.clear();
    part.epilogue.activation = activation;
    part.epilogue.residual = residual;
    if (residual == Residual::kNone) part.residual = kNone;
    part.node.outputs[0] = dst;
    return part;
  };
  const ValueId result = op.output();
  const bool active = full.activation != Activation::kNone;
  if (active && full.residual == Residual::kBeforeActivation) {
    const ValueId sum = temporary("/sum");
    variants.push_back({base(sum, Activation::kNone, full.residual), activate(sum, result)});
    const ValueId bare = temporary("/bare");
    ProgramOp fused_add = add(bare, result);
    fused_add.epilogue.activation = full.activation;
    fused_add.epilogue.a = full.a;
    fused_add.epilogue.b = full.b;
    variants.push_back({base(bare, Activation::kNone, Residual::kNone), std::move(fused_add)});
  } else if (active && full.residual == Residual::kAfterActivation) {
    const ValueId activated = temporary("/activated");
    variants.push_back({base(activated, full.activation, Residual::kNone), add(activated, result)});
    const ValueId bare = temporary("/bare"), second = temporary("/activated");
    variants.push_back({base(bare, Activation::kNone, Residual::kNone), activate(bare, second), add(second, result)});
  } else if (active) {
    const ValueId bare = temporary("/bare");
    variants.push_back({base(bare, Activation::kNone, Residual::kNone), activate(bare, result)});
  } else if (full.residual != Residual::kNone) {
    const ValueId bare = temporary("/bare");
    variants.push_back({base(bare, Activation::kNone, Residual::kNone), add(bare, result)});
  }
  return variants;
}

ValueId Planner::AddTemporary(const std::string& name, DType dtype, const Shape& shape) {
  const ValueId id = program_.AddValue(name, dtype, shape);
  versions_.push_back({kNone, kNone});
  slice_of_.emplace_back();
  rectified_.push_back(false);
  uses_left_.push_back(1);
  return id;
}

// The op without its prologue, after an Affine that does it.
std::array<ProgramOp, 2> Planner::WithoutPrologue(const ProgramOp& op) {
  const ProgramValue& x = program_.value(op.input(0));
  const ValueId mapped = AddTemporary(program_.value(op.output()).name + "/prologue", x.dtype, Shape(x.shape));
  rectified_[static_cast<size_t>(mapped)] = op.prologue.activation == Activation::kRelu;
  ProgramOp affine;
  affine.node.op_type = "Affine";
  affine.node.domain = kInternalDomain;
  affine.node.name = op.node.name;
  affine.node.inputs = {op.input(0)};
  for (const Tensor& parameter : {op.prologue.scale, op.prologue.shift}) {
    const ValueId id = AddTemporary("", parameter.dtype(), parameter.shape());
    program_.values[static_cast<size_t>(id)].constant = parameter;
    affine.node.inputs.push_back(id);
  }
  affine.node.outputs = {mapped};
  affine.epilogue.activation = op.prologue.activation;
  affine.epilogue.a = op.prologue.a;
  affine.epilogue.b = op.prologue.b;
  ProgramOp rest = op;
  rest.prologue = {};
  std::erase_if(rest.fused, [](const std::string& what) { return what.starts_with("before it: "); });
  rest.node.inputs[0] = mapped;
  return {std::move(affine), std::move(rest)};
}

// As it is, or in parts where a better kernel takes the op with less fused into it.
Result<void> Planner::AddFusedOp(const ProgramOp& op) {
  Result<Choice> whole = Choose(op);
  if (op.prologue.scale.defined() && (!whole.ok() || whole->rank > 0)) {
    const std::array<ProgramOp, 2> parts = WithoutPrologue(op);
    const Result<Choice> rest = Choose(parts[1]);
    if (!whole.ok() || (rest.ok() && rest->rank < whole->rank)) {
      CREASE_RETURN_IF_ERROR(AddFusedOp(parts[0]));
      CREASE_RETURN_IF_ERROR(AddFusedOp(parts[1]));
      --uses_left_[static_cast<size_t>(parts[1].input(0))];
      return {};
    }
  }
  if (op.epilogue.empty() || (whole.ok() && whole->rank == 0)) {
    if (!whole.ok()) return std::move(whole).error();
    return Emit(op, std::move(whole).value(), Flops(program_, op));
  }
  int best_rank = whole.ok() ? whole->rank : -1;
  std::vector<ProgramOp> best;
  const auto first_temporary = static_cast<ValueId>(program_.values.size());
  for (std::vector<ProgramOp>& variant : Unfused(op)) {
    const Result<Choice> choice = Choose(variant[0]);
    if (choice.ok() && (best_rank < 0 || choice->rank < best_rank)) {
      best_rank = choice->rank;
      best = std::move(variant);
    }
  }
  if (best.empty()) {
    if (!whole.ok()) return std::move(whole).error();
    return Emit(op, std::move(whole).value(), Flops(program_, op));
  }
  for (const ProgramOp& part : best) {
    CREASE_RETURN_IF_ERROR(AddFusedOp(part));
    // AddOp counts the whole op's uses of its own inputs, so only those between the parts are left.
    for (const ValueId id : part.node.inputs) {
      if (id >= first_temporary) --uses_left_[static_cast<size_t>(id)];
    }
  }
  return {};
}

// With the kernel first that was measured to be the fastest, where one was.
Result<void> Planner::AddTunedOp(const ProgramOp& op) {
  constexpr size_t kKernelAndReference = 2;
  if (KernelsFor(op.type()).size() <= kKernelAndReference) return AddFusedOp(op);
  const std::string key = TuningKey(program_, op);
  wanted_kernel_ = options_.tuning ? options_.tuning->Find(key) : std::string_view();
  const size_t first = plan_->steps.size();
  Result<void> added = AddFusedOp(op);
  wanted_kernel_ = {};
  for (size_t i = first; i < plan_->steps.size(); ++i) plan_->steps[i].tuning_key = key;
  return added;
}

}  // namespace crease
