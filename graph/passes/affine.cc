// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/affine.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/batch_norm.h"
#include "graph/ops/common.h"

namespace crease::fold {
namespace {

using ops::StrCat;

Refusal NotAffine() { return {"", "", ""}; }

Outcome<AffineNode> MatchBatchNorm(const FoldContext& context, NodeId id) {
  const Node& node = context.graph.node(id);
  const std::string self = context.graph.Describe(id);
  if (node.inputs.size() < 5 || node.outputs.empty() || node.outputs[0] == kNone) {
    return Refusal{"not-per-channel", self, "it lacks inputs or its output"};
  }
  const Result<int64_t> spatial = AttrInt(node, "spatial", 1);
  if (!spatial.ok() || *spatial == 0) {
    return Refusal{"not-per-channel", self, "spatial = 0: one statistic for every element"};
  }
  Result<ops::BatchNormAttributes> attributes = ops::ParseBatchNorm(node, context.opset());
  if (!attributes.ok()) return Refusal{"not-per-channel", self, attributes.error().message};
  if (attributes->training) {
    if (context.opset() >= 14) return Refusal{"training-mode", self, "training_mode = 1"};
    return Refusal{"extra-outputs", self, "the outputs beyond Y ask for batch statistics"};
  }
  AffineNode match{id, 0, node.inputs[0], node.outputs[0], {}, DType::kUndefined, 0};
  const Tensor* parameters[4];
  for (size_t i = 0; i < 4; ++i) {
    parameters[i] = context.constants.Get(node.inputs[i + 1]);
    if (parameters[i] == nullptr) {
      return Refusal{"parameters-not-constant", self,
                     StrCat("input ", i + 1, " ('",
                            node.inputs[i + 1] == kNone ? "" : Printable(context.graph.value(node.inputs[i + 1]).name),
                            "') is not a constant")};
    }
    match.parameter_bytes +=
        parameters[i]->size() * static_cast<int64_t>(ByteSize(context.constants.dtype(node.inputs[i + 1])));
    if (parameters[i]->size() != parameters[0]->size() || parameters[i]->rank() != 1) {
      return Refusal{"parameter-length", self, "its parameters differ in length or are not vectors"};
    }
  }
  const int64_t channels = parameters[0]->size();
  const int64_t found = context.dim(match.data, 1);
  if (channels == 0 || (found >= 0 && found != channels)) {
    return Refusal{"parameter-length", self, StrCat(channels, " parameters for ", found, " channels")};
  }
  if (context.rank(match.data) == 1) return Refusal{"not-per-channel", self, "its input has no channel axis"};
  Result<ops::BatchNormAffine> map =
      ops::ResolveBatchNorm(*attributes, *parameters[0], *parameters[1], *parameters[2], *parameters[3]);
  if (!map.ok()) return Refusal{"bad-variance", self, map.error().message};
  match.affine = {1, std::move(map->scale), std::move(map->shift)};
  // From opset 15 on the parameters may be of another type.
  const DType of_data = context.type(match.data).dtype;
  match.dtype = IsFloat(of_data) ? of_data : context.constants.dtype(node.inputs[1]);
  if (!match.affine.finite()) return Refusal{"not-finite", self, "scale or shift is not finite"};
  return match;
}

// A constant operand as one number, or one for each channel of an axis of `data`; else empty.
struct Operand {
  int axis = 1;
  std::vector<double> values;
};

Operand ReadOperand(const FoldContext& context, const Tensor& tensor, ValueId data) {
  Operand operand;
  const int rank = tensor.rank();
  int varying = -1;
  for (int axis = 0; axis < rank; ++axis) {
    if (tensor.dim(axis) == 1) continue;
    if (varying >= 0 || tensor.dim(axis) == 0) return {};
    varying = axis;
  }
  const int data_rank = context.rank(data);
  if (rank > 0 && (data_rank < rank)) return {};  // the result would have another rank, or it is unknown
  if (varying >= 0) {
    operand.axis = data_rank - rank + varying;
    // A channel axis of 1 would be broadcast, which is no map of the value onto itself.
    if (context.dim(data, operand.axis) != tensor.dim(varying)) return {};
  }
  for (int64_t i = 0; i < tensor.size(); ++i) operand.values.push_back(tensor.AsDouble(i));
  return operand;
}

Affine MapOf(std::string_view op, const Operand& operand, int data_slot) {
  Affine affine = Affine::Identity(operand.axis, operand.values.size());
  for (size_t c = 0; c < operand.values.size(); ++c) {
    const double v = operand.values[c];
    if (op == "Mul") affine.scale[c] = v;
    if (op == "Div") affine.scale[c] = 1.0 / v;
    if (op == "Add" || op == "Sum") affine.shift[c] = v;
    if (op == "Sub") affine.shift[c] = data_slot == 0 ? -v : v;
    if (op == "Sub" && data_slot == 1) affine.scale[c] = -1.0;
  }
  return affine;
}

Outcome<AffineNode> MatchArithmetic(const FoldContext& context, NodeId id) {
  const Node& node = context.graph.node(id);
  if (node.inputs.size() != 2 || node.outputs.size() != 1 || node.inputs[0] == kNone || node.inputs[1] == kNone) {
    return NotAffine();
  }
  const bool constant[2] = {context.constants.IsConstant(node.inputs[0]), context.constants.IsConstant(node.inputs[1])};
  if (constant[0] == constant[1]) return NotAffine();
  const int slot = constant[0] ? 1 : 0;
  if (node.op_type == "Div" && slot == 1) return NotAffine();
  const ValueId other = node.inputs[static_cast<size_t>(1 - slot)];
  AffineNode match{
      id, slot, node.inputs[static_cast<size_t>(slot)], node.outputs[0], {}, context.constants.dtype(other), 0};
  if (!IsFloat(match.dtype)) return NotAffine();
  if (context.type(other).is_static()) {
    // Before computing anything: a full-sized operand is no map per channel.
    const Shape shape = context.type(other).shape();
    if (std::count_if(shape.begin(), shape.end(), [](int64_t d) { return d != 1; }) > 1) return NotAffine();
  }
  const Tensor* tensor = context.constants.Get(other);
  if (tensor == nullptr) return NotAffine();
  const Operand operand = ReadOperand(context, *tensor, match.data);
  if (operand.values.empty()) return NotAffine();
  match.affine = MapOf(node.op_type, operand, slot);
  match.parameter_bytes = tensor->size() * static_cast<int64_t>(ByteSize(match.dtype));
  if (!match.affine.finite()) return Refusal{"not-finite", context.graph.Describe(id), "scale or shift is not finite"};
  return match;
}

}  // namespace

bool Affine::has_scale() const {
  return std::any_of(scale.begin(), scale.end(), [](double s) { return s != 1.0; });
}
bool Affine::has_shift() const {
  return std::any_of(shift.begin(), shift.end(), [](double t) { return t != 0.0; });
}
bool Affine::finite() const {
  return std::all_of(scale.begin(), scale.end(), [](double s) { return std::isfinite(s); }) &&
         std::all_of(shift.begin(), shift.end(), [](double t) { return std::isfinite(t); });
}
double Affine::min_scale() const { return *std::min_element(scale.begin(), scale.end()); }
int Affine::zero_scales() const { return static_cast<int>(std::count(scale.begin(), scale.end(), 0.0)); }

Affine Affine::Broadcast(int to_axis, size_t channels) const {
  if (!uniform()) return *this;
  return {to_axis, std::vector<double>(channels, scale[0]), std::vector<double>(channels, shift[0])};
}

bool Composable(const Affine& a, const Affine& b) {
  return a.uniform() || b.uniform() || (a.axis == b.axis && a.size() == b.size());
}

Affine Compose(const Affine& first, const Affine& second) {
  Affine result = first.uniform() ? second : first;
  for (size_t c = 0; c < result.size(); ++c) {
    result.scale[c] = second.scale_at(c) * first.scale_at(c);
    result.shift[c] = second.scale_at(c) * first.shift_at(c) + second.shift_at(c);
  }
  return result;
}

int64_t FoldContext::dim(ValueId id, int axis) const {
  if (id == kNone || axis < 0 || axis >= rank(id)) return -1;
  const Dim& dim = type(id).dims[static_cast<size_t>(axis)];
  return dim.known() ? dim.value : -1;
}

bool FoldContext::LooksAt(NodeId node, ValueId value) const {
  const Node& reader = graph.node(node);
  for (size_t i = 0; i < reader.inputs.size(); ++i) {
    if (reader.inputs[i] == value && ops::ReadsElements(reader, i)) return true;
  }
  return std::count(reader.captured.begin(), reader.captured.end(), value) > 0;
}

int FoldContext::LookingUses(ValueId value) const {
  const std::span<const NodeId> readers = graph.consumers(value);
  return graph.use_count(value) - static_cast<int>(std::count_if(readers.begin(), readers.end(), [&](NodeId reader) {
           return !LooksAt(reader, value);
         }));
}

Outcome<AffineNode> MatchAffine(const FoldContext& context, NodeId id) {
  const Node& node = context.graph.node(id);
  if (!node.domain.empty()) return NotAffine();
  const std::string& op = node.op_type;
  if (op == "BatchNormalization") return MatchBatchNorm(context, id);
  if (op == "Add" || op == "Sub" || op == "Mul" || op == "Div" || op == "Sum") return MatchArithmetic(context, id);
  if (op == "Neg" && node.inputs.size() == 1 && node.inputs[0] != kNone &&
      IsFloat(context.type(node.inputs[0]).dtype) && !context.constants.IsConstant(node.inputs[0])) {
    return AffineNode{id, 0, node.inputs[0], node.outputs[0], {1, {-1.0}, {0.0}}, context.type(node.inputs[0]).dtype,
                      0};
  }
  return NotAffine();
}

}  // namespace crease::fold
