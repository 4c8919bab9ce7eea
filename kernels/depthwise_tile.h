// SPDX-License-Identifier: Apache-2.0
// The micro-kernels of depthwise convolutions: some neighbouring pixels of one dst row x vectors of channels.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

inline constexpr int kMaxDepthwisePixels = 8;
// Pixels that the kernels of fixed size compute at once.
inline constexpr std::array<int, 3> kDepthwisePixels = {4, 7, 8};

// dst[i, c] = bounds(bias[c] + sum over taps (y, x) of src[y * row_stride + x * tap_stride + i * pixel_stride + c] *
// weights[(y * kernel_w + x) * lanes + c]) for i < pixels; the next vector's weights follow. Counts floats.
struct DepthwiseTile {
  const float* src = nullptr;  // some pixel that exists
  int64_t offset = 0;          // from it to tap (0, 0) of the first pixel, which may lie outside
  int64_t row_stride = 0, tap_stride = 0, pixel_stride = 0;
  int kernel_h = 0, kernel_w = 0;
  int first_row = 0, end_row = 0;  // taps of rows that exist
  // Columns that exist, counted from tap 0 of the first pixel: [first_column, end_column).
  int64_t first_column = 0, end_column = 0;
  int64_t stride_w = 1, dilation_w = 1;  // in columns
  int pixels = 0;
  int64_t repeat = 1;  // as many neighbouring tiles of the row; more than 1 where all pixels and columns exist
  const float* weights = nullptr;
  const float* bias = nullptr;
  int64_t channels = 0;
  float* dst = nullptr;
  int64_t dst_stride = 0;
  const float* residual = nullptr;
  int64_t residual_stride = 0;
  bool residual_last = false;
  float lo = 0, hi = 0;
};

using DepthwiseFunction = void (*)(const DepthwiseTile& tile);

struct DepthwiseOps {
  int lanes = 0;
  // Kernels of 3, 5, 7 square (index 0, 1, 2), stride 1 and 2, dilation 1, by kDepthwisePixels.
  // [..][0] needs all pixels and columns, [..][1] takes fewer, both whole vectors; [..][2] is for fewer channels than
  // lanes, and takes fewer pixels and columns.
  DepthwiseFunction fixed[3][2][kDepthwisePixels.size()][3] = {};
  DepthwiseFunction any = nullptr;  // any kernel, channels and up to kMaxDepthwisePixels
};

// Of the instruction set in use.
const DepthwiseOps& GetDepthwiseOps();

}  // namespace crease
