// SPDX-License-Identifier: Apache-2.0
// 1x1 convolutions that leave out products with zeros: half of what a ReLU makes are, in trained networks as in random
// ones, and mostly in the same channels of neighbouring pixels. Pixels are taken three by three; the channels in which
// some of the three have something are listed once, and only their weights are multiplied, for every filter.
//
// The results are those of all products, to the bit but for the sign of a zero: sums are taken in the same order, and a
// product with zero adds nothing. Where weights are infinite or NaN it would, so then it refuses.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/conv_gemm.h"
#include "kernels/fetch_cursor.h"
#include "kernels/sparse_tile.h"

namespace crease {

class SparseConv {
 public:
  using Options = GemmConv::Options;  // not planar, no lattice; never by AMX

  static bool CanRun(const ConvShape& shape);
  // How many times as fast as all products, where a tile lists `share` of the channels.
  static double Gain(const ConvShape& shape, double share);
  // Whether that is worth trying for a source behind a ReLU.
  static bool Pays(const ConvShape& shape);  // only where it CanRun

  // For a shape that CanRun; weights and bias (null: none) as ONNX has them. Errors: infinite or NaN ones, as a
  // refusal's reason; out of memory.
  static Result<SparseConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                 const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const;
  int64_t fetchable_bytes(int workers) const;
  // Looks at some pixels, and takes all products where too few channels are zero. Thread-safe. The same bits at any
  // number of workers.
  void Run(const RunContext& context, const ConvOperands& operands) const;
  // For a pointwise shape: the `count` pixels at the operands' pointers, on the calling thread; `scratch` has
  // scratch_bytes(1).
  void RunPixels(const ConvOperands& operands, int64_t count, float* scratch) const;

 private:
  struct Range {
    int64_t begin, end;
    int64_t count() const { return end - begin; }
  };
  // A worker's memory, for a block of tiles.
  struct Scratch {
    int64_t* listed;  // of each piece, the channels that its lists have
    float* lists;     // tile by tile, piece by piece
    float* sums;      // of one panel
    float* pixels;    // after the prologue
  };
  struct Fetch {
    FetchCursor& later;
    bool cold;  // the weights are not in L2 yet
  };

  explicit SparseConv(GemmConv dense) : dense_(std::move(dense)) {}
  void Plan();
  Scratch ScratchOf(float* scratch, int worker) const;
  int64_t listed_floats() const { return RoundUp(pieces_ * int64_t{sizeof(int64_t) / sizeof(float)}, kLineFloats); }
  ChannelList* ListAt(const Scratch& scratch, int64_t tile, int64_t piece) const {
    return reinterpret_cast<ChannelList*>(scratch.lists + (tile * pieces_ + piece) * list_floats_);
  }
  // Of tiles all over the pixels, the share of the channels that they list.
  double Share(const ConvOperands& operands, int64_t pixels, const Scratch& scratch) const;
  void RunTiles(const ConvOperands& operands, Range pixels, Range panels, Fetch fetch, const Scratch& scratch) const;
  // The source of a block of pixels after the prologue, and its lists.
  void FindBlock(const ConvOperands& operands, Range pixels, const Scratch& scratch) const;
  void RunPanel(const ConvOperands& operands, Range pixels, const GemmPanel& panel, Fetch fetch,
                const Scratch& scratch) const;
  // One piece of the block's products with a panel.
  void RunPiece(const ConvOperands& operands, Range pixels, const GemmPanel& panel, int64_t piece, Fetch fetch,
                const Scratch& scratch) const;
  // Where a block's pixels lie, from where their tiles' rows are counted: after the prologue, or the source.
  const float* RowsAt(const ConvOperands& operands, const Scratch& scratch) const {
    return prologue_.scale != nullptr ? scratch.pixels : operands.src;
  }
  // How far from there, for a tile that begins at `pixel`; for pixels that do not exist, as any other.
  void FindRows(const ConvOperands& operands, Range pixels, int64_t pixel, ChannelList& list) const;
  void Finish(const ConvOperands& operands, Range pixels, const GemmPanel& panel, const float* sums) const;

  GemmConv dense_;  // with all products, of the same weights
  ConvShape shape_;
  Epilogue epilogue_;
  Prologue prologue_;
  const GemmOps* gemm_ = nullptr;
  const SparseOps* ops_ = nullptr;
  int64_t depth_ = 0, pieces_ = 0;  // channels of a piece, but for the last one
  int64_t list_floats_ = 0;         // of a list's memory
  int64_t tiles_ = 0;               // of all pixels
  int64_t block_ = 0;               // tiles whose source and lists L2 holds
  int64_t panel_width_ = 0;         // of the widest
  double most_share_ = 0;           // above which all products are faster
  size_t worker_floats_ = 0;
  bool weights_stay_ = false;  // in L2
  bool near_ = false;          // see Options
  bool pointwise_ = false;     // the source has a pixel for each of dst, in that order
  bool finish_ = false;        // the activation is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
