// SPDX-License-Identifier: Apache-2.0
// Shape, Size, and tensors from nothing: Constant, ConstantOfShape, Range.
#include <algorithm>
#include <cmath>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

struct AxisRange {
  int64_t begin = 0, end = 0;
};

// The part of the shape that `start` and `end` (opset 15) keep; both are clamped.
Result<AxisRange> ShapeRange(const Node& node, int rank) {
  CREASE_ASSIGN_OR_RETURN(int64_t start, AttrInt(node, "start", 0));
  CREASE_ASSIGN_OR_RETURN(int64_t end, AttrInt(node, "end", rank));
  const auto clamp = [rank](int64_t axis) {
    return axis < 0 ? std::max<int64_t>(axis + rank, 0) : std::min<int64_t>(axis, rank);
  };
  const int64_t begin = clamp(std::max<int64_t>(start, -kMaxRank));
  return AxisRange{begin, std::max(begin, clamp(std::max<int64_t>(end, -kMaxRank)))};
}

Result<void> InferShape(InferContext& context) {
  TensorType type = TensorType::OfRank(DType::kInt64, 1);
  if (context.input(0).has_rank) {
    CREASE_ASSIGN_OR_RETURN(const AxisRange range, ShapeRange(context.node, context.input(0).rank()));
    type.dims[0].value = range.end - range.begin;
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalShape(const EvalContext& context) {
  const Shape& shape = context.input(0).shape();
  CREASE_ASSIGN_OR_RETURN(const AxisRange range, ShapeRange(context.node, context.input(0).rank()));
  const auto dims =
      std::span(shape).subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.end - range.begin));
  return One(Tensor::From<int64_t>({range.end - range.begin}, dims));
}

Result<void> InferSize(InferContext& context) {
  SetOutput(context, 0, TypeOf(DType::kInt64, {}));
  return {};
}

Result<std::vector<Tensor>> EvalSize(const EvalContext& context) {
  return One(Tensor::Scalar<int64_t>(context.input(0).size()));
}

// The value of a Constant node; float lists and scalars become float32 tensors.
Result<Tensor> ConstantValue(const Node& node) {
  if (const Attribute* attribute = node.FindAttribute("value")) {
    if (const Tensor* tensor = std::get_if<Tensor>(&attribute->data)) return *tensor;
    return Unsupported("attribute 'value' must be a tensor of a float, integer or bool type");
  }
  if (HasAttr(node, "value_int")) {
    CREASE_ASSIGN_OR_RETURN(const int64_t value, AttrInt(node, "value_int", 0));
    return Tensor::Scalar<int64_t>(value);
  }
  if (HasAttr(node, "value_float")) {
    CREASE_ASSIGN_OR_RETURN(const float value, AttrFloat(node, "value_float", 0));
    return Tensor::Scalar<float>(value);
  }
  if (HasAttr(node, "value_ints")) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, AttrInts(node, "value_ints", {}));
    return Tensor::From<int64_t>({static_cast<int64_t>(values.size())}, std::span(values));
  }
  if (HasAttr(node, "value_floats")) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<float> values, AttrFloats(node, "value_floats", {}));
    return Tensor::From<float>({static_cast<int64_t>(values.size())}, std::span(values));
  }
  return Unsupported("expected one of the attributes value, value_int, value_ints, value_float, value_floats");
}

Result<void> InferConstant(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const Tensor value, ConstantValue(context.node));
  SetOutput(context, 0, TensorType::Of(value.dtype(), value.shape()));
  return {};
}

Result<std::vector<Tensor>> EvalConstant(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(Tensor value, ConstantValue(context.node));
  if (IsFloat(value.dtype())) {
    CREASE_ASSIGN_OR_RETURN(value, value.ConvertedTo(DType::kFloat64));
  } else {
    CREASE_ASSIGN_OR_RETURN(value, value.Aligned());
  }
  return One(std::move(value));
}

Result<Tensor> FillValue(const Node& node) {
  if (!HasAttr(node, "value")) return Tensor::From<float>({1}, {0.0f});
  CREASE_ASSIGN_OR_RETURN(Tensor value, ConstantValue(node));
  if (value.size() != 1) {
    return InvalidModel("attribute 'value' must have one element, its shape is ", ToString(value.shape()));
  }
  return value;
}

Result<void> InferConstantOfShape(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 0, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1, 1));
  CREASE_ASSIGN_OR_RETURN(const Tensor value, FillValue(context.node));
  TensorType type;
  type.dtype = value.dtype();
  if (const Tensor* shape = context.constant(0)) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> dims, IntVector(*shape, "input"));
    if (dims.size() > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", dims.size());
    CREASE_RETURN_IF_ERROR(ElementCount(dims));
    type = TensorType::Of(value.dtype(), dims);
  } else if (const std::vector<Dim>* partial = context.shape_value(0)) {
    type = TypeOf(value.dtype(), *partial);
  } else if (context.input(0).is_static() && context.input(0).dims[0].value <= kMaxRank) {
    type = TensorType::OfRank(value.dtype(), static_cast<int>(context.input(0).dims[0].value));
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalConstantOfShape(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferConstantOfShape, context));
  CREASE_ASSIGN_OR_RETURN(const Tensor value, FillValue(context.node));
  CREASE_ASSIGN_OR_RETURN(const Tensor fill, value.ConvertedTo(outputs[0].dtype()));
  CREASE_ASSIGN_OR_RETURN(const Tensor aligned, fill.Aligned());
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    std::fill_n(outputs[0].mutable_data<T>(), outputs[0].size(), *aligned.data<T>());
  });
  return outputs;
}

// Elements of Range: max(ceil((limit - start) / delta), 0).
Result<int64_t> RangeCount(const Tensor& start, const Tensor& limit, const Tensor& delta) {
  for (const Tensor* tensor : {&start, &limit, &delta}) {
    if (tensor->size() != 1) {
      return InvalidModel("start, limit and delta must be scalars, found shape ", ToString(tensor->shape()));
    }
  }
  const double count = std::ceil((limit.AsDouble(0) - start.AsDouble(0)) / delta.AsDouble(0));
  if (delta.AsDouble(0) == 0 || !std::isfinite(count)) {
    return InvalidModel("delta must not be 0 and the range finite, found start ", start.AsDouble(0), ", limit ",
                        limit.AsDouble(0), ", delta ", delta.AsDouble(0));
  }
  constexpr double kMaxCount = 1e15;
  if (count > kMaxCount) {
    return Error{ErrorCode::kLimitExceeded, StrCat("a range of ", count, " elements is too long"), ""};
  }
  return std::max<int64_t>(0, static_cast<int64_t>(count));
}

Result<void> InferRange(InferContext& context) {
  for (int i = 0; i < 3; ++i) {
    CREASE_RETURN_IF_ERROR(RequireNumber(context, i));
    CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
  }
  TensorType type = TensorType::OfRank(context.input(0).dtype, 1);
  if (context.constant(0) && context.constant(1) && context.constant(2)) {
    CREASE_ASSIGN_OR_RETURN(type.dims[0].value,
                            RangeCount(*context.constant(0), *context.constant(1), *context.constant(2)));
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalRange(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferRange, context));
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T start = *context.input(0).data<T>(), delta = *context.input(2).data<T>();
    T* dst = outputs[0].mutable_data<T>();
    for (int64_t i = 0; i < outputs[0].size(); ++i) {
      if constexpr (std::is_same_v<T, double>) {
        dst[i] = start + static_cast<double>(i) * delta;
      } else {
        dst[i] = static_cast<T>(static_cast<uint64_t>(start) + static_cast<uint64_t>(i) * static_cast<uint64_t>(delta));
      }
    }
  });
  return outputs;
}

}  // namespace

const OpDef kShape = {"Shape", "", 7, 1, 1, 1, 1, InferShape, EvalShape};
const OpDef kSize = {"Size", "", 7, 1, 1, 1, 1, InferSize, EvalSize};
const OpDef kConstant = {"Constant", "", 7, 0, 0, 1, 1, InferConstant, EvalConstant};
const OpDef kConstantOfShape = {"ConstantOfShape", "", 9, 1, 1, 1, 1, InferConstantOfShape, EvalConstantOfShape};
const OpDef kRange = {"Range", "", 11, 3, 3, 1, 1, InferRange, EvalRange};

}  // namespace crease::ops
