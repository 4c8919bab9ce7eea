// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// Bounds the memory that a crafted node takes: attributes cost two bytes in a file and some 200 here.
constexpr size_t kMaxAttributes = 4096;

// Subgraphs are read recursively, so no larger Limits::max_nesting is honoured. protobuf itself stops at
// 100 nested messages, which is 33 nested subgraphs.
constexpr int kHardestNesting = 50;

struct AttributeFields {
  std::string_view name;
  int64_t kind = kKindUndefined;
  int64_t seen_kind = kKindUndefined;  // of the value field that is there
  bool mixed = false;                  // value fields of two kinds
  bool reference = false;              // ref_attr_name
  float f = 0;
  int64_t i = 0;
  std::string_view s;
  ByteSpan message;  // t or g
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
};

// The kind of attribute that a value field belongs to.
int64_t KindOfField(uint32_t number) {
  switch (number) {
    case kAttributeF:
      return kKindFloat;
    case kAttributeI:
      return kKindInt;
    case kAttributeS:
      return kKindString;
    case kAttributeT:
      return kKindTensor;
    case kAttributeG:
      return kKindGraph;
    case kAttributeFloats:
      return kKindFloats;
    case kAttributeInts:
      return kKindInts;
    case kAttributeStrings:
      return kKindStrings;
    case kAttributeTensors:
      return kKindTensors;
    case kAttributeGraphs:
      return kKindGraphs;
    case kAttributeSparse:
      return kKindSparseTensor;
    case kAttributeSparses:
      return kKindSparseTensors;
    case kAttributeTp:
      return kKindTypeProto;
    case kAttributeTypeProtos:
      return kKindTypeProtos;
    default:
      return kKindUndefined;
  }
}

void ReadValueField(WireReader& reader, const Field& field, AttributeFields* fields) {
  constexpr size_t kNoLimit = static_cast<size_t>(-1);
  switch (field.number) {
    case kAttributeF:
      fields->f = reader.Float(field);
      break;
    case kAttributeI:
      fields->i = reader.Int(field);
      break;
    case kAttributeS:
      fields->s = reader.String(field);
      break;
    case kAttributeT:
    case kAttributeG:
      fields->message = reader.Bytes(field);
      break;
    case kAttributeFloats:
      reader.AppendFloats(field, &fields->floats);
      break;
    case kAttributeInts:
      reader.AppendInts(field, kNoLimit, &fields->ints);
      break;
    case kAttributeStrings:
      fields->strings.emplace_back(reader.String(field));
      break;
    default:
      break;
  }
}

Result<AttributeFields> ReadFields(ByteSpan message, const ReadContext& context) {
  AttributeFields fields;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kAttributeName) fields.name = reader.String(field);
    if (field.number == kAttributeType) fields.kind = reader.Int(field);
    if (field.number == kAttributeRefName) fields.reference = !reader.String(field).empty();
    const int64_t kind = KindOfField(field.number);
    if (kind == kKindUndefined) continue;
    fields.mixed = fields.mixed || (fields.seen_kind != kKindUndefined && fields.seen_kind != kind);
    fields.seen_kind = kind;
    ReadValueField(reader, field, &fields);
  }
  if (reader.failed()) return reader.error("AttributeProto");
  return fields;
}

Error AttributeError(std::string_view name, std::string message, ErrorCode code = ErrorCode::kInvalidModel) {
  return {code, "attribute '" + Printable(name) + "': " + message, ""};
}

// The kind that the fields agree on; files of IR 3 and later state it, older exporters left it out.
Result<int64_t> KindOf(const AttributeFields& fields) {
  if (fields.name.empty()) return Error{ErrorCode::kInvalidModel, "an attribute has no name", ""};
  if (fields.reference) {
    return AttributeError(fields.name, "it refers to a function's attribute, outside of a function");
  }
  if (fields.mixed) return AttributeError(fields.name, "it has values of two types");
  const int64_t kind = fields.kind != kKindUndefined ? fields.kind : fields.seen_kind;
  if (kind < kKindFloat || kind > kKindTypeProtos) {
    return AttributeError(fields.name, "its type is " + std::to_string(kind) + ", which ONNX does not define");
  }
  const bool needs_field = kind == kKindTensor || kind == kKindGraph;
  if (fields.seen_kind != kind && (fields.seen_kind != kKindUndefined || needs_field)) {
    return AttributeError(fields.name, "its type is " + std::to_string(kind) + ", its value has type " +
                                           std::to_string(fields.seen_kind));
  }
  return kind;
}

struct NodeState {
  ReadNodeResult result;
  int64_t nested_nodes = 0;  // counted against limits.max_nodes
};

// Appends the names that a GraphProto uses and does not make itself to `captures`, each once, in order of
// first use, and those that it makes to the node's inner names.
Result<void> ReadSubgraphNames(ByteSpan graph, const ReadContext& context, int depth, NodeState* state,
                               std::vector<std::string>* captures);

// Subgraphs of a GRAPHS attribute, which Crease keeps without reading more than their names.
Result<void> ReadGraphs(ByteSpan message, const ReadContext& context, int depth, NodeState* state) {
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number != kAttributeGraphs) continue;
    CREASE_RETURN_IF_ERROR(ReadSubgraphNames(reader.Bytes(field), context, depth, state, &state->result.captures));
  }
  return {};
}

Result<Attribute> ReadAttribute(ByteSpan message, const ReadContext& context, int depth, NodeState* state) {
  CREASE_ASSIGN_OR_RETURN(AttributeFields fields, ReadFields(message, context));
  CREASE_ASSIGN_OR_RETURN(const int64_t kind, KindOf(fields));
  Attribute attribute{std::string(fields.name), std::monostate{}, context.Raw(message)};
  switch (kind) {
    case kKindFloat:
      attribute.data = fields.f;
      break;
    case kKindInt:
      attribute.data = fields.i;
      break;
    case kKindString:
      attribute.data = std::string(fields.s);
      break;
    case kKindFloats:
      attribute.data = std::move(fields.floats);
      break;
    case kKindInts:
      attribute.data = std::move(fields.ints);
      break;
    case kKindStrings:
      attribute.data = std::move(fields.strings);
      break;
    case kKindTensor: {
      Result<ReadTensorResult> tensor = ReadTensor(fields.message, context);
      if (!tensor.ok()) return AttributeError(fields.name, tensor.error().message, tensor.error().code);
      state->result.has_external_data = state->result.has_external_data || tensor->external;
      if (tensor->tensor.defined()) attribute.data = tensor->tensor;
      break;
    }
    case kKindGraph: {
      Subgraph subgraph{context.Raw(fields.message), {}};
      CREASE_RETURN_IF_ERROR(ReadSubgraphNames(fields.message, context, depth + 1, state, &subgraph.captures));
      for (const std::string& name : subgraph.captures) state->result.captures.push_back(name);
      attribute.data = std::move(subgraph);
      break;
    }
    case kKindGraphs:
      CREASE_RETURN_IF_ERROR(ReadGraphs(message, context, depth + 1, state));
      break;
    default:
      break;  // kept as bytes
  }
  return attribute;
}

template <typename T>
Result<Tensor> TensorOf(Shape shape, std::span<const T> values) {
  CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(DTypeOf<T>(), std::move(shape)));
  std::copy(values.begin(), values.end(), tensor.mutable_data<T>());
  return tensor;
}

template <typename T>
Result<Tensor> TensorOfList(const Attribute& attribute) {
  const auto& values = std::get<std::vector<T>>(attribute.data);
  return TensorOf<T>({static_cast<int64_t>(values.size())}, values);
}

// Constant's short forms become its tensor form.
Result<void> NormalizeConstant(Attribute* attribute) {
  const Attribute::Data& data = attribute->data;
  Result<Tensor> tensor = Tensor();
  if (attribute->name == "value_float" && std::holds_alternative<float>(data)) {
    tensor = TensorOf<float>({}, {{std::get<float>(data)}});
  } else if (attribute->name == "value_int" && std::holds_alternative<int64_t>(data)) {
    tensor = TensorOf<int64_t>({}, {{std::get<int64_t>(data)}});
  } else if (attribute->name == "value_floats" && std::holds_alternative<std::vector<float>>(data)) {
    tensor = TensorOfList<float>(*attribute);
  } else if (attribute->name == "value_ints" && std::holds_alternative<std::vector<int64_t>>(data)) {
    tensor = TensorOfList<int64_t>(*attribute);
  }
  if (!tensor.ok()) return tensor.error();
  if (!tensor->defined()) return {};
  attribute->name = "value";
  attribute->data = std::move(*tensor);
  return {};
}

Result<void> FinishAttributes(ReadNodeResult* node) {
  std::vector<Attribute>& attributes = node->attributes;
  std::vector<std::string_view> names;
  names.reserve(attributes.size());
  for (const Attribute& attribute : attributes) names.push_back(attribute.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return AttributeError(*twice, "it is there twice");
  if (node->op_type != "Constant" || !node->domain.empty()) return {};
  const auto values = std::count_if(attributes.begin(), attributes.end(), [](const Attribute& a) {
    return a.name == "value" || a.name == "sparse_value" || a.name.starts_with("value_");
  });
  if (values != 1) {
    return Error{ErrorCode::kInvalidModel,
                 "a Constant needs exactly one value attribute, it has " + std::to_string(values), ""};
  }
  for (Attribute& attribute : attributes) CREASE_RETURN_IF_ERROR(NormalizeConstant(&attribute));
  return {};
}

Result<void> ReadNodeField(WireReader& reader, const Field& field, const ReadContext& context, int depth,
                           NodeState* state) {
  ReadNodeResult& node = state->result;
  switch (field.number) {
    case kNodeInput:
      node.inputs.push_back(reader.String(field));
      break;
    case kNodeOutput:
      node.outputs.push_back(reader.String(field));
      break;
    case kNodeName:
      node.name = reader.String(field);
      break;
    case kNodeOpType:
      node.op_type = reader.String(field);
      break;
    case kNodeDomain:
      node.domain = reader.String(field);
      if (node.domain == "ai.onnx") node.domain = "";
      break;
    case kNodeAttribute: {
      if (node.attributes.size() == kMaxAttributes) {
        return Error{ErrorCode::kLimitExceeded, "it has more than " + std::to_string(kMaxAttributes) + " attributes",
                     ""};
      }
      CREASE_ASSIGN_OR_RETURN(Attribute attribute, ReadAttribute(reader.Bytes(field), context, depth, state));
      node.attributes.push_back(std::move(attribute));
      break;
    }
    default:
      break;
  }
  return {};
}

void KeepFirstOfEach(std::vector<std::string>* names) {
  std::unordered_set<std::string> seen;
  std::erase_if(*names, [&](const std::string& name) { return !seen.insert(name).second; });
}

// What a subgraph's fields say about names.
struct SubgraphNames {
  std::unordered_set<std::string> made;
  std::vector<std::string> used;   // by its nodes, their subgraphs and its outputs, in the file's order
  std::vector<std::string> inner;  // made by the subgraphs of its nodes
};

Error WithinSubgraph(Error error) {
  error.message = "in a subgraph: " + error.message;
  return error;
}

Result<void> ReadSubgraphTensor(ByteSpan message, const ReadContext& context, SubgraphNames* names) {
  ReadContext without_files = context;
  without_files.external = nullptr;
  CREASE_ASSIGN_OR_RETURN(const ReadTensorResult tensor, ReadTensor(message, without_files));
  if (tensor.external) {
    return Error{ErrorCode::kUnsupported, "a subgraph's tensor '" + Printable(tensor.name) + "' has external data", ""};
  }
  names->made.emplace(tensor.name);
  return {};
}

Result<void> ReadSubgraphNode(ByteSpan message, const ReadContext& context, int depth, int64_t* nodes,
                              SubgraphNames* names) {
  if (++*nodes > context.limits.max_nodes) {
    return Error{ErrorCode::kLimitExceeded,
                 "its subgraphs have more nodes than max_nodes, " + std::to_string(context.limits.max_nodes), ""};
  }
  ReadContext without_files = context;
  without_files.external = nullptr;
  CREASE_ASSIGN_OR_RETURN(ReadNodeResult node, ReadNode(message, without_files, depth));
  if (node.has_external_data) {
    return Error{ErrorCode::kUnsupported, "a subgraph's node '" + Printable(node.name) + "' has external data", ""};
  }
  for (std::string_view name : node.inputs) names->used.emplace_back(name);
  for (const std::string& name : node.captures) names->used.push_back(name);
  for (std::string_view name : node.outputs) names->made.emplace(name);
  std::move(node.inner_names.begin(), node.inner_names.end(), std::back_inserter(names->inner));
  return {};
}

// The name of a SparseTensorProto is that of its values.
Result<void> ReadSubgraphSparse(ByteSpan message, const ReadContext& context, SubgraphNames* names) {
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number != kSparseValues) continue;
    CREASE_RETURN_IF_ERROR(ReadSubgraphTensor(reader.Bytes(field), context, names));
  }
  if (reader.failed()) return reader.error("SparseTensorProto");
  return {};
}

Result<void> ReadSubgraphNames(ByteSpan graph, const ReadContext& context, int depth, NodeState* state,
                               std::vector<std::string>* captures) {
  const int limit = std::min(context.limits.max_nesting, kHardestNesting);
  if (depth > limit) {
    return Error{ErrorCode::kLimitExceeded, "subgraphs nest deeper than max_nesting, " + std::to_string(limit), ""};
  }
  SubgraphNames names;
  WireReader reader(graph, context.origin);
  for (Field field; reader.Next(&field);) {
    Result<void> read;
    if (field.number == kGraphNode) {
      read = ReadSubgraphNode(reader.Bytes(field), context, depth, &state->nested_nodes, &names);
    }
    if (field.number == kGraphInitializer) read = ReadSubgraphTensor(reader.Bytes(field), context, &names);
    if (field.number == kGraphSparseInitializer) read = ReadSubgraphSparse(reader.Bytes(field), context, &names);
    if (field.number == kGraphInput || field.number == kGraphOutput) {
      Result<ReadValueInfoResult> info = ReadValueInfo(reader.Bytes(field), context);
      if (!info.ok()) return WithinSubgraph(info.error());
      if (field.number == kGraphInput) names.made.emplace(info->name);
      if (field.number == kGraphOutput) names.used.emplace_back(info->name);
    }
    if (!read.ok()) return depth > 1 ? read.error() : WithinSubgraph(read.error());
  }
  if (reader.failed()) return reader.error("GraphProto");
  for (std::string& name : names.used) {
    if (!name.empty() && !names.made.contains(name)) captures->push_back(std::move(name));
  }
  KeepFirstOfEach(captures);
  std::vector<std::string>& inner = state->result.inner_names;
  std::copy(names.made.begin(), names.made.end(), std::back_inserter(inner));
  std::move(names.inner.begin(), names.inner.end(), std::back_inserter(inner));
  return {};
}

}  // namespace

Result<ReadNodeResult> ReadNode(ByteSpan message, const ReadContext& context, int depth) {
  NodeState state;
  WireReader reader(message, context.origin);
  Result<void> read;
  for (Field field; read.ok() && reader.Next(&field);) {
    read = ReadNodeField(reader, field, context, depth, &state);
  }
  if (read.ok() && reader.failed()) read = reader.error("NodeProto");
  if (read.ok() && state.result.op_type.empty()) read = Error{ErrorCode::kInvalidModel, "it has no op_type", ""};
  if (read.ok()) read = FinishAttributes(&state.result);
  if (!read.ok()) {
    Error error = read.error();
    const ReadNodeResult& node = state.result;
    std::string where = node.op_type.empty() ? "node" : Printable(node.op_type);
    if (!node.name.empty()) where += " '" + Printable(node.name) + "'";
    if (!node.outputs.empty()) where += " (makes '" + Printable(node.outputs.front()) + "')";
    error.where = error.where.empty() ? where : where + ", " + error.where;
    return error;
  }
  KeepFirstOfEach(&state.result.captures);
  return std::move(state.result);
}

}  // namespace crease::onnx
