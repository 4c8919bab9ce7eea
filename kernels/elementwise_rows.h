// SPDX-License-Identifier: Apache-2.0
// Vector code for contiguous runs of floats: the inside of element-wise kernels. Compiled for every
// target; ask for a pointer when a kernel is made.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

enum class ElementOp : uint8_t {
  kIdentity,
  kAbs,
  kNeg,
  kSqrt,
  kSquare,
  kReciprocal,
  kExp,
  kErf,
  kFloor,
  kCeil,
  kRound,  // half to even
  kSoftplus,
  kLog,
  kAdd,  // the first with two operands
  kSub,
  kMul,
  kDiv,
  kMax,  // NaN if either is
  kMin,
  kPow,
  kPRelu,  // x < 0 ? slope * x : x
};

inline bool IsBinary(ElementOp op) { return op >= ElementOp::kAdd; }

// dst[i] = op(a[i * step_a], b[i * step_b]) for i in [0, n); steps are 0 or 1. Unary operators ignore
// b. dst may be a or b (where its step is 1).
using ElementRow = void (*)(const float* a, int64_t step_a, const float* b, int64_t step_b, float* dst,
                            int64_t n);
ElementRow FindElementRow(ElementOp op);

// dst[i] = the epilogue of src[i] with residual[i]; dst may be src or residual; parameters as in
// Epilogue.
using EpilogueRow = void (*)(const float* src, const float* residual, float* dst, int64_t n, float a,
                             float b);
EpilogueRow FindEpilogueRow(Activation activation, Residual residual);

}  // namespace crease
