// SPDX-License-Identifier: Apache-2.0
#include "tools/recalibrate_batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "graph/op.h"
#include "graph/ops/common.h"
#include "runtime/lower.h"
#include "tools/lint_checks.h"

namespace crease::tools {
namespace {

Result<InferredTypes> TypesFor(const Graph& graph, const std::vector<Shape>& inputs) {
  std::vector<InputOverride> overrides;
  const std::vector<ValueId> required = RequiredInputs(graph);
  for (size_t i = 0; i < required.size(); ++i) {
    overrides.push_back({required[i], TensorType::Of(graph.value(required[i]).type.dtype, inputs[i])});
  }
  return InferTypes(graph, overrides);
}

// Values that the data makes: not those that follow from constants and shapes.
std::vector<bool> MadeByData(const Graph& graph) {
  std::vector<bool> made(static_cast<size_t>(graph.value_count()), false);
  for (const ValueId id : RequiredInputs(graph)) made[static_cast<size_t>(id)] = true;
  for (const NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    bool any = false;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId input = node.inputs[i];
      any = any || (input != kNone && made[static_cast<size_t>(input)] && ops::ReadsElements(node, i));
    }
    for (const ValueId output : node.outputs) {
      if (output != kNone) made[static_cast<size_t>(output)] = any;
    }
  }
  return made;
}

// Operators that keep the length of the axis that they compute along: the axis where the attribute is left out.
struct AlongAxis {
  std::string_view op_type;
  int64_t usual;
};
constexpr AlongAxis kAlongAxis[] = {{"Softmax", -1},         {"LogSoftmax", -1},         {"Hardmax", -1},
                                    {"LpNormalization", -1}, {"LayerNormalization", -1}, {"TopK", -1},
                                    {"Gather", 0},           {"GatherElements", 0}};

int64_t IntOf(const Node& node, std::string_view attribute, int64_t fallback) {
  const Result<int64_t> value = AttrInt(node, attribute, fallback);
  return value.ok() ? *value : fallback;
}

// Whether a node whose first input is of the data computes along the batch, or puts it into another order.
bool ComputesAlongBatch(const Node& node, int opset, const InferredTypes& types) {
  const int64_t rank = types.types[static_cast<size_t>(node.inputs[0])].rank();
  const auto integer = [&](size_t slot, int64_t i) -> std::optional<int64_t> {
    if (slot >= node.inputs.size() || node.inputs[slot] == kNone) return std::nullopt;
    const Tensor& tensor = types.constants[static_cast<size_t>(node.inputs[slot])];
    return tensor.defined() && i < tensor.size() ? std::optional(tensor.AsInt64(i)) : std::nullopt;
  };
  const auto is_batch = [&](int64_t axis) { return axis == 0 || axis == -rank; };
  if (node.op_type == "GatherND") return IntOf(node, "batch_dims", 0) == 0;
  if (node.op_type == "CumSum") return is_batch(integer(1, 0).value_or(0));
  if (node.op_type == "Slice") {  // backwards
    for (int64_t i = 0; integer(4, i); ++i) {
      if (*integer(4, i) < 0 && is_batch(integer(3, i).value_or(i))) return true;
    }
  }
  const auto* row = std::find_if(std::begin(kAlongAxis), std::end(kAlongAxis),
                                 [&](const AlongAxis& along) { return along.op_type == node.op_type; });
  if (row == std::end(kAlongAxis)) return false;
  const bool flat = opset < 13 && node.op_type.ends_with("max");  // Softmax and its kin, from axis 1 on
  return is_batch(IntOf(node, "axis", flat ? 1 : row->usual));
}

// Whether both are known, and are not the same.
bool Differ(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return false;
  return a.shape() != b.shape() || a.byte_size() != b.byte_size() ||
         !std::equal(a.bytes(), a.bytes() + a.byte_size(), b.bytes());
}

bool HasRows(const TensorType& type, int64_t rows) {
  return type.is_static() && type.rank() > 0 && type.dims[0].value == rows;
}

}  // namespace

Result<void> CheckBatch(const StatisticsGraph& statistics, const std::vector<Shape>& inputs) {
  const Graph& graph = statistics.graph;
  const int64_t rows = inputs.front()[0], others = rows > 1 ? rows - 1 : rows + 1;
  std::vector<Shape> other_inputs = inputs;
  for (Shape& shape : other_inputs) shape[0] = others;
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, TypesFor(graph, inputs));
  CREASE_ASSIGN_OR_RETURN(const InferredTypes other_types, TypesFor(graph, other_inputs));
  const std::vector<bool> data = MadeByData(graph);
  const auto is_data = [&](ValueId id) { return id != kNone && data[static_cast<size_t>(id)]; };
  for (const NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    const bool norm = node.op_type == "BatchNormalization";
    for (size_t i = 0; i < (norm ? 1 : node.outputs.size()); ++i) {
      if (!is_data(node.outputs[i])) continue;
      const TensorType& type = types.types[static_cast<size_t>(node.outputs[i])];
      const TensorType& other = other_types.types[static_cast<size_t>(node.outputs[i])];
      if (HasRows(type, rows) && HasRows(other, others) &&
          std::equal(type.dims.begin() + 1, type.dims.end(), other.dims.begin() + 1, other.dims.end())) {
        continue;
      }
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the batch is not the first axis of what it makes: {} of {} samples, {} of {}",
                               type.ToString(), rows, other.ToString(), others),
                   graph.Describe(id)};
    }
    for (const ValueId input : node.inputs) {
      if (input == kNone || is_data(input) || !IsFloat(types.types[static_cast<size_t>(input)].dtype)) continue;
      if (Differ(types.constants[static_cast<size_t>(input)], other_types.constants[static_cast<size_t>(input)])) {
        return Error{
            ErrorCode::kInvalidArgument,
            "it computes with '" + Printable(graph.value(input).name) + "', which follows from the batch's size",
            graph.Describe(id)};
      }
    }
    if (!node.inputs.empty() && is_data(node.inputs[0]) && ComputesAlongBatch(node, graph.info().opset(), types)) {
      return Error{ErrorCode::kInvalidArgument, "it computes along the batch", graph.Describe(id)};
    }
  }
  return {};
}

Result<std::vector<int64_t>> SamplesPerChannel(const StatisticsGraph& statistics, const std::vector<Shape>& inputs,
                                               std::string_view advice) {
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, TypesFor(statistics.graph, inputs));
  std::vector<int64_t> samples;
  for (size_t i = 0; i < statistics.norms.size(); ++i) {
    const NormStatistics& norm = statistics.norms[i];
    const TensorType& type = types.types[static_cast<size_t>(statistics.data[i])];
    const std::string where = "BatchNormalization '" + Printable(norm.name) + "'";
    if (!type.is_static() || type.rank() < 2) {
      return Error{ErrorCode::kUnsupported, "the shape of its input is not known before the run: " + type.ToString(),
                   where};
    }
    int64_t count = 1;
    for (int axis = 0; axis < type.rank(); ++axis) count *= axis == 1 ? 1 : type.dims[static_cast<size_t>(axis)].value;
    if (count < kFewSamples) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("batches are too small: {} samples a channel in {}, expected at least {}. Statistics of "
                               "so few are noise, in training too: {}, or train with GroupNorm or LayerNorm, which "
                               "need no batch",
                               count, ToString(type.shape()), kFewSamples, advice),
                   where};
    }
    samples.push_back(count);
  }
  return samples;
}

}  // namespace crease::tools
