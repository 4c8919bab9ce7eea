// SPDX-License-Identifier: Apache-2.0
// Reading the messages inside a model: tensors, types, attributes, subgraphs. Shared by the importer
// and the exporter (which reads a node's bytes again to see whether it was edited).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "crease/limits.h"
#include "graph/graph.h"
#include "graph/onnx/file_bytes.h"
#include "graph/onnx/wire.h"

namespace crease::onnx {

// What every reader needs of the file it reads from.
struct ReadContext {
  const std::byte* origin = nullptr;  // where the file's bytes begin
  std::shared_ptr<const void> owner;  // keeps them alive
  Limits limits;
  ExternalFiles* external = nullptr;  // null: external data is not looked at, its tensors stay undefined

  RawBytes Raw(ByteSpan bytes) const { return {bytes, owner}; }
};

// A TensorProto. Its bytes are viewed in place where the file has them as the machine does (raw_data,
// one packed float_data or double_data, external data), else decoded into memory of its own.
struct ReadTensorResult {
  std::string_view name;
  Tensor tensor;          // undefined if ONNX knows the data type and Crease does not
  int64_t data_type = 0;  // TensorProto.DataType
  bool external = false;  // its bytes lie in another file
};
// Errors name the tensor: a damaged message, a bad shape, rank past kMaxRank, unknown data type, bytes
// fewer or more than shape x type, raw_data and typed data both, refused external data.
Result<ReadTensorResult> ReadTensor(ByteSpan message, const ReadContext& context);

// A ValueInfoProto: a name and, if it is a tensor that Crease can hold, its type. Dimensions below
// zero, as some exporters write for "any", are unknown ones.
struct ReadValueInfoResult {
  std::string_view name;
  TensorType type;
};
Result<ReadValueInfoResult> ReadValueInfo(ByteSpan message, const ReadContext& context);

// A NodeProto with names in place of ids. Constant's value_float, value_int and their lists are
// read as its `value`, a tensor, so that one form is left; Attribute::raw keeps the file's.
struct ReadNodeResult {
  std::vector<std::string_view> inputs, outputs;
  std::string_view name, op_type, domain;  // domain "ai.onnx" is read as ""
  std::vector<Attribute> attributes;
  std::vector<std::string> captures;     // outer values that its subgraphs use, each once
  std::vector<std::string> inner_names;  // of values that its subgraphs make, at any depth
  bool has_external_data = false;        // in one of its tensors
};
// `depth`: how many graphs the node lies in, 0 for the main graph's.
// Errors name the node and the attribute.
Result<ReadNodeResult> ReadNode(ByteSpan message, const ReadContext& context, int depth = 0);

// A StringStringEntryProto.
Result<std::pair<std::string_view, std::string_view>> ReadStringEntry(ByteSpan message, const ReadContext& context);

// A ModelProto but for its graph, which is left as bytes.
struct ReadModelResult {
  ModelInfo info;  // graph_name is the graph's and left empty; raw is set
  ByteSpan graph;
  std::vector<std::pair<std::string, std::string>> functions;  // domain, name
};
// Errors: damage, no graph or two of them, a domain imported at two opsets.
Result<ReadModelResult> ReadModel(ByteSpan message, const ReadContext& context);

}  // namespace crease::onnx
