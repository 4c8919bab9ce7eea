// SPDX-License-Identifier: Apache-2.0
// Convolutions after each other by bands of rows: what one makes is read by the next while it is in L2. On maps that
// are larger than that, a convolution on its own waits for its source and its result.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/conv_gemm.h"
#include "kernels/conv_sparse.h"
#include "kernels/depthwise.h"

namespace crease {

class ConvChain {
 public:
  static constexpr size_t kMaxStages = 8;

  // Each request's source is the destination of the one before. All are 1x1 of stride 1 or depthwise, without prologue;
  // only the last one may have a residual. The first may also be any that ReadPlanarConvRequest takes;
  // then the last one has no residual either. Errors: a refusal's reason, out of memory.
  static Result<ConvChain> Make(std::span<const KernelRequest> requests);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const { return static_cast<size_t>(workers) * worker_floats_ * sizeof(float); }
  // Source of the first stage, dst and residual of the last. Thread-safe. The same bits at any number of workers: a
  // worker computes the rows that it needs from its neighbour's share once more.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  struct Stage {
    ConvShape shape;
    bool planar = false;  // reads a plain source
    // One of these.
    std::optional<GemmConv> gemm;
    std::optional<SparseConv> sparse;  // 1x1 behind a ReLU
    std::optional<DepthwiseConv> depthwise;
    // The band that holds some rows of its result; not for the last stage.
    int64_t pitch = 0, rows = 0;
    size_t offset = 0;  // in a worker's floats

    int64_t row_floats() const { return shape.out_width * pitch; }
  };
  struct Range {
    int64_t begin = 0, end = 0;
  };
  // Rows of one image that the bands hold, by stage; the last one's are those done.
  using Bands = std::array<Range, kMaxStages>;

  ConvChain() = default;
  void PlanBands();
  void PlanShares();
  size_t BandFloats(int64_t lines);
  void StartAt(int64_t row, Bands& bands) const;
  // From where the bands stand to row `end` of the last stage.
  void RunRows(const ConvOperands& operands, int64_t image, int64_t end, Bands& bands, float* floats) const;
  void MakeRoom(size_t stage, int64_t end, Bands& bands, float* floats) const;
  void RunStage(size_t stage, const ConvOperands& operands, int64_t image, Range rows, const Bands& bands,
                float* floats) const;

  std::vector<Stage> stages_;
  int64_t lines_ = 1;          // of the last stage, for each step
  int64_t share_rows_ = 1;     // of the last stage, the fewest that a worker takes
  size_t scratch_offset_ = 0;  // of the stages' own scratch, behind the bands
  size_t worker_floats_ = 0;
};

}  // namespace crease
