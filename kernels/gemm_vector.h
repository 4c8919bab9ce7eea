// SPDX-License-Identifier: Apache-2.0
// A constant matrix times one vector: bound by the matrix's bytes, which are read in place, never copied.
#pragma once

#include <cstdint>

#include "graph/tensor.h"
#include "kernels/gemm_tile.h"
#include "kernels/kernel.h"

namespace crease {

// dst[j] = epilogue(scale * sum_k matrix[j][k] * src[k] + bias_scale * bias[j]).
struct MatrixVector {
  Tensor matrix;  // columns x depth, rows dense, of any alignment; kept alive
  Tensor bias;    // columns or one value; undefined for none
  float scale = 1, bias_scale = 1;
  int64_t columns = 0, depth = 0;
  Epilogue epilogue;
};

// About the bytes of the matrix that Multiply reads on worker `worker` of `workers`: it deals out whole grains of rows.
ConstBytes MatrixShare(const MatrixVector& product, int worker, int workers);

// residual: `columns` values, or null; may be dst. Thread-safe; the same bits at any number of workers.
void Multiply(const MatrixVector& product, const RunContext& context, const float* src, float* dst,
              const float* residual);

}  // namespace crease
