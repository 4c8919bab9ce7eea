// SPDX-License-Identifier: Apache-2.0
#include "tools/lint_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "graph/onnx/inner_batch_norms.h"
#include "graph/ops/batch_norm.h"
#include "graph/passes/passes.h"
#include "runtime/lower.h"

namespace crease::tools {
namespace {

std::string NameOf(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  return node.name.empty() ? "#" + std::to_string(id) : node.name;
}

struct Linter {
  const Graph& graph;
  const InferredTypes& types;
  ConstEval constants;
  std::vector<Finding> findings;

  Linter(const Graph& g, const InferredTypes& t) : graph(g), types(t), constants(g, t) {}

  const Tensor* Constant(const Node& node, size_t slot) {
    return slot < node.inputs.size() ? constants.Get(node.inputs[slot]) : nullptr;
  }
  void Add(std::string_view code, std::string node, std::string message, bool fixable = false) {
    findings.push_back({std::string(code), std::move(node), std::move(message), fixable});
  }
  void BatchNorm(NodeId id);
  void Training(NodeId id);
  void RedundantBias(NodeId id);
  void Denormals();
};

bool AllEqual(const Tensor& tensor, double value) {
  for (int64_t i = 0; i < tensor.size(); ++i) {
    if (tensor.AsDouble(i) != value) return false;
  }
  return true;
}

void Linter::Training(NodeId id) {
  const Node& node = graph.node(id);
  const Tensor *mean = Constant(node, 3), *var = Constant(node, 4);
  const bool trained = mean != nullptr && var != nullptr && !(AllEqual(*mean, 0) && AllEqual(*var, 1));
  bool outputs_used = false;
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    outputs_used = outputs_used || (node.outputs[i] != kNone && graph.use_count(node.outputs[i]) > 0);
  }
  Add("training-mode", NameOf(graph, id),
      fmt::format("normalises by batch statistics; the stored ones {}{}",
                  trained ? "look trained" : "were never trained",
                  outputs_used ? "; its statistics are used elsewhere" : ""),
      trained && !outputs_used);
  const TensorType& type = types.types[static_cast<size_t>(node.inputs[0])];
  if (!type.is_static() || type.rank() < 2 || type.dims[1].value < 1) return;
  const Result<int64_t> count = ElementCount(type.shape());
  if (count.ok() && *count / type.dims[1].value < kFewSamples) {
    Add("few-samples", NameOf(graph, id), fmt::format("{} samples a channel", *count / type.dims[1].value));
  }
}

// Conv or Gemm with a bias, read by this batch-norm alone.
void Linter::RedundantBias(NodeId id) {
  const ValueId data = graph.node(id).inputs[0];
  const NodeId producer = graph.producer(data);
  if (producer == kNone || graph.use_count(data) != 1) return;
  const Node& before = graph.node(producer);
  if (before.op_type != "Conv" && before.op_type != "ConvTranspose") return;
  const Tensor *bias = Constant(before, 2), *mean = Constant(graph.node(id), 3);
  if (bias == nullptr || mean == nullptr || AllEqual(*bias, 0)) return;
  Add("redundant-bias", NameOf(graph, id), fmt::format("the bias of {} goes into its mean", graph.Describe(producer)),
      bias->size() == mean->size());
}

void Linter::BatchNorm(NodeId id) {
  const Node& node = graph.node(id);
  const Result<ops::BatchNormAttributes> attributes = ops::ParseBatchNorm(node, graph.info().opset());
  if (node.inputs.size() < 5) return;
  if (attributes.ok() && attributes->training) return Training(id);
  const Tensor *mean = Constant(node, 3), *var = Constant(node, 4);
  if (!attributes.ok() || mean == nullptr || var == nullptr) return;
  if (AllEqual(*mean, 0) && AllEqual(*var, 1)) {
    Add("untrained-statistics", NameOf(graph, id), fmt::format("{} channels with mean 0 and variance 1", mean->size()));
  }
  RedundantBias(id);
}

bool Denormal(double value, DType dtype) {
  if (value == 0 || (dtype != DType::kFloat32 && dtype != DType::kFloat64)) return false;
  return std::abs(value) <
         (dtype == DType::kFloat32 ? std::numeric_limits<float>::min() : std::numeric_limits<double>::min());
}

// Read by batch-norms alone: what is denormal there goes into a scale and a shift.
bool OnlyStatistics(const Graph& graph, ValueId id) {
  const std::span<const NodeId> readers = graph.consumers(id);
  return !graph.is_output(id) && std::all_of(readers.begin(), readers.end(), [&](NodeId reader) {
    return graph.node(reader).op_type == "BatchNormalization";
  });
}

void Linter::Denormals() {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Tensor* tensor = graph.use_count(id) > 0 ? graph.constant(id) : nullptr;
    if (tensor == nullptr || !IsFloat(tensor->dtype()) || OnlyStatistics(graph, id)) continue;
    int64_t count = 0;
    for (int64_t i = 0; i < tensor->size(); ++i) count += Denormal(tensor->AsDouble(i), tensor->dtype());
    if (count == 0) continue;
    Add("denormal-weights", graph.value(id).name, fmt::format("{} of {} elements", count, tensor->size()),
        graph.value(id).constant.has_value());
  }
}

Result<void> FixDenormals(const Graph& graph, ValueId id, Patch& patch) {
  const Tensor* tensor = graph.constant(id);
  CREASE_ASSIGN_OR_RETURN(Tensor flushed, Tensor::Allocate(tensor->dtype(), tensor->shape()));
  for (int64_t i = 0; i < tensor->size(); ++i) {
    const double value = tensor->AsDouble(i), kept = Denormal(value, tensor->dtype()) ? 0.0 : value;
    if (tensor->dtype() == DType::kFloat32) {
      flushed.mutable_data<float>()[i] = static_cast<float>(kept);
    } else {
      flushed.mutable_data<double>()[i] = kept;
    }
  }
  patch.ReplaceUses(id, patch.AddConstant(graph.value(id).name + "_flushed", std::move(flushed)));
  return {};
}

// Made anew: a patch cannot take outputs away, and empty ones count in inference mode.
void FixTraining(const Graph& graph, NodeId id, Patch& patch) {
  patch.RemoveNode(id);
  patch.AddNode(InferenceForm(graph.node(id)));
}

// BN(conv + b) = BN'(conv) with mean' = mean - b.
Result<void> FixBias(const Graph& graph, NodeId id, ConstEval& constants, Patch& patch) {
  const Node& node = graph.node(id);
  const NodeId producer = graph.producer(node.inputs[0]);
  const Tensor *bias = constants.Get(graph.node(producer).inputs[2]), *mean = constants.Get(node.inputs[3]);
  CREASE_ASSIGN_OR_RETURN(Tensor moved, Tensor::Allocate(DType::kFloat64, mean->shape()));
  for (int64_t i = 0; i < mean->size(); ++i) moved.mutable_data<double>()[i] = mean->AsDouble(i) - bias->AsDouble(i);
  CREASE_ASSIGN_OR_RETURN(Tensor rounded, moved.ConvertedTo(constants.dtype(node.inputs[3])));
  patch.ReplaceInput(id, 3, patch.AddConstant(graph.value(node.inputs[3]).name + "_without_bias", std::move(rounded)));
  patch.ReplaceInput(producer, 2, kNone);
  return {};
}

void FindBadVariances(const Graph& graph, std::vector<Finding>& findings) {
  for (NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    if (node.op_type != "BatchNormalization" || !node.domain.empty() || node.inputs.size() < 5) continue;
    const Result<ops::BatchNormAttributes> attributes = ops::ParseBatchNorm(node, graph.info().opset());
    const Tensor* parameters[4];
    for (size_t i = 0; i < 4; ++i) parameters[i] = graph.constant(node.inputs[i + 1]);
    if (!attributes.ok() || attributes->training || std::count(parameters, parameters + 4, nullptr) > 0) continue;
    const Result<ops::BatchNormAffine> affine =
        ops::ResolveBatchNorm(*attributes, *parameters[0], *parameters[1], *parameters[2], *parameters[3]);
    if (!affine.ok()) findings.push_back({"bad-variance", NameOf(graph, id), affine.error().message, false});
  }
}

// One finding for all: old exporters list every initializer.
void FindInputDefaults(const Graph& graph, std::vector<Finding>& findings) {
  const std::vector<ValueId> defaults = InputsWithDefaults(graph);
  if (defaults.empty()) return;
  findings.push_back(
      {"input-defaults", graph.value(defaults.front()).name,
       fmt::format("{} initializers are graph inputs, too; a fold makes constants of them", defaults.size()), false});
}

// Those in subgraphs and local functions.
void FindInner(const Graph& graph, std::vector<Finding>& findings) {
  for (const InnerBatchNorm& inner : InnerBatchNorms(graph)) {
    if (inner.training) {
      findings.push_back({"training-mode", inner.name, "normalises by batch statistics, in " + inner.inside, false});
    }
    findings.push_back({"unfolded", inner.name, "in-subgraph: it lies in " + inner.inside, false});
  }
}

}  // namespace

bool IsDropout(const Node& node) { return node.op_type == "Dropout" && node.domain.empty(); }

bool DropsAtRandom(const Node& node, ConstEval& constants) {
  if (!IsDropout(node) || node.inputs.size() <= kDropoutTraining) return false;
  const Tensor *training = constants.Get(node.inputs[kDropoutTraining]), *ratio = constants.Get(node.inputs[1]);
  const bool keeps_all = ratio != nullptr && ratio->size() == 1 && ratio->AsDouble(0) == 0;
  return training != nullptr && training->size() == 1 && training->AsInt64(0) != 0 && !keeps_all;
}

Node InferenceForm(const Node& node) {
  Node inference = node;
  if (IsDropout(node)) {
    inference.inputs.resize(std::min(node.inputs.size(), kDropoutTraining));
    while (inference.inputs.size() > 1 && inference.inputs.back() == kNone) inference.inputs.pop_back();
    return inference;
  }
  inference.outputs.resize(1);
  std::erase_if(inference.attributes, [](const Attribute& attribute) { return attribute.name == "training_mode"; });
  return inference;
}

Result<std::vector<Finding>> Lint(const Graph& graph) {
  std::vector<Finding> bad;
  FindBadVariances(graph, bad);
  FindInputDefaults(graph, bad);
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, InferTypes(graph, {}, false));
  Linter linter(graph, types);
  linter.findings = std::move(bad);
  for (NodeId id : graph.topological_order()) {
    if (graph.node(id).op_type == "BatchNormalization" && graph.node(id).domain.empty()) linter.BatchNorm(id);
    if (DropsAtRandom(graph.node(id), linter.constants)) {
      linter.Add("training-mode", NameOf(graph, id), "drops values at random", true);
    }
  }
  linter.Denormals();
  Graph folded = graph;
  CREASE_ASSIGN_OR_RETURN(const PassLog log, RunPasses(folded, FoldingPasses()));
  for (const LogEntry& entry : log) {
    if (!entry.applied) linter.Add("unfolded", entry.node, fmt::format("{}: {}", entry.code, entry.message));
  }
  FindInner(graph, linter.findings);
  return std::move(linter.findings);
}

Result<void> FixLint(Graph& graph, const std::vector<Finding>& findings) {
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, InferTypes(graph, {}, false));
  ConstEval constants(graph, types);
  Patch patch(graph);
  const auto fixes = [&](std::string_view code, const std::string& name) {
    return std::any_of(findings.begin(), findings.end(),
                       [&](const Finding& f) { return f.fixable && f.code == code && f.node == name; });
  };
  for (NodeId id : graph.topological_order()) {
    const std::string name = NameOf(graph, id);
    if (DropsAtRandom(graph.node(id), constants) && fixes("training-mode", name)) FixTraining(graph, id, patch);
    if (graph.node(id).op_type != "BatchNormalization") continue;
    if (fixes("training-mode", name)) FixTraining(graph, id, patch);
    if (fixes("redundant-bias", name)) CREASE_RETURN_IF_ERROR(FixBias(graph, id, constants, patch));
  }
  CREASE_RETURN_IF_ERROR(std::move(patch).ApplyTo(graph));
  Patch flush(graph);
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (graph.value(id).constant && fixes("denormal-weights", graph.value(id).name)) {
      CREASE_RETURN_IF_ERROR(FixDenormals(graph, id, flush));
    }
  }
  return std::move(flush).ApplyTo(graph);
}

}  // namespace crease::tools
