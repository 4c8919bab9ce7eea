// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_shape.h"

#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"

namespace crease {
namespace {

bool IsChannelsLast(const Operand& operand) {
  return operand.dtype == DType::kFloat32 && operand.layout == Layout::kChannelsLast;
}

ConvShape Flatten(const ops::ConvShape& conv) {
  const bool flat = conv.axes.size() == 1;
  const ops::WindowAxis one{1, 1, 1, 1, 1, 0, 0};
  const ops::WindowAxis& vertical = flat ? one : conv.axes.front();
  const ops::WindowAxis& horizontal = conv.axes.back();
  ConvShape s;
  s.batch = conv.batch;
  s.channels = conv.input_channels;
  s.height = vertical.input;
  s.width = horizontal.input;
  s.filters = conv.output_channels;
  s.out_height = vertical.output;
  s.out_width = horizontal.output;
  s.kernel_h = vertical.kernel;
  s.kernel_w = horizontal.kernel;
  s.stride_h = vertical.stride;
  s.stride_w = horizontal.stride;
  s.dilation_h = vertical.dilation;
  s.dilation_w = horizontal.dilation;
  s.pad_top = vertical.pad_begin;
  s.pad_left = horizontal.pad_begin;
  s.groups = conv.group;
  return s;
}

// Of any layout of the source. `resolve`: ops::ResolveConv or ops::ResolveConvTranspose.
template <typename Resolve>
Result<ConvRequest> ReadAny(const KernelRequest& request, const Resolve& resolve) {
  const Operand& src = request.src[0];
  const Operand& weights = request.src[1];
  if (src.shape.size() != 3 && src.shape.size() != 4) return Refuse("rank other than 3 and 4");
  if (!IsChannelsLast(request.dst[0])) return Refuse("not f32 channels-last");
  if (weights.constant == nullptr || weights.constant->dtype() != DType::kFloat32) {
    return Refuse("weights not a constant of f32");
  }
  CREASE_ASSIGN_OR_RETURN(const ops::ConvShape resolved, resolve(request.node, src.shape, weights.constant->shape()));
  ConvRequest conv;
  conv.shape = Flatten(resolved);
  conv.weights = weights.constant;
  if (conv.shape.channels == 0 || conv.shape.filters == 0 || conv.shape.out_pixels() == 0) return Refuse("empty");
  // The residual, if any, follows the node's own inputs.
  const size_t own = request.src.size() - (request.epilogue.residual == Residual::kNone ? 0 : 1);
  if (own > 2 && request.src[2].present) {
    conv.bias = request.src[2].constant;
    if (conv.bias == nullptr || conv.bias->dtype() != DType::kFloat32 || conv.bias->size() != conv.shape.filters) {
      return Refuse("bias not a constant of f32");
    }
  }
  if (own < request.src.size() && !IsChannelsLast(request.src[own])) {
    return Refuse("residual not f32 channels-last");
  }
  return conv;
}

template <typename Resolve>
Result<ConvRequest> ReadChannelsLast(const KernelRequest& request, const Resolve& resolve) {
  if (request.src.size() < 2 || request.dst.size() != 1) return Refuse("unexpected operand count");
  if (!IsChannelsLast(request.src[0])) return Refuse("not f32 channels-last");
  return ReadAny(request, resolve);
}

}  // namespace

Result<ConvRequest> ReadConvRequest(const KernelRequest& request) {
  return ReadChannelsLast(request, ops::ResolveConv);
}

Result<ConvRequest> ReadConvTransposeRequest(const KernelRequest& request) {
  return ReadChannelsLast(request, ops::ResolveConvTranspose);
}

Result<ConvRequest> ReadPlanarConvRequest(const KernelRequest& request) {
  constexpr int64_t kMostChannels = 4;
  if (request.src.size() < 2 || request.dst.size() != 1) return Refuse("unexpected operand count");
  const Operand& src = request.src[0];
  if (src.layout != Layout::kPlain || src.dtype != DType::kFloat32) return Refuse("source not f32 and plain");
  if (src.shape.size() < 2 || src.shape[1] > kMostChannels) return Refuse("many channels");
  if (request.prologue.scale != nullptr || request.epilogue.residual != Residual::kNone) {
    return Refuse("prologue or residual");
  }
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadAny(request, ops::ResolveConv));
  if (conv.shape.groups != 1) return Refuse("groups");
  return conv;
}

ConvOperands ReadConvOperands(const Epilogue& epilogue, std::span<const ConstTensorView> src,
                              std::span<const TensorView> dst) {
  ConvOperands operands;
  operands.src = static_cast<const float*>(src[0].data);
  operands.src_pitch = src[0].pitch;
  operands.dst = static_cast<float*>(dst[0].data);
  operands.dst_pitch = dst[0].pitch;
  if (epilogue.residual != Residual::kNone) {
    operands.residual = static_cast<const float*>(src.back().data);
    operands.residual_pitch = src.back().pitch;
  }
  return operands;
}

}  // namespace crease
