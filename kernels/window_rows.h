// SPDX-License-Identifier: Apache-2.0
// Vector code for pooling and reduction, f32. Compiled for every target; ask for a pointer when a
// kernel is made.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

enum class ReduceOp : uint8_t { kSum, kMax, kMin };

// dst[c] = factor * (src[offsets[0] + c] op src[offsets[1] + c] ...) for c in [0, channels); `taps`
// offsets, at least one. Max and Min: NaN if any is; factor must be 1.
using PoolPixel = void (*)(const float* src, const int64_t* offsets, int64_t taps, int64_t channels, float factor,
                           float* dst);
PoolPixel FindPoolPixel(ReduceOp op);

// The same sum of activation(scale[c] * src[offsets[t] + c] + shift[c]).
using PoolMappedPixel = void (*)(const float* src, const int64_t* offsets, int64_t taps, int64_t channels, float factor,
                                 const Prologue& prologue, float* dst);
PoolMappedPixel FindPoolMappedPixel();

// dst[i] = factor * (src[i] op src[stride + i] ... op src[(rows - 1) * stride + i]) for i in [0, n).
// rows >= 1. Sums in two levels: the error grows with sqrt(rows), not with rows.
using ReduceRows = void (*)(const float* src, int64_t stride, int64_t rows, int64_t n, float factor, float* dst);
ReduceRows FindReduceRows(ReduceOp op);

// factor * (src[0] op ... op src[n - 1]); n >= 1.
using ReduceRun = float (*)(const float* src, int64_t n, float factor);
ReduceRun FindReduceRun(ReduceOp op);

}  // namespace crease
