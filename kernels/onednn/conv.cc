// SPDX-License-Identifier: Apache-2.0
// Conv and ConvTranspose on oneDNN: f32, channels-last (a pitch where an implementation takes it),
// constant weights, any groups, 1 to 3 spatial axes.
#include <string_view>

#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "kernels/kernels.h"
#include "kernels/onednn/primitive.h"

namespace crease {
namespace {

using onednn::KernelBuilder;
using From = onednn::PrimitiveKernel::Source::From;
using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;
constexpr auto kF32 = dnnl::memory::data_type::f32;

// What both operators ask of their operands.
Result<void> CheckOperands(const KernelRequest& request) {
  if (request.prologue.scale) return Refuse("a prologue");
  const Operand& x = request.src[0];
  if (x.dtype != DType::kFloat32) return Refuse(std::string("element type ") + Name(x.dtype));
  if (x.shape.size() < 3 || x.shape.size() > 5) return Refuse("rank " + std::to_string(x.shape.size()));
  if (x.layout != Layout::kChannelsLast) return Refuse("layout");
  if (x.constant) return Refuse("constant input");
  if (request.src.size() < 2 || !request.src[1].constant) return Refuse("weights are not constant");
  if (request.node.inputs.size() > 2 && request.node.inputs[2] != kNone && !request.src[2].constant) {
    return Refuse("bias is not constant");
  }
  return {};
}

const Tensor* BiasOf(const KernelRequest& request) {
  return request.node.inputs.size() > 2 && request.src[2].present ? request.src[2].constant : nullptr;
}

struct Window {
  Dims strides, dilations, pad_begin, pad_end;
};

// Shared by the two: arguments in the order oneDNN knows them.
template <typename PrimitiveDesc>
Result<std::unique_ptr<Kernel>> Finish(const KernelRequest& request, const PrimitiveDesc& desc,
                                       const onednn::PostOps& post_ops, dnnl::primitive primitive, const Desc& given) {
  CREASE_ASSIGN_OR_RETURN(std::string name, onednn::Implementation(desc));
  const Tensor& weights = *request.src[1].constant;
  CREASE_ASSIGN_OR_RETURN(std::shared_ptr<const void> packed,
                          onednn::PackWeights(request, weights, given, desc.weights_desc()));
  KernelBuilder builder;
  builder.Add(DNNL_ARG_SRC, desc.src_desc(), From::kSrc, 0);
  builder.AddOwned(DNNL_ARG_WEIGHTS, desc.weights_desc(), std::move(packed));
  if (const Tensor* bias = BiasOf(request))
    builder.AddOwned(DNNL_ARG_BIAS, desc.bias_desc(), onednn::CopyFloats(*bias));
  builder.Add(DNNL_ARG_DST, desc.dst_desc(), From::kDst);
  if (post_ops.residual_argument != 0) {
    builder.Add(post_ops.residual_argument, onednn::DescOf(request.src.back()), From::kResidual);
  }
  builder.Add(DNNL_ARG_SCRATCHPAD, desc.scratchpad_desc(), From::kScratch);
  return std::move(builder).Build(std::move(name), std::move(primitive));
}

// (g, o, i, spatial...) or (o, i, spatial...) without groups, over ONNX's row-major tensor whose first
// two axes are (g * o, i) or, for ConvTranspose, (g * i, o).
Desc GivenWeights(const Shape& shape, int64_t groups, bool transposed, Dims* dims) {
  const int64_t first = shape[0] / groups, second = shape[1];
  int64_t taps = 1;
  Dims spatial(shape.begin() + 2, shape.end()), spatial_strides(spatial.size(), 1);
  for (size_t axis = spatial.size(); axis-- > 0;) {
    spatial_strides[axis] = taps;
    taps *= spatial[axis];
  }
  Dims strides;
  dims->clear();
  if (groups > 1) {
    dims->push_back(groups);
    strides.push_back(first * second * taps);
  }
  dims->push_back(transposed ? second : first);
  strides.push_back(transposed ? taps : second * taps);
  dims->push_back(transposed ? first : second);
  strides.push_back(transposed ? second * taps : taps);
  dims->insert(dims->end(), spatial.begin(), spatial.end());
  strides.insert(strides.end(), spatial_strides.begin(), spatial_strides.end());
  return {*dims, kF32, strides};
}

// Whether oneDNN 3.7.2's brg_conv_fwd does, with AVX-512: with one channel, and one output along a strided last axis.
// It did with a stride of 1 along the axis before.
bool ReadsWrongRows(const ops::ConvShape& shape, int64_t channels) {
  const ops::WindowAxis& last = shape.axes.back();
  return shape.axes.size() > 1 && channels == 1 && last.output == 1 && last.stride > 1;
}

Result<std::unique_ptr<Kernel>> MakeConv(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  CREASE_ASSIGN_OR_RETURN(const ops::ConvShape shape,
                          ops::ResolveConv(request.node, request.src[0].shape, request.src[1].shape));
  Window window;
  for (const ops::WindowAxis& axis : shape.axes) {
    window.strides.push_back(axis.stride);
    window.dilations.push_back(axis.dilation - 1);
    window.pad_begin.push_back(axis.pad_begin);
    // What is left over at the end is never read; oneDNN wants the exact padding.
    window.pad_end.push_back((axis.output - 1) * axis.stride + axis.extent() - axis.input - axis.pad_begin);
  }
  CREASE_ASSIGN_OR_RETURN(const onednn::PostOps post_ops, onednn::MakePostOps(request));
  const onednn::BlockedFor blocked(request.workers);
  Dims weight_dims;
  const Desc given = GivenWeights(request.src[1].shape, shape.group, false, &weight_dims);
  const Desc any(weight_dims, kF32, dnnl::memory::format_tag::any);
  const Desc bias = BiasOf(request) ? Desc({shape.output_channels}, kF32, dnnl::memory::format_tag::x) : Desc();
  dnnl::convolution_forward::primitive_desc desc(
      onednn::CpuEngine(), dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct,
      onednn::DescOf(request.src[0]), any, bias, onednn::DescOf(request.dst[0]), window.strides, window.dilations,
      window.pad_begin, window.pad_end, post_ops.attributes);
  if (ReadsWrongRows(shape, request.src[0].shape[1])) {
    while (std::string_view(desc.impl_info_str()).starts_with("brg_conv_fwd:avx512")) {
      if (!desc.next_impl()) return Refuse("oneDNN has but an implementation that is wrong here");
    }
  }
  return Finish(request, desc, post_ops, dnnl::convolution_forward(desc), given);
}

Result<std::unique_ptr<Kernel>> MakeDeconv(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  CREASE_ASSIGN_OR_RETURN(const ops::ConvShape shape,
                          ops::ResolveConvTranspose(request.node, request.src[0].shape, request.src[1].shape));
  Window window;
  for (const ops::WindowAxis& axis : shape.axes) {
    window.strides.push_back(axis.stride);
    window.dilations.push_back(axis.dilation - 1);
    window.pad_begin.push_back(axis.pad_begin);
    const int64_t full = (axis.input - 1) * axis.stride + axis.extent();
    window.pad_end.push_back(full - axis.pad_begin - axis.output);
    if (window.pad_end.back() < 0 || axis.pad_begin < 0) return Refuse("output padding beyond the last tap");
  }
  CREASE_ASSIGN_OR_RETURN(const onednn::PostOps post_ops, onednn::MakePostOps(request));
  const onednn::BlockedFor blocked(request.workers);
  Dims weight_dims;
  const Desc given = GivenWeights(request.src[1].shape, shape.group, true, &weight_dims);
  const Desc any(weight_dims, kF32, dnnl::memory::format_tag::any);
  const Desc bias = BiasOf(request) ? Desc({shape.output_channels}, kF32, dnnl::memory::format_tag::x) : Desc();
  const dnnl::deconvolution_forward::primitive_desc desc(
      onednn::CpuEngine(), dnnl::prop_kind::forward_inference, dnnl::algorithm::deconvolution_direct,
      onednn::DescOf(request.src[0]), any, bias, onednn::DescOf(request.dst[0]), window.strides, window.dilations,
      window.pad_begin, window.pad_end, post_ops.attributes);
  return Finish(request, desc, post_ops, dnnl::deconvolution_forward(desc), given);
}

}  // namespace

KernelResult MakeOneDnnConv(const KernelRequest& request) {
  return onednn::Guarded([&] { return MakeConv(request); });
}

KernelResult MakeOneDnnConvTranspose(const KernelRequest& request) {
  return onednn::Guarded([&] { return MakeDeconv(request); });
}

}  // namespace crease
