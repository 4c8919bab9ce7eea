// SPDX-License-Identifier: Apache-2.0
// Whether two graphs are the same function: both run by their definitions in double precision.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/random_inputs.h"

namespace crease {

// What two networks of one function may differ by.
struct VerifyLimits {
  double tolerance = 1e-3;  // in units of an output's standard deviation
  // The unit is at least this part of an element's magnitude: what varies less may vary by rounding alone.
  double least_unit = 0.01;
};

// Limits that rounding keeps: those above, wider where either network computes in float16 or bfloat16.
// docs/folding.md has the figures.
VerifyLimits LimitsOf(const Graph& a, const Graph& b);

// `got` against `want`: the largest difference, in units of want's standard deviation, or of `least_unit` of
// the element's magnitude if that is more; of the magnitude itself where it is alone, of 1 for zeros. NaN equals
// NaN, an infinity itself. Infinite where shapes differ.
double DifferenceInDeviations(const Tensor& want, const Tensor& got, double least_unit = VerifyLimits{}.least_unit);

// Elements that are NaN or infinite.
int64_t CountNotFinite(const Tensor& tensor);

struct ValueDifference {
  std::string name;        // of the value in `a`
  std::string node;        // that makes it there, described
  double error = 0;        // as DifferenceInDeviations
  int64_t not_finite = 0;  // of the elements in `a`: NaN or infinite; of outputs only
};

struct Comparison {
  std::vector<ValueDifference> outputs;  // in a's order
  // Values that both graphs make under the same name, in a's order. Inside of a fold's way (between
  // the weights that took a map and where the map was) they differ on purpose.
  std::vector<ValueDifference> layers;
  // Walked back from the worst output: the first value past the tolerance, none of whose node's
  // inputs is. Empty name: none.
  ValueDifference first;

  double worst() const;
};

// Outputs are matched by position, layers by name. Errors: those of Interpret; counts that differ.
Result<Comparison> CompareInDouble(const Graph& a, const Graph& b, const TensorMap& inputs, const VerifyLimits& limits);

}  // namespace crease
