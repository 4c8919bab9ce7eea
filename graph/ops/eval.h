// SPDX-License-Identifier: Apache-2.0
// What the double-precision meanings share: output allocation, loops over indices, element types.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graph/op.h"
#include "graph/ops/common.h"

namespace crease::ops {

using InferFunction = Result<void> (*)(InferContext&);

// Zeroed outputs as the operator's own rule shapes them when every input is known; floats are
// float64. Output 0 is always made; others that the node leaves out may be undefined tensors. Checks the inputs by
// that: an eval that starts with it need not look at shapes and dtypes again.
Result<std::vector<Tensor>> AllocateOutputs(InferFunction infer, const EvalContext& context);

// Calls f with a value of the C++ type that holds the dtype's elements in an EvalContext: double,
// the integers, and uint8_t for bool.
template <typename F>
auto VisitNumber(DType dtype, F f) {
  switch (dtype) {
    case DType::kInt8:
      return f(int8_t{});
    case DType::kInt16:
      return f(int16_t{});
    case DType::kInt32:
      return f(int32_t{});
    case DType::kInt64:
      return f(int64_t{});
    case DType::kUint8:
    case DType::kBool:
      return f(uint8_t{});
    case DType::kUint16:
      return f(uint16_t{});
    case DType::kUint32:
      return f(uint32_t{});
    case DType::kUint64:
      return f(uint64_t{});
    default:
      return f(double{});
  }
}

// Walks an index space in row-major order and calls f(offsets), where offsets[i] is the dot product of
// the index and strides[i].
template <size_t kCount, typename F>
void ForEachIndex(std::span<const int64_t> shape, const std::array<std::vector<int64_t>, kCount>& strides, F f) {
  std::vector<int64_t> index(shape.size(), 0);
  std::array<int64_t, kCount> offsets{};
  for (int64_t dim : shape) {
    if (dim == 0) return;
  }
  while (true) {
    f(offsets);
    size_t axis = shape.size();
    while (true) {
      if (axis == 0) return;
      --axis;
      ++index[axis];
      for (size_t i = 0; i < kCount; ++i) offsets[i] += strides[i][axis];
      if (index[axis] < shape[axis]) break;
      for (size_t i = 0; i < kCount; ++i) offsets[i] -= strides[i][axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

// dst[index . dst_strides] = src[index . src_strides] for every index of the shape; strides in
// elements of `element_bytes`.
void CopyStrided(const std::byte* src, const std::vector<int64_t>& src_strides, std::byte* dst,
                 const std::vector<int64_t>& dst_strides, std::span<const int64_t> shape, size_t element_bytes);

// Fills dst, dense in its own shape, from src + offset elements at these strides.
void GatherStrided(const Tensor& src, int64_t offset, const std::vector<int64_t>& src_strides, Tensor& dst);

// One tensor as eval's result.
std::vector<Tensor> One(Tensor tensor);

}  // namespace crease::ops
