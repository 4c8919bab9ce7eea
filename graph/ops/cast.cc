// SPDX-License-Identifier: Apache-2.0
// Cast, CastLike, Identity, Dropout: the value passes, its type may not.
#include <optional>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

// The DType of a TensorProto.DataType number, where Crease has it.
std::optional<DType> DTypeOfOnnx(int64_t number) {
  switch (number) {
    case 1:
      return DType::kFloat32;
    case 2:
      return DType::kUint8;
    case 3:
      return DType::kInt8;
    case 4:
      return DType::kUint16;
    case 5:
      return DType::kInt16;
    case 6:
      return DType::kInt32;
    case 7:
      return DType::kInt64;
    case 9:
      return DType::kBool;
    case 10:
      return DType::kFloat16;
    case 11:
      return DType::kFloat64;
    case 12:
      return DType::kUint32;
    case 13:
      return DType::kUint64;
    case 16:
      return DType::kBFloat16;
    default:
      return std::nullopt;
  }
}

Result<DType> CastTarget(const Node& node) {
  if (!HasAttr(node, "to")) return InvalidModel("attribute 'to' is missing");
  CREASE_ASSIGN_OR_RETURN(const int64_t number, AttrInt(node, "to", 0));
  const std::optional<DType> dtype = DTypeOfOnnx(number);
  if (!dtype) return Unsupported("attribute 'to' must be a float, integer or bool type, it is data type ", number);
  return *dtype;
}

Result<void> InferCast(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const DType target, CastTarget(context.node));
  SetOutput(context, 0, WithDType(context.input(0), target));
  return {};
}

Result<void> InferCastLike(InferContext& context) {
  SetOutput(context, 0, WithDType(context.input(0), context.input(1).dtype));
  return {};
}

// Floats stay float64, rounded to the target's precision where that is float16 or bfloat16. The
// interpreter sees no other type than float64, so CastLike to any float changes nothing.
Result<std::vector<Tensor>> Convert(const Tensor& tensor, DType target) {
  Tensor value = tensor;
  if (target == DType::kFloat16 || target == DType::kBFloat16) {
    CREASE_ASSIGN_OR_RETURN(value, value.ConvertedTo(target));
  }
  CREASE_ASSIGN_OR_RETURN(value, value.ConvertedTo(IsFloat(target) ? DType::kFloat64 : target));
  return One(std::move(value));
}

Result<std::vector<Tensor>> EvalCast(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(const DType target, CastTarget(context.node));
  return Convert(context.input(0), target);
}

Result<std::vector<Tensor>> EvalCastLike(const EvalContext& context) {
  return Convert(context.input(0), context.input(1).dtype());
}

Result<void> InferIdentity(InferContext& context) {
  SetOutput(context, 0, context.input(0));
  return {};
}

Result<std::vector<Tensor>> EvalIdentity(const EvalContext& context) { return One(context.input(0)); }

// The inference form only: training_mode (input 2 from opset 12 on) absent or false.
Result<void> InferDropout(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireDType(context, 2, DType::kBool));
  if (context.opset < 12 && context.input_count() > 1) {
    return InvalidModel("expected 1 input before opset 12, found ", context.input_count());
  }
  if (context.has_input(2) && !context.constant(2)) return Unsupported("training_mode must be a constant false");
  if (const Tensor* training = context.constant(2); training && (training->size() != 1 || training->AsInt64(0) != 0)) {
    return Unsupported("training_mode must be one false, its shape is ", ToString(training->shape()),
                       training->size() > 0 ? ", its first element " : "",
                       training->size() > 0 ? StrCat(training->AsInt64(0)) : "");
  }
  SetOutput(context, 0, context.input(0));
  const bool mask_is_bool = context.opset >= 10;
  SetOutput(context, 1, WithDType(context.input(0), mask_is_bool ? DType::kBool : context.input(0).dtype));
  return {};
}

Result<std::vector<Tensor>> EvalDropout(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferDropout, context));
  outputs[0] = context.input(0);
  if (outputs.size() < 2 || !outputs[1].defined()) return outputs;
  VisitNumber(outputs[1].dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < outputs[1].size(); ++i) outputs[1].mutable_data<T>()[i] = T{1};
  });
  return outputs;
}

}  // namespace

const OpDef kCast = {"Cast", "", 7, 1, 1, 1, 1, InferCast, EvalCast};
const OpDef kCastLike = {"CastLike", "", 15, 2, 2, 1, 1, InferCastLike, EvalCastLike};
const OpDef kIdentity = {"Identity", "", 7, 1, 1, 1, 1, InferIdentity, EvalIdentity};
const OpDef kDropout = {"Dropout", "", 7, 1, 3, 1, 2, InferDropout, EvalDropout};

}  // namespace crease::ops
