// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_winograd.h"

#include <algorithm>
#include <optional>

#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
void WinogradConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t panels = static_cast<int64_t>(packed_->panels.size());
  float* scratch = reinterpret_cast<float*>(context.scratch);
  const auto own = [&](int worker) { return scratch + static_cast<size_t>(worker) * worker_floats_; };
  const int64_t blocks = DivideUp(tiles_, tile_block_);
  if (by_columns_) {
    // Block by block: a worker transforms a block once for all the pieces that it takes.
    for (int64_t i = 0; i < blocks; ++i) {
      ParallelPieces(context, panels, [&](int worker, auto next) {
        const AmxScope scope(amx_ != nullptr);
        Block block;
        for (WorkShares::Range r = next(); !r.empty(); r = next()) {
          if (block.count == 0) Transform(operands, i, block, own(worker));
          RunPanels(operands, block, {r.begin, r.end}, own(worker));
        }
      });
    }
  } else {
    ParallelPieces(context, blocks, [&](int worker, auto next) {
      const AmxScope scope(amx_ != nullptr);
      Block block;
      for (WorkShares::Range r = next(); !r.empty(); r = next()) {
        for (int64_t i = r.begin; i < r.end; ++i) {
          Transform(operands, i, block, own(worker));
          RunPanels(operands, block, {0, panels}, own(worker));
        }
      }
    });
  }
}

void WinogradConv::Transform(const ConvOperands& operands, int64_t index, Block& block, float* points) const {
  Collect({index * tile_block_, std::min((index + 1) * tile_block_, tiles_)}, block);
  TransformInput(operands, block, points);
  if (amx_ != nullptr) MakeDigits(block, points);
  if (lists_.ops != nullptr) ListChannels(block, points);
}

void WinogradConv::RunPanels(const ConvOperands& operands, const Block& block, Range panels, float* scratch) const {
  float* products = scratch + products_;
  for (int64_t p = panels.begin; p < panels.end; p += panel_group_) {
    const Range group{p, std::min(p + panel_group_, panels.end)};
    Multiply(block, group, scratch, products);
    for (int64_t i = group.begin; i < group.end; ++i) {
      TransformOutput(operands, block, packed_->panels[static_cast<size_t>(i)],
                      products + (i - group.begin) * panel_products_);
    }
  }
}

WinogradConv::Tile WinogradConv::TileAt(int64_t index) const {
  const int64_t columns = static_cast<int64_t>(horizontal_.size());
  const int64_t rows = static_cast<int64_t>(vertical_.size());
  Tile tile;
  tile.image = index / (rows * columns);
  tile.vertical = &vertical_[static_cast<size_t>(index / columns % rows)];
  tile.horizontal = &horizontal_[static_cast<size_t>(index % columns)];
  return tile;
}

// Order: width reduced, nothing reduced, height reduced, both reduced.
void WinogradConv::Collect(Range tiles, Block& block) const {
  constexpr bool kOrder[4][2] = {{false, true}, {false, false}, {true, false}, {true, true}};
  int ends[4] = {};
  block.count = 0;
  for (int kind = 0; kind < 4; ++kind) {
    for (int64_t i = tiles.begin; i < tiles.end; ++i) {
      const Tile tile = TileAt(i);
      if (tile.vertical->reduced != kOrder[kind][0] || tile.horizontal->reduced != kOrder[kind][1]) continue;
      block.tiles[block.count++] = tile;
    }
    ends[kind] = block.count;
  }
  block.first_w = ends[0];
  block.full_h = ends[1];
  block.end_w = ends[2];
}

void WinogradConv::TransformInput(const ConvOperands& operands, const Block& block, float* points) const {
  const ConvShape& s = shape_;
  WinogradInput t;
  t.src = operands.src;
  t.pixel_pitch = operands.src_pitch;
  t.row_pitch = s.width * operands.src_pitch;
  t.channels = options_.whole_vectors ? RoundUp(s.channels, gemm_->lanes) : s.channels;
  t.prologue = &options_.prologue;
  t.point_stride = point_stride_;
  for (int i = 0; i < block.count; ++i) {
    const Tile& tile = block.tiles[i];
    const int64_t y = tile.vertical->begin * s.stride_h - s.pad_top;
    const int64_t x = tile.horizontal->begin * s.stride_w - s.pad_left;
    const int64_t rows = ops_->height.Patch(tile.vertical->reduced);
    const int64_t columns = ops_->width.Patch(tile.horizontal->reduced);
    t.offset = (tile.image * s.height + y) * t.row_pitch + x * t.pixel_pitch;
    t.first_row = static_cast<int>(std::clamp<int64_t>(-y, 0, rows));
    t.end_row = static_cast<int>(std::clamp<int64_t>(s.height - y, t.first_row, rows));
    t.first_column = static_cast<int>(std::clamp<int64_t>(-x, 0, columns));
    t.end_column = static_cast<int>(std::clamp<int64_t>(s.width - x, t.first_column, columns));
    t.dst = points + i * tile_stride_;
    if (lists_.ops != nullptr) t.marks = reinterpret_cast<uint8_t*>(points + lists_.marks + i * lists_.mark_floats);
    ops_->input[tile.vertical->reduced][tile.horizontal->reduced](t);
  }
}

int WinogradConv::KindAt(int point) const {
  const bool full_h = point / ops_->width.points >= ops_->height.reduced_points;
  const bool full_w = point % ops_->width.points >= ops_->width.reduced_points;
  return (full_h ? 2 : 0) + (full_w ? 1 : 0);
}

void WinogradConv::MakeDigits(const Block& block, float* points) const {
  for (int point = 0; point < ops_->points(); ++point) {
    const Range tiles = TilesAt(block, point);
    float* rows = points + point * point_stride_ + tiles.begin * tile_stride_;
    amx_->pack_rows(rows, tile_stride_, tiles.end - tiles.begin, shape_.channels, packed_->balance.data(), rows,
                    tile_stride_, points + scales_ + point * tile_block_ + tiles.begin);
  }
}

const float* WinogradConv::WeightsAt(int64_t panel, int point) const {
  const WinogradAxis &h = ops_->height, &w = ops_->width;
  const int weight = h.weight_of[static_cast<size_t>(point / w.points)] * w.weights +
                     w.weight_of[static_cast<size_t>(point % w.points)];
  const GemmPanel& p = packed_->panels[static_cast<size_t>(panel)];
  return packed_->panel(p) + weight * weight_rows_ * p.vectors * gemm_->lanes;
}

void WinogradConv::Multiply(const Block& block, Range panels, const float* points, float* products) const {
  std::optional<AmxQueue> queue;
  if (amx_ != nullptr) queue.emplace(*amx_, *gemm_);
  const int count = ops_->points();
  // After the last panel another block begins: a prefetch past the weights would wait for the page table.
  const int64_t after = panels.end < static_cast<int64_t>(packed_->panels.size()) ? panels.end : 0;
  for (int point = 0; point < count; ++point) {
    const Range tiles = TilesAt(block, point);
    for (int64_t i = panels.begin; i < panels.end; ++i) {
      const bool last_panel = i + 1 == panels.end, last_point = point + 1 == count;
      const int64_t next_panel = !last_panel ? i + 1 : !last_point ? panels.begin : after;
      const int next_point = !last_panel ? point : !last_point ? point + 1 : 0;
      const int64_t next_width = int64_t{packed_->panels[static_cast<size_t>(next_panel)].vectors} * gemm_->lanes;
      const PointWeights weights{WeightsAt(i, point), WeightsAt(next_panel, next_point), next_width};
      const GemmPanel& panel = packed_->panels[static_cast<size_t>(i)];
      const float* src = points + point * point_stride_;
      float* dst = products + (i - panels.begin) * panel_products_ + point * product_stride_;
      if (queue) {
        MultiplyPoint(panel, weights, tiles, src, dst, points + scales_ + point * tile_block_, *queue);
      } else if (block.listed) {
        MultiplyListed(panel, weights, tiles, src, dst, points + ListAt(block.lists[KindAt(point)], 0));
      } else {
        MultiplyPoint(panel, weights, tiles, src, dst);
      }
    }
  }
  if (queue) queue->Flush();
}

void WinogradConv::MultiplyPoint(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points,
                                 float* products, const float* row_scale, AmxQueue& queue) const {
  const int64_t width = int64_t{panel.vectors} * kAmxColumns;
  const int64_t step = amx_->rows[panel.vectors];
  const int64_t calls = std::max<int64_t>(DivideUp(tiles.end - tiles.begin, step), 1);
  AmxTile tile;
  tile.row_stride = tile_stride_;
  tile.chunks = DivideUp(shape_.channels, kAmxDepth);
  tile.b = weights.values + 2 * width;
  // The next weights, dealt out over this point's calls.
  tile.ahead = weights.next + 2 * width;
  tile.ahead_lines = DivideUp(kAmxChunkFloats * width / kLineFloats, calls);
  AmxResult result;
  result.bias = weights.values;
  result.column_scale = weights.values + width;
  BoundsOf(Epilogue{}, result.lo, result.hi);
  for (int64_t first = tiles.begin; first < tiles.end; first += step) {
    tile.a = points + first * tile_stride_;
    result.row_scale = row_scale + first;
    result.out.dst = products + first * panel_width_;
    result.out.dst_stride = panel_width_;
    result.out.rows = std::min(tiles.end - first, step);
    result.out.columns = width;
    queue.Push(tile, panel.vectors, result, nullptr);
    tile.ahead += tile.ahead_lines * kLineFloats * tile.chunks;
  }
}

void WinogradConv::MultiplyPoint(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points,
                                 float* products) const {
  constexpr int64_t kStart = 0;
  GemmTile t;
  t.row_stride = tile_stride_;
  t.segments = &kStart;
  t.segment_count = 1;
  t.segment_length = shape_.channels;
  const int64_t width = int64_t{panel.vectors} * gemm_->lanes;
  t.b = weights.values;
  t.dst_stride = panel_width_;
  t.last = gemm_->lanes;
  BoundsOf(Epilogue{}, t.lo, t.hi);
  const int64_t rows = std::max<int64_t>(tiles.end - tiles.begin, 0);
  if (rows == 0) return;
  const int64_t chunks = DivideUp(rows, int64_t{gemm_->max_rows[panel.vectors]});
  t.a = points + tiles.begin * tile_stride_;
  t.dst = products + tiles.begin * panel_width_;
  // The next weights, dealt out over this point's tiles.
  const int64_t ahead = std::min(width, weights.next_width);
  t.ahead = weights.next;
  t.ahead_step = ahead / chunks;
  t.ahead_tile = t.segment_length * ahead / chunks;
  // Tiles of two sizes, the larger first.
  const auto run = [&](int64_t count, int64_t height) {
    if (count == 0) return;
    t.count = count;
    t.half_offset = (height + 1) / 2 * tile_stride_;
    gemm_->tile[panel.vectors][height](t);
    t.a += count * height * tile_stride_;
    t.dst += count * height * panel_width_;
    t.ahead += count * t.ahead_tile;
  };
  run(rows % chunks, rows / chunks + 1);
  run(chunks - rows % chunks, rows / chunks);
}

void WinogradConv::TransformOutput(const ConvOperands& operands, const Block& block, const GemmPanel& panel,
                                   const float* products) const {
  const ConvShape& s = shape_;
  constexpr int kMaxPixels = kMaxWinogradOutputs * kMaxWinogradOutputs;
  alignas(64) float sums[kMaxPixels * kMaxTileVectors * kMaxLanes];
  WinogradOutput t;
  t.point_stride = product_stride_;
  t.bias = bias_->data() + panel.column;
  t.columns = int64_t{panel.vectors - 1} * gemm_->lanes + panel.last;
  t.lo = lo_;
  t.hi = hi_;
  t.residual_last = options_.epilogue.residual == Residual::kAfterActivation;
  for (int i = 0; i < block.count; ++i) {
    const Tile& tile = block.tiles[i];
    const int64_t pixel = (tile.image * s.out_height + tile.vertical->begin) * s.out_width + tile.horizontal->begin;
    float* dst = operands.dst + pixel * operands.dst_pitch + panel.column;
    const float* residual =
        operands.residual == nullptr ? nullptr : operands.residual + pixel * operands.residual_pitch + panel.column;
    t.src = products + i * panel_width_;
    t.rows = tile.vertical->count;
    t.pixels = tile.horizontal->count;
    t.dst = finish_ ? sums : dst;
    t.pixel_pitch = finish_ ? panel_width_ : operands.dst_pitch;
    t.row_pitch = finish_ ? kMaxWinogradOutputs * panel_width_ : s.out_width * operands.dst_pitch;
    t.residual = finish_ ? nullptr : residual;
    t.residual_pixel_pitch = operands.residual_pitch;
    t.residual_row_pitch = s.out_width * operands.residual_pitch;
    ops_->output[tile.vertical->reduced][tile.horizontal->reduced](t);
    for (int y = 0; finish_ && y < t.rows; ++y) {
      FinishTile finish{sums + y * t.row_pitch,
                        t.pixel_pitch,
                        dst + y * s.out_width * operands.dst_pitch,
                        operands.dst_pitch,
                        residual,
                        operands.residual_pitch,
                        t.pixels,
                        t.columns};
      if (residual != nullptr) finish.residual += y * t.residual_row_pitch;
      gemm_->finish(finish, options_.epilogue);
    }
  }
}

}  // namespace crease
