// SPDX-License-Identifier: Apache-2.0
// GemmConv by AMX.
#include <algorithm>

#include "kernels/amx_queue.h"
#include "kernels/conv_gemm.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// What AMX must be faster by: a neighbour on the same core slows it more than vectors.
constexpr double kLeastGain = 1.3;

}  // namespace

bool CanUseAmx(const ConvShape& s) {
  return s.groups == 1 && GetAmxOps() != nullptr &&
         AmxPays(s.out_pixels(), s.taps() * s.channels, s.filters, kLeastGain);
}

// Digits for whole calls of a tile, the rows' scales, and a row of floats.
int64_t GemmConv::AmxFloats() const {
  const int64_t rows = RoundUp(unit_block_, 2 * kAmxRows);
  return rows * a_pitch_ + rows + RoundUp(depth(), kLineFloats);
}

void GemmConv::GatherPatch(const ConvOperands& operands, int64_t pixel, float* patch) const {
  const ConvShape& s = shape_;
  const int64_t row = pixel / s.out_width;
  const int64_t y = row % s.out_height * s.stride_h - s.pad_top;
  const int64_t x = pixel % s.out_width * s.stride_w - s.pad_left;
  const float* image = operands.src + row / s.out_height * s.height * s.width * operands.src_pitch;
  for (int64_t i = 0; i < s.kernel_h; ++i) {
    for (int64_t j = 0; j < s.kernel_w; ++j, patch += s.channels) {
      const int64_t from_y = y + i * s.dilation_h, from_x = x + j * s.dilation_w;
      if (from_y < 0 || from_y >= s.height || from_x < 0 || from_x >= s.width) {
        std::fill_n(patch, s.channels, 0.0f);
        continue;
      }
      ops_->pack(image + (from_y * s.width + from_x) * operands.src_pitch, operands.src_pitch, 1, s.channels, patch,
                 s.channels, prologue_);
    }
  }
}

GemmConv::Block GemmConv::PackAmx(const ConvOperands& operands, Range pixels, float* scratch) const {
  const int64_t rows = RoundUp(unit_block_, 2 * kAmxRows);
  float* row_scale = scratch + rows * a_pitch_;
  float* patch = row_scale + rows;
  const Block block{pixels.begin, pixels.end - pixels.begin, 1, 0, scratch, row_scale};
  const auto pack = [&](const float* src, int64_t src_stride, int64_t count) {
    amx_->pack_rows(src, src_stride, count, depth(), packed_->balance.data(), scratch, a_pitch_, row_scale);
    scratch += count * a_pitch_;
    row_scale += count;
  };
  if (shape_.one_tap() && prologue_.scale == nullptr) {
    VisitPixels(operands, pixels, pack);
  } else {
    for (int64_t pixel = pixels.begin; pixel < pixels.end; ++pixel) {
      GatherPatch(operands, pixel, patch);
      pack(patch, depth(), 1);
    }
  }
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
    tile.chunks = DivideUp(depth(), kAmxDepth);
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
