// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/exporter.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>

#include "graph/atomic_file.h"
#include "graph/onnx/graph_writer.h"
#include "graph/onnx/tensor_writer.h"

namespace crease {
namespace onnx {
namespace {

// protobuf, and with it every other ONNX tool, refuses larger messages.
constexpr uint64_t kMaxProtobufBytes = (uint64_t{1} << 31) - 1;

Error TooLarge(uint64_t size) {
  return {ErrorCode::kLimitExceeded,
          "the model would have " + std::to_string(size) + " bytes, protobuf allows " +
              std::to_string(kMaxProtobufBytes) + "; write it with external data",
          ""};
}

Result<std::vector<std::byte>> Export(const Graph& graph) {
  CREASE_ASSIGN_OR_RETURN(const ByteRope model, WriteModel(graph, TensorWriter{}));
  if (model.size() > kMaxProtobufBytes) return TooLarge(model.size());
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<size_t>(model.size()));
  model.ForEach([&](ByteSpan piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
  return bytes;
}

Result<void> WriteRope(const ByteRope& model, AtomicFile* file) {
  Result<void> written;
  model.ForEach([&](ByteSpan piece) {
    if (written.ok()) written = file->Write(piece);
  });
  return written;
}

std::string DataFileName(const std::string& model_name, uint64_t checksum) {
  char hex[17];
  std::snprintf(hex, sizeof(hex), "%016llx", static_cast<unsigned long long>(checksum));
  return model_name + "." + hex + ".data";
}

// The data file first, then the model that names it: at no time does a model name data that is not there.
Result<void> WriteWithExternalData(const Graph& graph, const std::string& path, Placement placement) {
  CREASE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  // The layout does not depend on the data file's name, which is known only once the data is written.
  ExternalLayout layout;
  CREASE_RETURN_IF_ERROR(WriteModel(graph, {placement, "", &layout}));
  if (layout.empty()) placement = Placement::kInline;
  std::string location;
  if (!layout.empty()) {
    CREASE_ASSIGN_OR_RETURN(AtomicFile data, AtomicFile::Create(path));
    CREASE_ASSIGN_OR_RETURN(const uint64_t checksum, layout.WriteTo(&data));
    location = DataFileName(file.file_name(), checksum);
    CREASE_RETURN_IF_ERROR(data.CommitAs(location));
  }
  CREASE_ASSIGN_OR_RETURN(const ByteRope model, WriteModel(graph, {placement, location, &layout}));
  if (model.size() > kMaxProtobufBytes) return TooLarge(model.size());
  CREASE_RETURN_IF_ERROR(WriteRope(model, &file));
  return file.Commit();
}

Result<void> Write(const Graph& graph, const std::string& path, const ExportOptions& options) {
  using ExternalData = ExportOptions::ExternalData;
  if (options.external_data == ExternalData::kAlways) {
    return WriteWithExternalData(graph, path, Placement::kAllExternal);
  }
  if (options.external_data == ExternalData::kAsInput) {
    CREASE_ASSIGN_OR_RETURN(const std::set<std::string> external, ExternalLocations(graph));
    if (!external.empty()) return WriteWithExternalData(graph, path, Placement::kAsInput);
  }
  CREASE_ASSIGN_OR_RETURN(const ByteRope model, WriteModel(graph, TensorWriter{}));
  if (model.size() > kMaxProtobufBytes) {
    if (options.external_data == ExternalData::kInline) return TooLarge(model.size());
    return WriteWithExternalData(graph, path, Placement::kAllExternal);
  }
  CREASE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  CREASE_RETURN_IF_ERROR(WriteRope(model, &file));
  return file.Commit();
}

// Containers report a failed allocation by throwing; it must not leave the library.
template <typename F>
auto WithoutExceptions(F f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory, "no memory to write the model", ""};
  } catch (const std::length_error&) {
    return Error{ErrorCode::kOutOfMemory, "no memory to write the model", ""};
  }
}

}  // namespace
}  // namespace onnx

Result<std::vector<std::byte>> ExportOnnx(const Graph& graph) {
  return onnx::WithoutExceptions([&] { return onnx::Export(graph); });
}

Result<void> WriteOnnxFile(const Graph& graph, const std::string& path, const ExportOptions& options) {
  return onnx::WithoutExceptions([&] { return onnx::Write(graph, path, options); });
}

}  // namespace crease
