// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's minimal filtering for 3x3 convolutions of stride 1, channels-last.
//
// F(m x m, 3 x 3) in m + 2 points (Lavin, Gray 2015): F(4x4) in 0, +-1/sqrt(2), +-sqrt(2) and infinity, F(2x2) in
// 0, +-1 and infinity. A tile without the point at infinity yields one output fewer: "reduced" in that direction.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

enum class WinogradKind : uint8_t { kF2, kF4 };

// Outputs of a full tile along one axis; its points along one axis are two more.
constexpr int WinogradOutputs(WinogradKind kind) { return kind == WinogradKind::kF4 ? 4 : 2; }
constexpr int WinogradPoints(WinogradKind kind) { return WinogradOutputs(kind) + 2; }

// A patch of the source to all points: point (p, q) of channel c goes to
// dst[(p * points + q) * point_stride + c]. Whole vectors are written: dst has room past the channels.
struct WinogradInput {
  const float* src = nullptr;  // some pixel that exists
  int64_t offset = 0;          // from it to the patch's first pixel, which may lie outside
  int64_t row_pitch = 0, pixel_pitch = 0;
  int first_row = 0, end_row = 0, first_column = 0, end_column = 0;  // of the patch, what exists
  int64_t channels = 0;
  const Prologue* prologue = nullptr;  // scale may be null
  float* dst = nullptr;
  int64_t point_stride = 0;
};

// All points of one tile and `columns` filters to pixels: source as WinogradInput's destination, bias added,
// bounded, the residual added before or after.
struct WinogradOutput {
  const float* src = nullptr;
  int64_t point_stride = 0;
  const float* bias = nullptr;  // whole vectors
  int64_t columns = 0;
  float* dst = nullptr;
  int64_t row_pitch = 0, pixel_pitch = 0;
  int rows = 0, pixels = 0;  // to write
  const float* residual = nullptr;
  int64_t residual_row_pitch = 0, residual_pixel_pitch = 0;
  bool residual_last = false;
  float lo = 0, hi = 0;
};

// The filters of one panel: weights[(column * channels + c) * 9 + i * 3 + j] to
// dst[(point * (channels + 1) + 1 + c) * width + column], zero from `columns` to `width`, a multiple of 16 bytes.
// Row 0 of each point, where a micro-kernel expects the bias, is zero. Computed in double, rounded once.
struct WinogradWeights {
  const std::byte* weights = nullptr;
  int64_t channels = 0, columns = 0, width = 0;
  float* dst = nullptr;
};

struct WinogradOps {
  // By kind, reduced in height, reduced in width.
  void (*input[2][2][2])(const WinogradInput& tile) = {};
  void (*output[2][2][2])(const WinogradOutput& tile) = {};
  void (*weights[2])(const WinogradWeights& panel) = {};
};

// Of the instruction set in use.
const WinogradOps& GetWinogradOps();

}  // namespace crease
