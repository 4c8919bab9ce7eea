// SPDX-License-Identifier: Apache-2.0
// Writes ONNX files for tests: well-formed ones in a few lines, and broken ones byte by byte.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crease::test {

// A protobuf message under construction. Every method appends one field.
class Proto {
 public:
  Proto() = default;

  Proto& Varint(uint32_t number, uint64_t value) { return Tag(number, 0).Number(value); }
  Proto& Int(uint32_t number, int64_t value) { return Varint(number, static_cast<uint64_t>(value)); }
  Proto& Float(uint32_t number, float value) {
    Tag(number, 5).bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Proto& String(uint32_t number, std::string_view value) {
    Tag(number, 2).Number(value.size()).bytes_.append(value);
    return *this;
  }
  Proto& Message(uint32_t number, const Proto& message) { return String(number, message.bytes_); }
  Proto& PackedInts(uint32_t number, const std::vector<int64_t>& values) {
    Proto packed;
    for (int64_t value : values) packed.Number(static_cast<uint64_t>(value));
    return Message(number, packed);
  }
  template <typename T>
  Proto& PackedFixed(uint32_t number, const std::vector<T>& values) {
    return String(number, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
  }

  // Pieces below the level of fields, for broken messages.
  Proto& Tag(uint32_t number, uint32_t wire_type) { return Number(uint64_t{number} << 3 | wire_type); }
  Proto& Number(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
    return *this;
  }
  Proto& Raw(std::string_view bytes) {
    bytes_.append(bytes);
    return *this;
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// TensorProto.DataType
inline constexpr int64_t kOnnxFloat = 1, kOnnxUint8 = 2, kOnnxInt32 = 6, kOnnxInt64 = 7, kOnnxString = 8, kOnnxBool = 9,
                         kOnnxFloat16 = 10, kOnnxDouble = 11;

// TensorProto without data.
inline Proto TensorHeader(std::string_view name, const std::vector<int64_t>& dims, int64_t data_type) {
  Proto tensor;
  for (int64_t dim : dims) tensor.Int(1, dim);
  return tensor.Int(2, data_type).String(8, name);
}

inline Proto RawTensor(std::string_view name, const std::vector<int64_t>& dims, int64_t data_type,
                       std::string_view raw) {
  return TensorHeader(name, dims, data_type).String(9, raw);
}

inline Proto FloatTensor(std::string_view name, const std::vector<int64_t>& dims, const std::vector<float>& values) {
  return RawTensor(name, dims, kOnnxFloat, BytesOf(values));
}

inline Proto Int64Tensor(std::string_view name, const std::vector<int64_t>& dims, const std::vector<int64_t>& values) {
  return RawTensor(name, dims, kOnnxInt64, BytesOf(values));
}

// A tensor whose bytes lie in the file `location`.
inline Proto ExternalTensor(std::string_view name, const std::vector<int64_t>& dims,
                            const std::vector<std::pair<std::string, std::string>>& entries) {
  Proto tensor = TensorHeader(name, dims, kOnnxFloat);
  for (const auto& [key, value] : entries) tensor.Message(13, Proto().String(1, key).String(2, value));
  return tensor.Int(14, 1);
}

inline Proto IntAttr(std::string_view name, int64_t value) { return Proto().String(1, name).Int(3, value).Int(20, 2); }
inline Proto FloatAttr(std::string_view name, float value) {
  return Proto().String(1, name).Float(2, value).Int(20, 1);
}
inline Proto StringAttr(std::string_view name, std::string_view value) {
  return Proto().String(1, name).String(4, value).Int(20, 3);
}
inline Proto IntsAttr(std::string_view name, const std::vector<int64_t>& values) {
  Proto attribute = Proto().String(1, name);
  for (int64_t value : values) attribute.Int(8, value);
  return attribute.Int(20, 7);
}
inline Proto FloatsAttr(std::string_view name, const std::vector<float>& values) {
  Proto attribute = Proto().String(1, name);
  for (float value : values) attribute.Float(7, value);
  return attribute.Int(20, 6);
}
inline Proto TensorAttr(std::string_view name, const Proto& tensor) {
  return Proto().String(1, name).Message(5, tensor).Int(20, 4);
}
inline Proto GraphAttr(std::string_view name, const Proto& graph) {
  return Proto().String(1, name).Message(6, graph).Int(20, 5);
}

inline Proto NodeProto(std::string_view op_type, const std::vector<std::string>& inputs,
                       const std::vector<std::string>& outputs, std::string_view name = "",
                       const std::vector<Proto>& attributes = {}, std::string_view domain = "") {
  Proto node;
  for (const std::string& input : inputs) node.String(1, input);
  for (const std::string& output : outputs) node.String(2, output);
  if (!name.empty()) node.String(3, name);
  node.String(4, op_type);
  for (const Proto& attribute : attributes) node.Message(5, attribute);
  if (!domain.empty()) node.String(7, domain);
  return node;
}

// A float tensor of these dimensions; negative ones get the symbol "N".
inline Proto ValueInfo(std::string_view name, const std::vector<int64_t>& dims, int64_t data_type = kOnnxFloat) {
  Proto shape;
  for (int64_t dim : dims) shape.Message(1, dim < 0 ? Proto().String(2, "N") : Proto().Int(1, dim));
  return Proto().String(1, name).Message(2, Proto().Message(1, Proto().Int(1, data_type).Message(2, shape)));
}

// A ModelProto: add to its graph, then ask for the bytes.
class OnnxModel {
 public:
  explicit OnnxModel(int64_t opset = 13, int64_t ir_version = 8) {
    head_.Int(1, ir_version).String(2, "crease-tests");
    Opset("", opset);
  }

  OnnxModel& Opset(std::string_view domain, int64_t version) {
    tail_.Message(8, Proto().String(1, domain).Int(2, version));
    return *this;
  }
  OnnxModel& Node(const Proto& node) { return GraphField(1, node); }
  OnnxModel& Node(std::string_view op_type, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs, std::string_view name = "",
                  const std::vector<Proto>& attributes = {}) {
    return Node(NodeProto(op_type, inputs, outputs, name, attributes));
  }
  OnnxModel& Initializer(const Proto& tensor) { return GraphField(5, tensor); }
  OnnxModel& Input(std::string_view name, const std::vector<int64_t>& dims, int64_t data_type = kOnnxFloat) {
    return GraphField(11, ValueInfo(name, dims, data_type));
  }
  OnnxModel& Output(std::string_view name, const std::vector<int64_t>& dims, int64_t data_type = kOnnxFloat) {
    return GraphField(12, ValueInfo(name, dims, data_type));
  }
  // Any field of the graph, or of the model behind the graph.
  OnnxModel& GraphField(uint32_t number, const Proto& message) {
    graph_.Message(number, message);
    return *this;
  }
  OnnxModel& ModelField(uint32_t number, const Proto& message) {
    tail_.Message(number, message);
    return *this;
  }

  std::string Bytes() const { return Proto(head_).Message(7, graph_).Raw(tail_.bytes()).bytes(); }

 private:
  Proto head_, graph_, tail_;
};

// Bytes for ImportOnnx and Session::load, in a heap block of exactly their size, so that a sanitizer
// sees every byte read past them.
struct SharedBytes {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;

  explicit SharedBytes(std::string_view text) {
    std::shared_ptr<char[]> block(new char[text.size()]);
    if (!text.empty()) std::memcpy(block.get(), text.data(), text.size());
    bytes = {reinterpret_cast<const std::byte*>(block.get()), text.size()};
    owner = std::move(block);
  }
};

}  // namespace crease::test
