// SPDX-License-Identifier: Apache-2.0
// Reshape, Transpose, Reshape that only reorder the channels (ShuffleNet): a map passes as a whole, with
// its channels in the other order, where no single one of the three would let it.
#include <numeric>

#include "graph/ops/transpose.h"
#include "graph/passes/commute.h"

namespace crease::fold {
namespace {

// The node that alone reads the value, or kNone.
NodeId OnlyReader(const FoldContext& context, ValueId value, std::string_view op) {
  const Graph& graph = context.graph;
  if (graph.is_output(value) || graph.use_count(value) != 1) return kNone;
  const NodeId reader = graph.consumers(value)[0];
  const Node& node = graph.node(reader);
  const bool data = !node.inputs.empty() && node.inputs[0] == value;
  return data && node.domain.empty() && node.op_type == op ? reader : kNone;
}

// The node that makes the value, which nothing else reads, or kNone.
NodeId OnlyMaker(const FoldContext& context, ValueId value, std::string_view op) {
  const Graph& graph = context.graph;
  const NodeId maker = graph.producer(value);
  if (maker == kNone || graph.is_output(value) || graph.use_count(value) != 1) return kNone;
  const Node& node = graph.node(maker);
  return node.domain.empty() && node.op_type == op && !node.inputs.empty() && node.inputs[0] != kNone ? maker : kNone;
}

// Same length, and each size known and equal.
bool SameTail(const TensorType& a, int a_begin, const TensorType& b, int b_begin) {
  if (a.rank() - a_begin != b.rank() - b_begin) return false;
  for (int i = 0; a_begin + i < a.rank(); ++i) {
    const Dim &p = a.dims[static_cast<size_t>(a_begin + i)], &q = b.dims[static_cast<size_t>(b_begin + i)];
    if (!p.known() || p.value != q.value) return false;
  }
  return true;
}

// Channel of the input that each channel of the output is; empty if it is no reordering of axis 1.
// `cut`: the first Reshape's output type, with the channels cut in axes [1, middle).
std::vector<size_t> Order(const TensorType& in, const TensorType& cut, const TensorType& out,
                          const std::vector<int>& perm) {
  if (!in.has_rank || !cut.has_rank || !out.has_rank || in.rank() < 2 || !in.dims[1].known()) return {};
  const int64_t channels = in.dims[1].value;
  int64_t product = 1;
  int middle = 1;
  while (middle < cut.rank() && product < channels) {
    const Dim& dim = cut.dims[static_cast<size_t>(middle++)];
    if (!dim.known() || dim.value < 1) return {};
    product *= dim.value;
  }
  if (product != channels || out.rank() != in.rank() || !(out.dims[1] == in.dims[1])) return {};
  if (!SameTail(in, 2, cut, middle) || !SameTail(in, 2, out, 2)) return {};
  for (int i = 0; i < cut.rank(); ++i) {
    const int from = perm[static_cast<size_t>(i)];
    const bool inside = i >= 1 && i < middle;
    if (inside ? from < 1 || from >= middle : from != i) return {};
  }
  std::vector<int64_t> stride(static_cast<size_t>(middle), 1);  // of the cut axes, in channels
  for (int i = middle - 2; i >= 1; --i) {
    stride[static_cast<size_t>(i)] = stride[static_cast<size_t>(i + 1)] * cut.dims[static_cast<size_t>(i + 1)].value;
  }
  std::vector<size_t> order(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    int64_t rest = c, source = 0;
    for (int i = middle - 1; i >= 1; --i) {
      const auto axis = static_cast<size_t>(perm[static_cast<size_t>(i)]);
      source += rest % cut.dims[axis].value * stride[axis];
      rest /= cut.dims[axis].value;
    }
    order[static_cast<size_t>(c)] = static_cast<size_t>(source);
  }
  return order;
}

}  // namespace

std::optional<Shuffled> CommuteShuffle(const FoldContext& context, NodeId id, const Affine& map, Direction direction) {
  const Graph& graph = context.graph;
  if (map.uniform() || map.axis != 1 || graph.node(id).op_type != "Reshape" || !graph.node(id).domain.empty())
    return std::nullopt;
  NodeId nodes[3] = {id, kNone, id};
  if (direction == Direction::kBackward) {
    nodes[1] = OnlyMaker(context, graph.node(id).inputs[0], "Transpose");
    if (nodes[1] != kNone) nodes[0] = OnlyMaker(context, graph.node(nodes[1]).inputs[0], "Reshape");
  } else {
    nodes[1] = OnlyReader(context, graph.node(id).outputs[0], "Transpose");
    if (nodes[1] != kNone) nodes[2] = OnlyReader(context, graph.node(nodes[1]).outputs[0], "Reshape");
  }
  if (nodes[0] == kNone || nodes[1] == kNone || nodes[2] == kNone) return std::nullopt;
  const ValueId in = graph.node(nodes[0]).inputs[0], out = graph.node(nodes[2]).outputs[0];
  const TensorType& cut = context.type(graph.node(nodes[0]).outputs[0]);
  if (!cut.has_rank) return std::nullopt;
  const Result<std::vector<int>> perm = ops::ParseTranspose(graph.node(nodes[1]), cut.rank());
  if (!perm.ok()) return std::nullopt;
  const std::vector<size_t> order = Order(context.type(in), cut, context.type(out), *perm);
  if (order.size() != map.size()) return std::nullopt;
  Shuffled result{map, nodes[0], nodes[1], nodes[2]};
  for (size_t c = 0; c < order.size(); ++c) {
    const bool backward = direction == Direction::kBackward;
    const size_t dst = backward ? order[c] : c, src = backward ? c : order[c];
    result.map.scale[dst] = map.scale[src];
    result.map.shift[dst] = map.shift[src];
  }
  return result;
}

}  // namespace crease::fold
