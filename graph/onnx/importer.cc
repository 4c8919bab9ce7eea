// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/importer.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "graph/onnx/file_bytes.h"
#include "graph/onnx/operator_check.h"
#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease {
namespace onnx {
namespace {

// protobuf, and with it every other ONNX tool, refuses larger messages.
constexpr int64_t kMaxProtobufBytes = (int64_t{1} << 31) - 1;

// Value ids are 32 bits wide, and a name costs two bytes in a file but some 300 here.
constexpr int64_t kMaxValuesPerNode = 8;

class Importer {
 public:
  Importer(OwnedBytes file, const ImportOptions& options)
      : options_(options),
        file_(std::move(file)),
        external_(options.external_data_folder, options.map_external_data),
        operators_(options.allow_unknown_ops) {
    context_.origin = file_.bytes.data();
    context_.owner = file_.owner;
    context_.limits = options.limits;
    context_.external = &external_;
  }

  Result<Graph> Run() {
    CREASE_RETURN_IF_ERROR(ReadHead());
    CREASE_RETURN_IF_ERROR(CheckVersions());
    CREASE_RETURN_IF_ERROR(ForEach(kGraphInput, &Importer::AddInput));
    CREASE_RETURN_IF_ERROR(ForEach(kGraphInitializer, &Importer::AddInitializer));
    CREASE_RETURN_IF_ERROR(ForEach(kGraphSparseInitializer, &Importer::RefuseSparse));
    CREASE_RETURN_IF_ERROR(ForEach(kGraphNode, &Importer::AddNode));
    CREASE_RETURN_IF_ERROR(ForEach(kGraphOutput, &Importer::AddOutput));
    CREASE_RETURN_IF_ERROR(ForEach(kGraphValueInfo, &Importer::AddHint));
    CREASE_RETURN_IF_ERROR(operators_.Finish());
    return std::move(builder_).Build();
  }

 private:
  // Every occurrence of one field of the graph, in the file's order.
  Result<void> ForEach(GraphField number, Result<void> (Importer::*add)(ByteSpan)) {
    WireReader reader(graph_, context_.origin);
    for (Field field; reader.Next(&field);) {
      if (field.number == number) CREASE_RETURN_IF_ERROR((this->*add)(reader.Bytes(field)));
      if (field.number == kGraphName) builder_.info().graph_name = std::string(reader.String(field));
    }
    if (reader.failed()) return reader.error("GraphProto");
    return {};
  }

  Result<void> ReadHead() {
    CREASE_ASSIGN_OR_RETURN(ReadModelResult model, ReadModel(file_.bytes, context_));
    builder_.info() = std::move(model.info);
    graph_ = model.graph;
    for (const auto& [domain, name] : model.functions) operators_.AddFunction(domain, name);
    return {};
  }

  Result<void> CheckVersions() {
    const ModelInfo& info = builder_.info();
    if (info.ir_version < kOldestIr || info.ir_version > kNewestIr) {
      return Error{ErrorCode::kUnsupported,
                   "the file has IR version " + std::to_string(info.ir_version) + ", Crease reads " +
                       std::to_string(kOldestIr) + " to " + std::to_string(kNewestIr),
                   ""};
    }
    operators_.SetOpsets(&info.opsets);
    return {};
  }

  Error ValueError(std::string message, std::string_view name) const {
    return {ErrorCode::kInvalidModel, std::move(message), "value '" + Printable(name) + "'"};
  }

  Result<ValueId> ValueOf(std::string_view name) {
    const ValueId id = builder_.GetOrAddValue(name);
    const auto index = static_cast<size_t>(id);
    if (index == has_type_.size()) {
      has_type_.push_back(false);
      CREASE_RETURN_IF_ERROR(CheckValueCount("the graph has", has_type_.size()));
    }
    return id;
  }

  Result<void> CheckValueCount(std::string_view who, size_t count) const {
    const int64_t allowed = options_.limits.max_nodes < kMaxProtobufBytes / kMaxValuesPerNode
                                ? std::max(options_.limits.max_nodes, int64_t{1}) * kMaxValuesPerNode
                                : kMaxProtobufBytes;
    if (count <= static_cast<size_t>(allowed)) return {};
    return Error{ErrorCode::kLimitExceeded,
                 std::string(who) + " more than " + std::to_string(allowed) + " values (" +
                     std::to_string(kMaxValuesPerNode) + " x max_nodes)",
                 ""};
  }

  Result<void> Reserve(std::string name) {
    return CheckValueCount("subgraphs and value_info name", builder_.ReserveName(std::move(name)));
  }

  Result<void> AddInput(ByteSpan message) {
    CREASE_ASSIGN_OR_RETURN(ReadValueInfoResult info, ReadValueInfo(message, context_));
    if (info.name.empty()) return Error{ErrorCode::kInvalidModel, "a graph input has no name", ""};
    CREASE_ASSIGN_OR_RETURN(const ValueId id, ValueOf(info.name));
    if (builder_.value(id).is_input) return ValueError("it is a graph input twice", info.name);
    has_type_[static_cast<size_t>(id)] = true;
    builder_.AddInput(info.name, std::move(info.type));
    return {};
  }

  Result<void> AddInitializer(ByteSpan message) {
    CREASE_ASSIGN_OR_RETURN(ReadTensorResult tensor, ReadTensor(message, context_));
    if (tensor.name.empty()) return Error{ErrorCode::kInvalidModel, "an initializer has no name", ""};
    if (!tensor.tensor.defined()) {
      return Error{ErrorCode::kUnsupported,
                   "its data type is " + DescribeDataType(tensor.data_type) + ", which Crease does not hold",
                   "initializer '" + Printable(tensor.name) + "'"};
    }
    CREASE_ASSIGN_OR_RETURN(const ValueId id, ValueOf(tensor.name));
    if (builder_.value(id).constant) return ValueError("it is an initializer twice", tensor.name);
    has_type_[static_cast<size_t>(id)] = true;
    builder_.AddConstant(tensor.name, std::move(tensor.tensor));
    builder_.value(id).raw = context_.Raw(message);
    return {};
  }

  Result<void> RefuseSparse(ByteSpan message) {
    std::string name;
    WireReader reader(message, context_.origin);
    for (Field field; reader.Next(&field);) {
      if (field.number != kSparseValues) continue;
      WireReader values = reader.Message(field);
      for (Field inner; values.Next(&inner);) {
        if (inner.number == kTensorName) name = std::string(values.String(inner));
      }
    }
    return Error{ErrorCode::kUnsupported, "sparse initializers are not supported; store it dense",
                 "initializer '" + Printable(name) + "'"};
  }

  Result<void> AddNode(ByteSpan message) {
    if (++node_count_ > options_.limits.max_nodes) {
      return Error{ErrorCode::kLimitExceeded,
                   "the graph has more nodes than max_nodes, " + std::to_string(options_.limits.max_nodes), ""};
    }
    CREASE_ASSIGN_OR_RETURN(ReadNodeResult read, ReadNode(message, context_));
    CREASE_RETURN_IF_ERROR(operators_.Check(read));
    Node node;
    node.op_type = std::string(read.op_type);
    node.domain = std::string(read.domain);
    node.name = std::string(read.name);
    node.attributes = std::move(read.attributes);
    node.raw = context_.Raw(message);
    for (std::string_view name : read.inputs) CREASE_RETURN_IF_ERROR(AppendValue(name, &node.inputs));
    for (std::string_view name : read.outputs) CREASE_RETURN_IF_ERROR(AppendValue(name, &node.outputs));
    for (const std::string& name : read.captures) CREASE_RETURN_IF_ERROR(AppendValue(name, &node.captured));
    for (std::string& name : read.inner_names) CREASE_RETURN_IF_ERROR(Reserve(std::move(name)));
    builder_.AddNode(std::move(node));
    return {};
  }

  Result<void> AppendValue(std::string_view name, std::vector<ValueId>* ids) {
    if (name.empty()) {
      ids->push_back(kNone);
      return {};
    }
    CREASE_ASSIGN_OR_RETURN(const ValueId id, ValueOf(name));
    ids->push_back(id);
    return {};
  }

  Result<void> AddOutput(ByteSpan message) {
    CREASE_ASSIGN_OR_RETURN(ReadValueInfoResult info, ReadValueInfo(message, context_));
    if (info.name.empty()) return Error{ErrorCode::kInvalidModel, "a graph output has no name", ""};
    if (!outputs_.insert(std::string(info.name)).second) return ValueError("it is a graph output twice", info.name);
    CREASE_ASSIGN_OR_RETURN(const ValueId id, ValueOf(info.name));
    builder_.AddOutput(id);
    SetHint(id, std::move(info.type));
    return {};
  }

  Result<void> AddHint(ByteSpan message) {
    CREASE_ASSIGN_OR_RETURN(ReadValueInfoResult info, ReadValueInfo(message, context_));
    // Other tools leave entries of values that are gone; they make no value here, and a new one would not fit them.
    if (!builder_.HasValue(info.name)) return Reserve(std::string(info.name));
    SetHint(builder_.GetOrAddValue(info.name), std::move(info.type));
    return {};
  }

  void SetHint(ValueId id, TensorType type) {
    if (has_type_[static_cast<size_t>(id)]) return;
    has_type_[static_cast<size_t>(id)] = true;
    builder_.value(id).type = std::move(type);
  }

  const ImportOptions& options_;
  OwnedBytes file_;
  ExternalFiles external_;
  ReadContext context_;
  OperatorCheck operators_;
  GraphBuilder builder_;
  ByteSpan graph_;
  int64_t node_count_ = 0;
  std::vector<bool> has_type_;  // by ValueId
  std::unordered_set<std::string> outputs_;
};

int64_t FileLimit(const Limits& limits) { return std::clamp(limits.max_file_bytes, int64_t{0}, kMaxProtobufBytes); }

Result<Graph> Import(OwnedBytes file, const ImportOptions& options) {
  if (file.bytes.empty()) return Error{ErrorCode::kInvalidModel, "the model is empty", ""};
  const int64_t limit = FileLimit(options.limits);
  if (file.bytes.size() > static_cast<uint64_t>(limit)) {
    return Error{ErrorCode::kLimitExceeded,
                 "the model has " + std::to_string(file.bytes.size()) + " bytes, the limit is " +
                     std::to_string(limit) + " (max_file_bytes, at most 2 GiB)",
                 ""};
  }
  return Importer(std::move(file), options).Run();
}

Result<Graph> CopyAndImport(std::span<const std::byte> bytes, const ImportOptions& options) {
  CREASE_ASSIGN_OR_RETURN(Tensor copy, Tensor::Allocate(DType::kUint8, {static_cast<int64_t>(bytes.size())}));
  if (!bytes.empty()) std::memcpy(copy.mutable_data<uint8_t>(), bytes.data(), bytes.size());
  return Import({{copy.bytes(), bytes.size()}, copy.owner()}, options);
}

// Containers report a failed allocation by throwing; it must not leave the library.
template <typename F>
Result<Graph> WithoutExceptions(F f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "no memory to load the model", ""};
  } catch (const std::length_error&) {
    return Error{ErrorCode::kOutOfMemory, "no memory to load the model", ""};
  }
}

}  // namespace
}  // namespace onnx

Result<Graph> ImportOnnx(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                         const ImportOptions& options) {
  return onnx::WithoutExceptions([&]() -> Result<Graph> {
    if (owner == nullptr) return onnx::CopyAndImport(bytes, options);
    return onnx::Import({bytes, std::move(owner)}, options);
  });
}

Result<Graph> ImportOnnxFile(const std::string& path, const ImportOptions& options) {
  return onnx::WithoutExceptions([&]() -> Result<Graph> {
    CREASE_ASSIGN_OR_RETURN(onnx::OwnedBytes file, onnx::ReadWholeFile(path, onnx::FileLimit(options.limits)));
    ImportOptions own = options;
    if (own.external_data_folder.empty()) own.external_data_folder = onnx::FolderOf(path);
    Result<Graph> graph = onnx::Import(std::move(file), own);
    if (graph.ok()) return graph;
    return onnx::InFile(path, std::move(graph).error());
  });
}

}  // namespace crease
