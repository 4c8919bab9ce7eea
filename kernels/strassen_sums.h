// SPDX-License-Identifier: Apache-2.0
// The sums around the products of Strassen's algorithm (kernels/conv_strassen.h): vector code for each instruction set.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

// dst = min(max((sums + more) * scale[j] + bias[j] + residual, lo), hi) for the rows and columns of `out`, whose src is
// not used. `sums` and `more` have out.rows rows of `width` floats.
struct StrassenResult {
  const float* sums = nullptr;
  const float* more = nullptr;  // null: zero
  int64_t width = 0;
  const float* scale = nullptr;
  const float* bias = nullptr;
  float lo = 0, hi = 0;        // infinite for none
  bool residual_last = false;  // added after the bounds
  FinishTile out;
};

// Two source rows of 2 * half floats.
struct RowPair {
  const float* even = nullptr;
  const float* odd = nullptr;
};

struct StrassenOps {
  // The left factors of a pair of rows, each times scale: seven runs of `half` floats in the order of
  // kernels/conv_strassen.h. Brings the pair `next` into the caches, if there is one.
  void (*left)(const RowPair& rows, const float* scale, int64_t half, float* to, const RowPair& next) = nullptr;
  void (*result)(const StrassenResult& result) = nullptr;
};

// Of the instruction set in use.
const StrassenOps& GetStrassenOps();

}  // namespace crease
