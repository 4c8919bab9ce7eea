// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/byte_rope.h"

#include <iterator>
#include <protozero/varint.hpp>

namespace crease::onnx {

void ByteRope::View(ByteSpan bytes) {
  if (bytes.empty()) return;
  size_ += bytes.size();
  if (!pieces_.empty() && pieces_.back().owned.empty()) {
    ByteSpan& last = pieces_.back().view;
    if (last.data() + last.size() == bytes.data()) {  // neighbours in the old file stay one piece
      last = ByteSpan(last.data(), last.size() + bytes.size());
      return;
    }
  }
  pieces_.push_back({bytes, {}});
}

std::string& ByteRope::Tail() {
  if (pieces_.empty() || pieces_.back().owned.empty()) pieces_.emplace_back();
  return pieces_.back().owned;
}

void ByteRope::Varint(uint64_t value) {
  std::string& tail = Tail();
  size_ += static_cast<uint64_t>(protozero::write_varint(std::back_inserter(tail), value));
}

void ByteRope::Int(uint32_t number, int64_t value) {
  Tag(number, WireType::kVarint);
  Varint(static_cast<uint64_t>(value));
}

void ByteRope::Float(uint32_t number, float value) {
  Tag(number, WireType::kFixed32);
  Tail().append(reinterpret_cast<const char*>(&value), sizeof(value));
  size_ += sizeof(value);
}

void ByteRope::String(uint32_t number, std::string_view value) {
  Tag(number, WireType::kBytes);
  Varint(value.size());
  Tail().append(value);
  size_ += value.size();
}

void ByteRope::BytesView(uint32_t number, ByteSpan bytes) {
  Tag(number, WireType::kBytes);
  Varint(bytes.size());
  View(bytes);
}

void ByteRope::Message(uint32_t number, ByteRope&& message) {
  Tag(number, WireType::kBytes);
  Varint(message.size_);
  size_ += message.size_;
  for (Piece& piece : message.pieces_) {
    if (!piece.owned.empty()) {
      Tail().append(piece.owned);
    } else {
      pieces_.push_back(std::move(piece));
    }
  }
  message = ByteRope();
}

}  // namespace crease::onnx
