// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/shape_values.h"

#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/slice.h"

namespace crease::ops {
namespace {

// Longer vectors are no shapes.
constexpr int64_t kMaxLength = 64;

// Input i as a shape value, from whatever is known of it.
std::optional<ShapeValue> ValueOf(const ShapeValueInputs& in, size_t i) {
  if (i >= in.types.size() || !in.types[i]) return std::nullopt;
  if (in.partial[i]) return *in.partial[i];
  const Tensor* constant = in.constants[i];
  if (!constant || constant->rank() > 1 || constant->size() > kMaxLength || !IsInteger(constant->dtype())) {
    return std::nullopt;
  }
  ShapeValue value;
  for (int64_t k = 0; k < constant->size(); ++k) value.push_back(Dim{std::max<int64_t>(constant->AsInt64(k), -1), ""});
  return value;
}

std::optional<ShapeValue> OfShape(const ShapeValueInputs& in) {
  const TensorType& input = *in.types[0];
  if (!input.has_rank || !in.output.is_static()) return std::nullopt;
  const int64_t start = AttrInt(in.node, "start", 0).ok() ? *AttrInt(in.node, "start", 0) : 0;
  const int64_t begin = std::clamp<int64_t>(start < 0 ? start + input.rank() : start, 0, input.rank());
  const int64_t count = in.output.dims[0].value;
  if (begin + count > input.rank()) return std::nullopt;
  return ShapeValue(input.dims.begin() + begin, input.dims.begin() + begin + count);
}

std::optional<ShapeValue> OfSize(const ShapeValueInputs& in) {
  if (!in.types[0]->is_static()) return std::nullopt;
  const Result<int64_t> count = ElementCount(in.types[0]->shape());
  if (!count.ok()) return std::nullopt;
  return ShapeValue{Dim{*count, ""}};
}

std::optional<ShapeValue> OfGather(const ShapeValueInputs& in) {
  const std::optional<ShapeValue> data = ValueOf(in, 0);
  const Tensor* indices = in.constants[1];
  if (!data || !indices || indices->rank() > 1 || in.types[0]->rank() != 1) return std::nullopt;
  const auto length = static_cast<int64_t>(data->size());
  ShapeValue value;
  for (int64_t k = 0; k < indices->size(); ++k) {
    int64_t index = indices->AsInt64(k);
    if (index < 0) index += length;
    if (index < 0 || index >= length) return std::nullopt;
    value.push_back((*data)[static_cast<size_t>(index)]);
  }
  return value;
}

std::optional<ShapeValue> OfSlice(const ShapeValueInputs& in) {
  const std::optional<ShapeValue> data = ValueOf(in, 0);
  if (!data) return std::nullopt;
  const auto option = [&in](size_t i) { return i < in.constants.size() ? in.constants[i] : nullptr; };
  for (size_t i = 1; i < in.types.size(); ++i) {
    if (in.types[i] && !option(i)) return std::nullopt;
  }
  const Result<SlicePlan> plan =
      ResolveSlice(in.node, in.opset, {static_cast<int64_t>(data->size())}, option(1), option(2), option(3), option(4));
  if (!plan.ok()) return std::nullopt;
  ShapeValue value;
  for (int64_t k = 0; k < plan->output[0]; ++k) {
    value.push_back((*data)[static_cast<size_t>(plan->start[0] + k * plan->step[0])]);
  }
  return value;
}

std::optional<ShapeValue> OfConcat(const ShapeValueInputs& in) {
  ShapeValue value;
  for (size_t i = 0; i < in.types.size(); ++i) {
    const std::optional<ShapeValue> part = ValueOf(in, i);
    if (!part || in.types[i]->rank() != 1) return std::nullopt;
    value.insert(value.end(), part->begin(), part->end());
  }
  if (value.size() > static_cast<size_t>(kMaxLength)) return std::nullopt;
  return value;
}

Dim Combine(std::string_view op, const Dim& a, const Dim& b) {
  Dim result;
  if (!a.known() || !b.known()) {
    // What leaves a dimension alone keeps its symbol.
    if (op == "Mul" && (a.value == 1 || b.value == 1)) return a.value == 1 ? b : a;
    if (op == "Add" && (a.value == 0 || b.value == 0)) return a.value == 0 ? b : a;
    if ((op == "Div" && b.value == 1) || (op == "Sub" && b.value == 0)) return a;
    return result;
  }
  bool fits = true;
  if (op == "Add") fits = CheckedAdd(a.value, b.value, &result.value);
  if (op == "Sub") result.value = a.value - b.value;
  if (op == "Mul") fits = CheckedMul(a.value, b.value, &result.value);
  if (op == "Div") result.value = b.value > 0 ? a.value / b.value : -1;
  return fits && result.value >= 0 ? result : Dim{};
}

std::optional<ShapeValue> OfArithmetic(const ShapeValueInputs& in) {
  const std::optional<ShapeValue> a = ValueOf(in, 0), b = ValueOf(in, 1);
  if (!a || !b || a->empty() || b->empty()) return std::nullopt;
  if (a->size() != b->size() && a->size() != 1 && b->size() != 1) return std::nullopt;
  ShapeValue value;
  for (size_t k = 0; k < std::max(a->size(), b->size()); ++k) {
    value.push_back(Combine(in.node.op_type, (*a)[a->size() == 1 ? 0 : k], (*b)[b->size() == 1 ? 0 : k]));
  }
  return value;
}

bool Any(std::string_view op, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), op) != names.end();
}

std::optional<ShapeValue> Compute(const ShapeValueInputs& in) {
  const std::string_view op = in.node.op_type;
  if (op == "Shape") return OfShape(in);
  if (op == "Size") return OfSize(in);
  if (op == "Gather") return OfGather(in);
  if (op == "Slice") return OfSlice(in);
  if (op == "Concat") return OfConcat(in);
  if (Any(op, {"Add", "Sub", "Mul", "Div"})) return OfArithmetic(in);
  if (Any(op, {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"})) return ValueOf(in, 0);
  return std::nullopt;
}

}  // namespace

std::optional<ShapeValue> ComputeShapeValue(const ShapeValueInputs& inputs) {
  if (!inputs.output.is_static() || inputs.output.rank() > 1) return std::nullopt;
  if (inputs.output.dtype != DType::kInt64 && inputs.output.dtype != DType::kInt32) return std::nullopt;
  const int64_t length = inputs.output.rank() == 0 ? 1 : inputs.output.dims[0].value;
  std::optional<ShapeValue> value = Compute(inputs);
  if (!value || static_cast<int64_t>(value->size()) != length) return std::nullopt;
  return value;
}

std::optional<Tensor> KnownTensor(const ShapeValue& value, const TensorType& output) {
  std::vector<int64_t> values;
  for (const Dim& dim : value) {
    if (!dim.known()) return std::nullopt;
    values.push_back(dim.value);
  }
  Result<Tensor> tensor = Tensor::From<int64_t>(output.shape(), values).ConvertedTo(output.dtype);
  if (!tensor.ok()) return std::nullopt;
  return std::move(tensor).value();
}

}  // namespace crease::ops
