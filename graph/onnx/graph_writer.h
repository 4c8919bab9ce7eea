// SPDX-License-Identifier: Apache-2.0
// Writing a whole GraphProto and the ModelProto around it.
#pragma once

#include <set>
#include <string>

#include "graph/graph.h"
#include "graph/onnx/byte_rope.h"
#include "graph/onnx/tensor_writer.h"

namespace crease::onnx {

// The ModelProto; see graph/onnx/exporter.h for what it keeps. Views the graph's bytes.
Result<ByteRope> WriteModel(const Graph& graph, const TensorWriter& tensors);

// Other files that tensors of the graph's file lie in, as it names them: relative to its folder.
Result<std::set<std::string>> ExternalLocations(const Graph& graph);

}  // namespace crease::onnx
