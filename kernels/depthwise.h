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

  // Rows, counted over all images, that the operands' pointers point at: those of a band start later than 0.
  struct Origin {
    int64_t src = 0, dst = 0;  // the residual's is dst's
  };
  // Dst rows [begin, end) on the calling thread; `scratch` has scratch_bytes(1).
  void RunRows(const ConvOperands& operands, const Origin& origin, int64_t begin, int64_t end, float* scratch) const;

 private:
  struct Range {
    int64_t begin, end;
  };

  DepthwiseConv() = default;
  void RunBlock(const ConvOperands& operands, const Origin& origin, Range rows, Range channels, float* scratch) const;
  void RunRow(const ConvOperands& operands, const Origin& origin, int64_t row, Range channels, float* scratch) const;
  // dst pixels from `pixel` on, counted from the operands' origin.
  void RunPixels(const ConvOperands& operands, DepthwiseTile& tile, int64_t pixel, int64_t channel,
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
  bool even_ = false;          // several of them may run as one tile
  int fixed_kernel_ = -1;      // index into DepthwiseOps::fixed, or none
  bool finish_ = false;        // the activation is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
