// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_gemm.h"

#include <algorithm>

#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// More pixels than these hide the wait for the next panel by themselves.
constexpr int64_t kMostFetchingPixels = 16 * kMaxTileRows;

}  // namespace

void GemmConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t panels = static_cast<int64_t>(packed_->panels.size());
  float* scratch = reinterpret_cast<float*>(context.scratch);
  const auto band = [&](int worker) { return scratch + static_cast<size_t>(worker) * worker_floats_; };
  if (by_columns_) {
    ParallelPieces(context, panels, [&](int worker, auto next) {
      const AmxScope scope(amx_ != nullptr);
      FetchCursor later(context.fetch_for(worker));
      const bool once = units_ <= unit_block_ && (flat_ || shape_.batch == 1) && !by_group_;
      Block block;
      for (WorkShares::Range r = next(); !r.empty(); r = next()) {
        if (!once) {
          RunRange(operands, {0, units_}, {r.begin, r.end}, {true, &later}, band(worker));
          continue;
        }
        if (block.a == nullptr) block = Pack(operands, {0, units_}, 0, band(worker));
        RunBlock(operands, block, {r.begin, r.end}, {true, &later});
      }
    });
  } else if (weights_stay_) {
    ParallelPieces(context, DivideUp(units_, grain_), [&](int worker, auto next) {
      const AmxScope scope(amx_ != nullptr);
      FetchCursor later(context.fetch_for(worker));
      bool cold = true;
      for (WorkShares::Range r = next(); !r.empty(); r = next(), cold = false) {
        RunRange(operands, Units(r.begin, r.end), {0, panels}, {cold, &later}, band(worker));
      }
    });
  } else {
    // Every piece would read all weights from beyond L2.
    context.ParallelFor(DivideUp(units_, grain_), [&](int64_t begin, int64_t end, int worker) {
      const AmxScope scope(amx_ != nullptr);
      FetchCursor later(context.fetch_for(worker));
      RunRange(operands, Units(begin, end), {0, panels}, {true, &later}, band(worker));
    });
  }
}

int64_t GemmConv::fetchable_bytes(int workers) const {
  if (amx_ != nullptr || band_.planar) return 0;
  const auto panels = static_cast<int64_t>(packed_->panels.size());
  const int64_t tiles = DivideUp(shape_.out_pixels(), ops_->max_rows[packed_->panels.front().vectors]) * panels;
  // Half of the tiles may fetch the next panel.
  return tiles / 2 * fetching_depth() * TileFetch::kStep * static_cast<int64_t>(sizeof(float)) / workers;
}

GemmConv::Block GemmConv::Pack(const ConvOperands& operands, Range units, int64_t group, float* scratch) const {
  return flat_ ? PackFlat(operands, units, scratch) : PackRows(operands, units, group, scratch);
}

void GemmConv::RunPixels(const ConvOperands& operands, int64_t count, float* scratch) const {
  const AmxScope scope(amx_ != nullptr);
  RunRange(operands, {0, count}, {0, static_cast<int64_t>(packed_->panels.size())}, {}, scratch);
}

void GemmConv::RunRows(const ConvOperands& operands, int64_t origin, int64_t begin, int64_t end, float* scratch) const {
  for (int64_t row = begin; row < end; row += unit_block_) {
    Block block = PackRows(operands, {row, std::min(row + unit_block_, end)}, 0, scratch);
    block.pixel -= origin * shape_.out_width;
    RunBlock(operands, block, {0, static_cast<int64_t>(packed_->panels.size())}, {});
  }
}

void GemmConv::RunRange(const ConvOperands& operands, Range units, Range panels, Fetch fetch, float* scratch) const {
  if (!by_group_) return RunGroup(operands, units, panels, 0, fetch, scratch);
  while (panels.begin < panels.end) {
    const auto group = [&](int64_t panel) { return packed_->panels[static_cast<size_t>(panel)].group; };
    Range own{panels.begin, panels.begin + 1};
    while (own.end < panels.end && group(own.end) == group(own.begin)) ++own.end;
    RunGroup(operands, units, own, group(own.begin), fetch, scratch);
    panels.begin = own.end;
  }
}

void GemmConv::RunGroup(const ConvOperands& operands, Range units, Range panels, int64_t group, Fetch fetch,
                        float* scratch) const {
  for (int64_t unit = units.begin; unit < units.end;) {
    int64_t end = std::min(unit + unit_block_, units.end);
    // A band lies in one image.
    if (!flat_) end = std::min(end, (unit / shape_.out_height + 1) * shape_.out_height);
    RunBlock(operands, Pack(operands, {unit, end}, group, scratch), panels, fetch);
    fetch.cold = !weights_stay_;
    unit = end;
  }
}

GemmConv::Block GemmConv::PackFlat(const ConvOperands& operands, Range pixels, float* scratch) const {
  const ConvShape& s = shape_;
  Block block{pixels.begin, pixels.end - pixels.begin, 1, 0, operands.src + pixels.begin * operands.src_pitch};
  if (!copy_) return block;
  if (amx_ != nullptr) return PackAmx(operands, pixels, scratch);
  block.a = scratch;
  VisitPixels(operands, pixels, [&](const float* src, int64_t src_stride, int64_t count) {
    ops_->pack(src, src_stride, count, s.channels, scratch, a_pitch_, prologue_);
    scratch += count * a_pitch_;
  });
  return block;
}

GemmConv::Block GemmConv::PackRows(const ConvOperands& operands, Range rows, int64_t group, float* scratch) const {
  const int64_t image = rows.begin / shape_.out_height, y = rows.begin % shape_.out_height;
  const float* a = scratch;
  if (!copy_) {
    a = operands.src + (image * shape_.height + y) * line_stride_;
  } else if (band_.planar) {
    band_.PackPlanes(operands.src, rows.begin, rows.end, scratch);
  } else {
    const int64_t first = group * shape_.group_channels();
    ConvOperands own = operands;
    own.src += first;
    Prologue prologue = prologue_;
    if (prologue.scale != nullptr) {
      prologue.scale += first;
      prologue.shift += first;
    }
    band_.Pack(*ops_, own, prologue, rows.begin, rows.end, scratch);
  }
  const int64_t step = lattice_.step_h * lattice_.width;
  return {image * lattice_.height * lattice_.width + y * step, shape_.out_width, rows.end - rows.begin, step, a};
}

void GemmConv::RunBlock(const ConvOperands& operands, const Block& block, Range panels, Fetch fetch) const {
  if (amx_ != nullptr) return RunAmxBlock(operands, block, panels, fetch.cold);
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const GemmPanel& panel = packed_->panels[static_cast<size_t>(p)];
    const int64_t most = ops_->max_rows[panel.vectors];
    // Two short lines fill one tile.
    const bool pairs =
        2 * block.line <= most && block.lines > 1 && block.line_step == block.line && lattice_.step_w == 1;
    const int64_t chunks = DivideUp(block.line, most);
    TileFetch tile_fetch(fetching_depth(), int64_t{panel.vectors} * ops_->lanes, fetch.later);
    // Weights that come from beyond L2.
    if (fetch.cold && p + 1 < static_cast<int64_t>(packed_->panels.size()) &&
        block.lines * block.line <= kMostFetchingPixels) {
      const GemmPanel& next = packed_->panels[static_cast<size_t>(p + 1)];
      const int64_t products = segment_length_ * static_cast<int64_t>(segments_.size());
      const std::span weights(packed_->panel(next), static_cast<size_t>((products + 1) * next.vectors * ops_->lanes));
      tile_fetch.Begin(std::as_bytes(weights), pairs ? DivideUp(block.lines, 2) : block.lines * chunks);
    }
    // Tiles of two sizes, the larger first.
    const int64_t least = block.line / chunks, rest = block.line % chunks;
    const auto run = [&](const Tiles& some) {
      Tiles part = some;
      for (int64_t done = 0; done < some.count; done += part.count, part.x += part.count * part.rows) {
        part.count = some.count - done;
        const Ahead ahead = tile_fetch.Take(part.count);
        RunTiles(operands, block, panel, part, ahead);
      }
    };
    for (int64_t y = 0; y < block.lines; ++y) {
      if (pairs) {
        const bool two = y + 1 < block.lines;
        run({y, 0, static_cast<int>(block.line * (two ? 2 : 1))});
        y += two;
        continue;
      }
      run({y, 0, static_cast<int>(least + 1), rest});
      run({y, rest * (least + 1), static_cast<int>(least), chunks - rest});
    }
  }
}

// Every tile piece by piece: each is added to the sum of those before, the first to a residual that comes before the
// bounds. With one that comes after them, all in one piece.
void GemmConv::RunPieces(GemmTileFunction run, const GemmTile& tiles, int rows, int vectors) const {
  if (pieces_.size() == 1 || (tiles.residual != nullptr && tiles.residual_last)) return run(tiles);
  alignas(64) float total[kMaxTileRows * kMaxTileVectors * kMaxLanes];
  const int64_t width = int64_t{vectors} * ops_->lanes;
  GemmTile whole = tiles;
  whole.count = 1;
  for (int64_t i = 0; i < tiles.count; ++i) {
    GemmTile tile = whole;
    BoundsOf(Epilogue{}, tile.lo, tile.hi);
    for (const Piece& piece : pieces_) {
      tile.a = whole.a + piece.offset;
      tile.segments = whole.segments + piece.first_segment;
      tile.segment_count = piece.segments;
      tile.segment_length = piece.length;
      if (&piece == &pieces_.back()) {
        tile.lo = whole.lo;
        tile.hi = whole.hi;
        tile.dst = whole.dst;
        tile.dst_stride = whole.dst_stride;
      } else {
        tile.dst = total;
        tile.dst_stride = width;
      }
      run(tile);
      const int64_t products = piece.segments * piece.length;
      tile.b += products * width;
      if (tile.ahead != nullptr) tile.ahead += piece.segments * RoundDown(piece.length, kTileUnroll) * tile.ahead_step;
      tile.biased = false;
      tile.residual = total;
      tile.residual_stride = width;
    }
    whole.a += rows * whole.row_stride;
    whole.dst += rows * whole.dst_stride;
    if (whole.residual != nullptr) whole.residual += rows * whole.residual_stride;
    if (whole.ahead != nullptr) whole.ahead += whole.ahead_tile;
  }
}

// The tiles' sums, as many as fit into a buffer at once, then what the epilogue has beyond bounds.
void GemmConv::FinishTiles(GemmTileFunction run, GemmTile tile, const Tiles& tiles, const GemmPanel& panel) const {
  constexpr int64_t kFloats = kMaxTileRows * kMaxTileVectors * kMaxLanes;
  alignas(64) float sums[kFloats];
  const int64_t width = int64_t{panel.vectors} * ops_->lanes;
  const int64_t columns = width - ops_->lanes + panel.last;
  FinishTile finish{sums, width, tile.dst, tile.dst_stride, tile.residual, tile.residual_stride, 0, columns};
  tile.dst = sums;
  tile.dst_stride = width;
  tile.residual = nullptr;
  tile.far = false;
  const int64_t most = kFloats / (tiles.rows * width);
  for (int64_t left = tiles.count; left > 0; left -= tile.count) {
    tile.count = std::min(left, most);
    finish.rows = static_cast<int>(tile.count * tiles.rows);
    if (!near_) {
      PrefetchRows<1>(finish.dst, finish.dst_stride, finish.rows, columns);
      if (finish.residual != nullptr) PrefetchRows<0>(finish.residual, finish.residual_stride, finish.rows, columns);
    }
    RunPieces(run, tile, tiles.rows, panel.vectors);
    ops_->finish(finish, epilogue_);
    tile.a += finish.rows * tile.row_stride;
    if (tile.ahead != nullptr) tile.ahead += tile.count * tile.ahead_tile;
    finish.dst += finish.rows * finish.dst_stride;
    if (finish.residual != nullptr) finish.residual += finish.rows * finish.residual_stride;
  }
}

void GemmConv::RunTiles(const ConvOperands& operands, const Block& block, const GemmPanel& panel, const Tiles& tiles,
                        const Ahead& ahead) const {
  const bool within_line = tiles.x + tiles.rows <= block.line;
  const int64_t pixel = block.pixel + tiles.y * block.line_step + tiles.x * lattice_.step_w;
  GemmTile tile;
  tile.count = tiles.count;
  tile.a = block.a + tiles.y * line_stride_ + tiles.x * row_stride_ +
           (by_group_ ? 0 : panel.group * shape_.group_channels());
  tile.row_stride = row_stride_;
  tile.half_offset = within_line ? (tiles.rows + 1) / 2 * row_stride_ : line_stride_;
  tile.segments = segments_.data();
  tile.segment_count = static_cast<int64_t>(segments_.size());
  tile.segment_length = segment_length_;
  tile.b = packed_->panel(panel);
  tile.ahead = ahead.first;
  tile.ahead_step = ahead.step;
  tile.ahead_tile = ahead.tile;
  tile.far = !near_;
  tile.dst = operands.dst + pixel * operands.dst_pitch + panel.column;
  tile.dst_stride = lattice_.step_w * operands.dst_pitch;
  tile.last = panel.last;
  if (operands.residual != nullptr) tile.residual = operands.residual + pixel * operands.residual_pitch + panel.column;
  tile.residual_stride = lattice_.step_w * operands.residual_pitch;
  tile.residual_last = epilogue_.residual == Residual::kAfterActivation;
  tile.lo = lo_;
  tile.hi = hi_;
  GemmTileFunction run = ops_->tile[panel.vectors][tiles.rows];
  if (band_.planar && row_stride_ <= kMostCloseStride && within_line) {
    const GemmTileFunction found = ops_->close[panel.vectors][row_stride_][tiles.rows];
    if (found != nullptr) run = found;
  }
  if (finish_) return FinishTiles(run, tile, tiles, panel);
  RunPieces(run, tile, tiles.rows, panel.vectors);
}

}  // namespace crease
