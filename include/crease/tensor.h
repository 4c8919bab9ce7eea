// SPDX-License-Identifier: Apache-2.0
// Element types and the views that cross the public interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace crease {

enum class DType : uint8_t {
  kUndefined,
  kFloat32,
  kFloat64,
  kFloat16,
  kBFloat16,
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kBool,
};

// Bytes of one element; 0 for kUndefined.
size_t ByteSize(DType dtype);

// "float32", "int64", ... as NumPy spells them.
const char* Name(DType dtype);

// Axes in ONNX's order: (N, C, H, W) for images.
using Shape = std::vector<int64_t>;

// A model input or output as the file declares it. A dimension of -1 is decided by the caller;
// `symbols` has its name ("N", "batch") or an empty string, one entry a dimension.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kUndefined;
  Shape shape;
  std::vector<std::string> symbols;
};

}  // namespace crease
#pragma GCC visibility pop
