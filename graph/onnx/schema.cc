// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/schema.h"

#include <array>
#include <utility>

namespace crease::onnx {
namespace {

// In TensorProto.DataType's order.
constexpr std::array<std::pair<const char*, DType>, 29> kTypes = {{
    {"UNDEFINED", DType::kUndefined},
    {"FLOAT", DType::kFloat32},
    {"UINT8", DType::kUint8},
    {"INT8", DType::kInt8},
    {"UINT16", DType::kUint16},
    {"INT16", DType::kInt16},
    {"INT32", DType::kInt32},
    {"INT64", DType::kInt64},
    {"STRING", DType::kUndefined},
    {"BOOL", DType::kBool},
    {"FLOAT16", DType::kFloat16},
    {"DOUBLE", DType::kFloat64},
    {"UINT32", DType::kUint32},
    {"UINT64", DType::kUint64},
    {"COMPLEX64", DType::kUndefined},
    {"COMPLEX128", DType::kUndefined},
    {"BFLOAT16", DType::kBFloat16},
    {"FLOAT8E4M3FN", DType::kUndefined},
    {"FLOAT8E4M3FNUZ", DType::kUndefined},
    {"FLOAT8E5M2", DType::kUndefined},
    {"FLOAT8E5M2FNUZ", DType::kUndefined},
    {"UINT4", DType::kUndefined},
    {"INT4", DType::kUndefined},
    {"FLOAT4E2M1", DType::kUndefined},
    {"FLOAT8E8M0", DType::kUndefined},
    {"UINT2", DType::kUndefined},
    {"INT2", DType::kUndefined},
    {"FLOAT6E2M3", DType::kUndefined},
    {"FLOAT6E3M2", DType::kUndefined},
}};

}  // namespace

bool IsKnownDataType(int64_t data_type) { return data_type > 0 && data_type < static_cast<int64_t>(kTypes.size()); }

DType DTypeFromOnnx(int64_t data_type) {
  return IsKnownDataType(data_type) ? kTypes[static_cast<size_t>(data_type)].second : DType::kUndefined;
}

int64_t OnnxFromDType(DType dtype) {
  for (size_t i = 1; i < kTypes.size(); ++i) {
    if (dtype != DType::kUndefined && kTypes[i].second == dtype) return static_cast<int64_t>(i);
  }
  return 0;
}

std::string DescribeDataType(int64_t data_type) {
  const char* name =
      data_type == 0 || IsKnownDataType(data_type) ? kTypes[static_cast<size_t>(data_type)].first : "unknown";
  return std::string(name) + " (" + std::to_string(data_type) + ")";
}

}  // namespace crease::onnx
