// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/graph_writer.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "graph/onnx/node_writer.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

constexpr int64_t kLastIrWithInputInitializers = 3;

ReadContext ContextFor(const RawBytes& raw) {
  ReadContext context;
  context.origin = raw.bytes.data();
  context.owner = raw.owner;
  context.limits.max_tensor_bytes = std::numeric_limits<int64_t>::max();
  return context;
}

// Whether no tensor can have both types. Unknown ranks and dimensions contradict nothing.
bool Contradicts(const TensorType& a, const TensorType& b) {
  if (a.dtype != b.dtype && a.dtype != DType::kUndefined && b.dtype != DType::kUndefined) return true;
  if (!a.has_rank || !b.has_rank) return false;
  return !std::equal(a.dims.begin(), a.dims.end(), b.dims.begin(), b.dims.end(),
                     [](const Dim& x, const Dim& y) { return !x.known() || !y.known() || x.value == y.value; });
}

void AppendValueInfo(uint32_t number, const Value& value, ByteRope* dst) {
  ByteRope tensor;
  if (const int64_t data_type = OnnxFromDType(value.type.dtype)) tensor.Int(kTensorTypeElem, data_type);
  if (value.type.has_rank) {
    ByteRope shape;
    for (const Dim& dim : value.type.dims) {
      ByteRope message;
      if (dim.known()) {
        message.Int(kDimValue, dim.value);
      } else if (!dim.symbol.empty()) {
        message.String(kDimParam, dim.symbol);
      }
      shape.Message(kShapeDim, std::move(message));
    }
    tensor.Message(kTensorTypeShape, std::move(shape));
  }
  ByteRope type, info;
  type.Message(kTypeTensor, std::move(tensor));
  info.String(kValueInfoName, value.name);
  info.Message(kValueInfoType, std::move(type));
  dst->Message(number, std::move(info));
}

class GraphWriter {
 public:
  GraphWriter(const Graph& graph, ByteSpan raw, const TensorWriter& tensors)
      : graph_(graph), raw_(raw), tensors_(tensors), context_(ContextFor(graph.info().raw)) {}

  Result<ByteRope> Run(const std::string& raw_name) {
    CREASE_RETURN_IF_ERROR(Plan());
    WireReader reader(raw_, context_.origin);
    for (Field field; reader.Next(&field);) CREASE_RETURN_IF_ERROR(AppendField(field, raw_name));
    if (reader.failed()) return reader.error("GraphProto");
    CREASE_RETURN_IF_ERROR(AppendRest(raw_name));
    return std::move(dst_);
  }

 private:
  // What is written at all, and in which order.
  Result<void> Plan() {
    used_.resize(static_cast<size_t>(graph_.value_count()));
    for (ValueId id = 0; id < graph_.value_count(); ++id)
      used_[static_cast<size_t>(id)] = !graph_.consumers(id).empty();
    for (ValueId id : graph_.outputs()) used_[static_cast<size_t>(id)] = true;
    CREASE_RETURN_IF_ERROR(FindDropped());
    CREASE_RETURN_IF_ERROR(FindLostCaptures());
    for (NodeId id : graph_.topological_order()) {
      if (!IsDroppedConstant(id)) order_.push_back(id);
    }
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      const Value& value = graph_.value(id);
      if (!value.constant) continue;
      if (!value.raw.bytes.empty()) {
        from_file_.emplace(value.raw.bytes.data(), id);
      } else if (IsUsed(id) || value.is_input) {
        new_initializers_.push_back(id);
      }
    }
    WireReader reader(raw_, context_.origin);
    for (Field field; reader.Next(&field);) ++fields_left_[field.number];
    return {};
  }

  bool IsConstantNode(NodeId id) const {
    return graph_.node(id).op_type == "Constant" && graph_.node(id).domain.empty();
  }

  bool IsDroppedConstant(NodeId id) const {
    return IsConstantNode(id) && std::all_of(graph_.node(id).outputs.begin(), graph_.node(id).outputs.end(),
                                             [&](ValueId output) { return output == kNone || IsDropped(output); });
  }

  bool IsUsed(ValueId id) const { return used_[static_cast<size_t>(id)]; }
  bool IsDropped(ValueId id) const { return dropped_.contains(id); }

  // Constants that nothing uses, though some node of the file did.
  Result<void> FindDropped() {
    std::vector<ValueId> unused;
    for (ValueId id = 0; id < graph_.value_count(); ++id) {
      if (IsUsed(id)) continue;
      const NodeId producer = graph_.producer(id);
      const bool initializer = graph_.value(id).constant && !graph_.value(id).raw.bytes.empty();
      if (initializer || (producer != kNone && IsConstantNode(producer))) unused.push_back(id);
    }
    if (unused.empty()) return {};
    std::unordered_set<std::string> used;
    WireReader reader(raw_, context_.origin);
    for (Field field; reader.Next(&field);) {
      if (field.number != kGraphNode) continue;
      CREASE_ASSIGN_OR_RETURN(std::vector<std::string> names, NamesRead(context_.Raw(reader.Bytes(field))));
      for (std::string& name : names) used.insert(std::move(name));
    }
    for (ValueId id : unused) {
      if (used.contains(graph_.value(id).name)) dropped_.insert(id);
    }
    return {};
  }

  // Subgraphs are kept as bytes, so they read outer values by the names of old. Where a patch made
  // another value of one, an Identity gives it its name.
  Result<void> FindLostCaptures() {
    for (NodeId id : graph_.topological_order()) {
      const Node& node = graph_.node(id);
      CREASE_ASSIGN_OR_RETURN(const std::vector<std::string> names, CapturedNames(node));
      for (size_t i = 0; i < std::min(names.size(), node.captured.size()); ++i) {
        const ValueId now = node.captured[i];
        if (graph_.value(now).name == names[i] || IsMade(graph_.FindValue(names[i]))) continue;
        if (renamed_.insert(names[i]).second) lost_captures_[id].emplace_back(names[i], now);
      }
    }
    return {};
  }

  bool IsMade(ValueId id) const {
    if (id == kNone) return false;
    return graph_.producer(id) != kNone || graph_.value(id).is_input || graph_.value(id).constant.has_value();
  }

  // Whether the written graph has a value of this name.
  bool IsWritten(std::string_view name) const {
    const ValueId id = graph_.FindValue(name);
    return IsMade(id) && !IsDropped(id);
  }

  Result<void> AppendField(const Field& field, const std::string& raw_name) {
    const bool last = --fields_left_[field.number] == 0;
    switch (field.number) {
      case kGraphNode:
        return last ? AppendNodes() : AppendNextNode();
      case kGraphInitializer:
        AppendInitializer(field);
        if (last) AppendNewInitializers();
        return {};
      case kGraphInput: {
        CREASE_ASSIGN_OR_RETURN(const ReadValueInfoResult info, ReadValueInfo(field.bytes, context_));
        if (IsWritten(info.name)) dst_.View(field.raw);
        if (last) AppendNewInputs();
        return {};
      }
      case kGraphValueInfo:
        return AppendHint(field);
      case kGraphQuantization:
        if (!IsGone(field)) dst_.View(field.raw);
        return {};
      case kGraphName:
        if (graph_.info().graph_name != raw_name) return {};  // AppendRest writes the new one
        break;
      default:
        break;
    }
    dst_.View(field.raw);
    return {};
  }

  Result<void> AppendNextNode() {
    if (next_ == order_.size()) return {};
    const NodeId id = order_[next_++];
    if (const auto lost = lost_captures_.find(id); lost != lost_captures_.end()) {
      for (const auto& [name, value] : lost->second) {
        ByteRope identity;
        identity.String(kNodeInput, graph_.value(value).name);
        identity.String(kNodeOutput, name);
        identity.String(kNodeOpType, "Identity");
        dst_.Message(kGraphNode, std::move(identity));
      }
    }
    return AppendNode(graph_, id, tensors_, &dst_);
  }

  Result<void> AppendNodes() {
    while (next_ < order_.size()) CREASE_RETURN_IF_ERROR(AppendNextNode());
    return {};
  }

  void AppendInitializer(const Field& field) {
    const auto found = from_file_.find(field.bytes.data());
    if (found == from_file_.end() || IsDropped(found->second)) return;
    const bool copy = tensors_.placement != Placement::kAllExternal && !IsExternal(field.bytes);
    if (copy) return dst_.View(field.raw);
    ByteRope tensor;
    tensors_.Append(*graph_.value(found->second).constant, "", field.bytes, &tensor);
    dst_.Message(kGraphInitializer, std::move(tensor));
  }

  void AppendNewInitializers() {
    for (ValueId id : new_initializers_) {
      ByteRope tensor;
      tensors_.Append(*graph_.value(id).constant, graph_.value(id).name, {}, &tensor);
      dst_.Message(kGraphInitializer, std::move(tensor));
    }
    initializers_done_ = true;
  }

  void AppendNewInputs() {
    inputs_done_ = true;
    if (graph_.info().raw.bytes.empty()) {
      for (ValueId id : graph_.inputs()) AppendValueInfo(kGraphInput, graph_.value(id), &dst_);
    }
    if (graph_.info().ir_version > kLastIrWithInputInitializers) return;
    for (ValueId id : new_initializers_) {
      if (!graph_.value(id).is_input) AppendValueInfo(kGraphInput, graph_.value(id), &dst_);
    }
  }

  Result<void> AppendHint(const Field& field) {
    CREASE_ASSIGN_OR_RETURN(const ReadValueInfoResult info, ReadValueInfo(field.bytes, context_));
    const ValueId id = graph_.FindValue(info.name);
    // Entries of values that the file itself did not make are not ours to judge.
    if (id == kNone) {
      dst_.View(field.raw);
      return {};
    }
    if (!IsWritten(info.name)) return {};
    const bool computed = graph_.producer(id) != kNone;
    if (!computed || !Contradicts(info.type, graph_.value(id).type)) dst_.View(field.raw);
    return {};
  }

  bool IsGone(const Field& quantization) const {
    std::string_view name;
    WireReader reader(quantization.bytes, context_.origin);
    for (Field field; reader.Next(&field);) {
      if (field.number == kQuantizationTensorName) name = reader.String(field);
    }
    return graph_.FindValue(name) != kNone && !IsWritten(name);
  }

  // What the file had no place for, and all of a graph that comes from no file.
  Result<void> AppendRest(const std::string& raw_name) {
    CREASE_RETURN_IF_ERROR(AppendNodes());
    const std::string& name = graph_.info().graph_name;
    if (name != raw_name) dst_.String(kGraphName, name);
    if (graph_.info().raw.bytes.empty() && name.empty()) dst_.String(kGraphName, "graph");  // ONNX demands one
    if (!initializers_done_) AppendNewInitializers();
    if (!inputs_done_) AppendNewInputs();
    if (graph_.info().raw.bytes.empty()) {
      for (ValueId id : graph_.outputs()) AppendValueInfo(kGraphOutput, graph_.value(id), &dst_);
    }
    return {};
  }

  const Graph& graph_;
  ByteSpan raw_;
  const TensorWriter& tensors_;
  ReadContext context_;
  ByteRope dst_;

  std::vector<NodeId> order_;
  size_t next_ = 0;
  std::vector<bool> used_;  // by ValueId: read by a node, or a graph output
  std::unordered_set<ValueId> dropped_;
  std::unordered_map<const std::byte*, ValueId> from_file_;  // by the bytes of the initializer
  std::vector<ValueId> new_initializers_;
  std::map<uint32_t, int64_t> fields_left_;  // occurrences in the file, by field number
  std::unordered_set<std::string> renamed_;
  std::unordered_map<NodeId, std::vector<std::pair<std::string, ValueId>>> lost_captures_;
  bool initializers_done_ = false, inputs_done_ = false;
};

// The name in the graph's bytes, which ReadModel leaves out.
std::string GraphNameOf(ByteSpan graph) {
  std::string name;
  WireReader reader(graph, graph.data());
  for (Field field; reader.Next(&field);) {
    if (field.number == kGraphName) name = std::string(reader.String(field));
  }
  return name;
}

// Fields of ModelProto that ModelInfo holds: copied if it still says the same, else written anew.
class InfoWriter {
 public:
  InfoWriter(const ModelInfo& now, const ModelInfo& read, ByteRope* dst) : now_(now), dst_(dst) {
    if (now.ir_version != read.ir_version) changed_[kModelIrVersion] = false;
    if (now.producer_name != read.producer_name) changed_[kModelProducerName] = false;
    if (now.producer_version != read.producer_version) changed_[kModelProducerVersion] = false;
    if (now.opsets != read.opsets) changed_[kModelOpsetImport] = false;
    if (now.metadata != read.metadata) changed_[kModelMetadata] = false;
  }

  void Append(const Field& field) {
    if (changed_.contains(field.number)) return WriteOnce(field.number);
    dst_->View(field.raw);
  }

  void AppendRest() {
    for (const auto& entry : changed_) WriteOnce(entry.first);
  }

 private:
  void WriteOnce(uint32_t number) {
    if (std::exchange(changed_[number], true)) return;
    if (number == kModelIrVersion) dst_->Int(number, now_.ir_version);
    if (number == kModelProducerName) dst_->String(number, now_.producer_name);
    if (number == kModelProducerVersion) dst_->String(number, now_.producer_version);
    if (number == kModelOpsetImport) {
      for (const auto& [domain, version] : now_.opsets) {
        ByteRope opset;
        opset.String(kOpsetDomain, domain);
        opset.Int(kOpsetVersion, version);
        dst_->Message(number, std::move(opset));
      }
    }
    if (number == kModelMetadata) {
      for (const auto& [key, value] : now_.metadata) {
        ByteRope entry;
        entry.String(kEntryKey, key);
        entry.String(kEntryValue, value);
        dst_->Message(number, std::move(entry));
      }
    }
  }

  const ModelInfo& now_;
  ByteRope* dst_;
  std::map<uint32_t, bool> changed_;  // field number -> written
};

Result<ByteRope> WriteNewModel(const Graph& graph, const TensorWriter& tensors) {
  ModelInfo nothing;
  nothing.ir_version = 0;
  ByteRope dst;
  InfoWriter(graph.info(), nothing, &dst).AppendRest();
  CREASE_ASSIGN_OR_RETURN(ByteRope body, GraphWriter(graph, {}, tensors).Run(""));
  dst.Message(kModelGraph, std::move(body));
  return dst;
}

}  // namespace

Result<ByteRope> WriteModel(const Graph& graph, const TensorWriter& tensors) {
  const RawBytes& raw = graph.info().raw;
  if (raw.bytes.empty()) return WriteNewModel(graph, tensors);
  CREASE_ASSIGN_OR_RETURN(const ReadModelResult read, ReadModel(raw.bytes, ContextFor(raw)));
  ByteRope dst;
  InfoWriter info(graph.info(), read.info, &dst);
  WireReader reader(raw.bytes, raw.bytes.data());
  for (Field field; reader.Next(&field);) {
    if (field.number != kModelGraph) {
      info.Append(field);
      continue;
    }
    GraphWriter writer(graph, read.graph, tensors);
    CREASE_ASSIGN_OR_RETURN(ByteRope body, writer.Run(GraphNameOf(read.graph)));
    dst.Message(kModelGraph, std::move(body));
  }
  info.AppendRest();
  return dst;
}

Result<std::set<std::string>> ExternalLocations(const Graph& graph) {
  std::set<std::string> locations;
  const ReadContext context = ContextFor(graph.info().raw);
  const auto add = [&](ByteSpan tensor) -> Result<void> {
    if (!IsExternal(tensor)) return {};
    WireReader reader(tensor, tensor.data());
    for (Field field; reader.Next(&field);) {
      if (field.number != kTensorExternalData) continue;
      CREASE_ASSIGN_OR_RETURN(const auto entry, ReadStringEntry(reader.Bytes(field), context));
      if (entry.first == "location") locations.emplace(entry.second);
    }
    return {};
  };
  for (ValueId id = 0; id < graph.value_count(); ++id) CREASE_RETURN_IF_ERROR(add(graph.value(id).raw.bytes));
  for (NodeId id : graph.topological_order()) {
    for (const Attribute& attribute : graph.node(id).attributes) {
      if (!std::holds_alternative<Tensor>(attribute.data)) continue;
      WireReader reader(attribute.raw.bytes, attribute.raw.bytes.data());
      for (Field field; reader.Next(&field);) {
        if (field.number == kAttributeT) CREASE_RETURN_IF_ERROR(add(field.bytes));
      }
    }
  }
  return locations;
}

}  // namespace crease::onnx
