// SPDX-License-Identifier: Apache-2.0
// What is known of integer vectors that come from a Shape while a dimension is unknown: enough to give
// Reshape(x, Concat(batch, -1)) a type with the batch's symbol in it.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "graph/op.h"

namespace crease::ops {

// Elements of an integer tensor of rank 0 or 1; unknown ones have the symbol of the dimension that
// they are. A -1 and an element of which nothing is known look the same.
using ShapeValue = std::vector<Dim>;

// The value of output 0 of a node as far as its inputs' values (constants, or null) and partial values
// (or null) and its types tell; nothing where that is no rule of Shape arithmetic.
struct ShapeValueInputs {
  const Node& node;
  int opset;
  std::span<const TensorType* const> types;
  std::span<const Tensor* const> constants;
  std::span<const ShapeValue* const> partial;
  const TensorType& output;
};
std::optional<ShapeValue> ComputeShapeValue(const ShapeValueInputs& inputs);

// The tensor of a value without an unknown element, of the output's dtype and rank.
std::optional<Tensor> KnownTensor(const ShapeValue& value, const TensorType& output);

}  // namespace crease::ops
