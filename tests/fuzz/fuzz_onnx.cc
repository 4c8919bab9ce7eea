// SPDX-License-Identifier: Apache-2.0
// libFuzzer program: any bytes as an ONNX file; what loads is exported and loaded again, searched for batch-norms in
// subgraphs, and a session is made of it: shape inference, folding, constants, plans. Start it with the shipped network
// as its corpus:
//   build/fuzz/fuzz_onnx -max_len=200000 -rss_limit_mb=4096 CORPUS_FOLDER examples/digits
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "crease/session.h"
#include "graph/graph.h"
#include "graph/onnx/exporter.h"
#include "graph/onnx/importer.h"
#include "graph/onnx/inner_batch_norms.h"

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

// Folded or not, the network must load, or the error say why it does not.
void CheckSession(std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner,
                  const crease::Limits& limits) {
  crease::Options options;
  options.threads = 1;
  options.limits = limits;
  options.limits.max_arena_bytes = int64_t{64} << 20;
  for (const bool fold : {true, false}) {
    options.fold = fold;
    const auto session = crease::Session::load(bytes, options, owner);
    if (!session.ok() && session.error().message.empty()) __builtin_trap();
    if (!session.ok() && session.error().code == crease::ErrorCode::kInternal) __builtin_trap();
  }
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
  if (!graph.ok()) return 0;
  CheckExport(*graph, options);
  if (crease::InnerBatchNorms(*graph).size() > size) __builtin_trap();
  CheckSession(bytes, owner, options.limits);
  return 0;
}
