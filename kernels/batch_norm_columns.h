// SPDX-License-Identifier: Apache-2.0
// Batch normalization of few and wide rows, whose columns are channels, in vector code: some columns at a time, which
// stay in a near cache between their sums and their map. Compiled for every target.
#pragma once

#include <cstdint>

#include "kernels/batch_norm.h"

namespace crease {

// Of no rows and null for types that are not floats.
struct ColumnNorm {
  int64_t most_rows = 0;
  // What columns are dealt out in multiples of: two lines, so that workers write lines of their own where rows begin on
  // lines.
  int64_t unit = 1;
  // Columns [begin, end) of rows that are `src_pitch` and `dst_pitch` elements apart, by their own mean and biased
  // variance, which go to mean[] and var[]: those of float32 rows are within 1e-6 deviations and 1e-6 of the variance
  // of the exact ones. In place or not. The same bits however columns are dealt out, if in multiples of `unit`.
  void (*run)(const NormTensor& tensor, int64_t src_pitch, int64_t dst_pitch, const NormParameters& parameters,
              int64_t begin, int64_t end, double* mean, double* var) = nullptr;
};
ColumnNorm FindColumnNorm(DType dtype);

}  // namespace crease
