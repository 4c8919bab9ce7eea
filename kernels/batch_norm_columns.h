// SPDX-License-Identifier: Apache-2.0
// Batch normalization of few and wide rows, whose columns are channels, in vector code: some columns at a time, which
// stay in a near cache between their sums and their map. Compiled for every target.
#pragma once

#include <cstdint>

#include "kernels/batch_norm.h"

namespace crease {

struct ColumnNorm {
  // At most so many rows; 0 where the target has no use for it.
  int64_t most_rows = 0;
  // What columns are dealt out in multiples of, so that workers write lines of their own.
  int64_t unit = 1;
  // Columns [begin, end) of rows that are `src_pitch` and `dst_pitch` elements apart, by their own mean and biased
  // variance, which go to mean[] and var[]. The same bits however columns are dealt out.
  void (*run)(const NormTensor& tensor, int64_t src_pitch, int64_t dst_pitch, const NormParameters& parameters,
              int64_t begin, int64_t end, double* mean, double* var) = nullptr;
};
ColumnNorm FindColumnNorm(DType dtype);

}  // namespace crease
