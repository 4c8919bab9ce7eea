// SPDX-License-Identifier: Apache-2.0
// Constant matrices in the order in which the micro-kernel reads them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "graph/tensor.h"
#include "kernels/gemm_tile.h"
#include "kernels/kernel.h"

namespace crease {

// 64-byte aligned floats for weights, uninitialised; data is null if the memory was not to be had.
class FloatBuffer {
 public:
  explicit FloatBuffer(size_t count);
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }

 private:
  std::shared_ptr<float> data_;
};

// A stack of `groups` matrices of depth x columns in any order: element (g, k, j) with k = tap * channels + c
// lies at g * group_stride + j * column_stride + tap * tap_stride + c * channel_stride of `values`. With column_taps,
// j = t * (columns / column_taps) + k lies at t + k * column_stride in place of j * column_stride. With tap_columns,
// tap = i * tap_columns + j lies at tap_offset + i * tap_row_stride + j * tap_stride in place of tap * tap_stride.
struct MatrixSource {
  const Tensor* values = nullptr;
  const Tensor* bias = nullptr;  // of groups * columns values, or of one; null for zero
  float scale = 1, bias_scale = 1;
  int64_t groups = 1, columns = 0, taps = 1, channels = 0, column_taps = 1;
  int64_t group_stride = 0, column_stride = 0, tap_stride = 0, channel_stride = 0;
  int64_t tap_columns = 0, tap_row_stride = 0, tap_offset = 0;

  int64_t depth() const { return taps * channels; }
  int64_t column_offset(int64_t j) const {
    const int64_t each = columns / column_taps;
    return column_taps == 1 ? j * column_stride : j / each + j % each * column_stride;
  }
  int64_t tap_at(int64_t tap) const {
    if (tap_columns == 0) return tap * tap_stride;
    return tap_offset + tap / tap_columns * tap_row_stride + tap % tap_columns * tap_stride;
  }
};

// Some columns of one group: rows of vectors * lanes floats, the bias first, then `depth` of the matrix.
// Columns past the matrix are zero.
struct GemmPanel {
  int64_t column = 0;  // of all: group * columns + first
  int64_t group = 0;
  int vectors = 0;
  int last = 0;  // columns of the last vector
  size_t offset = 0;
};

// Panels of `rows` rows (the bias and the matrix's) and as few and as even in width as panels of at most `widest`
// vectors can be, the widest first. Each of `parts` equal shares of a group's vectors has panels of its own.
std::vector<GemmPanel> PlanPanels(int64_t groups, int64_t columns, int64_t rows, int lanes, int widest,
                                  int64_t parts = 1);

// None is infinite or NaN.
bool AreFinite(std::span<const float> values);

enum class Known : uint8_t { kNotYet, kNo, kYes };

struct PackedGemm {
  PackedGemm(std::vector<GemmPanel> all, size_t count) : panels(std::move(all)), values(count) {}
  const float* panel(const GemmPanel& p) const { return values.data() + p.offset; }

  std::vector<GemmPanel> panels;
  FloatBuffer values;
  std::vector<float> balance;                          // for AmxOps, by row of the matrix
  mutable std::atomic<Known> finite = Known::kNotYet;  // kYes: no value is infinite or NaN
};

// Packs for tiles of `vectors` (the widest panel) in `parts`, as PlanPanels, once for each `key` and packing if there
// is a cache, on the request's executor. Error: out of memory.
Result<std::shared_ptr<const PackedGemm>> PackGemm(const MatrixSource& source, const GemmOps& ops, int vectors,
                                                   int64_t parts, PackCache* cache, Executor* executor);

// The largest weights of each row, as powers of two at or below their share of the largest of all; zero stays.
void BalanceOf(std::vector<float>& largest);

// The same for AmxOps, for one group: panels of one or two tiles of columns, each with the bias, the
// columns' scales, and their digits. Error: out of memory.
Result<std::shared_ptr<const PackedGemm>> PackAmxGemm(const MatrixSource& source, PackCache* cache, Executor* executor);

}  // namespace crease
