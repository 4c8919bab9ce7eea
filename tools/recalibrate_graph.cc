// SPDX-License-Identifier: Apache-2.0
#include "tools/recalibrate_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "graph/op.h"
#include "graph/ops/batch_norm.h"
#include "graph/patch.h"
#include "tools/lint_checks.h"

namespace crease::tools {
namespace {

constexpr size_t kMean = 3, kVar = 4;  // inputs of the node

bool IsNorm(const Node& node) { return node.op_type == "BatchNormalization" && node.domain.empty(); }

std::vector<double> Doubles(const Tensor& tensor) {
  std::vector<double> values(static_cast<size_t>(tensor.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = tensor.AsDouble(static_cast<int64_t>(i));
  return values;
}

Result<NormStatistics> ReadNorm(const Graph& graph, NodeId id, ConstEval& constants) {
  const Node& node = graph.node(id);
  Result<ops::BatchNormAttributes> attributes = ops::ParseBatchNorm(node, graph.info().opset());
  if (!attributes.ok()) {
    Error error = std::move(attributes).error();
    error.where = graph.Describe(id);
    return error;
  }
  const auto invalid = [&](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message), graph.Describe(id)};
  };
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNone && graph.use_count(node.outputs[i]) > 0) {
      return invalid("its running statistics are used elsewhere; the inference form has no such outputs");
    }
  }
  NormStatistics norm;
  norm.node = id;
  norm.name = node.name.empty() ? graph.value(node.outputs[0]).name : node.name;
  norm.was_training = attributes->training;
  norm.epsilon = static_cast<double>(attributes->epsilon);
  for (const size_t slot : {kMean, kVar}) {
    const ValueId stored = slot < node.inputs.size() ? node.inputs[slot] : kNone;
    const Tensor* constant = constants.Get(stored);
    if (constant == nullptr) return invalid("its running statistics are not constant");
    if (constant->rank() != 1 || !IsFloat(constant->dtype())) {
      return invalid(fmt::format("its running statistics: expected one float a channel, got {} {}",
                                 Name(constants.dtype(stored)), ToString(constant->shape())));
    }
    (slot == kMean ? norm.old_mean : norm.old_var) = Doubles(*constant);
    (slot == kMean ? norm.mean_dtype : norm.var_dtype) = constants.dtype(stored);
  }
  if (norm.old_mean.size() != norm.old_var.size()) return invalid("mean and variance are of different lengths");
  norm.mean = norm.old_mean;
  norm.var = norm.old_var;
  return norm;
}

// For messages: the sign of a NaN means nothing.
double Unsigned(double value) { return std::isnan(value) ? std::abs(value) : value; }

// Statistics in the file's type. Errors: one is not finite, or not in that type.
Result<Tensor> Rounded(const std::vector<double>& values, DType dtype, std::string_view what) {
  const Tensor wide = Tensor::From<double>({static_cast<int64_t>(values.size())}, std::span<const double>(values));
  CREASE_ASSIGN_OR_RETURN(Tensor narrow, wide.ConvertedTo(dtype));
  for (size_t c = 0; c < values.size(); ++c) {
    if (std::isfinite(narrow.AsDouble(static_cast<int64_t>(c)))) continue;
    std::string message = fmt::format("the data gave channel {} a {} of {}", c, what, Unsigned(values[c]));
    if (std::isfinite(values[c])) {
      message += fmt::format("; the file keeps it as {}, which ends at {}", Name(dtype),
                             dtype == DType::kFloat16 ? "65504" : "3.4e38");
    }
    return Error{ErrorCode::kInvalidArgument, std::move(message), ""};
  }
  return narrow;
}

ValueId AddNamed(GraphBuilder& builder, const std::string& hint) {
  std::string name = hint;
  for (int i = 1; builder.HasValue(name); ++i) name = hint + "_" + std::to_string(i);
  return builder.GetOrAddValue(name);
}

// The node in training form with momentum 0, so that its running statistics are the batch's own, whatever
// the old ones were.
void AddTrainingForm(GraphBuilder& builder, Node node, const NormStatistics& norm) {
  node.raw = {};
  std::erase_if(node.attributes, [](const Attribute& attribute) {
    return attribute.name == "training_mode" || attribute.name == "momentum";
  });
  node.attributes.push_back(MakeAttr("momentum", 0.0f));
  if (builder.info().opset() >= 14) node.attributes.push_back(MakeAttr("training_mode", int64_t{1}));
  const std::vector<double> zeros(norm.old_mean.size(), 0.0);
  const ValueId zero = AddNamed(builder, norm.name + "/zeros");
  const Tensor tensor = Tensor::From<double>({static_cast<int64_t>(zeros.size())}, std::span<const double>(zeros));
  builder.AddConstant(builder.value(zero).name, tensor);
  node.inputs[kMean] = node.inputs[kVar] = zero;
  node.outputs.resize(1);
  for (const char* part : {"/batch_mean", "/batch_var"}) {
    node.outputs.push_back(AddNamed(builder, norm.name + part));
    builder.AddOutput(node.outputs.back());
  }
  builder.AddNode(std::move(node));
}

// What batch-norms depend on, themselves included; not by their statistics, which the run does without.
class Ancestors {
 public:
  explicit Ancestors(const Graph& graph)
      : nodes_(static_cast<size_t>(graph.node_count()), false),
        values_(static_cast<size_t>(graph.value_count()), false) {
    const std::vector<NodeId>& order = graph.topological_order();
    for (auto id = order.rbegin(); id != order.rend(); ++id) {
      const Node& node = graph.node(*id);
      const bool norm = IsNorm(node);
      if (!norm && !Any(node.outputs)) continue;
      nodes_[static_cast<size_t>(*id)] = true;
      const size_t read = norm ? kMean : IsDropout(node) ? kDropoutTraining : node.inputs.size();
      Add(std::span(node.inputs).first(std::min(node.inputs.size(), read)));
      Add(node.captured);
    }
  }
  bool node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  bool value(ValueId id) const { return values_[static_cast<size_t>(id)]; }

 private:
  bool Any(const std::vector<ValueId>& ids) const {
    return std::any_of(ids.begin(), ids.end(), [&](ValueId id) { return id != kNone && value(id); });
  }
  void Add(std::span<const ValueId> ids) {
    for (const ValueId id : ids) {
      if (id != kNone) values_[static_cast<size_t>(id)] = true;
    }
  }

  std::vector<bool> nodes_, values_;
};

// With any batch, whatever the file fixes. IR 3 lists weights among the inputs.
Result<void> AddInput(GraphBuilder& builder, const Value& value, int64_t* file_batch) {
  TensorType type = value.type;
  if (!value.constant && type.has_rank) {
    const auto invalid = [&](ErrorCode code, std::string message) {
      return Error{code, std::move(message), "input '" + Printable(value.name) + "'"};
    };
    if (type.dims.empty()) return invalid(ErrorCode::kUnsupported, "a scalar has no batch");
    const int64_t batch = type.dims[0].value;
    if (type.dims[0].known() && *file_batch != Dim::kUnknown && *file_batch != batch) {
      return invalid(ErrorCode::kUnsupported,
                     fmt::format("its first axis is fixed to {}, that of another input to {}: they have no batch in "
                                 "common",
                                 batch, *file_batch));
    }
    if (type.dims[0].known()) *file_batch = batch;
    type.dims[0] = Dim{};
  }
  builder.AddInput(value.name, std::move(type));
  return {};
}

}  // namespace

void NormStatistics::Update(const Tensor& batch_mean, const Tensor& batch_var, int64_t samples,
                            std::optional<double> momentum) {
  ++batches;
  const double factor = momentum ? *momentum : 1.0 / static_cast<double>(batches);
  const double unbiased = static_cast<double>(samples) / static_cast<double>(samples - 1);
  // The first batch of a cumulative average replaces what was there, were it NaN.
  const auto mix = [&](double old, double fresh) { return factor == 1 ? fresh : (1 - factor) * old + factor * fresh; };
  for (size_t c = 0; c < mean.size(); ++c) {
    mean[c] = mix(mean[c], batch_mean.AsDouble(static_cast<int64_t>(c)));
    var[c] = mix(var[c], batch_var.AsDouble(static_cast<int64_t>(c)) * unbiased);
  }
}

NormStatistics::Change NormStatistics::ChangeOfAll() const {
  Change change;
  for (size_t c = 0; c < var.size(); ++c) {
    const double old = old_var[c] + epsilon, ratio = (var[c] + epsilon) / old;
    if (!std::isfinite(old_mean[c]) || !std::isfinite(old) || old <= 0) continue;
    change.mean_shift = std::max(change.mean_shift, std::abs(mean[c] - old_mean[c]) / std::sqrt(var[c] + epsilon));
    change.least_variance = change.channels == 0 ? ratio : std::min(change.least_variance, ratio);
    change.most_variance = std::max(change.most_variance, ratio);
    ++change.channels;
  }
  return change;
}

Result<void> CheckStored(const Graph& original, const std::vector<NormStatistics>& norms) {
  for (const NormStatistics& norm : norms) {
    for (const auto* stored : {&norm.old_mean, &norm.old_var}) {
      for (size_t c = 0; c < stored->size(); ++c) {
        if (std::isfinite((*stored)[c])) continue;
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("the stored {} of channel {} is {}, and --momentum starts from it: leave that out",
                                 stored == &norm.old_mean ? "mean" : "variance", c, Unsigned((*stored)[c])),
                     original.Describe(norm.node)};
      }
    }
  }
  return {};
}

Result<StatisticsGraph> MakeStatisticsGraph(const Graph& original) {
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, InferTypes(original, {}, false));
  ConstEval constants(original, types);
  StatisticsGraph result;
  GraphBuilder builder;
  builder.info() = original.info();
  // The same order gives the same ids.
  for (ValueId id = 0; id < original.value_count(); ++id) {
    const ValueId copy = builder.GetOrAddValue(original.value(id).name);
    builder.value(copy) = original.value(id);
  }
  const Ancestors needed(original);
  for (const ValueId id : original.inputs()) {
    if (!needed.value(id)) continue;
    CREASE_RETURN_IF_ERROR(AddInput(builder, original.value(id), &result.file_batch));
  }
  for (NodeId id = 0; id < original.node_count(); ++id) {
    if (!original.alive(id)) continue;
    const Node& node = original.node(id);
    if (DropsAtRandom(node, constants)) result.dropouts.push_back(id);
    if (!needed.node(id)) continue;
    if (FindOp(node.domain, node.op_type, original.info().opset()) == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("a batch-norm depends on it, and Crease has no such operator (domain '{}', opset {})",
                               Printable(node.domain), original.info().opset()),
                   original.Describe(id)};
    }
    if (!IsNorm(node)) {
      builder.AddNode(IsDropout(node) ? InferenceForm(node) : node);
      continue;
    }
    CREASE_ASSIGN_OR_RETURN(NormStatistics norm, ReadNorm(original, id, constants));
    AddTrainingForm(builder, node, norm);
    result.data.push_back(node.inputs[0]);
    result.norms.push_back(std::move(norm));
  }
  if (result.norms.empty()) {
    return Error{ErrorCode::kInvalidArgument, "no BatchNormalization in it: recalibrate before folding", ""};
  }
  CREASE_ASSIGN_OR_RETURN(result.graph, std::move(builder).Build());
  return result;
}

Result<Graph> WithStatistics(const Graph& original, const std::vector<NormStatistics>& norms,
                             const std::vector<NodeId>& dropouts) {
  Graph result = original;
  Patch patch(result);
  for (const NodeId id : dropouts) {
    patch.RemoveNode(id);
    patch.AddNode(InferenceForm(original.node(id)));
  }
  for (const NormStatistics& norm : norms) {
    const Node& node = original.node(norm.node);
    std::array<ValueId, 2> constants{};
    for (const size_t slot : {kMean, kVar}) {
      const std::vector<double>& values = slot == kMean ? norm.mean : norm.var;
      Result<Tensor> narrow =
          Rounded(values, slot == kMean ? norm.mean_dtype : norm.var_dtype, slot == kMean ? "mean" : "variance");
      if (!narrow.ok()) {
        Error error = std::move(narrow).error();
        error.where = original.Describe(norm.node);
        return error;
      }
      constants[slot - kMean] = patch.AddConstant(original.value(node.inputs[slot]).name, std::move(narrow).value());
    }
    if (norm.was_training) {
      Node inference = InferenceForm(node);
      inference.inputs[kMean] = constants[0];
      inference.inputs[kVar] = constants[1];
      patch.RemoveNode(norm.node);
      patch.AddNode(std::move(inference));
    } else {
      patch.ReplaceInput(norm.node, kMean, constants[0]);
      patch.ReplaceInput(norm.node, kVar, constants[1]);
    }
  }
  CREASE_RETURN_IF_ERROR(std::move(patch).ApplyTo(result));
  return result;
}

}  // namespace crease::tools
