// SPDX-License-Identifier: Apache-2.0
// GemmConv by AMX.
#include <algorithm>

#include "kernels/conv_gemm.h"

namespace crease {
namespace {

// Nanoseconds of one core, hot: products of whole tiles by AMX, a number's digits, a result; and products of vectors.
constexpr double kTileNs = 2.6e-3, kDigitsNs = 0.2, kResultNs = 0.09, kVectorNs = 15.4e-3;
// What AMX must be faster by: a neighbour on the same core slows it more than vectors.
constexpr double kLeastGain = 1.3;
// Sums of three products of digits stay within 32 bits.
constexpr int64_t kMostChannels = int64_t{1} << 15;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t value, int64_t unit) { return DivideUp(value, unit) * unit; }

}  // namespace

bool CanUseAmx(const ConvShape& s) {
  const bool pointwise = s.taps() == 1 && s.pad_top == 0 && s.pad_left == 0;
  if (!pointwise || s.groups != 1 || s.channels > kMostChannels || GetAmxOps() == nullptr) return false;
  const auto pixels = static_cast<double>(s.out_pixels()), rows = static_cast<double>(RoundUp(s.out_pixels(), kAmxRows));
  const auto channels = static_cast<double>(s.channels), depth = static_cast<double>(RoundUp(s.channels, kAmxDepth));
  const auto filters = static_cast<double>(s.filters), columns = static_cast<double>(RoundUp(s.filters, kAmxColumns));
  const double tiles = rows * depth * columns * kTileNs + pixels * (depth * kDigitsNs + columns * kResultNs);
  return tiles * kLeastGain < pixels * channels * filters * kVectorNs;
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
  alignas(64) int32_t sums[2][kAmxDigits * kAmxTileSums];
  alignas(64) float values[kAmxTileSums];
  // What one call leaves becomes the result while the next one computes.
  AmxResult waiting;
  FinishTile finish;
  const auto write = [&] {
    if (waiting.sums == nullptr) return;
    amx_->result(waiting);
    if (finish_) ops_->finish(finish, epilogue_);
  };
  int turn = 0;
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const GemmPanel& panel = packed_->panels[static_cast<size_t>(p)];
    const int64_t width = int64_t{panel.vectors} * kAmxColumns;
    const int64_t columns = width - kAmxColumns + panel.last;
    const int64_t step = amx_->rows[panel.vectors];
    AmxTile tile;
    tile.row_stride = a_pitch_;
    tile.chunks = DivideUp(shape_.channels, kAmxDepth);
    tile.b = packed_->panel(panel) + 2 * width;
    int64_t ahead_floats = 0;
    if (cold && p + 1 < static_cast<int64_t>(packed_->panels.size())) {
      // Weights that come from beyond L2: the next panel's, dealt out over this panel's calls.
      const int64_t calls = DivideUp(block.line, step);
      tile.ahead = packed_->panel(packed_->panels[static_cast<size_t>(p + 1)]);
      tile.ahead_lines = DivideUp(kAmxChunkFloats * width / kLineFloats, calls);
      ahead_floats = tile.ahead_lines * kLineFloats * tile.chunks;
    }
    for (int64_t x = 0; x < block.line; x += step, turn ^= 1) {
      tile.a = block.a + x * a_pitch_;
      tile.sums = sums[turn];
      const int64_t pixel = block.pixel + x;
      const int rows = static_cast<int>(std::min(block.line - x, step));
      float* dst = operands.dst + pixel * operands.dst_pitch + panel.column;
      const float* residual =
          operands.residual == nullptr ? nullptr : operands.residual + pixel * operands.residual_pitch + panel.column;
      if (!near_) {
        PrefetchRows<1>(dst, operands.dst_pitch, rows, columns);
        if (residual != nullptr) PrefetchRows<0>(residual, operands.residual_pitch, rows, columns);
      }
      amx_->tile[panel.vectors](tile);
      if (tile.ahead != nullptr) tile.ahead += ahead_floats;
      write();
      waiting.sums = tile.sums;
      waiting.width = width;
      waiting.row_scale = block.row_scale + x;
      waiting.bias = packed_->panel(panel);
      waiting.column_scale = waiting.bias + width;
      waiting.out = {nullptr, 0, dst, operands.dst_pitch, residual, operands.residual_pitch, rows, columns};
      waiting.residual_last = epilogue_.residual == Residual::kAfterActivation;
      waiting.lo = lo_;
      waiting.hi = hi_;
      if (!finish_) continue;
      finish = waiting.out;
      finish.src = values;
      finish.src_stride = width;
      waiting.out = {nullptr, 0, values, width, nullptr, 0, rows, columns};
    }
  }
  write();
}

}  // namespace crease
