// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// Types nest (a sequence of optionals of ...); protobuf's own limit on nesting is 100 messages.
constexpr int kMaxTypeNesting = 64;

Result<Dim> ReadDim(ByteSpan message, const ReadContext& context) {
  Dim dim;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kDimValue) dim.value = std::max(reader.Int(field), Dim::kUnknown);
    if (field.number == kDimParam) dim.symbol = std::string(reader.String(field));
  }
  if (reader.failed()) return reader.error("TensorShapeProto.Dimension");
  return dim;
}

Result<void> ReadShape(ByteSpan message, const ReadContext& context, TensorType* type) {
  type->has_rank = true;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number != kShapeDim) continue;
    if (type->dims.size() == static_cast<size_t>(kMaxRank)) {
      return Error{ErrorCode::kLimitExceeded, "its rank is over the limit of " + std::to_string(kMaxRank), ""};
    }
    CREASE_ASSIGN_OR_RETURN(Dim dim, ReadDim(reader.Bytes(field), context));
    type->dims.push_back(std::move(dim));
  }
  if (reader.failed()) return reader.error("TensorShapeProto");
  return {};
}

Result<void> ReadTensorType(ByteSpan message, const ReadContext& context, TensorType* type) {
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kTensorTypeElem) type->dtype = DTypeFromOnnx(reader.Int(field));
    if (field.number == kTensorTypeShape) CREASE_RETURN_IF_ERROR(ReadShape(reader.Bytes(field), context, type));
  }
  if (reader.failed()) return reader.error("TypeProto.Tensor");
  return {};
}

// Types that Crease does not hold are walked for damage and depth alone. Each wraps one TypeProto:
// elem_type is field 1 of Sequence and Optional, value_type field 2 of Map.
Result<void> CheckNesting(ByteSpan type, const ReadContext& context) {
  for (int depth = 0;; ++depth) {
    if (depth == kMaxTypeNesting) {
      return Error{ErrorCode::kLimitExceeded,
                   "its type nests deeper than " + std::to_string(kMaxTypeNesting) + " levels", ""};
    }
    ByteSpan wrapper, inner;
    uint32_t inner_number = 1;
    WireReader reader(type, context.origin);
    for (Field field; reader.Next(&field);) {
      if (field.number != kTypeSequence && field.number != kTypeMap && field.number != kTypeOptional) continue;
      wrapper = reader.Bytes(field);
      inner_number = field.number == kTypeMap ? 2 : 1;
    }
    if (reader.failed()) return reader.error("TypeProto");
    WireReader wrapped(wrapper, context.origin);
    for (Field field; wrapped.Next(&field);) {
      if (field.number == inner_number) inner = wrapped.Bytes(field);
    }
    if (wrapped.failed()) return wrapped.error("TypeProto");
    if (inner.empty()) return {};
    type = inner;
  }
}

Result<void> ReadType(ByteSpan message, const ReadContext& context, TensorType* type) {
  CREASE_RETURN_IF_ERROR(CheckNesting(message, context));
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kTypeTensor) CREASE_RETURN_IF_ERROR(ReadTensorType(reader.Bytes(field), context, type));
  }
  if (reader.failed()) return reader.error("TypeProto");
  return {};
}

}  // namespace

Result<ReadValueInfoResult> ReadValueInfo(ByteSpan message, const ReadContext& context) {
  ReadValueInfoResult result;
  ByteSpan type;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kValueInfoName) result.name = reader.String(field);
    if (field.number == kValueInfoType) type = reader.Bytes(field);
  }
  if (reader.failed()) return reader.error("ValueInfoProto");
  Result<void> read = ReadType(type, context, &result.type);
  if (!read.ok()) {
    Error error = read.error();
    error.where = "value '" + Printable(result.name) + "'";
    return error;
  }
  return result;
}

}  // namespace crease::onnx
