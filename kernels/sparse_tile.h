// SPDX-License-Identifier: Apache-2.0
// The micro-kernel of products whose left factor is full of zeros, as what a ReLU leaves: two or three rows of dst stay
// in registers, and of the source's channels only those are multiplied in which some of these have something.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/gemm_tile.h"
#include "kernels/rounding.h"

namespace crease {

// Source rows of a tile, at most.
inline constexpr int kSparseRows = 3;
// Vectors of a tile from which on it can fetch a line beside every channel.
inline constexpr int kLeastFetchingVectors = 3;
// A list has channels as 16 bits, so that there may be this many.
inline constexpr int64_t kMaxListed = 65536;
// A list of channels may be followed by as many that mean nothing: eight are stored at once.
inline constexpr int64_t kListTail = 8;

// What a tile multiplies: its source rows and the channels it lists, which follow in memory of Floats(of how many)
// floats.
struct ChannelList {
  int64_t rows[kSparseRows];  // floats from SparseTiles::a; of those that do not exist any that can be read
  int64_t row_count;          // 1 to kSparseRows
  int64_t count;

  uint16_t* channels() { return reinterpret_cast<uint16_t*>(this + 1); }
  const uint16_t* channels() const { return reinterpret_cast<const uint16_t*>(this + 1); }
  static int64_t Floats(int64_t depth) {
    return RoundUp(static_cast<int64_t>(sizeof(ChannelList) / sizeof(float)) + DivideUp(depth + kListTail, int64_t{2}),
                   kLineFloats);
  }
};

// For each list one tile of dst, its rows below those of the tile before:
// dst[r, j] = min(max(start[j] + sum_k a[rows[r] + k] * b[k][j] + residual[r, j], lo), hi) over the listed channels k,
// one after the other. All strides count floats.
struct SparseTiles {
  const float* lists = nullptr;  // list_floats from one to the next
  int64_t list_floats = 0;
  int64_t count = 0;
  const float* a = nullptr;
  const float* b = nullptr;      // aligned to a vector, vectors * lanes wide
  const float* start = nullptr;  // as wide as b; null: zero
  // What to bring into L2 on the way, ahead_step floats beside every channel: at most a line, half of one in tiles of
  // fewer than kLeastFetchingVectors. The tiles may not get through all of it.
  const float* ahead = nullptr;
  int64_t ahead_floats = 0, ahead_step = kLineFloats;
  bool far = false;  // dst and residual may lie beyond L2
  float* dst = nullptr;
  int64_t dst_stride = 0;
  int last = 0;                     // columns of the last vector, 1 to lanes
  const float* residual = nullptr;  // like dst; may be dst; null: none
  int64_t residual_stride = 0;
  bool residual_last = false;  // added after the bounds
  float lo = 0, hi = 0;        // infinite for none
};

// Cycles of three rows and a panel of some vectors: for a channel by all products and for a listed one, around every
// tile, and for a channel to be looked at, once for all panels.
struct SparseCosts {
  double dense;  // for each vector
  double dense_tile;
  double sparse;  // for each vector
  double listed;
  double least;  // a step of few vectors waits for its sums
  double sparse_tile;
  double find;

  double Dense(double vectors, double channels) const { return dense * vectors * channels + dense_tile; }
  double Sparse(double vectors, double channels) const {
    return std::max(sparse * vectors + listed, least) * channels + sparse_tile;
  }
};

// What one instruction set offers.
struct SparseOps {
  SparseCosts costs;
  // Lists the channels of [0, depth) in which some row is not zero, in ascending order, and returns their number. NaN
  // is not zero. `channels` has room for depth + kListTail; depth is at most kMaxListed.
  int64_t (*find)(const float* const* rows, int row_count, int64_t depth, uint16_t* channels) = nullptr;
  // The same of rows of which a bit says, the lowest of the first byte first, whether the channel is not zero; bits
  // past the depth are 0.
  int64_t (*list)(const uint8_t* const* marks, int row_count, int64_t depth, uint16_t* channels) = nullptr;
  void (*tiles[kMaxTileVectors + 1])(const SparseTiles& tiles) = {};  // by vectors, from 1 on
};

// Of the instruction set in use.
const SparseOps& GetSparseOps();

}  // namespace crease
