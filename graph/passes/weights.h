// SPDX-License-Identifier: Apache-2.0
// New weights from old ones and a map: products and sums in double, rounded once, checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/passes/affine.h"
#include "graph/passes/unrounded.h"

namespace crease::fold {

// Constant weights as folds read them: base[i] * factors, in double; and the dtype that they have in
// the graph. No tensor: an absent bias.
struct Weights {
  Tensor tensor;
  std::vector<Factor> factors;
  DType dtype = DType::kUndefined;
};

// w[i] * scale[channel of i] rounded into w.dtype, with w's shape. A product below the start of the
// dtype's normal range becomes zero where that is lost in the rounding of the channel's sum, else the
// fold is refused ("denormal-weight"). It is lost if the channel's largest weight is at least 2^26 times
// the range's start (float64: 2^55; float16: 2^13 times its smallest denormal), or if `biases` are given
// and the channel's is 2^40 times as large as that, so that inputs whose sum stays below 2^40 cannot
// tell. A weight that was denormal before is kept as it comes out.
Outcome<Rounded> ScaleWeights(const Weights& w, const WeightView& view, const Affine& map,
                              std::span<const double> biases = {});

// The constant that ScaleWeights rounded `exact` to, once more; of float32.
Outcome<Tensor> RoundAgain(const ScaledTensor& exact);

// sums[o] = sum over the input channels of w * shift: for a consumer whose channels are seen by
// `input_view` (summed over) and `output_view`, the bias that a shift on the input makes. Needs inner
// summed too: valid where every output sees every tap.
std::vector<double> ShiftThroughWeights(const Weights& w, const WeightView& input_view, const WeightView& output_view,
                                        const Affine& map);

// Doubles rounded once into `dtype`. Refuses what is not finite afterwards.
Outcome<Rounded> RoundTo(std::span<const double> values, DType dtype, Shape shape);

}  // namespace crease::fold
