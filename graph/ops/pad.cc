// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/pad.h"

#include <algorithm>
#include <cstring>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<PadMode> ReadMode(const Node& node) {
  CREASE_ASSIGN_OR_RETURN(const std::string mode, AttrString(node, "mode", "constant"));
  if (mode == "constant") return PadMode::kConstant;
  if (mode == "reflect") return PadMode::kReflect;
  if (mode == "edge") return PadMode::kEdge;
  if (mode == "wrap") return PadMode::kWrap;  // from opset 19 on, but PyTorch writes it at 18, and ONNX Runtime runs it
  return InvalidModel("attribute 'mode' must be constant, reflect, edge or wrap, it is '", Printable(mode), "'");
}

struct PadAmounts {
  std::vector<int64_t> begin, end;
};

// Pads of every axis, with those of `axes` put in their places.
Result<PadAmounts> ReadAmounts(const Node& node, int opset, size_t rank, const Tensor* pads, const Tensor* axes) {
  std::vector<int64_t> values;
  if (opset < 11) {
    if (!HasAttr(node, "pads")) return InvalidModel("attribute 'pads' is missing");
    CREASE_ASSIGN_OR_RETURN(values, AttrInts(node, "pads", {}));
  } else {
    if (!pads) return Unsupported("input pads must be known");
    CREASE_ASSIGN_OR_RETURN(values, IntVector(*pads, "input pads"));
  }
  std::vector<int> places;
  if (opset >= 18 && axes) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> given, IntVector(*axes, "input axes"));
    CREASE_ASSIGN_OR_RETURN(places, NormalizeAxes(given, static_cast<int>(rank)));
  } else {
    for (size_t i = 0; i < rank; ++i) places.push_back(static_cast<int>(i));
  }
  if (values.size() != 2 * places.size()) {
    return InvalidModel("pads must have ", 2 * places.size(), " values, it has ", values.size());
  }
  PadAmounts amounts = {std::vector<int64_t>(rank, 0), std::vector<int64_t>(rank, 0)};
  for (size_t i = 0; i < places.size(); ++i) {
    amounts.begin[static_cast<size_t>(places[i])] = values[i];
    amounts.end[static_cast<size_t>(places[i])] = values[i + places.size()];
  }
  return amounts;
}

// Output size along one axis of known size. Negative pads cut, but never more than there is.
Result<int64_t> PaddedSize(PadMode mode, int64_t size, int64_t begin, int64_t end, size_t axis) {
  int64_t output = 0;
  if (!CheckedAdd(size, begin, &output) || !CheckedAdd(output, end, &output) || output < 0) {
    return InvalidModel("pads must leave axis ", axis, " at 0 or more, size ", size, " with pads ", begin, " and ", end,
                        " does not");
  }
  const int64_t most = std::max(begin, end);
  if (mode == PadMode::kReflect && most > std::max<int64_t>(size - 1, 0)) {
    return InvalidModel("reflected pads must be at most size - 1 = ", size - 1, " on axis ", axis, ", found ", most);
  }
  if (mode != PadMode::kConstant && size == 0 && output > 0) {
    return InvalidModel("axis ", axis, " is empty, there is nothing to pad it with");
  }
  return output;
}

Result<void> InferPad(InferContext& context) {
  if (context.opset < 11 ? context.input_count() > 1 : context.input_count() < 2) {
    return InvalidModel("expected ", context.opset < 11 ? "1 input before opset 11" : "2 to 4 inputs", ", found ",
                        context.input_count());
  }
  const TensorType& input = context.input(0);
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, 2));
  CREASE_RETURN_IF_ERROR(RequireIndex(context, 3));
  CREASE_ASSIGN_OR_RETURN(const PadMode mode, ReadMode(context.node));
  TensorType type = input;
  const bool known = context.opset < 11 ||
                     (context.constant(1) && (context.opset < 18 || !context.has_input(3) || context.constant(3)));
  if (!known) {
    for (Dim& dim : type.dims) dim = Dim{};
  } else if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const PadAmounts amounts, ReadAmounts(context.node, context.opset, input.dims.size(),
                                                                  context.constant(1), context.constant(3)));
    for (size_t i = 0; i < type.dims.size(); ++i) {
      if (amounts.begin[i] == 0 && amounts.end[i] == 0) continue;
      if (!type.dims[i].known()) {
        type.dims[i] = Dim{};
        continue;
      }
      CREASE_ASSIGN_OR_RETURN(type.dims[i].value,
                              PaddedSize(mode, type.dims[i].value, amounts.begin[i], amounts.end[i], i));
    }
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

// Copies the element at src_index, or the value, to every place of dst.
template <typename T>
void FillPadded(const PadPlan& plan, const Tensor& src, T value, Tensor& dst) {
  if (dst.size() == 0) return;
  const std::vector<int64_t> strides = RowMajorStrides(src.shape());
  std::vector<std::vector<int64_t>> offsets(src.shape().size());  // for every axis and index; -1: the value
  for (size_t axis = 0; axis < offsets.size(); ++axis) {
    for (int64_t i = 0; i < plan.output[axis]; ++i) {
      const int64_t index = PadSource(plan.mode, i - plan.begin[axis], src.shape()[axis]);
      offsets[axis].push_back(index < 0 ? -1 : index * strides[axis]);
    }
  }
  const T* from = src.data<T>();
  T* to = dst.mutable_data<T>();
  std::vector<size_t> index(offsets.size(), 0);
  for (int64_t i = 0; i < dst.size(); ++i) {
    int64_t offset = 0;
    for (size_t axis = 0; axis < offsets.size() && offset >= 0; ++axis) {
      const int64_t part = offsets[axis][index[axis]];
      offset = part < 0 ? -1 : offset + part;
    }
    to[i] = offset < 0 ? value : from[offset];
    for (size_t axis = offsets.size(); axis-- > 0;) {
      if (++index[axis] < offsets[axis].size()) break;
      index[axis] = 0;
    }
  }
}

Result<std::vector<Tensor>> EvalPad(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferPad, context));
  const auto option = [&context](int i) { return context.has(i) ? &context.input(i) : nullptr; };
  CREASE_ASSIGN_OR_RETURN(const PadPlan plan, ResolvePad(context.node, context.opset, context.input(0).shape(),
                                                         option(1), option(2), option(3)));
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    FillPadded<T>(plan, context.input(0), static_cast<T>(plan.value), outputs[0]);
  });
  return outputs;
}

}  // namespace

Result<PadPlan> ResolvePad(const Node& node, int opset, const Shape& input, const Tensor* pads, const Tensor* value,
                           const Tensor* axes) {
  PadPlan plan;
  CREASE_ASSIGN_OR_RETURN(plan.mode, ReadMode(node));
  CREASE_ASSIGN_OR_RETURN(PadAmounts amounts, ReadAmounts(node, opset, input.size(), pads, axes));
  for (size_t i = 0; i < input.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(const int64_t size, PaddedSize(plan.mode, input[i], amounts.begin[i], amounts.end[i], i));
    plan.output.push_back(size);
  }
  plan.begin = std::move(amounts.begin);
  plan.end = std::move(amounts.end);
  if (opset < 11) {
    CREASE_ASSIGN_OR_RETURN(plan.value, AttrFloat(node, "value", 0));
  } else if (value) {
    if (value->size() != 1) {
      return InvalidModel("constant_value must be one element, its shape is ", ToString(value->shape()));
    }
    plan.value = value->AsDouble(0);
  }
  return plan;
}

int64_t PadSource(PadMode mode, int64_t position, int64_t size) {
  if (position >= 0 && position < size) return position;
  switch (mode) {
    case PadMode::kConstant:
      return -1;
    case PadMode::kEdge:
      return position < 0 ? 0 : size - 1;
    case PadMode::kReflect:
      return position < 0 ? -position : 2 * (size - 1) - position;
    case PadMode::kWrap:
      return (position % size + size) % size;
  }
  return -1;
}

const OpDef kPad = {"Pad", "", 7, 1, 4, 1, 1, InferPad, EvalPad};

}  // namespace crease::ops
