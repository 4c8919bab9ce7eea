// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution, channels-last: any kernel, stride, dilation and padding.
#pragma once

#include <memory>
#include <string>

#include "kernels/conv_shape.h"
#include "kernels/depthwise_tile.h"
#include "kernels/gemm_pack.h"
#include "kernels/gemm_tile.h"

namespace crease {

class DepthwiseConv {
 public:
  // shape.depthwise(); weights (channels, 1, kernel_h, kernel_w), bias (channels) or null. Error: out of memory.
  static Result<DepthwiseConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                    const Epilogue& epilogue, PackCache* cache);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const;
  // Thread-safe. The same bits at any number of workers.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  DepthwiseConv() = default;
  void RunRow(const ConvOperands& operands, int64_t row, int64_t channel, int64_t channels, float* scratch) const;
  void RunPixels(const ConvOperands& operands, DepthwiseTile& tile, int64_t row, int64_t x, int64_t channel,
                 float* scratch) const;
  DepthwiseFunction Choose(const DepthwiseTile& tile) const;

  ConvShape shape_;
  Epilogue epilogue_;
  const DepthwiseOps* ops_ = nullptr;
  const GemmOps* finish_ops_ = nullptr;
  std::shared_ptr<const FloatBuffer> packed_;  // bias, whole vectors, then weights by vector, tap, lane
  int64_t padded_channels_ = 0;
  int64_t channel_block_ = 0;  // multiple of the lanes
  int64_t chunks_ = 0;         // of one row
  int fixed_kernel_ = -1;      // index into DepthwiseOps::fixed, or none
  bool finish_ = false;        // the activation is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
