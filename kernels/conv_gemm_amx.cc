// SPDX-License-Identifier: Apache-2.0
// GemmConv by AMX.
#include <algorithm>

#include "kernels/amx_queue.h"
#include "kernels/conv_gemm.h"

namespace crease {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t value, int64_t unit) { return DivideUp(value, unit) * unit; }

}  // namespace

bool CanUseAmx(const ConvShape& s) {
  const bool pointwise = s.taps() == 1 && s.pad_top == 0 && s.pad_left == 0;
  return pointwise && s.groups == 1 && GetAmxOps() != nullptr && AmxPays(s.out_pixels(), s.channels, s.filters);
}

// Digits for whole calls of a tile, the rows' scales, and a row after the prologue.
int64_t GemmConv::AmxFloats() const {
  const int64_t rows = RoundUp(unit_block_, 2 * kAmxRows);
  return rows * a_pitch_ + rows + (prologue_.scale == nullptr ? 0 : RoundUp(shape_.channels, kLineFloats));
}

GemmConv::Block GemmConv::PackAmx(const ConvOperands& operands, Range pixels, float* scratch) const {
  const ConvShape& s = shape_;
  const int64_t rows = RoundUp(unit_block_, 2 * kAmxRows);
  float* row_scale = scratch + rows * a_pitch_;
  float* filtered = row_scale + rows;
  const Block block{pixels.begin, pixels.end - pixels.begin, 1, 0, scratch, row_scale};
  const auto pack = [&](const float* src, int64_t src_stride, int64_t count) {
    amx_->pack_rows(src, src_stride, count, s.channels, packed_->balance.data(), scratch, a_pitch_, row_scale);
    scratch += count * a_pitch_;
    row_scale += count;
  };
  VisitPixels(operands, pixels, [&](const float* src, int64_t src_stride, int64_t count) {
    if (prologue_.scale == nullptr) return pack(src, src_stride, count);
    for (int64_t i = 0; i < count; ++i) {
      ops_->pack(src + i * src_stride, src_stride, 1, s.channels, filtered, s.channels, prologue_);
      pack(filtered, s.channels, 1);
    }
  });
  return block;
}

void GemmConv::RunAmxBlock(const ConvOperands& operands, const Block& block, Range panels, bool cold) const {
  AmxQueue queue(*amx_, *ops_);
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const GemmPanel& panel = packed_->panels[static_cast<size_t>(p)];
    const int64_t width = int64_t{panel.vectors} * kAmxColumns;
    const int64_t columns = width - kAmxColumns + panel.last;
    const int64_t step = amx_->rows[panel.vectors];
    const float* bias = packed_->panel(panel);
    AmxTile tile;
    tile.row_stride = a_pitch_;
    tile.chunks = DivideUp(shape_.channels, kAmxDepth);
    tile.b = bias + 2 * width;
    int64_t ahead_floats = 0;
    if (cold && p + 1 < static_cast<int64_t>(packed_->panels.size())) {
      // Weights that come from beyond L2: the next panel's, dealt out over this panel's calls.
      const int64_t calls = DivideUp(block.line, step);
      tile.ahead = packed_->panel(packed_->panels[static_cast<size_t>(p + 1)]);
      tile.ahead_lines = DivideUp(kAmxChunkFloats * width / kLineFloats, calls);
      ahead_floats = tile.ahead_lines * kLineFloats * tile.chunks;
    }
    for (int64_t x = 0; x < block.line; x += step) {
      tile.a = block.a + x * a_pitch_;
      const int64_t pixel = block.pixel + x;
      const int rows = static_cast<int>(std::min(block.line - x, step));
      float* dst = operands.dst + pixel * operands.dst_pitch + panel.column;
      const float* residual =
          operands.residual == nullptr ? nullptr : operands.residual + pixel * operands.residual_pitch + panel.column;
      if (!near_) {
        PrefetchRows<1>(dst, operands.dst_pitch, rows, columns);
        if (residual != nullptr) PrefetchRows<0>(residual, operands.residual_pitch, rows, columns);
      }
      AmxResult result;
      result.row_scale = block.row_scale + x;
      result.bias = bias;
      result.column_scale = bias + width;
      result.lo = lo_;
      result.hi = hi_;
      result.residual_last = epilogue_.residual == Residual::kAfterActivation;
      result.out = {nullptr, 0, dst, operands.dst_pitch, residual, operands.residual_pitch, rows, columns};
      queue.Push(tile, panel.vectors, result, finish_ ? &epilogue_ : nullptr);
      if (tile.ahead != nullptr) tile.ahead += ahead_floats;
    }
  }
  queue.Flush();
}

}  // namespace crease
