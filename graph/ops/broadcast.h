// SPDX-License-Identifier: Apache-2.0
// Element-wise operators of several inputs: broadcasting rules and loops.
#pragma once

#include <vector>

#include "graph/ops/eval.h"

namespace crease::ops {

// Broadcast dimensions of inputs first, first + 1, ...; has_rank is false while one has no rank. The
// dtype is left undefined.
Result<TensorType> BroadcastType(const InferContext& context, int first);

// dst[i] = f(a[...], b[...]) with a and b broadcast to dst's shape.
template <typename T, typename R, typename F>
void BroadcastInto(const Tensor& a, const Tensor& b, Tensor& dst, F f) {
  const T* x = a.data<T>();
  const T* y = b.data<T>();
  R* out = dst.mutable_data<R>();
  int64_t i = 0;
  ForEachIndex<2>(dst.shape(), {BroadcastStrides(a.shape(), dst.shape()), BroadcastStrides(b.shape(), dst.shape())},
                  [&](const std::array<int64_t, 2>& offsets) { out[i++] = f(x[offsets[0]], y[offsets[1]]); });
}

}  // namespace crease::ops
