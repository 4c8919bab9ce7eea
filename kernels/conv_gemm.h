// SPDX-License-Identifier: Apache-2.0
// Convolution as an implicit matrix product, channels-last: any kernel, stride, dilation, padding and groups.
// The reduction runs over the source in place where its pixels line up (1x1, stride 1), else over a band
// of rows that each worker copies with its padding, where kernel_w * channels are consecutive floats.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/amx.h"
#include "kernels/conv_band.h"
#include "kernels/conv_shape.h"
#include "kernels/conv_wrapper.h"
#include "kernels/fetch_cursor.h"
#include "kernels/gemm_pack.h"
#include "kernels/gemm_tile.h"
#include "kernels/rounding.h"

namespace crease {

// The weights of a convolution as matrices; `weights` and `bias` (null: none) as ONNX has them.
MatrixSource ConvMatrix(const ConvShape& shape, const Tensor& weights, const Tensor* bias);
// The same of one group with the taps of a channel after each other.
MatrixSource PlanarMatrix(const ConvShape& shape, const Tensor& weights, const Tensor* bias);

// Whether the convolution has one group, and AMX is there and faster than vectors.
bool CanUseAmx(const ConvShape& shape);

class GemmConv {
 public:
  // Where dst's pixels lie, and the residual's: every step_w-th of a row, every step_h-th row, of images of height x
  // width pixels.
  struct Lattice {
    int64_t step_h = 1, step_w = 1, height = 0, width = 0;
  };

  struct Options : ConvOptions {
    int64_t src_pitch = 0;
    // The source is plain, (N, C, H, W): no prologue, one group, `matrix` from PlanarMatrix.
    bool planar = false;
    std::optional<Lattice> lattice = std::nullopt;  // not with `planar`; none: dst has nothing else
    bool near = false;                              // dst and residual stay in L2: a tile need not ask for them ahead
    int widest = 0;                                 // vectors of a panel at most; 0: as all products are the fastest
    bool amx = false;                               // by AMX, if there is AMX: one group, not planar, no lattice
  };

  // `matrix` holds shape.groups matrices of taps * group_channels x group_filters. Error: out of memory.
  static Result<GemmConv> Make(const ConvShape& shape, const MatrixSource& matrix, const Options& options);

  std::string Describe() const;
  const PackedGemm& weights() const { return *packed_; }
  // Workers share the panels, else the pixels.
  bool by_columns() const { return by_columns_; }
  size_t scratch_bytes(int workers) const { return static_cast<size_t>(workers) * worker_floats_ * sizeof(float); }
  int64_t fetchable_bytes(int workers) const;
  // Thread-safe. The same bits at any number of workers: no reduction is split.
  void Run(const RunContext& context, const ConvOperands& operands) const;
  // For a pointwise shape: the `count` pixels at the operands' pointers, on the calling thread; `scratch` has
  // scratch_bytes(1).
  void RunPixels(const ConvOperands& operands, int64_t count, float* scratch) const;
  // For a planar source: dst rows [begin, end), counted over all images, of which the operands' dst has those from
  // `origin` on; on the calling thread, `scratch` has scratch_bytes(1).
  void RunRows(const ConvOperands& operands, int64_t origin, int64_t begin, int64_t end, float* scratch) const;

 private:
  struct Range {
    int64_t begin, end;
  };
  // Neighbouring dst pixels, and where their source lies.
  struct Block {
    int64_t pixel = 0;  // the first, of all of dst
    int64_t line = 0;   // pixels of one line
    int64_t lines = 0;
    int64_t line_step = 0;  // dst pixels from one line to the next
    const float* a = nullptr;
    const float* row_scale = nullptr;  // AMX: by pixel
  };

  // `count` tiles after each other in the block's line y.
  struct Tiles {
    int64_t y = 0, x = 0;
    int rows = 0;  // of each; past the line they are those of the next line, for one tile
    int64_t count = 1;
  };

  // What to fetch beside the computing.
  struct Fetch {
    bool cold = false;             // the weights are not in L2 yet
    FetchCursor* later = nullptr;  // what later steps read; null: nothing
  };

  // Products that are summed up one after the other: some segments, or a part of one.
  struct Piece {
    int64_t first_segment = 0, segments = 0;
    int64_t offset = 0, length = 0;  // in each segment
  };

  GemmConv() = default;
  void PlanPieces();
  void RunPieces(GemmTileFunction run, const GemmTile& tiles, int rows, int vectors) const;
  void PlanBand(const Options& options, int64_t panels);
  void PlanSegments();
  // column_units: what is dealt out where the split is by columns. `copy`: the source is copied.
  bool SplitsByColumns(int workers, int64_t column_units, bool copy) const;
  void RunRange(const ConvOperands& operands, Range units, Range panels, Fetch fetch, float* scratch) const;
  // For panels of one group, or of any without by_group_.
  void RunGroup(const ConvOperands& operands, Range units, Range panels, int64_t group, Fetch fetch,
                float* scratch) const;
  void RunBlock(const ConvOperands& operands, const Block& block, Range panels, Fetch fetch) const;
  void RunTiles(const ConvOperands& operands, const Block& block, const GemmPanel& panel, const Tiles& tiles,
                const Ahead& ahead) const;
  void FinishTiles(GemmTileFunction run, GemmTile tile, const Tiles& tiles, const GemmPanel& panel) const;
  // visit(src, src_stride, count) for runs of the dst pixels' sources, where each has one tap.
  template <typename Visit>
  void VisitPixels(const ConvOperands& operands, Range pixels, const Visit& visit) const {
    const ConvShape& s = shape_;
    if (s.pointwise()) {
      visit(operands.src + pixels.begin * operands.src_pitch, operands.src_pitch, pixels.end - pixels.begin);
      return;
    }
    for (int64_t pixel = pixels.begin; pixel < pixels.end;) {
      const int64_t count = std::min(s.out_width - pixel % s.out_width, pixels.end - pixel);
      visit(operands.src + s.SourcePixel(pixel) * operands.src_pitch, s.stride_w * operands.src_pitch, count);
      pixel += count;
    }
  }
  int64_t depth() const { return shape_.taps() * shape_.channels; }
  // Products of a tile beside which it fetches.
  int64_t fetching_depth() const {
    return static_cast<int64_t>(segments_.size()) * RoundDown(segment_length_, kTileUnroll);
  }
  // kernels/conv_gemm_amx.cc
  int64_t AmxFloats() const;
  // All taps of dst pixel `pixel` after the prologue, tap by tap.
  void GatherPatch(const ConvOperands& operands, int64_t pixel, float* patch) const;
  Block PackAmx(const ConvOperands& operands, Range pixels, float* scratch) const;
  void RunAmxBlock(const ConvOperands& operands, const Block& block, Range panels, bool cold) const;
  // Units by grains.
  Range Units(int64_t begin, int64_t end) const { return {begin * grain_, std::min(end * grain_, units_)}; }
  // `group`: that is copied, with by_group_.
  Block Pack(const ConvOperands& operands, Range units, int64_t group, float* scratch) const;
  Block PackFlat(const ConvOperands& operands, Range pixels, float* scratch) const;
  Block PackRows(const ConvOperands& operands, Range rows, int64_t group, float* scratch) const;

  ConvShape shape_;
  Epilogue epilogue_;
  Prologue prologue_;
  const GemmOps* ops_ = nullptr;
  const AmxOps* amx_ = nullptr;  // null: by vectors
  std::shared_ptr<const PackedGemm> packed_;
  Lattice lattice_;
  bool flat_ = false;                   // lines of a block follow each other in a: units are pixels, else dst rows
  bool copy_ = false;                   // into the worker's band
  bool by_group_ = false;               // one group's channels after the other, so that its pixels lie close together
  bool weights_stay_ = false;           // in L2
  bool by_columns_ = false;             // workers share the panels, else the units
  int64_t units_ = 0, unit_block_ = 0;  // in all; in one block
  int64_t grain_ = 1;                   // units that workers take at once
  int64_t a_pitch_ = 0;                 // floats from one pixel to the next in a
  ConvBand band_;                       // unless flat
  int64_t row_stride_ = 0;              // floats of a from one dst pixel to the next
  int64_t line_stride_ = 0;             // and from one dst row to the next
  std::vector<int64_t> segments_;
  int64_t segment_length_ = 0;
  std::vector<Piece> pieces_;
  size_t worker_floats_ = 0;
  bool near_ = false;    // see Options
  bool finish_ = false;  // the activation is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
