// SPDX-License-Identifier: Apache-2.0
// From a Graph to an ONNX file, with all that the graph's own file said and no pass changed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace crease {

// The model as bytes, all tensors inside. The same graph gives the same bytes.
//
// What comes from a file is copied from its bytes: nodes and initializers that no patch touched, and
// every field of ModelProto and GraphProto that Crease does not read. A node that a patch touched is
// written anew, with the fields of the old one that Crease does not know. Dropped are: initializers
// and Constant nodes that the file used and the graph does not use any more (one that is an input as
// well is dropped from the inputs too, so that a caller who still sets it gets an error and no
// surprise), and value_info and quantization entries of values that are gone, or that contradict a
// type which a pass has set. New initializers carry raw_data; in an IR 3 file, where every
// initializer must be an input, they are listed there.
//
// So an unchanged graph gives the file's very bytes if its nodes were sorted, it had no external data
// and the graph's length was written in the shortest form.
// Errors: kLimitExceeded past protobuf's 2 GiB; kOutOfMemory.
Result<std::vector<std::byte>> ExportOnnx(const Graph& graph);

struct ExportOptions {
  enum class ExternalData {
    kAsInput,  // beside the model if the graph's file had external data or if 2 GiB would be passed
    kInline,   // never
    kAlways,   // every tensor from 1 KiB up
  };
  ExternalData external_data = ExternalData::kAsInput;
};

// The same into a file, which appears whole or not at all (graph/atomic_file.h). External data goes to
// `<file name>.<checksum>.data` in the file's folder, never to a name that the old model gave. The
// checksum is of its bytes, so that the data of an older model of the same name is left alone: a reader
// sees the old pair or the new one. Memory: besides the graph, what changed and is no tensor.
// Errors: as ExportOnnx, and kIo; then the old file is as before.
Result<void> WriteOnnxFile(const Graph& graph, const std::string& path, const ExportOptions& options = {});

}  // namespace crease
