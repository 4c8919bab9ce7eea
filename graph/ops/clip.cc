// SPDX-License-Identifier: Apache-2.0
// Clip: bounds as attributes before opset 11, as inputs from then on.
#include <limits>

#include "graph/ops/activation.h"
#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferClip(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  if (context.opset < 11) {
    CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
    if (context.input_count() > 1) {
      return InvalidModel("expected 1 input before opset 11, found ", context.input_count());
    }
  }
  for (int i = 1; i < context.input_count(); ++i) {
    CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
    CREASE_RETURN_IF_ERROR(RequireRank(context, i, 0, 1));
  }
  CREASE_RETURN_IF_ERROR(ParseClip(context.node, context.opset, context.constant(1), context.constant(2)));
  SetOutput(context, 0, context.input(0));
  return {};
}

Result<double> Bound(const Tensor& tensor, const char* name) {
  if (tensor.size() != 1) {
    return InvalidModel(name, " must be one element, its shape is ", ToString(tensor.shape()));
  }
  return tensor.AsDouble(0);
}

Result<std::vector<Tensor>> EvalClip(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferClip, context));
  const Tensor* min = context.has(1) ? &context.input(1) : nullptr;
  const Tensor* max = context.has(2) ? &context.input(2) : nullptr;
  CREASE_ASSIGN_OR_RETURN(const ClipBounds bounds, ParseClip(context.node, context.opset, min, max));
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    T low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
    if constexpr (std::is_same_v<T, double>) {
      low = bounds.low;
      high = bounds.high;
    } else {
      if (min) low = *min->data<T>();
      if (max) high = *max->data<T>();
    }
    const T* x = context.input(0).data<T>();
    for (int64_t i = 0; i < outputs[0].size(); ++i) {
      const T raised = x[i] < low ? low : x[i];
      outputs[0].mutable_data<T>()[i] = raised > high ? high : raised;
    }
  });
  return outputs;
}

}  // namespace

Result<ClipBounds> ParseClip(const Node& node, int opset, const Tensor* min, const Tensor* max) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  ClipBounds bounds = {-kInfinity, kInfinity};
  if (opset < 11) {
    CREASE_ASSIGN_OR_RETURN(bounds.low, AttrFloat(node, "min", std::numeric_limits<float>::lowest()));
    CREASE_ASSIGN_OR_RETURN(bounds.high, AttrFloat(node, "max", std::numeric_limits<float>::max()));
    if (!HasAttr(node, "min")) bounds.low = -kInfinity;
    if (!HasAttr(node, "max")) bounds.high = kInfinity;
    return bounds;
  }
  if (min) {
    CREASE_ASSIGN_OR_RETURN(bounds.low, Bound(*min, "input min"));
  }
  if (max) {
    CREASE_ASSIGN_OR_RETURN(bounds.high, Bound(*max, "input max"));
  }
  return bounds;
}

const OpDef kClip = {"Clip", "", 7, 1, 3, 1, 1, InferClip, EvalClip};

}  // namespace crease::ops
