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

// One operand of a block of rows: element i of row r is data[r * pitch + i * step]; step is 0 or 1.
struct RowsOf {
  const float* data = nullptr;
  int64_t step = 1, pitch = 0;
};

// dst[r * dst_pitch + i] = op(a, b) for i in [0, n), r in [0, rows). Unary operators ignore b. dst may
// be a or b (where its step is 1 and its pitch dst's).
using ElementRows = void (*)(const RowsOf& a, const RowsOf& b, float* dst, int64_t dst_pitch, int64_t n, int64_t rows);
ElementRows FindElementRows(ElementOp op);

// The epilogue of src with residual (both of step 1); dst may be src or residual; a and b as in Epilogue.
using EpilogueRows = void (*)(const RowsOf& src, const RowsOf& residual, float* dst, int64_t dst_pitch, int64_t n,
                              int64_t rows, float a, float b);
EpilogueRows FindEpilogueRows(Activation activation, Residual residual);

}  // namespace crease
