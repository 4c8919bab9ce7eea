// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

// Empty tensors stand for absent ones, as exporters write them.
const Tensor* NotEmpty(const Tensor* tensor) { return tensor && tensor->size() > 0 ? tensor : nullptr; }

Result<int64_t> ScaledSize(int64_t input, float scale, size_t axis) {
  if (!(scale > 0) || std::isinf(scale)) {
    return InvalidModel("scales must be positive and finite, on axis ", axis, " it is ", static_cast<double>(scale));
  }
  const float size = std::floor(static_cast<float>(input) * scale);
  if (size >= static_cast<float>(int64_t{1} << 60)) {
    return Error{ErrorCode::kLimitExceeded, StrCat("axis ", axis, " of ", input, " scaled is too large"), ""};
  }
  return static_cast<int64_t>(size);
}

Result<void> CheckLength(int64_t length, size_t expected, const char* what) {
  if (length == static_cast<int64_t>(expected)) return {};
  return InvalidModel(what, " must have ", expected, " elements, it has ", length);
}

Result<void> ApplyScales(const std::vector<int>& axes, const std::vector<float>& scales, const Shape& input,
                         ResizePlan& plan) {
  CREASE_RETURN_IF_ERROR(CheckLength(static_cast<int64_t>(scales.size()), axes.size(), "scales"));
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(axes[i]);
    CREASE_ASSIGN_OR_RETURN(plan.output[axis], ScaledSize(input[axis], scales[i], axis));
    plan.scales[axis] = static_cast<double>(scales[i]);
  }
  return {};
}

Result<void> ApplySizes(const std::vector<int>& axes, const Tensor& sizes, ResizeAspect aspect, const Shape& input,
                        ResizePlan& plan) {
  CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, IntVector(sizes, "input sizes"));
  CREASE_RETURN_IF_ERROR(CheckLength(static_cast<int64_t>(values.size()), axes.size(), "sizes"));
  double common = aspect == ResizeAspect::kNotLarger ? std::numeric_limits<double>::infinity() : 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(axes[i]);
    if (values[i] < 1 || input[axis] < 1) {
      return InvalidModel("sizes must be at least 1, on axis ", axis, " resizing ", input[axis], " to ", values[i]);
    }
    plan.output[axis] = values[i];
    plan.scales[axis] = static_cast<double>(values[i]) / static_cast<double>(input[axis]);
    common =
        aspect == ResizeAspect::kNotLarger ? std::min(common, plan.scales[axis]) : std::max(common, plan.scales[axis]);
  }
  plan.stretched = aspect == ResizeAspect::kStretch;
  if (plan.stretched) return {};
  for (int each : axes) {
    const auto axis = static_cast<size_t>(each);
    plan.scales[axis] = common;
    plan.output[axis] = static_cast<int64_t>(std::floor(common * static_cast<double>(input[axis]) + 0.5));
  }
  return {};
}

Result<void> InferResize(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_ASSIGN_OR_RETURN(const ResizeAttributes attributes, ParseResize(context.node, context.opset));
  if (attributes.mode != ResizeMode::kNearest) CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  const TensorType& input = context.input(0);
  TensorType type = input;
  for (Dim& dim : type.dims) dim = Dim{};
  SetOutput(context, 0, type);
  if (!input.has_rank) return {};
  const auto slot_known = [&](int slot) { return slot == kNone ? nullptr : context.constant(slot); };
  const auto slot_used = [&](int slot) { return slot != kNone && context.has_input(slot); };
  const Tensor* scales = slot_known(attributes.scales_slot);
  const Tensor* sizes = slot_known(attributes.sizes_slot);
  if (attributes.scales.empty() && !NotEmpty(scales) && !NotEmpty(sizes)) {
    const bool coming = slot_used(attributes.scales_slot) || slot_used(attributes.sizes_slot);
    return coming ? Result<void>() : InvalidModel("neither scales nor sizes are given");
  }
  // Axes that are resized become known where they are; others (scale 1) keep their symbol.
  Shape shape;
  for (const Dim& dim : input.dims) shape.push_back(dim.known() ? dim.value : 1);
  CREASE_ASSIGN_OR_RETURN(const ResizePlan plan, ResolveResize(attributes, shape, scales, sizes));
  for (size_t i = 0; i < shape.size(); ++i) {
    if (input.dims[i].known()) {
      type.dims[i].value = plan.output[i];
    } else if (NotEmpty(sizes) && attributes.aspect == ResizeAspect::kStretch) {
      type.dims[i].value = plan.output[i];
    } else if (!NotEmpty(sizes) && plan.scales[i] == 1) {
      type.dims[i] = input.dims[i];
    }
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

// dst = src resized along one axis; both dense, equal on the other axes.
void ResizeAxis(const ResizeAttributes& attributes, const ResizePlan& plan, size_t axis, const Tensor& src,
                Tensor& dst) {
  const int64_t input = src.shape()[axis], output = dst.shape()[axis];
  const int64_t outer = Product(src.shape(), 0, axis), inner = Product(src.shape(), axis + 1, src.shape().size());
  const double* from = src.data<double>();
  double* to = dst.mutable_data<double>();
  for (int64_t o = 0; o < output; ++o) {
    const ResizeTaps taps = ResizeTapsAt(attributes, plan, axis, o, input);
    for (int64_t n = 0; n < outer; ++n) {
      double* row = to + (n * output + o) * inner;
      for (size_t t = 0; t < static_cast<size_t>(taps.count); ++t) {
        if (taps.weight[t] == 0) continue;
        const double* taken = from + (n * input + taps.index[t]) * inner;
        for (int64_t i = 0; i < inner; ++i) row[i] += taps.weight[t] * taken[i];
      }
    }
  }
}

Result<std::vector<Tensor>> EvalResize(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferResize, context));
  CREASE_ASSIGN_OR_RETURN(const ResizeAttributes attributes, ParseResize(context.node, context.opset));
  const auto option = [&context](int i) { return i != kNone && context.has(i) ? &context.input(i) : nullptr; };
  CREASE_ASSIGN_OR_RETURN(const ResizePlan plan,
                          ResolveResize(attributes, context.input(0).shape(), option(attributes.scales_slot),
                                        option(attributes.sizes_slot)));
  const DType dtype = context.input(0).dtype();
  CREASE_ASSIGN_OR_RETURN(Tensor current, context.input(0).ConvertedTo(DType::kFloat64));
  for (size_t axis = 0; axis < plan.output.size() && outputs[0].size() > 0; ++axis) {
    if (plan.output[axis] == current.shape()[axis] && plan.scales[axis] == 1) continue;
    Shape shape = current.shape();
    shape[axis] = plan.output[axis];
    CREASE_ASSIGN_OR_RETURN(Tensor next, Tensor::Allocate(DType::kFloat64, shape));
    ResizeAxis(attributes, plan, axis, current, next);
    current = std::move(next);
  }
  if (outputs[0].size() == 0) return outputs;
  CREASE_ASSIGN_OR_RETURN(current, current.ConvertedTo(dtype));
  return One(std::move(current));
}

}  // namespace

Result<ResizePlan> ResolveResize(const ResizeAttributes& attributes, const Shape& input, const Tensor* scales,
                                 const Tensor* sizes) {
  scales = NotEmpty(scales);
  sizes = NotEmpty(sizes);
  const bool has_scales = scales || !attributes.scales.empty();
  if (has_scales == (sizes != nullptr)) {
    return InvalidModel("exactly one of scales and sizes must be given, found ", has_scales ? "both" : "none");
  }
  ResizePlan plan;
  plan.output = input;
  plan.scales.assign(input.size(), 1.0);
  std::vector<int> axes;
  for (size_t i = 0; i < input.size(); ++i) axes.push_back(static_cast<int>(i));
  if (!attributes.axes.empty()) {
    CREASE_ASSIGN_OR_RETURN(axes, NormalizeAxes(attributes.axes, static_cast<int>(input.size())));
  }
  if (sizes) {
    CREASE_RETURN_IF_ERROR(ApplySizes(axes, *sizes, attributes.aspect, input, plan));
    return plan;
  }
  std::vector<float> factors = attributes.scales;
  if (scales) {
    if (!IsFloat(scales->dtype())) return InvalidModel("input scales must be floats, it is ", Name(scales->dtype()));
    factors.clear();
    for (int64_t i = 0; i < scales->size(); ++i) factors.push_back(static_cast<float>(scales->AsDouble(i)));
  }
  CREASE_RETURN_IF_ERROR(ApplyScales(axes, factors, input, plan));
  if (plan.output == input) plan.scales.assign(input.size(), 1.0);
  return plan;
}

const OpDef kResize = {"Resize", "", 10, 1, 4, 1, 1, InferResize, EvalResize};
const OpDef kUpsample = {"Upsample", "", 7, 1, 2, 1, 1, InferResize, EvalResize};

}  // namespace crease::ops
