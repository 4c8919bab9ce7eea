// SPDX-License-Identifier: Apache-2.0
// The micro-kernel under every dense convolution and matrix product: a tile of rows x vectors of dst
// stays in registers over the whole reduction, tile after tile.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"
#include "kernels/rounding.h"

namespace crease {

inline constexpr int kMaxTileRows = 14;
inline constexpr int kMaxTileVectors = 4;
inline constexpr int kMaxLanes = 16;
// Products of one segment that a tile takes at once, and fetches beside; what is left of a segment fetches nothing.
inline constexpr int64_t kTileUnroll = 4;
// Rows of a that lie a multiple of this apart fall into one or two sets of L1 (8 ways of 4 KiB, 12 of 4 KiB).
inline constexpr int64_t kTileAliasFloats = 2048 / sizeof(float);
// Longer sums are sums of pieces: rounding errors grow with the square root of a piece's length (864 products: 4.9e-7
// of the outputs' rms in one piece, 2.2e-7 in pieces of 288).
inline constexpr int64_t kPieceFloats = 576;
// Of the pieces, but for a last one that is shorter.
constexpr int64_t PieceLength(int64_t products) {
  return products == 0 ? 0 : RoundUp(DivideUp(products, DivideUp(products, kPieceFloats)), kTileUnroll);
}

// dst[r, j] = min(max(b[0][j] + sum_s sum_k a[row(r) + segments[s] + k] * b[1 + s * length + k][j] + residual,
// lo), hi), where row(r) = r * row_stride in the first half of the rows and half_offset +
// (r - half) * row_stride in the second, half = (rows + 1) / 2. `count` such tiles, each `rows` rows after the one
// before; more than one only where a row's place is r * row_stride in both halves. The order of summation does not
// depend on the tile's size. All strides and offsets count floats.
struct GemmTile {
  int64_t count = 1;
  const float* a = nullptr;
  int64_t row_stride = 0;
  int64_t half_offset = 0;
  const int64_t* segments = nullptr;
  int64_t segment_count = 0;
  int64_t segment_length = 0;
  const float* b = nullptr;  // aligned to a vector, vectors * lanes wide; row 0 is the bias
  bool biased = true;        // else row 0 counts as zero
  // What to bring into L2 on the way, `ahead_step` floats (and a row of b beyond) for each k, `ahead_tile` from one
  // tile to the next; null: nothing.
  const float* ahead = nullptr;
  int64_t ahead_step = 0, ahead_tile = 0;
  bool far = false;  // dst and residual may lie beyond L2: on their way while sums are taken
  float* dst = nullptr;
  int64_t dst_stride = 0;
  int last = 0;                     // columns of the last vector, 1 to lanes
  const float* residual = nullptr;  // like dst; may be dst; null for none
  int64_t residual_stride = 0;
  bool residual_last = false;  // added after the bounds
  float lo = 0, hi = 0;        // infinite for none
};

using GemmTileFunction = void (*)(const GemmTile& tile);

// Rows of a that lie 1 or 2 floats apart, for planar sources: kernels that take no half_offset.
inline constexpr int kMostCloseStride = 2;

// What one instruction set offers.
struct GemmOps {
  int lanes = 0;
  int wide = 0;                            // vectors of the tiles that are the fastest, rows permitting
  int max_rows[kMaxTileVectors + 1] = {};  // by vectors
  GemmTileFunction tile[kMaxTileVectors + 1][kMaxTileRows + 1] = {};
  // By vectors, row_stride and rows; null for those that there are none of.
  GemmTileFunction close[kMaxTileVectors + 1][kMostCloseStride + 1][kMaxTileRows + 1] = {};
  void (*finish)(const FinishTile& tile, const Epilogue& epilogue) = nullptr;
  // Copies `count` pixels of `channels` floats, strides in floats, through the prologue.
  void (*pack)(const float* src, int64_t src_stride, int64_t count, int64_t channels, float* dst, int64_t dst_stride,
               const Prologue& prologue) = nullptr;
  // dst[i * dst_stride + j] = src[j * src_stride + i * src_step] for i < rows, j < columns; 0 up to `width` columns,
  // whole vectors.
  void (*transpose)(const float* src, int64_t src_stride, int64_t src_step, int64_t rows, int64_t columns,
                    int64_t width, float* dst, int64_t dst_stride) = nullptr;
};

inline constexpr int64_t kLineFloats = 64 / sizeof(float);

// What a tile will read or write once its sums are done, on the way while they are: both often lie beyond L2.
template <int kWrite>
[[gnu::always_inline]] inline void PrefetchRows([[maybe_unused]] const float* from, [[maybe_unused]] int64_t stride,
                                                [[maybe_unused]] int rows, [[maybe_unused]] int64_t columns) {
#if defined(__GNUC__)
  static_assert(kMaxTileVectors * kMaxLanes <= 4 * kLineFloats);
  for (int r = 0; r < rows; ++r, from += stride) {
    __builtin_prefetch(from, kWrite, 3);
    if (columns > kLineFloats) __builtin_prefetch(from + kLineFloats, kWrite, 3);
    if (columns > 2 * kLineFloats) __builtin_prefetch(from + 2 * kLineFloats, kWrite, 3);
    if (columns > 3 * kLineFloats) __builtin_prefetch(from + 3 * kLineFloats, kWrite, 3);
  }
#endif
}

[[gnu::always_inline]] inline void PrefetchL2([[maybe_unused]] const float* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#endif
}

// Of the instruction set in use.
const GemmOps& GetGemmOps();

// The bounds that an epilogue's activation is, infinite for none; false if it is more than bounds.
bool BoundsOf(const Epilogue& epilogue, float& lo, float& hi);

}  // namespace crease
