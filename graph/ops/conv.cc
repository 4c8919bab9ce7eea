// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/conv.h"

#include <utility>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {

Shape ConvShape::output() const {
  Shape shape = {batch, output_channels};
  for (const WindowAxis& axis : axes) shape.push_back(axis.output);
  return shape;
}

Result<ConvAttributes> ParseConv(const Node& node, int spatial_rank, std::span<const int64_t> weight_kernel) {
  ConvAttributes attributes;
  CREASE_ASSIGN_OR_RETURN(attributes.window, ParseWindow(node, spatial_rank, weight_kernel));
  CREASE_ASSIGN_OR_RETURN(attributes.group, AttrInt(node, "group", 1));
  if (attributes.group < 1) return InvalidModel("attribute 'group' must be at least 1, it is ", attributes.group);
  return attributes;
}

namespace {

// Channels of X and W against the group; unknown dimensions pass.
Result<void> CheckChannels(const ConvAttributes& attributes, const Dim& x_channels, const Dim& w_outputs,
                           const Dim& w_inputs) {
  const int64_t group = attributes.group;
  if (w_outputs.known() && (w_outputs.value == 0 || w_outputs.value % group != 0)) {
    return InvalidModel("the weights' ", w_outputs.value, " output channels must be a multiple of group ", group);
  }
  if (x_channels.known() && x_channels.value % group != 0) {
    return InvalidModel("the input's ", x_channels.value, " channels must be a multiple of group ", group);
  }
  if (x_channels.known() && w_inputs.known() && x_channels.value / group != w_inputs.value) {
    return InvalidModel("the weights must have channels / group = ", x_channels.value, " / ", group, " = ",
                        x_channels.value / group, " input channels, they have ", w_inputs.value);
  }
  return {};
}

Result<void> CheckBias(const InferContext& context, const Dim& channels) {
  CREASE_RETURN_IF_ERROR(RequireRank(context, 2, 1, 1));
  if (!context.has_input(2) || !context.input(2).has_rank) return {};
  CREASE_RETURN_IF_ERROR(MergeDims(channels, context.input(2).dims[0], "the output channels and the bias' length"));
  return {};
}

Result<void> InferConv(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const int rank, InferConvRank(context));
  const TensorType &x = context.input(0), &w = context.input(1);
  if (rank == 0) {
    SetOutput(context, 0, TensorType{x.dtype, false, {}});
    return {};
  }
  CREASE_ASSIGN_OR_RETURN(const ConvAttributes attributes, ParseConv(context.node, rank - 2, KernelOf(w)));
  const Dim batch = x.has_rank ? x.dims[0] : Dim{};
  const Dim channels = w.has_rank ? Dim{w.dims[0].value, ""} : Dim{};
  CREASE_RETURN_IF_ERROR(
      CheckChannels(attributes, x.has_rank ? x.dims[1] : Dim{}, channels, w.has_rank ? w.dims[1] : Dim{}));
  CREASE_RETURN_IF_ERROR(CheckBias(context, channels));
  std::vector<Dim> dims = {batch, channels};
  for (int axis = 0; axis < rank - 2; ++axis) {
    const Dim input = x.has_rank ? x.dims[static_cast<size_t>(axis) + 2] : Dim{};
    CREASE_ASSIGN_OR_RETURN(const Dim output, ResolveWindowDim(attributes.window, axis, input));
    dims.push_back(output);
  }
  SetOutput(context, 0, TypeOf(x.dtype, std::move(dims)));
  return {};
}

Result<std::vector<Tensor>> EvalConv(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferConv, context));
  CREASE_ASSIGN_OR_RETURN(const ConvShape shape,
                          ResolveConv(context.node, context.input(0).shape(), context.input(1).shape()));
  const auto sources = [&shape](int64_t p, std::span<int64_t> from) { WindowSources(shape.axes, p, from); };
  ComputeConv(context, shape, false, sources, outputs[0]);
  return outputs;
}

}  // namespace

Result<ConvShape> ResolveConv(const Node& node, const Shape& x, const Shape& w) {
  if (x.size() < 3 || x.size() != w.size()) {
    return InvalidModel("input and weights must have the same rank of 3 or more, their shapes are ", ToString(x),
                        " and ", ToString(w));
  }
  const std::span<const int64_t> kernel = std::span(w).subspan(2);
  CREASE_ASSIGN_OR_RETURN(const ConvAttributes attributes, ParseConv(node, static_cast<int>(kernel.size()), kernel));
  CREASE_RETURN_IF_ERROR(CheckChannels(attributes, Dim{x[1], ""}, Dim{w[0], ""}, Dim{w[1], ""}));
  ConvShape shape;
  shape.batch = x[0];
  shape.group = attributes.group;
  shape.input_channels = x[1];
  shape.output_channels = w[0];
  for (size_t axis = 0; axis < kernel.size(); ++axis) {
    CREASE_ASSIGN_OR_RETURN(const WindowAxis window,
                            ResolveAxis(attributes.window, static_cast<int>(axis), x[axis + 2]));
    shape.axes.push_back(window);
  }
  return shape;
}

Result<int> InferConvRank(const InferContext& context) {
  for (int i = 0; i < 3; ++i) CREASE_RETURN_IF_ERROR(RequireFloat(context, i));
  for (int i = 1; i < 3; ++i) CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 3));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 3));
  const TensorType &x = context.input(0), &w = context.input(1);
  if (x.has_rank && w.has_rank && x.rank() != w.rank()) {
    return InvalidModel("input and weights must have the same rank, they are ", x.ToString(), " and ", w.ToString());
  }
  return x.has_rank ? x.rank() : w.has_rank ? w.rank() : 0;
}

std::vector<int64_t> KernelOf(const TensorType& w) {
  std::vector<int64_t> kernel;
  for (int i = 2; i < w.rank(); ++i) {
    if (!w.dims[static_cast<size_t>(i)].known()) return {};
    kernel.push_back(w.dims[static_cast<size_t>(i)].value);
  }
  return kernel;
}

void ComputeConv(const EvalContext& context, const ConvShape& shape, bool transposed, WindowedSum::Sources sources,
                 Tensor& y) {
  const Tensor &x = context.input(0), &w = context.input(1);
  const size_t rank = x.shape().size();
  WindowedSum sum;
  sum.batch = shape.batch;
  sum.group = shape.group;
  sum.group_inputs = shape.group_inputs();
  sum.group_outputs = shape.group_outputs();
  sum.src_pixels = Product(x.shape(), 2, rank);
  sum.dst_pixels = Product(y.shape(), 2, rank);
  sum.taps = Product(w.shape(), 2, rank);
  sum.weight_input = transposed ? sum.taps * sum.group_outputs : sum.taps;
  sum.weight_output = transposed ? sum.taps : sum.taps * sum.group_inputs;
  sum.weight_group = sum.taps * sum.group_inputs * sum.group_outputs;
  sum.src = x.data<double>();
  sum.weights = w.data<double>();
  sum.bias = context.has(2) ? context.input(2).data<double>() : nullptr;
  sum.dst = y.mutable_data<double>();
  sum.sources = std::move(sources);
  ComputeWindowedSum(sum);
}

const OpDef kConv = {"Conv", "", 7, 2, 3, 1, 1, InferConv, EvalConv};

}  // namespace crease::ops
