// SPDX-License-Identifier: Apache-2.0
// Convolutions by Winograd's minimal filtering, fused: a block of tiles is transformed, multiplied
// with one panel of filters at a time at every point, and transformed back while both lie in L2.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "kernels/amx_queue.h"
#include "kernels/conv_shape.h"
#include "kernels/conv_wrapper.h"
#include "kernels/gemm_pack.h"
#include "kernels/gemm_tile.h"
#include "kernels/sparse_tile.h"
#include "kernels/winograd_tile.h"

namespace crease {

// Estimates in vector multiply-adds of one worker, whatever the number of workers: of a convolution by all products,
// and by a pair of axes, stride 1 or 2, one group.
double DirectConvCost(const ConvShape& shape, bool may_use_amx = true);
double WinogradCost(const ConvShape& shape, const WinogradOps& ops, bool may_use_amx = true);

class WinogradConv {
 public:
  struct Options : ConvOptions {
    WinogradKind kind = WinogradKind::kF4;
    bool amx = false;        // products by AMX, if there is AMX
    bool rectified = false;  // the source, after the prologue, comes from what makes zeros
    // Whole vectors may be read of a pixel, also where its channels end before; not with a prologue.
    bool whole_vectors = false;
  };

  // Dilation 1, one group, a kernel and stride that FindWinogradOps knows; weights and bias (null: none) as ONNX has
  // them. Errors: a refusal's reason, out of memory.
  static Result<WinogradConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                   const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const { return static_cast<size_t>(workers) * worker_floats_ * sizeof(float); }
  // Thread-safe. The same bits at any number of workers: no reduction is split.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  // A tile's outputs along one axis. Reduced tiles have no point at infinity and one output fewer.
  struct Span {
    int64_t begin = 0;
    int count = 0;
    bool reduced = false;
  };
  struct Range {
    int64_t begin, end;
  };
  struct Tile {
    int64_t image = 0;
    const Span* vertical = nullptr;
    const Span* horizontal = nullptr;
  };
  // The last points are infinity's, which only tiles have that are full that way: 2 in height, 1 in width.
  static constexpr int kPointKinds = 4;
  // Tiles sorted by what they reduce: height full from 0 to full_h, width full from first_w to end_w, so that the tiles
  // that have a point are neighbours.
  struct Block {
    static constexpr int kMaxTiles = 64;
    Tile tiles[kMaxTiles];
    int count = 0;
    int full_h = 0, first_w = 0, end_w = 0;
    bool listed = false;          // products by lists
    int lists[kPointKinds] = {};  // which kind's lists are those of its tiles
    // The tiles that have points of a kind.
    Range TilesOfKind(int kind) const {
      Range at{kind % 2 == 0 ? 0 : first_w, kind % 2 == 0 ? count : end_w};
      if (kind / 2 != 0) at.end = std::min<int64_t>(at.end, full_h);
      return at;
    }
  };
  // Where the source comes from what makes zeros, of some channels the patches of neighbouring tiles are zero all over,
  // and with them all their points: products of which the sums need nothing. Offsets and sizes count floats.
  struct Lists {
    const SparseOps* ops = nullptr;  // null: all products
    double most_share = 0;           // of the channels, above which all products are faster
    int64_t marks = 0, begin = 0;    // where the tiles' marks and the lists are
    int64_t mark_floats = 0;         // of a tile
    int64_t list_floats = 0;         // of a list
    int64_t groups = 0;              // lists of a kind of points
  };
  struct PointWeights {
    const float* values;
    const float* next;   // those that are read after them
    int64_t next_width;  // of their panel
  };

  WinogradConv() = default;
  static std::vector<Span> Split(int64_t size, int outputs);
  void PlanSplit(int workers, int64_t weight_bytes);
  void PlanBlocks(int workers);
  Tile TileAt(int64_t index) const;
  void Collect(Range tiles, Block& block) const;
  // Block `index` of tile_block_ tiles, its source transformed into the worker's points.
  void Transform(const ConvOperands& operands, int64_t index, Block& block, float* points) const;
  void RunPanels(const ConvOperands& operands, const Block& block, Range panels, float* scratch) const;
  void TransformInput(const ConvOperands& operands, const Block& block, float* points) const;
  int KindAt(int point) const;
  Range TilesAt(const Block& block, int point) const { return block.TilesOfKind(KindAt(point)); }
  // The points' numbers as digits, in their place.
  void MakeDigits(const Block& block, float* points) const;
  const float* WeightsAt(int64_t panel, int point) const;
  void Multiply(const Block& block, Range panels, const float* points, float* products) const;
  void MultiplyPoint(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points,
                     float* products) const;
  void MultiplyPoint(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points, float* products,
                     const float* row_scale, AmxQueue& queue) const;
  bool MayList() const { return options_.rectified && !options_.whole_vectors && amx_ == nullptr; }
  // Of a worker's memory, the floats before and with the lists.
  int64_t PlanLists(int64_t begin);
  // Of a block's tiles, for every kind of points, by the marks of their patches; all products where too many are left.
  void ListChannels(Block& block, float* scratch) const;
  int64_t ListAt(int kind, int64_t group) const {
    return lists_.begin + (kind * lists_.groups + group) * lists_.list_floats;
  }
  // `lists`: the first group's.
  void MultiplyListed(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points, float* products,
                      const float* lists) const;
  void TransformOutput(const ConvOperands& operands, const Block& block, const GemmPanel& panel,
                       const float* products) const;

  ConvShape shape_;
  Options options_;
  const GemmOps* gemm_ = nullptr;
  const WinogradOps* ops_ = nullptr;
  const AmxOps* amx_ = nullptr;  // null: products by vectors
  std::shared_ptr<const PackedGemm>
      packed_;               // by panel, weight: a row of zeros, then the channels, or scales and digits
  int64_t weight_rows_ = 0;  // of a panel's floats for one weight
  std::shared_ptr<const FloatBuffer> bias_;  // whole vectors by panel column
  std::vector<Span> vertical_, horizontal_;
  int64_t tiles_ = 0, tile_block_ = 0;
  int panel_width_ = 0;                         // of the widest
  int64_t tile_stride_ = 0, point_stride_ = 0;  // floats, of transformed sources
  int64_t scales_ = 0, products_ = 0;           // where the rows' scales and the products begin
  int64_t product_stride_ = 0;                  // of products, from point to point
  int64_t panel_products_ = 0;                  // and from panel to panel
  int64_t panel_group_ = 1;                     // panels that are multiplied at one point before the next
  bool by_columns_ = false;
  Lists lists_;
  size_t worker_floats_ = 0;
  bool finish_ = false;
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
