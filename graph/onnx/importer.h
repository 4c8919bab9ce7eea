// SPDX-License-Identifier: Apache-2.0
// From an ONNX file to a Graph. The file is not trusted: whatever its bytes, the result is a graph or
// an error that names the node, the tensor or the limit, in time and memory bounded by its size.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "crease/limits.h"
#include "graph/graph.h"

namespace crease {

struct ImportOptions {
  Limits limits;
  // Where a model from memory may have external data; empty: it may have none. ImportOnnxFile uses
  // the file's own folder and looks at this only if it is set.
  std::string external_data_folder;
  // Map external data instead of reading it. A mapped file that someone truncates raises SIGBUS when
  // it is touched, so hosts that cannot trust the folder turn this off.
  bool map_external_data = true;
  // Keep nodes of operators that Crease has no definition for as opaque nodes (the folding tool); else
  // they are an error that lists all of them.
  bool allow_unknown_ops = false;
};

// Reads ONNX of opset 7 and newer, IR 3 and newer. `owner` keeps `bytes` alive; the graph's weights
// are views into them, and it holds `owner` as long as it lives. If `owner` is null the bytes are
// copied first.
// Values keep the file's names. The types of inner values that the file states are hints: nothing
// relies on them. Nodes are in the file's order; Graph::topological_order sorts them.
// Errors: kInvalidModel, kUnsupported, kLimitExceeded, kIo (external data), kOutOfMemory.
Result<Graph> ImportOnnx(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                         const ImportOptions& options = {});

// The same from a regular file, which is read into memory once.
Result<Graph> ImportOnnxFile(const std::string& path, const ImportOptions& options = {});

}  // namespace crease
