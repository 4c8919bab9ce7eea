// SPDX-License-Identifier: Apache-2.0
// The micro-kernel of convolutions with few channels in each group: some neighbouring dst pixels x one vector of
// filters that spans one group or several. Inside a vector the groups' channels take turns, so that one load of as many
// floats as there are groups, repeated over the vector, gives every lane its group's channel: no shuffles.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/gemm_tile.h"

namespace crease {

inline constexpr std::array<int, 3> kGroupPixels = {4, 7, 8};
inline constexpr int kMaxGroupRows = 3;
inline constexpr int kGroupSizes = 5;  // powers of two; none for 1

// Where the l-th filter of a vector of `lanes` in groups of `group` lies among the packed ones; channels likewise.
inline int64_t GroupLane(int64_t l, int64_t group, int64_t lanes) { return l % group * (lanes / group) + l / group; }

// dst[r, i, l] = bounds(bias[l] + sum over taps (y, x) and channels c of l's group of
// src[r * line_stride + y * row_stride + (x * dilation + i * stride) * lanes + GroupLane(l - l % g + c)] *
// weights[((y * g + c) * kernel_w + x) * lanes + GroupLane(l)] + residual), for i < pixels and r < rows of the kernel.
// Counts floats. Reads every pixel of the kernel's size, whether stored or not.
struct GroupTile {
  const float* src = nullptr;
  int64_t line_stride = 0, row_stride = 0;
  int64_t dilation = 1, stride = 1;  // of columns
  int kernel_h = 0, kernel_w = 0;
  int pixels = 0;
  const float* weights = nullptr;  // 64-byte aligned, `lanes` of bias first, by GroupLane too
  float* dst = nullptr;
  int64_t dst_stride = 0, dst_line = 0;  // between pixels, between rows
  int last = 0;                          // lanes to store
  const float* residual = nullptr;
  int64_t residual_stride = 0, residual_line = 0;
  bool residual_last = false;
  float lo = 0, hi = 0;
};

// A source row to the band: for each vector of channels a run of left + inside + right pixels of `lanes` floats by
// GroupLane; zero on the left and the right and past `channels`.
struct GroupRow {
  const float* src = nullptr;
  int64_t src_pitch = 0, channels = 0;
  int64_t left = 0, inside = 0, right = 0;
  float* band = nullptr;
};

using GroupFunction = void (*)(const GroupTile& tile);
using GroupPackFunction = void (*)(const GroupRow& row, const Prologue& prologue);

// By rows less one, by kGroupPixels.
using GroupFunctions = GroupFunction[kMaxGroupRows][kGroupPixels.size()];

struct GroupOps {
  int lanes = 0;
  // All by log2 of the group's size (1 to 4). `wide3`: kernel_w 3, dilation 1, stride 1; `wide3s2`: stride 2. Null
  // where the group has more channels than a vector has lanes, and past the most rows that there is a kernel for.
  GroupFunctions any[kGroupSizes] = {};
  GroupFunctions wide3[kGroupSizes] = {};
  GroupFunctions wide3s2[kGroupSizes] = {};
  GroupPackFunction pack[kGroupSizes] = {};
};

// Of the instruction set in use.
const GroupOps& GetGroupOps();

}  // namespace crease
