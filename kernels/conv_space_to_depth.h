// SPDX-License-Identifier: Apache-2.0
// A network's first convolution, of few channels and a stride, as one of stride 1 over blocks of as many pixels as the
// stride is wide: ONNX's SpaceToDepth makes 12 channels of an image's 3, and 4x4 taps of 7x7. These have Winograd's
// minimal filtering, which does a quarter of the products.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/conv_winograd.h"

namespace crease {

class SpaceToDepthConv {
 public:
  using Options = ConvOptions;  // without a prologue and a residual

  static bool CanRun(const ConvShape& shape);
  // How many times as fast as a direct one, by an estimate; only where it CanRun.
  static double Gain(const ConvShape& shape);

  // For a plain source, (N, C, H, W), and a shape that CanRun; weights and bias (null: none) as ONNX has them. Errors:
  // out of memory.
  static Result<SpaceToDepthConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                       const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const;
  // Thread-safe. The same bits at any number of workers.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  explicit SpaceToDepthConv(WinogradConv conv) : conv_(std::move(conv)) {}
  size_t block_bytes() const;
  // A row of blocks, counted over all images; what lies outside the map is zero.
  template <int kSide>
  void MakeRow(const float* src, int64_t index, float* row) const;

  ConvShape shape_, inner_;
  WinogradConv conv_;          // of inner_
  PackCache::Packed weights_;  // a Tensor: inner_'s
  int64_t pitch_ = 0;          // floats, from block to block
};

}  // namespace crease
