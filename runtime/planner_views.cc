// SPDX-License-Identifier: Apache-2.0
// Ops that need no kernel: other names for bytes, channel slices, Concats written by their producers.
#include <algorithm>

#include "graph/op.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"
#include "runtime/planner.h"

namespace crease {
namespace {

bool IsOneOf(std::string_view type, std::initializer_list<std::string_view> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

// Concat along axis 1 of float32 tensors that have a channel axis.
bool IsChannelConcat(const Program& program, const ProgramOp& op) {
  if (op.type() != "Concat" || !op.node.domain.empty()) return false;
  const ProgramValue& result = program.value(op.output());
  const Result<int64_t> axis = AttrInt(op.node, "axis", 1);
  return axis.ok() && result.rank() >= 3 && result.dtype == DType::kFloat32 &&
         (*axis == 1 || *axis == 1 - result.rank());
}

// The one axis along which the op cuts its input, at step 1, and where its outputs start there.
struct Cut {
  size_t axis = 0;
  std::vector<int64_t> starts;  // by output
};

std::optional<Cut> AsCut(const Program& program, const ProgramOp& op) {
  if (!op.node.domain.empty()) return std::nullopt;
  const Shape& x = program.value(op.input(0)).shape;
  Cut cut;
  if (op.type() == "Split") {
    const Result<int64_t> axis = AttrInt(op.node, "axis", 0);
    if (!axis.ok() || x.empty()) return std::nullopt;
    cut.axis = static_cast<size_t>(*axis < 0 ? *axis + static_cast<int64_t>(x.size()) : *axis);
    int64_t start = 0;
    for (const ValueId id : op.node.outputs) {
      if (id == kNone) return std::nullopt;
      cut.starts.push_back(start);
      start += program.value(id).shape[cut.axis];
    }
    return cut;
  }
  if (op.type() != "Slice") return std::nullopt;
  for (size_t i = 1; i < op.node.inputs.size(); ++i) {
    if (op.input(i) != kNone && !program.constant(op.input(i))) return std::nullopt;
  }
  const Result<ops::SlicePlan> plan =
      ops::ResolveSlice(op.node, program.opset, x, program.constant(op.input(1)), program.constant(op.input(2)),
                        program.constant(op.input(3)), program.constant(op.input(4)));
  if (!plan.ok()) return std::nullopt;
  int cut_axes = 0;
  for (size_t axis = 0; axis < x.size(); ++axis) {
    if (plan->output[axis] == x[axis] && plan->start[axis] == 0 && plan->step[axis] == 1) continue;
    if (plan->step[axis] != 1) return std::nullopt;
    ++cut_axes;
    cut.axis = axis;
  }
  if (cut_axes > 1) return std::nullopt;
  cut.starts = {cut_axes == 1 ? plan->start[cut.axis] : 0};
  return cut;
}

}  // namespace

// What layout every value is likely to have, before any kernel is asked.
std::vector<Layout> Planner::PredictLayouts() const {
  std::vector<Layout> predicted(program_.values.size(), Layout::kPlain);
  for (const ProgramOp& op : program_.ops) {
    const auto candidates = KernelsFor(op.type());
    Layout layout = Layout::kPlain;
    if (!candidates.empty() && candidates[0].layout == LayoutRule::kChannelsLast) {
      layout = Layout::kChannelsLast;
    } else if (IsChannelConcat(program_, op) || AsCut(program_, op) || IsOneOf(op.type(), {"Identity", "Dropout"}) ||
               (!candidates.empty() && candidates[0].layout == LayoutRule::kAny)) {
      int64_t largest = -1;
      for (const ValueId id : op.node.inputs) {
        if (id == kNone || program_.constant(id) || program_.value(id).bytes() <= largest) continue;
        largest = program_.value(id).bytes();
        layout = predicted[static_cast<size_t>(id)];
      }
    }
    for (const ValueId id : op.node.outputs) {
      if (id != kNone && fits_channels_last(id)) predicted[static_cast<size_t>(id)] = layout;
    }
  }
  return predicted;
}

// A value that several Concats read goes to the first and is copied by the others; those of a dense
// block do not compete, since ShareConcatPrefixes has chained them.
void Planner::AssignSlices() {
  const std::vector<Layout> predicted = PredictLayouts();
  for (size_t i = 0; i < program_.ops.size(); ++i) {
    const ProgramOp& op = program_.ops[i];
    if (!IsChannelConcat(program_, op) || predicted[static_cast<size_t>(op.output())] != Layout::kChannelsLast)
      continue;
    concat_in_place_[i] = true;
    int64_t channel = 0;
    for (const ValueId id : op.node.inputs) {
      Slice& slice = slice_of_[static_cast<size_t>(id)];
      const int producer = program_.producer(id);
      const bool once = std::count(op.node.inputs.begin(), op.node.inputs.end(), id) == 1;
      if (once && slice.concat == kNone && producer != kNone && !program_.constant(id) && !program_.is_output(id) &&
          predicted[static_cast<size_t>(id)] == Layout::kChannelsLast && !AsCut(program_, program_.op(producer))) {
        slice = {static_cast<int>(i), channel};
      }
      channel += dim(id, 1);
    }
  }
}

int Planner::ConcatTensor(int concat) {
  int& tensor = concat_tensor_[static_cast<size_t>(concat)];
  if (tensor != kNone) return tensor;
  const ValueId result = program_.op(concat).output();
  tensor = slice_of_[static_cast<size_t>(result)].concat != kNone ? SliceTensor(result)
                                                                  : AddDenseTensor(result, Layout::kChannelsLast);
  return tensor;
}

int Planner::SliceTensor(ValueId value) {
  // Chains of Concats are as long as a dense block: follow them without recursion.
  std::vector<ValueId> chain = {value};
  while (true) {
    const int concat = slice_of_[static_cast<size_t>(chain.back())].concat;
    const ValueId result = program_.op(concat).output();
    if (concat_tensor_[static_cast<size_t>(concat)] != kNone) break;
    if (slice_of_[static_cast<size_t>(result)].concat == kNone) {
      ConcatTensor(concat);
      break;
    }
    chain.push_back(result);
  }
  int tensor = kNone;
  while (!chain.empty()) {
    const ValueId id = chain.back();
    chain.pop_back();
    const Slice& slice = slice_of_[static_cast<size_t>(id)];
    const PlanTensor whole = plan_->tensors[static_cast<size_t>(concat_tensor_[static_cast<size_t>(slice.concat)])];
    tensor = AddTensor(id, Layout::kChannelsLast, whole.pitch, whole.buffer,
                       whole.offset + slice.channel * static_cast<int64_t>(sizeof(float)));
    const int producer = program_.producer(id);
    if (!chain.empty()) concat_tensor_[static_cast<size_t>(producer)] = tensor;
  }
  return tensor;
}

Result<bool> Planner::ConcatInPlace(const ProgramOp& op) {
  const int concat = current_op_;
  if (!concat_in_place_[static_cast<size_t>(concat)]) return false;
  // Where no operand came out channels-last after all, a plain Concat copies less.
  const auto channels_last = [&](ValueId id) { return tensor_of(id, Layout::kChannelsLast) != kNone; };
  if (concat_tensor_[static_cast<size_t>(concat)] == kNone &&
      std::none_of(op.node.inputs.begin(), op.node.inputs.end(), channels_last)) {
    return false;
  }
  const PlanTensor whole = plan_->tensors[static_cast<size_t>(ConcatTensor(concat))];
  int64_t channel = 0;
  for (const ValueId id : op.node.inputs) {
    const int64_t offset = whole.offset + channel * static_cast<int64_t>(sizeof(float));
    channel += dim(id, 1);
    const int have = tensor_of(id, Layout::kChannelsLast);
    if (have != kNone) {
      const PlanTensor& part = plan_->tensors[static_cast<size_t>(have)];
      if (part.buffer == whole.buffer && part.offset == offset && part.pitch == whole.pitch) continue;
    }
    if (program_.value(id).size() == 0) continue;
    int src = have;
    if (src == kNone) {
      CREASE_ASSIGN_OR_RETURN(src, TensorIn(id, Layout::kPlain));
    }
    const int part = AddTensor(id, Layout::kChannelsLast, whole.pitch, whole.buffer, offset);
    CREASE_RETURN_IF_ERROR(AddReorder(src, part, program_.value(id).name));
  }
  SetTensor(op.output(), ConcatTensor(concat));
  return true;
}

Result<bool> Planner::AddView(const ProgramOp& op) {
  const std::string_view type = op.type();
  if (op.output() == kNone || !op.node.domain.empty() || !op.epilogue.empty()) return false;
  if (type == "Concat") return ConcatInPlace(op);
  const ValueId src = op.input(0), dst = op.output();
  if (src == kNone || program_.value(src).dtype != program_.value(dst).dtype) return false;
  if (IsOneOf(type, {"Identity", "Cast"})) return AliasSameShape(op);
  if (type == "Dropout" && (op.node.outputs.size() < 2 || op.node.outputs[1] == kNone)) {
    const Tensor* training = program_.constant(op.input(2));
    if (op.input(2) != kNone && (!training || training->AsInt64(0) != 0)) return false;
    return AliasSameShape(op);
  }
  if (IsOneOf(type, {"Reshape", "Flatten", "Squeeze", "Unsqueeze"})) return AliasReshape(op);
  if (type == "Transpose") return AliasTranspose(op);
  if (IsOneOf(type, {"Split", "Slice"})) return AliasChannels(op);
  return false;
}

bool Planner::AliasSameShape(const ProgramOp& op) {
  for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
    const int have = tensor_of(op.input(0), layout);
    if (have == kNone) continue;
    const PlanTensor tensor = plan_->tensors[static_cast<size_t>(have)];
    SetTensor(op.output(), AddTensor(op.output(), layout, tensor.pitch, tensor.buffer, tensor.offset));
  }
  return true;
}

Result<bool> Planner::AliasReshape(const ProgramOp& op) {
  const ValueId src = op.input(0), dst = op.output();
  const Shape& from = program_.value(src).shape;
  const Shape& to = program_.value(dst).shape;
  // Spatial axes merged or split, channels whole: a pixel stays a pixel.
  const bool channels_kept = from.size() >= 3 && to.size() >= 3 && from[0] == to[0] && from[1] == to[1];
  const int channels_last = tensor_of(src, Layout::kChannelsLast);
  if (tensor_of(src, Layout::kPlain) == kNone && channels_last != kNone && channels_kept) {
    const PlanTensor tensor = plan_->tensors[static_cast<size_t>(channels_last)];
    SetTensor(dst, AddTensor(dst, Layout::kChannelsLast, tensor.pitch, tensor.buffer, tensor.offset));
    return true;
  }
  CREASE_ASSIGN_OR_RETURN(const int plain, TensorIn(src, Layout::kPlain));
  const PlanTensor tensor = plan_->tensors[static_cast<size_t>(plain)];
  SetTensor(dst, AddTensor(dst, Layout::kPlain, 0, tensor.buffer, tensor.offset));
  return true;
}

bool Planner::AliasTranspose(const ProgramOp& op) {
  const ValueId src = op.input(0), dst = op.output();
  const Shape& from = program_.value(src).shape;
  const auto perm = ops::ParseTranspose(op.node, static_cast<int>(from.size()));
  if (!perm.ok()) return false;
  const size_t rank = from.size();
  const auto alias = [&](int have, Layout layout, int64_t pitch) {
    const PlanTensor tensor = plan_->tensors[static_cast<size_t>(have)];
    SetTensor(dst, AddTensor(dst, layout, pitch, tensor.buffer, tensor.offset));
    return true;
  };
  // Only axes of one element change their places.
  const int plain = tensor_of(src, Layout::kPlain);
  std::vector<int> moved;
  for (const int axis : *perm) {
    if (from[static_cast<size_t>(axis)] != 1) moved.push_back(axis);
  }
  if (plain != kNone && std::is_sorted(moved.begin(), moved.end())) return alias(plain, Layout::kPlain, 0);
  if (rank < 3) return false;
  bool channels_to_end = (*perm)[0] == 0 && (*perm)[rank - 1] == 1;
  bool channels_from_end = (*perm)[0] == 0 && (*perm)[1] == static_cast<int>(rank) - 1;
  for (size_t axis = 1; axis + 1 < rank; ++axis) {
    channels_to_end = channels_to_end && (*perm)[axis] == static_cast<int>(axis) + 1;
    channels_from_end = channels_from_end && (*perm)[axis + 1] == static_cast<int>(axis);
  }
  const int channels_last = tensor_of(src, Layout::kChannelsLast);
  if (channels_to_end && channels_last != kNone &&
      plan_->tensors[static_cast<size_t>(channels_last)].pitch == from[1]) {
    return alias(channels_last, Layout::kPlain, 0);
  }
  if (channels_from_end && plain != kNone) return alias(plain, Layout::kChannelsLast, from[rank - 1]);
  return false;
}

bool Planner::CanViewRange(ValueId src, size_t axis) const {
  if (axis == 1 && tensor_of(src, Layout::kChannelsLast) != kNone) return true;
  if (tensor_of(src, Layout::kPlain) == kNone) return false;
  const Shape& shape = program_.value(src).shape;
  return std::all_of(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(axis),
                     [](int64_t d) { return d == 1; });
}

bool Planner::ViewRange(ValueId src, ValueId dst, size_t axis, int64_t start) {
  const int64_t element = static_cast<int64_t>(ByteSize(program_.value(src).dtype));
  const int channels_last = tensor_of(src, Layout::kChannelsLast);
  if (axis == 1 && channels_last != kNone) {
    const PlanTensor tensor = plan_->tensors[static_cast<size_t>(channels_last)];
    SetTensor(dst, AddTensor(dst, Layout::kChannelsLast, tensor.pitch, tensor.buffer, tensor.offset + start * element));
    return true;
  }
  const PlanTensor tensor = plan_->tensors[static_cast<size_t>(tensor_of(src, Layout::kPlain))];
  int64_t inner = 1;
  for (size_t k = axis + 1; k < tensor.shape.size(); ++k) inner *= tensor.shape[k];
  SetTensor(dst, AddTensor(dst, Layout::kPlain, 0, tensor.buffer, tensor.offset + start * inner * element));
  return true;
}

bool Planner::AliasChannels(const ProgramOp& op) {
  const std::optional<Cut> cut = AsCut(program_, op);
  if (!cut || program_.constant(op.input(0)) || !CanViewRange(op.input(0), cut->axis)) return false;
  for (size_t i = 0; i < op.node.outputs.size(); ++i)
    ViewRange(op.input(0), op.node.outputs[i], cut->axis, cut->starts[i]);
  return true;
}

}  // namespace crease
