// SPDX-License-Identifier: Apache-2.0
// A protobuf message under construction as a list of pieces: bytes of its own, and views of bytes that
// lie elsewhere (the old file, tensors), so that writing a model copies no weights.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/onnx/wire.h"

namespace crease::onnx {

class ByteRope {
 public:
  uint64_t size() const { return size_; }

  // Bytes that stay where they are until the rope is gone.
  void View(ByteSpan bytes);

  // One field each.
  void Int(uint32_t number, int64_t value);
  void Float(uint32_t number, float value);
  void String(uint32_t number, std::string_view value);  // copied
  void BytesView(uint32_t number, ByteSpan bytes);       // not copied
  void Message(uint32_t number, ByteRope&& message);

  // All fields of the message that `keep(number)` is true for, as they are. The message was read
  // before, so it is sound.
  template <typename Keep>
  void CopyFields(ByteSpan message, Keep keep) {
    WireReader reader(message, message.data());
    for (Field field; reader.Next(&field);) {
      if (keep(field.number)) View(field.raw);
    }
  }

  template <typename F>  // f(ByteSpan) in order
  void ForEach(F f) const {
    for (const Piece& piece : pieces_) f(piece.bytes());
  }

 private:
  struct Piece {
    ByteSpan view;
    std::string owned;  // used if not empty
    ByteSpan bytes() const { return owned.empty() ? view : std::as_bytes(std::span(owned)); }
  };
  std::string& Tail();  // own bytes at the end
  void Varint(uint64_t value);
  void Tag(uint32_t number, WireType type) { Varint(uint64_t{number} << 3 | static_cast<uint64_t>(type)); }

  std::vector<Piece> pieces_;
  uint64_t size_ = 0;
};

}  // namespace crease::onnx
