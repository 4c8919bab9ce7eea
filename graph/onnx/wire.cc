// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/wire.h"

#include <bit>
#include <cstring>
#include <protozero/exception.hpp>
#include <protozero/varint.hpp>

namespace crease::onnx {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor bytes are used in the file's order");

// Null if read, else what is wrong. protozero's pbf_reader cuts lengths to 32 bits, so only its
// varint decoder is used.
const char* DecodeVarint(const std::byte** at, const std::byte* end, uint64_t* value) {
  const char* data = reinterpret_cast<const char*>(*at);
  try {
    *value = protozero::decode_varint(&data, reinterpret_cast<const char*>(end));
  } catch (const protozero::varint_too_long_exception&) {
    return "a varint is longer than 10 bytes";
  } catch (const protozero::exception&) {
    return "the data ends inside a varint";
  }
  *at = reinterpret_cast<const std::byte*>(data);
  return nullptr;
}

}  // namespace

bool WireReader::ReadVarint(uint64_t* value) {
  if (const char* problem = DecodeVarint(&at_, end_, value)) Fail(problem);
  return !failed();
}

bool WireReader::Next(Field* field) {
  if (failed() || at_ == end_) return false;
  field_begin_ = at_;
  uint64_t tag = 0;
  if (!ReadVarint(&tag)) return false;
  constexpr uint64_t kLargestTag = 0xFFFFFFFF;  // 29 bits of field number, 3 of wire type
  if (tag > kLargestTag || (tag >> 3) == 0) {
    Fail("a field has the number 0 or one past 2^29");
    return false;
  }
  *field = Field{};
  field->number = static_cast<uint32_t>(tag >> 3);
  field->type = static_cast<WireType>(tag & 7);
  uint64_t length = 0;
  switch (field->type) {
    case WireType::kVarint:
      if (!ReadVarint(&field->scalar)) return false;
      break;
    case WireType::kFixed64:
      length = 8;
      break;
    case WireType::kFixed32:
      length = 4;
      break;
    case WireType::kBytes:
      if (!ReadVarint(&length)) return false;
      break;
    default:
      Fail("a field has an unknown wire type");
      return false;
  }
  if (length > static_cast<uint64_t>(end_ - at_)) {
    Fail("a field's length points past the end of its message");
    return false;
  }
  field->bytes = ByteSpan(at_, static_cast<size_t>(length));
  if (field->type == WireType::kFixed32 || field->type == WireType::kFixed64) {
    std::memcpy(&field->scalar, at_, static_cast<size_t>(length));
  }
  at_ += length;
  field->raw = ByteSpan(field_begin_, at_);
  return true;
}

int64_t WireReader::Int(const Field& field) {
  if (field.type != WireType::kVarint) Fail("an integer field has another wire type");
  return static_cast<int64_t>(field.scalar);
}

float WireReader::Float(const Field& field) {
  if (field.type != WireType::kFixed32) Fail("a float field has another wire type");
  return std::bit_cast<float>(static_cast<uint32_t>(field.scalar));
}

ByteSpan WireReader::Bytes(const Field& field) {
  if (field.type != WireType::kBytes) {
    Fail("a string or message field has another wire type");
    return {};
  }
  return field.bytes;
}

std::string_view WireReader::String(const Field& field) {
  const ByteSpan bytes = Bytes(field);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void WireReader::AppendInts(const Field& field, size_t max_count, std::vector<int64_t>* values) {
  if (field.type == WireType::kVarint) {
    if (values->size() >= max_count) return Fail("a list of integers is too long");
    values->push_back(Int(field));
    return;
  }
  PackedVarints packed(Bytes(field));
  for (uint64_t value; !failed() && packed.Next(&value);) {
    if (values->size() >= max_count) return Fail("a list of integers is too long");
    values->push_back(static_cast<int64_t>(value));
  }
  if (packed.failed()) Fail("a packed list of integers is damaged");
}

void WireReader::AppendFloats(const Field& field, std::vector<float>* values) {
  if (field.type == WireType::kFixed32) {
    values->push_back(Float(field));
    return;
  }
  const ByteSpan bytes = Bytes(field);
  if (bytes.size() % sizeof(float) != 0) return Fail("a packed list of floats is damaged");
  const size_t before = values->size();
  values->resize(before + bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(values->data() + before, bytes.data(), bytes.size());
}

Error WireReader::error(std::string_view message_name) const {
  const std::byte* place = field_begin_ != nullptr ? field_begin_ : at_;
  return {ErrorCode::kInvalidModel,
          "damaged " + std::string(message_name) + " at byte " + std::to_string(place - origin_) +
              " of the file: " + problem_,
          ""};
}

bool PackedVarints::Next(uint64_t* value) {
  if (failed_ || at_ == end_) return false;
  failed_ = DecodeVarint(&at_, end_, value) != nullptr;
  return !failed_;
}

}  // namespace crease::onnx
