// SPDX-License-Identifier: Apache-2.0
// New weights from old ones and a map: products and sums in double, rounded once, checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/passes/affine.h"

namespace crease::fold {

// How channels lie in a weight tensor, seen as (rows, columns, inner) with rows = its first axis (or
// more), inner the product of what follows. The channel of an element:
//   kRow: its row; kColumn: its column;
//   kGroupedColumn: (row / (rows / groups)) * columns + column.
// Conv W (O, I/g, k...): output channels kRow, input channels kGroupedColumn. ConvTranspose W (I,
// O/g, k...): input channels kRow, output channels kGroupedColumn.
struct WeightView {
  enum class Channel { kRow, kColumn, kGroupedColumn };
  int64_t rows = 1, columns = 1, inner = 1, groups = 1;
  Channel channel = Channel::kRow;

  int64_t channels() const;
  int64_t ChannelOf(int64_t row, int64_t column) const;
};

// w[i] * scale[channel of i] in `dtype`, with w's shape. A product below the start of the dtype's normal
// range becomes zero where that is lost in the rounding of the channel's sum, else the fold is refused
// ("denormal-weight"). It is lost if the channel's largest weight is at least 2^26 times the range's
// start (float64: 2^55; float16: 2^13 times its smallest denormal), or if `biases` are given and the
// channel's is 2^40 times as large as that, so that inputs whose sum stays below 2^40 cannot tell. A
// weight that was denormal before is kept as it comes out.
Outcome<Tensor> ScaleWeights(const Tensor& w, DType dtype, const WeightView& view, const Affine& map,
                             std::span<const double> biases = {});

// sums[o] = sum over the other channel role of w * shift: for a consumer with weights seen by `view`
// (whose channel is the one summed over) and outputs `row` or grouped column, the bias that a shift
// on the input makes. Needs inner summed too: valid where every output sees every tap.
std::vector<double> ShiftThroughWeights(const Tensor& w, const WeightView& input_view, const WeightView& output_view,
                                        const Affine& map);

// Doubles rounded once into `dtype`. Refuses what is not finite afterwards.
Outcome<Tensor> RoundTo(std::span<const double> values, DType dtype, Shape shape);

}  // namespace crease::fold
