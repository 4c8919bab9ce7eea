// SPDX-License-Identifier: Apache-2.0
// Reading protobuf's wire format from untrusted bytes, one field at a time, without copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/status.h"

namespace crease::onnx {

using ByteSpan = std::span<const std::byte>;

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t scalar = 0;  // value of a varint, bits of a fixed32 or fixed64
  ByteSpan bytes;       // payload of kBytes
  ByteSpan raw;         // the whole field, tag included
};

// Walks the fields of one message. After the first problem Next() returns false for good and
// failed() is true; the typed accessors report a wrong wire type in the same way, so a parser loops
// over Next() and looks at failed() once. Every length is checked against the message's end before
// use; lengths and varints are read at full 64 bits.
class WireReader {
 public:
  // `origin` is where the file begins, for offsets in messages.
  WireReader(ByteSpan message, const std::byte* origin)
      : at_(message.data()), end_(message.data() + message.size()), origin_(origin) {}

  bool Next(Field* field);
  bool failed() const { return problem_ != nullptr; }
  void Fail(const char* problem) {
    if (problem_ == nullptr) problem_ = problem;
  }

  int64_t Int(const Field& field);
  float Float(const Field& field);
  std::string_view String(const Field& field);
  ByteSpan Bytes(const Field& field);
  WireReader Message(const Field& field) { return WireReader(Bytes(field), origin_); }

  // One occurrence of a repeated number, packed or not. Fails past `max_count` elements.
  void AppendInts(const Field& field, size_t max_count, std::vector<int64_t>* values);
  void AppendFloats(const Field& field, std::vector<float>* values);

  // kInvalidModel with the problem and its place in the file; needs failed().
  Error error(std::string_view message_name) const;
  const std::byte* origin() const { return origin_; }

 private:
  bool ReadVarint(uint64_t* value);

  const std::byte* at_;
  const std::byte* end_;
  const std::byte* origin_;
  const std::byte* field_begin_ = nullptr;
  const char* problem_ = nullptr;
};

// Reads the varints of a packed field one after the other; Next() is false at the end or, with
// failed(), at a damaged one.
class PackedVarints {
 public:
  explicit PackedVarints(ByteSpan bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  bool Next(uint64_t* value);
  bool failed() const { return failed_; }

 private:
  const std::byte* at_;
  const std::byte* end_;
  bool failed_ = false;
};

}  // namespace crease::onnx
