// SPDX-License-Identifier: Apache-2.0
// Typed reading and making of attributes, declared in graph/op.h.
#include "graph/op.h"

namespace crease {
namespace {

template <typename T>
Result<T> Read(const Node& node, std::string_view name, T fallback, const char* type) {
  const Attribute* attribute = node.FindAttribute(name);
  if (attribute == nullptr) return fallback;
  if (const T* value = std::get_if<T>(&attribute->data)) return *value;
  return Error{ErrorCode::kInvalidModel,
               "attribute '" + std::string(name) + "' must be of type " + type + ", it has another type", ""};
}

template <typename T>
Attribute Make(std::string_view name, T value) {
  Attribute attribute;
  attribute.name = std::string(name);
  attribute.data = std::move(value);
  return attribute;
}

}  // namespace

Result<int64_t> AttrInt(const Node& node, std::string_view name, int64_t fallback) {
  return Read<int64_t>(node, name, fallback, "INT");
}
Result<float> AttrFloat(const Node& node, std::string_view name, float fallback) {
  return Read<float>(node, name, fallback, "FLOAT");
}
Result<std::string> AttrString(const Node& node, std::string_view name, std::string_view fallback) {
  return Read<std::string>(node, name, std::string(fallback), "STRING");
}
Result<std::vector<int64_t>> AttrInts(const Node& node, std::string_view name, std::vector<int64_t> fallback) {
  return Read<std::vector<int64_t>>(node, name, std::move(fallback), "INTS");
}
Result<std::vector<float>> AttrFloats(const Node& node, std::string_view name, std::vector<float> fallback) {
  return Read<std::vector<float>>(node, name, std::move(fallback), "FLOATS");
}
bool HasAttr(const Node& node, std::string_view name) { return node.FindAttribute(name) != nullptr; }

Attribute MakeAttr(std::string_view name, int64_t value) { return Make(name, value); }
Attribute MakeAttr(std::string_view name, float value) { return Make(name, value); }
Attribute MakeAttr(std::string_view name, std::string_view value) { return Make(name, std::string(value)); }
Attribute MakeAttr(std::string_view name, std::vector<int64_t> value) { return Make(name, std::move(value)); }
Attribute MakeAttr(std::string_view name, std::vector<float> value) { return Make(name, std::move(value)); }
Attribute MakeAttr(std::string_view name, Tensor value) { return Make(name, std::move(value)); }

}  // namespace crease
