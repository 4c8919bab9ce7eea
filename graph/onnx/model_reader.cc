// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/reader.h"
#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// "ai.onnx" and "" are the same domain.
std::string DomainOf(std::string_view name) { return name == "ai.onnx" ? "" : std::string(name); }

Result<void> AddOpset(ByteSpan message, const ReadContext& context, std::map<std::string, int64_t>* opsets) {
  std::string domain;
  int64_t version = 0;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kOpsetDomain) domain = DomainOf(reader.String(field));
    if (field.number == kOpsetVersion) version = reader.Int(field);
  }
  if (reader.failed()) return reader.error("OperatorSetIdProto");
  const auto [at, added] = opsets->emplace(domain, version);
  if (added || at->second == version) return {};
  return Error{ErrorCode::kInvalidModel,
               "the domain '" + Printable(domain) + "' is imported at opset " + std::to_string(at->second) +
                   " and at " + std::to_string(version),
               ""};
}

Result<void> AddFunction(ByteSpan message, const ReadContext& context, ReadModelResult* model) {
  std::string name, domain;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    if (field.number == kFunctionName) name = std::string(reader.String(field));
    if (field.number == kFunctionDomain) domain = DomainOf(reader.String(field));
  }
  if (reader.failed()) return reader.error("FunctionProto");
  model->functions.emplace_back(std::move(domain), std::move(name));
  return {};
}

Result<void> ReadModelField(WireReader& reader, const Field& field, const ReadContext& context, bool* has_graph,
                            ReadModelResult* model) {
  ModelInfo& info = model->info;
  switch (field.number) {
    case kModelIrVersion:
      info.ir_version = reader.Int(field);
      return {};
    case kModelProducerName:
      info.producer_name = std::string(reader.String(field));
      return {};
    case kModelProducerVersion:
      info.producer_version = std::string(reader.String(field));
      return {};
    case kModelGraph:
      if (*has_graph) return Error{ErrorCode::kInvalidModel, "the model has two graphs", ""};
      *has_graph = true;
      model->graph = reader.Bytes(field);
      return {};
    case kModelOpsetImport:
      return AddOpset(reader.Bytes(field), context, &info.opsets);
    case kModelMetadata: {
      CREASE_ASSIGN_OR_RETURN(const auto entry, ReadStringEntry(reader.Bytes(field), context));
      info.metadata.emplace_back(entry.first, entry.second);
      return {};
    }
    case kModelFunctions:
      return AddFunction(reader.Bytes(field), context, model);
    default:
      return {};
  }
}

}  // namespace

Result<ReadModelResult> ReadModel(ByteSpan message, const ReadContext& context) {
  ReadModelResult model;
  model.info.ir_version = 0;
  model.info.raw = context.Raw(message);
  bool has_graph = false;
  WireReader reader(message, context.origin);
  for (Field field; reader.Next(&field);) {
    CREASE_RETURN_IF_ERROR(ReadModelField(reader, field, context, &has_graph, &model));
  }
  if (reader.failed()) return reader.error("ModelProto");
  if (!has_graph) return Error{ErrorCode::kInvalidModel, "the file has no graph; is it an ONNX model?", ""};
  return model;
}

}  // namespace crease::onnx
