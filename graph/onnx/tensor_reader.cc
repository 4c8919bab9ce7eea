// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <optional>

#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// The typed field that holds a data type's elements, and the width of one element there (0: varint).
struct TypedField {
  uint32_t number;
  size_t width;
};

TypedField TypedFieldOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return {kTensorFloatData, 4};
    case DType::kFloat64:
      return {kTensorDoubleData, 8};
    case DType::kInt64:
      return {kTensorInt64Data, 0};
    case DType::kUint32:
    case DType::kUint64:
      return {kTensorUint64Data, 0};
    default:
      return {kTensorInt32Data, 0};
  }
}

bool IsTypedField(uint32_t number) {
  return number == kTensorFloatData || number == kTensorInt32Data || number == kTensorStringData ||
         number == kTensorInt64Data || number == kTensorDoubleData || number == kTensorUint64Data;
}

// What a first walk over a TensorProto finds; elements are counted, not yet decoded.
struct Header {
  std::string_view name;
  Shape shape;
  int64_t data_type = 0;
  std::optional<ByteSpan> raw;
  uint32_t typed_field = 0;  // the one that is there; 0 if none
  bool mixed_typed = false;  // two different ones are
  uint64_t typed_count = 0;  // elements in it
  ByteSpan typed_chunk;      // its payload if it is one packed field
  int typed_chunks = 0;
  bool segmented = false;
  bool external = false;
  std::string_view location;
  std::optional<std::string_view> offset, length;
};

Error TensorError(ErrorCode code, std::string message, std::string_view name) {
  return {code, std::move(message), "tensor '" + Printable(name) + "'"};
}

uint64_t CountElements(const Field& field) {
  if (field.type != WireType::kBytes) return 1;
  if (field.number == kTensorStringData) return 1;
  if (field.number == kTensorFloatData) return field.bytes.size() / 4;
  if (field.number == kTensorDoubleData) return field.bytes.size() / 8;
  // A varint ends with the byte whose top bit is clear.
  return static_cast<uint64_t>(std::count_if(field.bytes.begin(), field.bytes.end(),
                                             [](std::byte b) { return (b & std::byte{0x80}) == std::byte{0}; }));
}

Result<void> ReadExternalEntry(ByteSpan message, const ReadContext& context, Header* header) {
  CREASE_ASSIGN_OR_RETURN(const auto entry, ReadStringEntry(message, context));
  if (entry.first == "location") header->location = entry.second;
  if (entry.first == "offset") header->offset = entry.second;
  if (entry.first == "length") header->length = entry.second;
  return {};
}

Result<void> ReadHeader(ByteSpan message, const ReadContext& context, Header* header) {
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    switch (field.number) {
      case kTensorDims:
        reader.AppendInts(field, static_cast<size_t>(kMaxRank) + 1, &header->shape);
        break;
      case kTensorDataType:
        header->data_type = reader.Int(field);
        break;
      case kTensorSegment:
        header->segmented = true;
        break;
      case kTensorName:
        header->name = reader.String(field);
        break;
      case kTensorRawData:
        header->raw = reader.Bytes(field);
        break;
      case kTensorExternalData:
        CREASE_RETURN_IF_ERROR(ReadExternalEntry(reader.Bytes(field), context, header));
        break;
      case kTensorDataLocation:
        header->external = reader.Int(field) == 1;
        break;
      default:
        if (!IsTypedField(field.number)) break;
        header->mixed_typed = header->mixed_typed || (header->typed_field != 0 && header->typed_field != field.number);
        header->typed_field = field.number;
        header->typed_count += CountElements(field);
        ++header->typed_chunks;
        header->typed_chunk = field.type == WireType::kBytes ? field.bytes : ByteSpan{};
    }
  }
  if (header->shape.size() > static_cast<size_t>(kMaxRank)) {
    return TensorError(ErrorCode::kLimitExceeded, "its rank is over the limit of " + std::to_string(kMaxRank),
                       header->name);
  }
  if (reader.failed()) {
    Error error = reader.error("TensorProto");
    error.where = "tensor '" + Printable(header->name) + "'";
    return error;
  }
  return {};
}

// A decimal number without sign, as external data's offset and length are written.
Result<int64_t> ParseCount(std::string_view text, const char* what, std::string_view name) {
  int64_t value = -1;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value < 0) {
    return TensorError(ErrorCode::kInvalidModel,
                       std::string("external data has the ") + what + " '" + Printable(text) +
                           "', expected a decimal number from 0 to 2^63 - 1",
                       name);
  }
  return value;
}

// Bools are read as bool in C++, where any byte but 0 and 1 is undefined behaviour.
Result<Tensor> WithCleanBools(Tensor tensor) {
  if (tensor.dtype() != DType::kBool) return tensor;
  const auto* bytes = tensor.bytes();
  if (std::all_of(bytes, bytes + tensor.size(), [](std::byte b) { return b <= std::byte{1}; })) return tensor;
  CREASE_ASSIGN_OR_RETURN(Tensor clean, Tensor::Allocate(DType::kBool, tensor.shape()));
  auto* dst = clean.mutable_data<bool>();
  std::transform(bytes, bytes + tensor.size(), dst, [](std::byte b) { return b != std::byte{0}; });
  return clean;
}

Result<Tensor> ReadExternal(const Header& header, DType dtype, int64_t byte_size, const ReadContext& context) {
  if (header.location.empty()) {
    return TensorError(ErrorCode::kInvalidModel, "external data without a location", header.name);
  }
  int64_t offset = 0, length = byte_size;
  if (header.offset) {
    CREASE_ASSIGN_OR_RETURN(offset, ParseCount(*header.offset, "offset", header.name));
  }
  if (header.length) {
    CREASE_ASSIGN_OR_RETURN(length, ParseCount(*header.length, "length", header.name));
  }
  if (length != byte_size) {
    return TensorError(ErrorCode::kInvalidModel,
                       "external data of " + std::to_string(length) + " bytes, shape " + ToString(header.shape) +
                           " of " + Name(dtype) + " needs " + std::to_string(byte_size),
                       header.name);
  }
  Result<OwnedBytes> data = context.external->Get(header.location, offset, length);
  if (!data.ok()) {
    Error error = data.error();
    error.message = "external data '" + error.where + "': " + error.message;
    error.where = "tensor '" + Printable(header.name) + "'";
    return error;
  }
  return Tensor::View(dtype, header.shape, data->bytes, data->owner);
}

// Stores a varint as an element; int32_data also carries the bits of half-precision numbers.
void StoreVarint(DType dtype, uint64_t value, std::byte* dst) {
  if (dtype == DType::kBool) value = value != 0;
  std::memcpy(dst, &value, ByteSize(dtype));
}

bool FitsVarint(DType dtype, uint64_t value) {
  const auto number = static_cast<int64_t>(value);
  switch (dtype) {
    case DType::kInt8:
      return number >= -128 && number <= 127;
    case DType::kInt16:
      return number >= -32768 && number <= 32767;
    case DType::kInt32:
      return number >= std::numeric_limits<int32_t>::min() && number <= std::numeric_limits<int32_t>::max();
    case DType::kUint8:
      return value <= 255;
    case DType::kUint16:
    case DType::kFloat16:
    case DType::kBFloat16:
      return value <= 65535;
    case DType::kUint32:
      return value <= 0xFFFFFFFF;
    default:
      return true;
  }
}

Result<Tensor> DecodeTyped(ByteSpan message, const Header& header, DType dtype, const ReadContext& context) {
  const TypedField source = TypedFieldOf(dtype);
  const size_t width = ByteSize(dtype);
  CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, header.shape));
  auto* dst = const_cast<std::byte*>(tensor.bytes());
  const std::byte* const end = dst + tensor.byte_size();
  const auto store = [&](uint64_t value) {
    if (dst == end || !FitsVarint(dtype, value)) return false;
    StoreVarint(dtype, value, dst);
    dst += width;
    return true;
  };
  const Error misfit = TensorError(
      ErrorCode::kInvalidModel,
      std::string("typed data is damaged or has a value that ") + Name(dtype) + " cannot hold", header.name);
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number != source.number) continue;
    if (source.width != 0) {
      const bool packed = field.type == WireType::kBytes;
      const ByteSpan bytes = field.bytes;
      const WireType single = source.width == 4 ? WireType::kFixed32 : WireType::kFixed64;
      if ((!packed && field.type != single) || bytes.size() % source.width != 0 ||
          bytes.size() > static_cast<size_t>(end - dst)) {
        return misfit;
      }
      std::memcpy(dst, bytes.data(), bytes.size());
      dst += bytes.size();
    } else if (field.type == WireType::kVarint) {
      if (!store(field.scalar)) return misfit;
    } else if (field.type == WireType::kBytes) {
      PackedVarints packed(field.bytes);
      for (uint64_t value; packed.Next(&value);) {
        if (!store(value)) return misfit;
      }
      if (packed.failed()) return misfit;
    } else {
      return misfit;
    }
  }
  if (dst != end) return misfit;
  return tensor;
}

Result<void> CheckHeader(const Header& header) {
  const auto invalid = [&](std::string message) {
    return TensorError(ErrorCode::kInvalidModel, std::move(message), header.name);
  };
  if (!IsKnownDataType(header.data_type)) {
    return invalid("its data type is " + DescribeDataType(header.data_type) + ", which ONNX does not define");
  }
  if (header.segmented) {
    return TensorError(ErrorCode::kUnsupported, "it is stored in segments, which Crease does not read", header.name);
  }
  const int sources = (header.raw ? 1 : 0) + (header.typed_field != 0 ? 1 : 0) + (header.external ? 1 : 0);
  if (sources > 1 || header.mixed_typed) {
    return invalid("its data is there twice: raw_data, typed data and external data exclude each other");
  }
  return {};
}

// Bytes of shape x type, checked against the limit before anything is allocated.
Result<int64_t> CheckedByteSize(const Header& header, DType dtype, const ReadContext& context) {
  Result<int64_t> count = ElementCount(header.shape);
  if (!count.ok()) {
    Error error = count.error();
    error.where = "tensor '" + Printable(header.name) + "'";
    return error;
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(*count, static_cast<int64_t>(ByteSize(dtype)), &bytes) ||
      bytes > context.limits.max_tensor_bytes) {
    return TensorError(ErrorCode::kLimitExceeded,
                       "shape " + ToString(header.shape) + " of " + Name(dtype) + " is over max_tensor_bytes, " +
                           std::to_string(context.limits.max_tensor_bytes),
                       header.name);
  }
  return bytes;
}

Result<Tensor> ReadData(ByteSpan message, const Header& header, DType dtype, const ReadContext& context) {
  CREASE_ASSIGN_OR_RETURN(const int64_t byte_size, CheckedByteSize(header, dtype, context));
  if (header.external) return ReadExternal(header, dtype, byte_size, context);
  const auto wrong_size = [&](uint64_t found, const char* unit, uint64_t needed) {
    return TensorError(ErrorCode::kInvalidModel,
                       "it has " + std::to_string(found) + " " + unit + ", shape " + ToString(header.shape) + " of " +
                           Name(dtype) + " needs " + std::to_string(needed),
                       header.name);
  };
  if (header.raw) {
    if (header.raw->size() != static_cast<uint64_t>(byte_size)) {
      return wrong_size(header.raw->size(), "bytes", static_cast<uint64_t>(byte_size));
    }
    return Tensor::View(dtype, header.shape, *header.raw, context.owner);
  }
  const TypedField source = TypedFieldOf(dtype);
  const uint64_t count = static_cast<uint64_t>(byte_size) / ByteSize(dtype);
  if (header.typed_field != 0 && header.typed_field != source.number) {
    return TensorError(
        ErrorCode::kInvalidModel,
        "its data lies in field " + std::to_string(header.typed_field) + ", which does not hold " + Name(dtype),
        header.name);
  }
  if (header.typed_count != count) return wrong_size(header.typed_count, "elements", count);
  if (source.width != 0 && header.typed_chunks == 1 && header.typed_chunk.size() == static_cast<uint64_t>(byte_size) &&
      byte_size > 0) {
    return Tensor::View(dtype, header.shape, header.typed_chunk, context.owner);
  }
  return DecodeTyped(message, header, dtype, context);
}

}  // namespace

Result<std::pair<std::string_view, std::string_view>> ReadStringEntry(ByteSpan message, const ReadContext& context) {
  std::pair<std::string_view, std::string_view> entry;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kEntryKey) entry.first = reader.String(field);
    if (field.number == kEntryValue) entry.second = reader.String(field);
  }
  if (reader.failed()) return reader.error("StringStringEntryProto");
  return entry;
}

Result<ReadTensorResult> ReadTensor(ByteSpan message, const ReadContext& context) {
  Header header;
  CREASE_RETURN_IF_ERROR(ReadHeader(message, context, &header));
  CREASE_RETURN_IF_ERROR(CheckHeader(header));
  ReadTensorResult result{header.name, {}, header.data_type, header.external};
  const DType dtype = DTypeFromOnnx(header.data_type);
  if (dtype == DType::kUndefined || (header.external && context.external == nullptr)) return result;
  CREASE_ASSIGN_OR_RETURN(Tensor tensor, ReadData(message, header, dtype, context));
  CREASE_ASSIGN_OR_RETURN(result.tensor, WithCleanBools(std::move(tensor)));
  return result;
}

}  // namespace crease::onnx
