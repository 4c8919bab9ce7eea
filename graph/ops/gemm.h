// SPDX-License-Identifier: Apache-2.0
// Gemm: Y = alpha * A' * B' + beta * C.
#pragma once

#include "graph/graph.h"

namespace crease::ops {

struct GemmAttributes {
  float alpha = 1, beta = 1;
  bool trans_a = false, trans_b = false;
};

// A' (m, k), B' (k, n), Y (m, n), after the transpositions.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
};

Result<GemmAttributes> ParseGemm(const Node& node);

// Errors: rank other than 2, k of A and B differ, C (null: absent) not broadcastable to (m, n).
Result<GemmShape> ResolveGemm(const GemmAttributes& attributes, const Shape& a, const Shape& b, const Shape* c);

}  // namespace crease::ops
