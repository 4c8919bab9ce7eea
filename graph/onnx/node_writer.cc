// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/node_writer.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// The bytes were read once, under the limits that the caller chose then.
ReadContext ContextFor(const RawBytes& raw) {
  ReadContext context;
  context.origin = raw.bytes.data();
  context.owner = raw.owner;
  context.limits.max_nodes = context.limits.max_tensor_bytes = std::numeric_limits<int64_t>::max();
  context.limits.max_nesting = std::numeric_limits<int>::max();
  return context;
}

template <typename T>
bool SameBits(const T* a, const T* b, size_t count) {
  return count == 0 || std::memcmp(a, b, count * sizeof(T)) == 0;
}

// Bitwise: NaN equals itself.
bool SameData(const Attribute::Data& a, const Attribute::Data& b) {
  if (a.index() != b.index()) return false;
  if (const auto* f = std::get_if<float>(&a)) return SameBits(f, &std::get<float>(b), 1);
  if (const auto* i = std::get_if<int64_t>(&a)) return *i == std::get<int64_t>(b);
  if (const auto* s = std::get_if<std::string>(&a)) return *s == std::get<std::string>(b);
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&a)) return *ints == std::get<std::vector<int64_t>>(b);
  if (const auto* strings = std::get_if<std::vector<std::string>>(&a)) {
    return *strings == std::get<std::vector<std::string>>(b);
  }
  if (const auto* floats = std::get_if<std::vector<float>>(&a)) {
    const auto& other = std::get<std::vector<float>>(b);
    return floats->size() == other.size() && SameBits(floats->data(), other.data(), other.size());
  }
  if (const auto* tensor = std::get_if<Tensor>(&a)) {
    const auto& other = std::get<Tensor>(b);
    return tensor->dtype() == other.dtype() && tensor->shape() == other.shape() &&
           SameBits(tensor->bytes(), other.bytes(), other.byte_size());
  }
  if (const auto* subgraph = std::get_if<Subgraph>(&a)) {
    return subgraph->raw.bytes.data() == std::get<Subgraph>(b).raw.bytes.data();
  }
  return true;
}

// Whether the attribute is still what its bytes in the file say; `read` is what they say.
bool IsUntouched(const Attribute& attribute, const Attribute& read) {
  return !attribute.raw.bytes.empty() && attribute.raw.bytes.data() == read.raw.bytes.data() &&
         attribute.name == read.name && SameData(attribute.data, read.data);
}

struct AttributeWriter {
  const Attribute& attribute;
  const TensorWriter& tensors;
  ByteRope* dst;

  Result<void> operator()(std::monostate) const {
    return Error{ErrorCode::kInternal, "attribute '" + Printable(attribute.name) + "' has no value to write", ""};
  }
  Result<void> operator()(float value) const {
    dst->Float(kAttributeF, value);
    return Kind(kKindFloat);
  }
  Result<void> operator()(int64_t value) const {
    dst->Int(kAttributeI, value);
    return Kind(kKindInt);
  }
  Result<void> operator()(const std::string& value) const {
    dst->String(kAttributeS, value);
    return Kind(kKindString);
  }
  Result<void> operator()(const Tensor& value) const {
    ByteRope tensor;
    tensors.Append(value, "", {}, &tensor);
    dst->Message(kAttributeT, std::move(tensor));
    return Kind(kKindTensor);
  }
  Result<void> operator()(const std::vector<float>& values) const {
    for (float value : values) dst->Float(kAttributeFloats, value);
    return Kind(kKindFloats);
  }
  Result<void> operator()(const std::vector<int64_t>& values) const {
    for (int64_t value : values) dst->Int(kAttributeInts, value);
    return Kind(kKindInts);
  }
  Result<void> operator()(const std::vector<std::string>& values) const {
    for (const std::string& value : values) dst->String(kAttributeStrings, value);
    return Kind(kKindStrings);
  }
  Result<void> operator()(const Subgraph& subgraph) const {
    dst->BytesView(kAttributeG, subgraph.raw.bytes);
    return Kind(kKindGraph);
  }
  Result<void> Kind(AttributeKind kind) const {
    dst->Int(kAttributeType, kind);
    return {};
  }
};

Result<void> AppendAttribute(const Attribute& attribute, const std::vector<Attribute>& read,
                             const TensorWriter& tensors, ByteRope* dst) {
  // A type that Crease does not read cannot have been edited, only carried to another node.
  const bool opaque = std::holds_alternative<std::monostate>(attribute.data) && !attribute.raw.bytes.empty();
  const bool untouched =
      std::any_of(read.begin(), read.end(), [&](const Attribute& other) { return IsUntouched(attribute, other); });
  if (untouched || opaque) {
    dst->BytesView(kNodeAttribute, attribute.raw.bytes);
    return {};
  }
  ByteRope message;
  message.String(kAttributeName, attribute.name);
  CREASE_RETURN_IF_ERROR(std::visit(AttributeWriter{attribute, tensors, &message}, attribute.data));
  dst->Message(kNodeAttribute, std::move(message));
  return {};
}

std::string_view NameOf(const Graph& graph, ValueId id) {
  return id == kNone ? std::string_view() : std::string_view(graph.value(id).name);
}

bool SameNames(const Graph& graph, const std::vector<ValueId>& ids, const std::vector<std::string_view>& names) {
  return std::equal(ids.begin(), ids.end(), names.begin(), names.end(),
                    [&](ValueId id, std::string_view name) { return NameOf(graph, id) == name; });
}

bool IsUntouched(const Graph& graph, const Node& node, const ReadNodeResult& read) {
  return SameNames(graph, node.inputs, read.inputs) && SameNames(graph, node.outputs, read.outputs) &&
         node.name == read.name && node.op_type == read.op_type && node.domain == read.domain &&
         std::equal(node.attributes.begin(), node.attributes.end(), read.attributes.begin(), read.attributes.end(),
                    [](const Attribute& a, const Attribute& b) { return IsUntouched(a, b); });
}

bool IsRewritten(uint32_t number) {
  return number == kNodeInput || number == kNodeOutput || number == kNodeName || number == kNodeOpType ||
         number == kNodeAttribute;
}

}  // namespace

Result<void> AppendNode(const Graph& graph, NodeId id, const TensorWriter& tensors, ByteRope* dst) {
  const Node& node = graph.node(id);
  ReadNodeResult read;
  if (!node.raw.bytes.empty()) {
    CREASE_ASSIGN_OR_RETURN(read, ReadNode(node.raw.bytes, ContextFor(node.raw)));
    if (!read.has_external_data && IsUntouched(graph, node, read)) {
      dst->BytesView(kGraphNode, node.raw.bytes);
      return {};
    }
  }
  ByteRope message;
  for (ValueId input : node.inputs) message.String(kNodeInput, NameOf(graph, input));
  for (ValueId output : node.outputs) message.String(kNodeOutput, NameOf(graph, output));
  if (!node.name.empty()) message.String(kNodeName, node.name);
  message.String(kNodeOpType, node.op_type);
  for (const Attribute& attribute : node.attributes) {
    CREASE_RETURN_IF_ERROR(AppendAttribute(attribute, read.attributes, tensors, &message));
  }
  if (node.raw.bytes.empty()) {
    if (!node.domain.empty()) message.String(kNodeDomain, node.domain);
  } else {
    message.CopyFields(node.raw.bytes, [](uint32_t number) { return !IsRewritten(number); });
  }
  dst->Message(kGraphNode, std::move(message));
  return {};
}

Result<std::vector<std::string>> CapturedNames(const Node& node) {
  if (node.captured.empty() || node.raw.bytes.empty()) return std::vector<std::string>();
  CREASE_ASSIGN_OR_RETURN(ReadNodeResult read, ReadNode(node.raw.bytes, ContextFor(node.raw)));
  return std::move(read.captures);
}

Result<std::vector<std::string>> NamesRead(const RawBytes& raw) {
  CREASE_ASSIGN_OR_RETURN(ReadNodeResult read, ReadNode(raw.bytes, ContextFor(raw)));
  std::vector<std::string> names = std::move(read.captures);
  for (std::string_view name : read.inputs) names.emplace_back(name);
  return names;
}

}  // namespace crease::onnx
