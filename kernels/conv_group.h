// SPDX-License-Identifier: Apache-2.0
// Grouped convolution with 2, 4, 8 or 16 channels and as many filters in each group, channels-last: ResNeXt, RegNet.
#pragma once

#include <memory>
#include <string>

#include "kernels/conv_band.h"
#include "kernels/conv_group_tile.h"
#include "kernels/conv_shape.h"
#include "kernels/conv_wrapper.h"
#include "kernels/gemm_pack.h"
#include "kernels/gemm_tile.h"

namespace crease {

class GroupConv {
 public:
  using Options = ConvOptions;

  // Errors: a refusal where the group's size has no kernel on this instruction set; out of memory.
  static Result<GroupConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const { return static_cast<size_t>(workers) * worker_floats_ * sizeof(float); }
  // Thread-safe. The same bits at any number of workers.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  struct Range {
    int64_t begin, end;
  };

  GroupConv() = default;
  void Plan(int workers);
  void RunRange(const ConvOperands& operands, Range rows, Range vectors, float* scratch) const;
  void PackBand(const ConvOperands& operands, const ConvBand& band, Range rows, int64_t channel, float* to) const;
  // Dst rows that one tile takes. `src`: this vector's run of the first row's first line in the band.
  void RunRows(const ConvOperands& operands, const ConvBand& band, const float* src, Range rows, int64_t vector) const;

  ConvShape shape_;
  Epilogue epilogue_;
  Prologue prologue_;
  const GroupOps* ops_ = nullptr;
  const GemmOps* gemm_ = nullptr;
  GroupPackFunction pack_ = nullptr;
  const GroupFunctions* functions_ = nullptr;
  int64_t tile_rows_ = 1;                      // the most
  std::shared_ptr<const FloatBuffer> packed_;  // by vector: bias, then row, channel, column, GroupLane
  int64_t vector_floats_ = 0;                  // of packed_
  int64_t vectors_ = 0;
  ConvBand band_;       // its rows hold vector after vector: one's channels of all pixels
  int64_t lines_ = 0;   // of one band
  int64_t chunks_ = 0;  // of one line
  bool by_channels_ = false;
  size_t worker_floats_ = 0;
  bool finish_ = false;
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
