// SPDX-License-Identifier: Apache-2.0
// Products of f32 matrices on the tile unit of Intel's AMX, which multiplies integers of 8 bits.
//
// A row of a, and a column of b, becomes integers of 24 bits times one scale for all, and each integer three digits
// of 8 bits: q = d0 * 2^16 + d1 * 2^8 + d2. Of the nine products of digits the six that weigh 2^16 and more count, each
// a sum of integers without rounding (the Ozaki scheme: K. Ozaki et al., "Error-free transformations of matrix
// multiplication", 2012; on integer units H. Ootomo et al., "DGEMM on integer matrix multiplication unit", 2024).
// Before, channels are balanced: channel k of a is multiplied by a power of two that stands for the largest |b| of row
// k, so that what a row's largest number dwarfs is what counts for little in the sum.
//
// Error: at most 2^-21 * K * (the row's largest balanced |a|) * (the column's largest balanced |b|) for K channels;
// about that of f32's own sums for numbers of like size (3e-7 to 4e-7 of the result's root mean square, 2e-6 where
// channels and columns differ by factors of a hundred). Infinities give NaN.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"

namespace crease {

inline constexpr int kAmxRows = 16;     // of a tile of a or of sums
inline constexpr int kAmxColumns = 16;  // of a tile of b or of sums
inline constexpr int64_t kAmxDepth = 64;
inline constexpr int kAmxDigits = 3;
// A chunk, kAmxDepth channels of a row of a: first digits, second, third, 64 bytes each. In floats:
inline constexpr int64_t kAmxChunkFloats = kAmxDepth * kAmxDigits / static_cast<int64_t>(sizeof(float));

// Sums of products of digits by weight: [0] of 2^32, [1] of 2^24, [2] of 2^16, rows of `width` columns each.
struct AmxTile {
  const float* a = nullptr;  // rows of chunks
  int64_t row_stride = 0;    // floats
  int64_t chunks = 0;
  const float* b = nullptr;  // of AmxOps::pack_columns
  // What to bring into L2 on the way: `ahead_lines` cache lines for each chunk; null for nothing.
  const float* ahead = nullptr;
  int64_t ahead_lines = 0;
  int32_t* sums = nullptr;  // 64-byte aligned; kAmxDigits * kAmxTileSums of them
};

// Sums of one weight in one call: one tile of rows by two of columns, or two by one.
inline constexpr int64_t kAmxTileSums = 2 * kAmxRows * kAmxColumns;

// out = min(max(sums * row_scale[r] * column_scale[j] + bias[j] + residual, lo), hi), for the rows and columns of
// `out`.
struct AmxResult {
  const int32_t* sums = nullptr;
  int64_t width = 0;  // columns of sums: 16 or 32
  const float* row_scale = nullptr;
  const float* column_scale = nullptr;  // 64-byte aligned, as bias
  const float* bias = nullptr;
  float lo = 0, hi = 0;        // infinite for none
  bool residual_last = false;  // added after the bounds
  FinishTile out;              // without src
};

struct AmxOps {
  // Rows in one call of `tile`, by tiles of columns (1 and 2).
  int rows[3] = {};
  void (*tile[3])(const AmxTile& tile) = {};
  void (*result)(const AmxResult& result) = nullptr;
  // dst = `channels` channels of `count` rows of src times `balance`, as chunks, filled up with zeros; row_scale gets
  // each row's. Strides in floats; dst 64-byte aligned, dst_stride whole lines.
  void (*pack_rows)(const float* src, int64_t src_stride, int64_t count, int64_t channels, const float* balance,
                    float* dst, int64_t dst_stride, float* row_scale) = nullptr;
  // b has `rows` rows of `width` columns (16 or 32): divides row k by balance[k], writes the columns' scales and their
  // digits chunk by chunk. dst 64-byte aligned. b is overwritten.
  void (*pack_columns)(float* b, int64_t rows, int64_t width, const float* balance, float* column_scale,
                       float* dst) = nullptr;
  // largest[k] = max(largest[k], |row[k]|) where row[k] is finite.
  void (*largest)(const float* row, int64_t count, float* largest) = nullptr;
};

// Estimates for products of rows x channels with channels x columns, of one core, hot, in nanoseconds: by AMX with the
// digits and the results, and by vectors.
double AmxNanoseconds(int64_t rows, int64_t channels, int64_t columns);
double VectorNanoseconds(int64_t rows, int64_t channels, int64_t columns);
// Whether the second is at least `gain` times the first, and sums of digits stay within 32 bits.
bool AmxPays(int64_t rows, int64_t channels, int64_t columns, double gain);

// Null where CPU, system, compiler or InitTargets' cap don't have it. Asks the system once for the use of tiles.
const AmxOps* GetAmxOps();

// The calling thread's tiles, ready for AmxOps::tile while this lives.
class AmxScope {
 public:
  // `wanted`: else it does nothing.
  explicit AmxScope(bool wanted);
  ~AmxScope();
  AmxScope(const AmxScope&) = delete;
  AmxScope& operator=(const AmxScope&) = delete;

 private:
  bool wanted_;
};

}  // namespace crease
