// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/conv_transpose.h"

#include <algorithm>
#include <array>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<std::vector<int64_t>> ReadOutputValues(const Node& node, std::string_view name, size_t rank, int64_t least) {
  CREASE_ASSIGN_OR_RETURN(std::vector<int64_t> values, AttrInts(node, name, {}));
  if (values.size() != rank) {
    return InvalidModel("attribute '", name, "' must have ", rank, " values, it has ", values.size());
  }
  for (int64_t value : values) {
    if (value < least || value > kMaxWindowValue) {
      return InvalidModel("attribute '", name, "' must be in [", least, ", ", kMaxWindowValue, "], found ", value);
    }
  }
  return values;
}

Result<void> CheckChannels(int64_t group, const Dim& x_channels, const Dim& w_inputs) {
  if (w_inputs.known() && w_inputs.value % group != 0) {
    return InvalidModel("the weights' ", w_inputs.value, " input channels must be a multiple of group ", group);
  }
  if (x_channels.known() && w_inputs.known() && x_channels.value != w_inputs.value) {
    return InvalidModel("the weights must have the input's ", x_channels.value, " channels on axis 0, they have ",
                        w_inputs.value);
  }
  return {};
}

Result<Dim> OutputChannels(const InferContext& context, int64_t group) {
  const TensorType& w = context.input(1);
  Dim channels;
  if (w.has_rank && w.dims[1].known() && !CheckedMul(w.dims[1].value, group, &channels.value)) {
    return InvalidModel("weights ", w.ToString(), " times group ", group, " has more than 2^63 output channels");
  }
  CREASE_RETURN_IF_ERROR(RequireRank(context, 2, 1, 1));
  if (context.has_input(2) && context.input(2).has_rank) {
    CREASE_RETURN_IF_ERROR(MergeDims(channels, context.input(2).dims[0], "the output channels and the bias' length"));
  }
  return channels;
}

Result<void> InferConvTranspose(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const int rank, InferConvRank(context));
  const TensorType &x = context.input(0), &w = context.input(1);
  if (rank == 0) {
    SetOutput(context, 0, TensorType{x.dtype, false, {}});
    return {};
  }
  CREASE_ASSIGN_OR_RETURN(const ConvTransposeAttributes attributes,
                          ParseConvTranspose(context.node, rank - 2, KernelOf(w)));
  CREASE_RETURN_IF_ERROR(
      CheckChannels(attributes.group, x.has_rank ? x.dims[1] : Dim{}, w.has_rank ? w.dims[0] : Dim{}));
  CREASE_ASSIGN_OR_RETURN(const Dim channels, OutputChannels(context, attributes.group));
  std::vector<Dim> dims = {x.has_rank ? x.dims[0] : Dim{}, channels};
  for (int axis = 0; axis < rank - 2; ++axis) {
    Dim output;
    if (x.has_rank && x.dims[static_cast<size_t>(axis) + 2].known() && !attributes.window.kernel.empty()) {
      CREASE_ASSIGN_OR_RETURN(const WindowAxis window,
                              ResolveTransposedAxis(attributes, axis, x.dims[static_cast<size_t>(axis) + 2].value));
      output.value = window.output;
    }
    dims.push_back(output);
  }
  SetOutput(context, 0, TypeOf(x.dtype, std::move(dims)));
  return {};
}

// For output pixel dst, the input pixel that adds to it through every tap, or -1.
void TransposedSources(std::span<const WindowAxis> axes, int64_t dst, std::span<int64_t> sources) {
  std::array<int64_t, kMaxRank> position{}, tap{};
  for (size_t i = axes.size(); i-- > 0;) {
    position[i] = dst % axes[i].output + axes[i].pad_begin;
    dst /= axes[i].output;
  }
  for (int64_t& source : sources) {
    source = 0;
    for (size_t i = 0; i < axes.size() && source >= 0; ++i) {
      const int64_t spread = position[i] - tap[i] * axes[i].dilation;
      const bool hit = spread >= 0 && spread % axes[i].stride == 0 && spread / axes[i].stride < axes[i].input;
      source = hit ? source * axes[i].input + spread / axes[i].stride : -1;
    }
    for (size_t i = axes.size(); i-- > 0;) {
      if (++tap[i] < axes[i].kernel) break;
      tap[i] = 0;
    }
  }
}

Result<std::vector<Tensor>> EvalConvTranspose(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferConvTranspose, context));
  CREASE_ASSIGN_OR_RETURN(const ConvShape shape,
                          ResolveConvTranspose(context.node, context.input(0).shape(), context.input(1).shape()));
  const auto sources = [&shape](int64_t p, std::span<int64_t> from) { TransposedSources(shape.axes, p, from); };
  ComputeConv(context, shape, true, sources, outputs[0]);
  return outputs;
}

}  // namespace

Result<ConvTransposeAttributes> ParseConvTranspose(const Node& node, int spatial_rank,
                                                   std::span<const int64_t> weight_kernel) {
  ConvTransposeAttributes attributes;
  CREASE_ASSIGN_OR_RETURN(static_cast<ConvAttributes&>(attributes), ParseConv(node, spatial_rank, weight_kernel));
  const auto rank = static_cast<size_t>(spatial_rank);
  attributes.output_padding.assign(rank, 0);
  if (HasAttr(node, "output_padding")) {
    CREASE_ASSIGN_OR_RETURN(attributes.output_padding, ReadOutputValues(node, "output_padding", rank, 0));
  }
  if (HasAttr(node, "output_shape")) {
    CREASE_ASSIGN_OR_RETURN(attributes.output_shape, ReadOutputValues(node, "output_shape", rank, 1));
  }
  return attributes;
}

Result<WindowAxis> ResolveTransposedAxis(const ConvTransposeAttributes& attributes, int axis, int64_t input) {
  const auto i = static_cast<size_t>(axis);
  const WindowAttributes& window = attributes.window;
  WindowAxis result;
  result.input = input;
  result.kernel = window.kernel[i];
  result.stride = window.strides[i];
  result.dilation = window.dilations[i];
  int64_t reach = 0;  // outputs that inputs add to, before pads cut them
  if (!CheckedMul(result.stride, input - 1, &reach) ||
      !CheckedAdd(reach, result.extent() + attributes.output_padding[i], &reach)) {
    return InvalidModel("spatial axis ", axis, " of ", input, " at stride ", result.stride,
                        " has more than 2^63 outputs");
  }
  const bool upper = window.auto_pad == AutoPad::kSameUpper;
  const bool same = upper || window.auto_pad == AutoPad::kSameLower;
  if (!attributes.output_shape.empty() || same) {
    result.output = attributes.output_shape.empty() ? input * result.stride : attributes.output_shape[i];
    const int64_t total = std::max<int64_t>(0, reach - result.output);
    result.pad_begin = upper ? total / 2 : total - total / 2;
    result.pad_end = total - result.pad_begin;
    return result;
  }
  result.pad_begin = window.pads[i];
  result.pad_end = window.pads[i + static_cast<size_t>(window.rank())];
  result.output = reach - result.pad_begin - result.pad_end;
  if (input == 0 || result.output < 1) {
    return InvalidModel("the output along spatial axis ", axis, " must have at least 1 element, it has ",
                        input == 0 ? 0 : result.output, ": input ", input, ", stride ", result.stride, ", kernel ",
                        result.kernel, ", pads ", result.pad_begin, " and ", result.pad_end);
  }
  return result;
}

Result<ConvShape> ResolveConvTranspose(const Node& node, const Shape& x, const Shape& w) {
  if (x.size() < 3 || x.size() != w.size()) {
    return InvalidModel("input and weights must have the same rank of 3 or more, their shapes are ", ToString(x),
                        " and ", ToString(w));
  }
  const std::span<const int64_t> kernel = std::span(w).subspan(2);
  CREASE_ASSIGN_OR_RETURN(const ConvTransposeAttributes attributes,
                          ParseConvTranspose(node, static_cast<int>(kernel.size()), kernel));
  CREASE_RETURN_IF_ERROR(CheckChannels(attributes.group, Dim{x[1], ""}, Dim{w[0], ""}));
  ConvShape shape;
  shape.batch = x[0];
  shape.group = attributes.group;
  shape.input_channels = x[1];
  if (!CheckedMul(w[1], attributes.group, &shape.output_channels)) {
    return InvalidModel("weights ", ToString(w), " times group ", attributes.group, " overflow");
  }
  for (size_t axis = 0; axis < kernel.size(); ++axis) {
    CREASE_ASSIGN_OR_RETURN(const WindowAxis window,
                            ResolveTransposedAxis(attributes, static_cast<int>(axis), x[axis + 2]));
    shape.axes.push_back(window);
  }
  return shape;
}

const OpDef kConvTranspose = {"ConvTranspose", "", 7, 2, 3, 1, 1, InferConvTranspose, EvalConvTranspose};

}  // namespace crease::ops
