// SPDX-License-Identifier: Apache-2.0
// libFuzzer program: any bytes as an ONNX file. Start it with the shipped networks as its corpus:
//   build/fuzz/fuzz_onnx -max_len=200000 -rss_limit_mb=4096 CORPUS_FOLDER examples/digits
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "graph/graph.h"
#include "graph/onnx/importer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Tight limits, so that what the fuzzer reports as slow or large is our fault.
  crease::ImportOptions options;
  options.limits.max_file_bytes = int64_t{1} << 20;
  options.limits.max_tensor_bytes = int64_t{64} << 20;
  options.limits.max_nodes = 10'000;
  options.allow_unknown_ops = size % 2 == 1;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto graph = crease::ImportOnnx(bytes, nullptr, options);
  if (!graph.ok() && graph.error().message.empty()) __builtin_trap();  // an error must say what is wrong
  return 0;
}
