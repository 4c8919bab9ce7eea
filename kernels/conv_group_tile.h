// SPDX-License-Identifier: Apache-2.0
// The micro-kernel of convolutions with few channels in each group: some neighbouring dst pixels x one vector of
// filters that spans several groups. Each channel of a group is spread over its group's lanes on the way.
#pragma once

#include <array>
#include <cstdint>

namespace crease {

inline constexpr std::array<int, 3> kGroupPixels = {4, 7, 8};

// dst[i, l] = bounds(bias[l] + sum over taps (y, x) and channels c of l's group of
// src[y * row_stride + x * tap_stride + i * pixel_stride + group(l) * g + c] *
// weights[((y * g + c) * kernel_w + x) * lanes + l] + residual), for i < pixels. Counts floats. Reads a whole vector of
// every pixel of the kernel's size, whether stored or not.
struct GroupTile {
  const float* src = nullptr;
  int64_t row_stride = 0, tap_stride = 0, pixel_stride = 0;
  int kernel_h = 0, kernel_w = 0;
  int pixels = 0;
  const float* weights = nullptr;  // 64-byte aligned, `lanes` of bias first
  float* dst = nullptr;
  int64_t dst_stride = 0;
  int last = 0;  // lanes to store
  const float* residual = nullptr;
  int64_t residual_stride = 0;
  bool residual_last = false;
  float lo = 0, hi = 0;
};

using GroupFunction = void (*)(const GroupTile& tile);

struct GroupOps {
  int lanes = 0;
  // By log2 of the group's size (1 to 3), by kGroupPixels. `wide3`: kernel_w 3, tap_stride == pixel_stride; `wide3s2`:
  // pixel_stride == 2 * tap_stride. Null where the group has as many channels as a vector has lanes, or more.
  GroupFunction any[4][kGroupPixels.size()] = {};
  GroupFunction wide3[4][kGroupPixels.size()] = {};
  GroupFunction wide3s2[4][kGroupPixels.size()] = {};
};

// Of the instruction set in use.
const GroupOps& GetGroupOps();

}  // namespace crease
