// SPDX-License-Identifier: Apache-2.0
// Writing nodes: the file's bytes where nothing changed, else anew with all that Crease does not know.
#pragma once

#include "graph/graph.h"
#include "graph/onnx/byte_rope.h"
#include "graph/onnx/tensor_writer.h"

namespace crease::onnx {

// Appends node `id` to `dst` as one field of a GraphProto. Views the graph's bytes: the graph must
// outlive the rope.
// Errors: kInternal for an attribute without value and bytes.
Result<void> AppendNode(const Graph& graph, NodeId id, const TensorWriter& tensors, ByteRope* dst);

// Names of outer values in the node's bytes, in the order of Node::captured; empty without subgraphs.
Result<std::vector<std::string>> CapturedNames(const Node& node);

// Names that a node's bytes read: inputs and captures.
Result<std::vector<std::string>> NamesRead(const RawBytes& raw);

}  // namespace crease::onnx
