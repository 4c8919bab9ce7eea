// SPDX-License-Identifier: Apache-2.0
// A convolution as its kernels see it: numbers only, axes resolved.
#pragma once

#include <cstdint>

#include "kernels/kernel.h"

namespace crease {

// 2-D; a 1-D convolution is one of height 1. Padding at the bottom and the right follows from the
// output's dimensions. dst[n, k, y, x] = bias[k] + sum over (i, j, c) of
// src[n, g * channels / groups + c, y * stride_h + i * dilation_h - pad_top, ...] * weights[k, c, i, j].
struct ConvShape {
  int64_t batch = 1, height = 1, width = 1, channels = 1;
  int64_t filters = 1, out_height = 1, out_width = 1;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t groups = 1;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return filters / groups; }
  int64_t out_pixels() const { return batch * out_height * out_width; }
  bool depthwise() const { return groups == channels && filters == channels; }
  // Every output pixel reads exactly the source pixel of its own position.
  bool pointwise() const {
    return taps() == 1 && stride_h == 1 && stride_w == 1 && pad_top == 0 && pad_left == 0 && out_height == height &&
           out_width == width;
  }
  // Every output pixel reads one source pixel that exists: a pointwise shape, or one with strides.
  bool one_tap() const {
    return taps() == 1 && pad_top == 0 && pad_left == 0 && (out_height - 1) * stride_h < height &&
           (out_width - 1) * stride_w < width;
  }
  // Of such a shape, both counted over all images.
  int64_t SourcePixel(int64_t pixel) const {
    if (pointwise()) return pixel;
    const int64_t row = pixel / out_width, x = pixel % out_width;
    return (row / out_height * height + row % out_height * stride_h) * width + x * stride_w;
  }
  // Source rows or columns that one output row or column depends on, gaps included.
  int64_t span_h() const { return (kernel_h - 1) * dilation_h + 1; }
  int64_t span_w() const { return (kernel_w - 1) * dilation_w + 1; }
};

// A Conv request that our kernels can serve: f32, channels-last, weights constant, bias constant or
// absent, rank 3 or 4. `residual` says whether the last src is one.
struct ConvRequest {
  ConvShape shape;
  const Tensor* weights = nullptr;  // (filters, channels / groups, kernel_h, kernel_w)
  const Tensor* bias = nullptr;     // (filters), or null
};

// Reads and checks a request. Errors: what is asked for and not served, as a refusal's reason.
Result<ConvRequest> ReadConvRequest(const KernelRequest& request);
// The same for a convolution of one group, without prologue and residual, whose source of few channels is plain: a
// network's input as the caller has it.
Result<ConvRequest> ReadPlanarConvRequest(const KernelRequest& request);
// The same for a ConvTranspose: weights are (channels, filters / groups, kernel_h, kernel_w), and src[y, x] adds
// through tap (i, j) to dst[y * stride_h + i * dilation_h - pad_top, x * stride_w + j * dilation_w - pad_left].
Result<ConvRequest> ReadConvTransposeRequest(const KernelRequest& request);

// Where Run finds its operands.
struct ConvOperands {
  const float* src = nullptr;
  int64_t src_pitch = 0;
  float* dst = nullptr;
  int64_t dst_pitch = 0;
  const float* residual = nullptr;  // null without one
  int64_t residual_pitch = 0;
};
ConvOperands ReadConvOperands(const Epilogue& epilogue, std::span<const ConstTensorView> src,
                              std::span<const TensorView> dst);

}  // namespace crease
