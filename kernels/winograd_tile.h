// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's minimal filtering for small convolutions of stride 1 and for 3x3 of stride 2,
// channels-last. Along each axis, filters of r taps are multiplied at m + r - 1 points for m outputs (Toom and Cook's
// algorithm; Lavin, Gray 2015 for two axes): at pairs of opposite points, at zero where their number is odd, and at
// infinity. A tile without the point at infinity yields one output fewer: "reduced" along that axis.
//
// Three taps at stride 2 are two at stride 1 over the even sources, at points, and one over the odd ones, multiplied as
// it is: m + 1 and m products for m outputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/epilogue.h"

namespace crease {

// Outputs of a full tile along each axis that has more than one tap.
enum class WinogradKind : uint8_t { kF2, kF3, kF4 };

inline constexpr int kMaxWinogradPoints = 9;  // of one axis
inline constexpr int kMaxWinogradOutputs = 4;

// What patches read beyond a map's edges, of sources of up to so many channels.
inline constexpr int64_t kMaxZeroChannels = 1024;
alignas(64) inline constexpr float kWinogradZeros[kMaxZeroChannels] = {};

// What is done along one axis.
struct WinogradAxis {
  int taps = 1, stride = 1;
  int outputs = 1, points = 1;                         // of a full tile
  int reduced_points = 1;                              // of a reduced one: the first of the points
  int weights = 1;                                     // distinct rows of the filter transform
  std::array<int8_t, kMaxWinogradPoints> weight_of{};  // by point

  // Consecutive sources that a tile reads.
  int Patch(bool reduced) const { return (outputs - 1 - (reduced ? 1 : 0)) * stride + taps; }
  int Points(bool reduced) const { return reduced ? reduced_points : points; }
};

// A patch of the source to all points: point (p, q) of channel c goes to
// dst[(p * points of a row + q) * point_stride + c]. Whole vectors are written: dst has room past the channels.
struct WinogradInput {
  const float* src = nullptr;  // some pixel that exists
  int64_t offset = 0;          // from it to the patch's first pixel, which may lie outside
  int64_t row_pitch = 0, pixel_pitch = 0;
  int first_row = 0, end_row = 0, first_column = 0, end_column = 0;  // of the patch, what exists
  int64_t channels = 0;
  const Prologue* prologue = nullptr;  // scale may be null
  float* dst = nullptr;
  int64_t point_stride = 0;
  uint8_t* marks = nullptr;  // null, or to get, a bit by channel, whether something of its patch is not zero
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

// The filters of one panel: weights[(column * channels + c) * taps + i * taps of a row + j] to
// dst[(weight * (channels + 1) + 1 + c) * width + column], zero from `columns` to `width`, a multiple of 16 bytes;
// `weight` counts the distinct rows of both axes' filter transforms. Row 0 of each, where a micro-kernel expects the
// bias, is zero. Of channels [first, end), and row 0 with channel 0. Computed in double, rounded once.
struct WinogradWeights {
  const std::byte* weights = nullptr;
  int64_t channels = 0, first = 0, end = 0;
  int64_t columns = 0, width = 0;
  float* dst = nullptr;
};

// One pair of axes, for one instruction set.
struct WinogradOps {
  WinogradKind kind = WinogradKind::kF2;
  WinogradAxis height, width;
  // By reduced in height, reduced in width.
  void (*input[2][2])(const WinogradInput& tile) = {};
  void (*output[2][2])(const WinogradOutput& tile) = {};
  void (*weights)(const WinogradWeights& panel) = nullptr;

  int points() const { return height.points * width.points; }
  int distinct_weights() const { return height.weights * width.weights; }
};

// The pair of axes for this kind, kernel and stride, of the instruction set in use; null if there is none.
const WinogradOps* FindWinogradOps(WinogradKind kind, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                                   int64_t stride_w);

// By source file, each compiled for every instruction set: 3x3; one row or column; 4x4, 5x5 and stride 2.
std::span<const WinogradOps> GetWinogradSquareOps();
std::span<const WinogradOps> GetWinogradLineOps();
std::span<const WinogradOps> GetWinogradLargeOps();

}  // namespace crease
