// SPDX-License-Identifier: Apache-2.0
// libFuzzer program: any bytes as an ONNX file; what loads is exported and loaded again. Start it with
// the shipped network as its corpus:
//   build/fuzz/fuzz_onnx -max_len=200000 -rss_limit_mb=4096 CORPUS_FOLDER examples/digits
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "graph/graph.h"
#include "graph/onnx/exporter.h"
#include "graph/onnx/importer.h"

namespace {

// The exporter must give a model that loads, and that exports to the same bytes.
void CheckExport(const crease::Graph& graph, const crease::ImportOptions& options) {
  const auto bytes = crease::ExportOnnx(graph);
  if (!bytes.ok()) __builtin_trap();
  const auto again = crease::ImportOnnx(*bytes, nullptr, options);
  if (!again.ok()) __builtin_trap();
  const auto stable = crease::ExportOnnx(*again);
  if (!stable.ok() || *stable != *bytes) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Tight limits, so that what the fuzzer reports as slow or large is our fault.
  crease::ImportOptions options;
  options.limits.max_file_bytes = int64_t{2} << 20;
  options.limits.max_tensor_bytes = int64_t{64} << 20;
  options.limits.max_nodes = 10'000;
  options.allow_unknown_ops = size % 2 == 1;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  // The fuzzer's own block is viewed, so that every byte read past it is seen; it outlives the graph.
  const std::shared_ptr<const void> owner(data, [](const void*) {});
  const auto graph = crease::ImportOnnx(bytes, owner, options);
  if (!graph.ok() && graph.error().message.empty()) __builtin_trap();  // an error must say what is wrong
  if (graph.ok()) CheckExport(*graph, options);
  return 0;
}
