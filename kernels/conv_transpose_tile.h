// SPDX-License-Identifier: Apache-2.0
// What a transposed convolution does after its matrix product: sums of the products that fall on one dst pixel.
#pragma once

#include <cstdint>

namespace crease {

inline constexpr int kMaxSumTerms = 4;

// dst[p * dst_stride + k] = min(max(start[k] + sum_i terms[i][p * term_stride + k], lo), hi) for p < pixels,
// k < columns, where start is the bias, or dst itself if that is null. Strides count floats. Reads whole vectors of
// the terms and of the bias.
struct SumTile {
  const float* terms[kMaxSumTerms] = {};
  int64_t term_stride = 0;
  const float* bias = nullptr;
  float* dst = nullptr;
  int64_t dst_stride = 0;
  int64_t pixels = 0, columns = 0;
  float lo = 0, hi = 0;  // infinite for none
};

struct SumOps {
  void (*sum[kMaxSumTerms + 1])(const SumTile& tile) = {};  // by the number of terms
};

// Of the instruction set in use.
const SumOps& GetSumOps();

}  // namespace crease
