// SPDX-License-Identifier: Apache-2.0
#include "runtime/planner.h"

#include <algorithm>

#include "kernels/kernels.h"
#include "runtime/memory.h"
#include "runtime/rectified.h"

namespace crease {

int64_t PlanTensor::size() const {
  int64_t count = 1;
  for (const int64_t d : shape) count *= d;
  return count;
}

int64_t PlanTensor::spatial() const {
  int64_t count = 1;
  for (size_t axis = 2; axis < shape.size(); ++axis) count *= shape[axis];
  return count;
}

Result<std::shared_ptr<const Plan>> MakePlan(Program program, const PlanOptions& options) {
  return Planner(std::move(program), options).Run();
}

Planner::Planner(Program program, const PlanOptions& options)
    : program_(std::move(program)), options_(options), plan_(std::make_shared<Plan>()) {
  versions_.assign(program_.values.size(), {kNone, kNone});
  slice_of_.resize(program_.values.size());
  rectified_ = FindRectified(program_);
  concat_tensor_.assign(program_.ops.size(), kNone);
  concat_in_place_.assign(program_.ops.size(), false);
  chain_of_.assign(program_.ops.size(), kNone);
  uses_left_.resize(program_.values.size());
  for (size_t id = 0; id < program_.values.size(); ++id) {
    const auto value = static_cast<ValueId>(id);
    uses_left_[id] = static_cast<int>(program_.users(value).size()) + (program_.is_output(value) ? 1 : 0);
  }
  // Constants that several values show: nobody counts their readers together.
  std::unordered_set<const std::byte*> seen;
  for (const ProgramValue& value : program_.values) {
    if (value.is_constant() && !seen.insert(value.constant.bytes()).second) read_later_.insert(value.constant.bytes());
  }
}

Result<std::shared_ptr<const Plan>> Planner::Run() {
  plan_->workers = options_.workers;
  for (size_t i = 0; i < program_.inputs.size(); ++i) {
    const ValueId id = program_.inputs[i];
    const int buffer = AddBuffer(PlanBuffer::Kind::kInput, program_.value(id).bytes(), static_cast<int>(i));
    SetTensor(id, AddTensor(id, Layout::kPlain, 0, buffer, 0));
    plan_->input_shapes.push_back(program_.value(id).shape);
  }
  AssignSlices();
  AssignChains();
  for (size_t i = 0; i < program_.ops.size(); ++i) {
    current_op_ = static_cast<int>(i);
    const int chain = chain_of_[i];
    if (chain == kNone) {
      CREASE_RETURN_IF_ERROR(AddOp(program_.ops[i]));
    } else if (chains_[static_cast<size_t>(chain)].back() == current_op_) {
      CREASE_RETURN_IF_ERROR(AddChain(chains_[static_cast<size_t>(chain)]));
    }
  }
  CREASE_RETURN_IF_ERROR(BindOutputs());
  CREASE_RETURN_IF_ERROR(PlaceBuffers());
  PlanFetches();
  for (const ProgramValue& value : program_.values) plan_->value_names.push_back(value.name);
  return std::shared_ptr<const Plan>(std::move(plan_));
}

Result<void> Planner::AddOp(const ProgramOp& op) {
  CREASE_ASSIGN_OR_RETURN(const bool viewed, AddView(op));
  if (!viewed) {
    CREASE_RETURN_IF_ERROR(AddTunedOp(op));
  } else if (const Tensor* constant = program_.constant(op.input(0))) {
    read_later_.insert(constant->bytes());
  }
  FinishUses(op);
  return {};
}

void Planner::FinishUses(const ProgramOp& op) {
  for (const ValueId id : op.node.inputs) {
    if (id == kNone || --uses_left_[static_cast<size_t>(id)] > 0) continue;
    const Tensor* constant = program_.constant(id);
    if (constant != nullptr && options_.spent && !read_later_.contains(constant->bytes())) options_.spent(*constant);
  }
  if (op.residual != kNone) --uses_left_[static_cast<size_t>(op.residual)];
}

int Planner::AddBuffer(PlanBuffer::Kind kind, int64_t bytes, int index) {
  PlanBuffer buffer;
  buffer.kind = kind;
  buffer.bytes = bytes;
  buffer.index = index;
  plan_->buffers.push_back(buffer);
  values_in_.emplace_back();
  return static_cast<int>(plan_->buffers.size() - 1);
}

int Planner::AddTensor(ValueId value, Layout layout, int64_t pitch, int buffer, int64_t offset) {
  PlanTensor tensor;
  tensor.value = value;
  tensor.buffer = buffer;
  tensor.offset = offset;
  tensor.layout = layout;
  tensor.pitch = layout == Layout::kChannelsLast ? pitch : 0;
  tensor.dtype = program_.value(value).dtype;
  tensor.shape = program_.value(value).shape;
  plan_->tensors.push_back(std::move(tensor));
  values_in_[static_cast<size_t>(buffer)].push_back(value);
  return static_cast<int>(plan_->tensors.size() - 1);
}

int Planner::AddDenseTensor(ValueId value, Layout layout) {
  const int buffer = AddBuffer(PlanBuffer::Kind::kArena, program_.value(value).bytes(), kNone);
  return AddTensor(value, layout, layout == Layout::kChannelsLast ? dim(value, 1) : 0, buffer, 0);
}

int Planner::tensor_of(ValueId value, Layout layout) const {
  return versions_[static_cast<size_t>(value)][Index(layout)];
}

void Planner::SetTensor(ValueId value, int tensor) {
  const Layout layout = plan_->tensors[static_cast<size_t>(tensor)].layout;
  versions_[static_cast<size_t>(value)][Index(layout)] = tensor;
}

Result<int> Planner::TensorIn(ValueId value, Layout layout) {
  if (!fits_channels_last(value)) layout = Layout::kPlain;
  if (const int found = tensor_of(value, layout); found != kNone) return found;
  if (program_.constant(value) && tensor_of(value, Layout::kPlain) == kNone) {
    plan_->constants.push_back(*program_.constant(value));
    const int buffer = AddBuffer(PlanBuffer::Kind::kConstant, program_.value(value).bytes(),
                                 static_cast<int>(plan_->constants.size() - 1));
    SetTensor(value, AddTensor(value, Layout::kPlain, 0, buffer, 0));
    return TensorIn(value, layout);
  }
  const Layout other = layout == Layout::kPlain ? Layout::kChannelsLast : Layout::kPlain;
  const int have = tensor_of(value, other);
  if (have == kNone) {
    return Error{ErrorCode::kInternal, "read before it is made",
                 "tensor '" + Printable(program_.value(value).name) + "'"};
  }
  const PlanTensor src = plan_->tensors[static_cast<size_t>(have)];
  const int64_t channels = src.shape[1], spatial = src.spatial();
  // One pixel or one channel: both layouts are the same bytes, if these are dense.
  const bool dense = src.layout == Layout::kPlain || src.pitch == channels || (spatial == 1 && src.shape[0] == 1);
  if (dense && (channels == 1 || spatial == 1)) {
    const int alias = AddTensor(value, layout, channels, src.buffer, src.offset);
    SetTensor(value, alias);
    return alias;
  }
  const int made = AddDenseTensor(value, layout);
  CREASE_RETURN_IF_ERROR(AddReorder(have, made, program_.value(value).name));
  SetTensor(value, made);
  return made;
}

int Planner::ScratchBuffer(const Kernel& kernel) {
  // A request that finds the pool taken runs on one worker.
  const size_t bytes = std::max(kernel.scratch_bytes(options_.workers), kernel.scratch_bytes(1));
  return bytes == 0 ? kNone : AddBuffer(PlanBuffer::Kind::kArena, static_cast<int64_t>(bytes), kNone);
}

namespace {

Operand OperandOf(const PlanTensor& tensor) {
  Operand operand;
  operand.present = true;
  operand.dtype = tensor.dtype;
  operand.shape = tensor.shape;
  operand.layout = tensor.layout;
  operand.pitch = tensor.pitch;
  return operand;
}

std::string LayoutName(const PlanTensor& tensor) {
  if (tensor.layout == Layout::kPlain) return "plain";
  return tensor.pitch == tensor.shape[1] ? "channels-last" : "channels-last slice";
}

}  // namespace

Result<void> Planner::AddReorder(int src, int dst, const std::string& name) {
  const Operand from = OperandOf(plan_->tensors[static_cast<size_t>(src)]);
  if (const Tensor* constant = program_.constant(plan_->tensors[static_cast<size_t>(src)].value)) {
    read_later_.insert(constant->bytes());
  }
  const Operand to = OperandOf(plan_->tensors[static_cast<size_t>(dst)]);
  Node node;
  node.op_type = "Reorder";
  node.domain = kInternalDomain;
  node.inputs = {plan_->tensors[static_cast<size_t>(src)].value};
  node.outputs = {plan_->tensors[static_cast<size_t>(dst)].value};
  PlanStep step;
  step.name = name;
  step.op_type = "Reorder";
  step.layout = LayoutName(plan_->tensors[static_cast<size_t>(dst)]);
  step.src = {src};
  step.dst = {dst};
  step.reads = {true};
  step.flops = 0;
  step.bytes = 2.0 * static_cast<double>(plan_->tensors[static_cast<size_t>(dst)].size()) *
               static_cast<double>(ByteSize(from.dtype));
  for (const KernelEntry& entry : KernelsFor("Reorder")) {
    if (entry.layout != LayoutRule::kMixed) continue;
    const KernelRequest request{
        node,           program_.opset, {&from, 1},       {&to, 1}, {}, {}, false, options_.workers,
        options_.exact, options_.packs, options_.executor};
    Result<std::unique_ptr<Kernel>> kernel = entry.make(request);
    if (!kernel.ok()) {
      step.refusals.push_back({std::string(entry.name), kernel.error().message});
      continue;
    }
    step.kernel = entry.name;
    step.detail = (*kernel)->Describe();
    step.scratch = ScratchBuffer(**kernel);
    step.run = std::move(kernel).value();
    plan_->steps.push_back(std::move(step));
    return {};
  }
  return Error{ErrorCode::kUnsupported, "no kernel changes its layout", "tensor '" + Printable(name) + "'"};
}

Result<void> Planner::Emit(const ProgramOp& op, Choice choice, double flops) {
  PlanStep step;
  step.name = op.node.name.empty() ? program_.value(op.output()).name : op.node.name;
  step.op_type = op.type();
  step.kernel = choice.entry->name;
  step.detail = choice.kernel->Describe();
  step.fused = op.fused;
  step.refusals = std::move(choice.refusals);
  step.flops = flops;
  const auto add_source = [&](ValueId id) -> Result<void> {
    int tensor = kNone;
    bool reads = true;
    if (id != kNone) {
      if (program_.constant(id)) {
        const Tensor& constant = *program_.constant(id);
        reads = choice.kernel->ReadsConstant(step.src.size());
        if (reads || choice.kernel->KeepsConstant(step.src.size())) read_later_.insert(constant.bytes());
        if (!reads && options_.packed) options_.packed(constant);
      }
      CREASE_ASSIGN_OR_RETURN(tensor, TensorIn(id, SourceLayout(id, choice)));
      step.bytes += static_cast<double>(program_.value(id).bytes());
    }
    step.src.push_back(tensor);
    step.reads.push_back(reads);
    return {};
  };
  for (const ValueId id : op.node.inputs) CREASE_RETURN_IF_ERROR(add_source(id));
  if (op.epilogue.residual != Residual::kNone) CREASE_RETURN_IF_ERROR(add_source(op.residual));
  for (const ValueId id : op.node.outputs) {
    int tensor = kNone;
    if (id != kNone) {
      const Layout layout = fits_channels_last(id) ? choice.layout : Layout::kPlain;
      const Slice& slice = slice_of_[static_cast<size_t>(id)];
      if (choice.in_place != kNone) {
        const PlanTensor& shared = plan_->tensors[static_cast<size_t>(choice.in_place)];
        tensor = AddTensor(id, layout, shared.pitch, shared.buffer, shared.offset);
        step.in_place = true;
      } else if (slice.concat != kNone && layout == Layout::kChannelsLast) {
        tensor = SliceTensor(id);
      } else {
        tensor = AddDenseTensor(id, layout);
      }
      SetTensor(id, tensor);
      step.bytes += static_cast<double>(program_.value(id).bytes());
    }
    step.dst.push_back(tensor);
  }
  if (step.dst[0] != kNone) step.layout = LayoutName(plan_->tensors[static_cast<size_t>(step.dst[0])]);
  step.scratch = ScratchBuffer(*choice.kernel);
  step.run = std::move(choice.kernel);
  const bool empty = std::all_of(op.node.outputs.begin(), op.node.outputs.end(),
                                 [&](ValueId id) { return id == kNone || program_.value(id).size() == 0; });
  if (!empty) plan_->steps.push_back(std::move(step));
  return {};
}

// A graph output is the buffer of its value's dense plain tensor where this has one for itself, a copy
// otherwise (graph inputs, constants, parts of others, the same value twice).
Result<void> Planner::BindOutputs() {
  for (size_t i = 0; i < program_.outputs.size(); ++i) {
    const ValueId id = program_.outputs[i];
    plan_->output_shapes.push_back(program_.value(id).shape);
    CREASE_ASSIGN_OR_RETURN(const int tensor_id, TensorIn(id, Layout::kPlain));
    const PlanTensor tensor = plan_->tensors[static_cast<size_t>(tensor_id)];
    const PlanBuffer& buffer = plan_->buffers[static_cast<size_t>(tensor.buffer)];
    const bool own = buffer.kind == PlanBuffer::Kind::kArena && buffer.output == kNone && tensor.offset == 0 &&
                     buffer.bytes == program_.value(id).bytes();
    int result = tensor.buffer;
    if (!own) {
      const int copy = AddDenseTensor(id, Layout::kPlain);
      result = plan_->tensors[static_cast<size_t>(copy)].buffer;
      PlanStep step;
      step.name = program_.value(id).name;
      step.op_type = "Identity";
      step.kernel = "copy";
      step.layout = "plain";
      step.src = {tensor_id};
      step.dst = {copy};
      step.reads = {true};
      step.bytes = 2.0 * static_cast<double>(program_.value(id).bytes());
      if (program_.value(id).size() > 0) plan_->steps.push_back(std::move(step));
    }
    plan_->buffers[static_cast<size_t>(result)].output = static_cast<int>(i);
    plan_->output_buffers.push_back(result);
  }
  return {};
}

Result<void> Planner::PlaceBuffers() {
  std::vector<PlanBuffer>& buffers = plan_->buffers;
  const auto touch = [&](int buffer, size_t step) {
    PlanBuffer& b = buffers[static_cast<size_t>(buffer)];
    if (b.first_step == kNone) b.first_step = static_cast<int>(step);
    b.last_step = static_cast<int>(step);
  };
  std::vector<bool> constant_read(plan_->constants.size(), false);
  for (size_t i = 0; i < plan_->steps.size(); ++i) {
    const PlanStep& step = plan_->steps[i];
    for (size_t k = 0; k < step.src.size(); ++k) {
      if (step.src[k] == kNone) continue;
      const int buffer = plan_->tensors[static_cast<size_t>(step.src[k])].buffer;
      touch(buffer, i);
      const PlanBuffer& b = buffers[static_cast<size_t>(buffer)];
      if (b.kind == PlanBuffer::Kind::kConstant && step.reads[k]) constant_read[static_cast<size_t>(b.index)] = true;
    }
    for (const int tensor : step.dst) {
      if (tensor != kNone) touch(plan_->tensors[static_cast<size_t>(tensor)].buffer, i);
    }
    if (step.scratch != kNone) touch(step.scratch, i);
  }
  for (size_t i = 0; i < plan_->constants.size(); ++i) {
    if (!constant_read[i]) {
      plan_->constants[i] = Tensor();
    } else {
      CREASE_ASSIGN_OR_RETURN(plan_->constants[i], options_.constants->Aligned(plan_->constants[i]));
    }
  }
  std::vector<Lifetime> lifetimes;
  std::vector<size_t> owners;
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].kind != PlanBuffer::Kind::kArena || buffers[i].first_step == kNone) continue;
    lifetimes.push_back({buffers[i].bytes, buffers[i].first_step, buffers[i].last_step});
    owners.push_back(i);
  }
  const ArenaLayout arena = PlaceInArena(lifetimes);
  if (arena.bytes > options_.max_arena_bytes) {
    return Error{ErrorCode::kLimitExceeded,
                 "activations need " + std::to_string(arena.bytes) + " bytes, max_arena_bytes is " +
                     std::to_string(options_.max_arena_bytes),
                 ""};
  }
  for (size_t i = 0; i < owners.size(); ++i) buffers[owners[i]].offset = arena.offsets[i];
  plan_->arena_bytes = arena.bytes;
  return {};
}

}  // namespace crease
