// SPDX-License-Identifier: Apache-2.0
// Field numbers of onnx.proto (ONNX 1.23, IR 14) and its element types, as far as Crease reads them.
#pragma once

#include <cstdint>
#include <string>

#include "crease/tensor.h"

namespace crease::onnx {

inline constexpr int64_t kOldestIr = 3;
inline constexpr int64_t kNewestIr = 14;
inline constexpr int64_t kOldestOpset = 7;
inline constexpr int64_t kNewestOpset = 28;

enum ModelField : uint32_t {
  kModelIrVersion = 1,
  kModelProducerName = 2,
  kModelProducerVersion = 3,
  kModelGraph = 7,
  kModelOpsetImport = 8,
  kModelMetadata = 14,
  kModelFunctions = 25,
};
enum OpsetField : uint32_t { kOpsetDomain = 1, kOpsetVersion = 2 };
enum StringEntryField : uint32_t { kEntryKey = 1, kEntryValue = 2 };
enum FunctionField : uint32_t { kFunctionName = 1, kFunctionNode = 7, kFunctionDomain = 10 };
enum GraphField : uint32_t {
  kGraphNode = 1,
  kGraphName = 2,
  kGraphInitializer = 5,
  kGraphInput = 11,
  kGraphOutput = 12,
  kGraphValueInfo = 13,
  kGraphQuantization = 14,
  kGraphSparseInitializer = 15,
};
enum QuantizationField : uint32_t { kQuantizationTensorName = 1 };
enum NodeField : uint32_t {
  kNodeInput = 1,
  kNodeOutput = 2,
  kNodeName = 3,
  kNodeOpType = 4,
  kNodeAttribute = 5,
  kNodeDomain = 7,
};
enum AttributeField : uint32_t {
  kAttributeName = 1,
  kAttributeF = 2,
  kAttributeI = 3,
  kAttributeS = 4,
  kAttributeT = 5,
  kAttributeG = 6,
  kAttributeFloats = 7,
  kAttributeInts = 8,
  kAttributeStrings = 9,
  kAttributeTensors = 10,
  kAttributeGraphs = 11,
  kAttributeTp = 14,
  kAttributeTypeProtos = 15,
  kAttributeType = 20,
  kAttributeRefName = 21,
  kAttributeSparse = 22,
  kAttributeSparses = 23,
};
// AttributeProto.AttributeType
enum AttributeKind : int64_t {
  kKindUndefined = 0,
  kKindFloat = 1,
  kKindInt = 2,
  kKindString = 3,
  kKindTensor = 4,
  kKindGraph = 5,
  kKindFloats = 6,
  kKindInts = 7,
  kKindStrings = 8,
  kKindTensors = 9,
  kKindGraphs = 10,
  kKindSparseTensor = 11,
  kKindSparseTensors = 12,
  kKindTypeProto = 13,
  kKindTypeProtos = 14,
};
enum TensorField : uint32_t {
  kTensorDims = 1,
  kTensorDataType = 2,
  kTensorSegment = 3,
  kTensorFloatData = 4,
  kTensorInt32Data = 5,
  kTensorStringData = 6,
  kTensorInt64Data = 7,
  kTensorName = 8,
  kTensorRawData = 9,
  kTensorDoubleData = 10,
  kTensorUint64Data = 11,
  kTensorExternalData = 13,
  kTensorDataLocation = 14,
};
enum SparseTensorField : uint32_t { kSparseValues = 1 };
enum ValueInfoField : uint32_t { kValueInfoName = 1, kValueInfoType = 2 };
enum TypeField : uint32_t {
  kTypeTensor = 1,
  kTypeSequence = 4,
  kTypeMap = 5,
  kTypeSparseTensor = 8,
  kTypeOptional = 9,
};
enum TensorTypeField : uint32_t { kTensorTypeElem = 1, kTensorTypeShape = 2 };
enum ShapeField : uint32_t { kShapeDim = 1 };
enum DimField : uint32_t { kDimValue = 1, kDimParam = 2 };

// TensorProto.DataType of Crease's type and back; kUndefined (0) where there is none.
DType DTypeFromOnnx(int64_t data_type);
int64_t OnnxFromDType(DType dtype);
// "STRING (8)", "unknown (99)"; `known` tells whether ONNX defines it.
std::string DescribeDataType(int64_t data_type);
bool IsKnownDataType(int64_t data_type);

}  // namespace crease::onnx
