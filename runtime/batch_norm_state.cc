// SPDX-License-Identifier: Apache-2.0
#include "runtime/batch_norm_state.h"

#include <array>
#include <utility>

#include "graph/npz.h"
#include "graph/onnx/importer.h"
#include "graph/op.h"
#include "graph/passes/const_eval.h"
#include "graph/safetensors.h"

namespace crease {
namespace {

constexpr std::string_view kBatches = "num_batches_tracked";
constexpr std::string_view kNames[] = {"weight", "bias", "running_mean", "running_var"};

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

Error UnknownSuffix(const std::string& path) {
  return Error{ErrorCode::kInvalidArgument, "expected a file of suffix .npz or .safetensors", path};
}

const Tensor* FindTensor(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return &tensor;
  }
  return nullptr;
}

ChannelValues Kept(DType dtype, const Tensor& tensor) {
  ChannelValues values(static_cast<size_t>(tensor.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = tensor.AsDouble(static_cast<int64_t>(i));
  return Kept(dtype, std::span<const double>(values));
}

// The arrays of a file that a state of these vectors is made of.
Result<NamedTensors> ReadState(const std::string& path, const std::string& prefix, const BatchNormState& state) {
  const bool npz = EndsWith(path, ".npz");
  if (!npz && !EndsWith(path, ".safetensors")) return UnknownSuffix(path);
  NpzOptions options;
  options.wanted = [&](std::string_view name) {
    if (!name.starts_with(prefix)) return false;
    const std::string_view own = name.substr(prefix.size());
    return own == kBatches ? state.tracked() : state.Find(own) != nullptr;
  };
  return npz ? ReadNpz(path, options) : ReadSafetensors(path, options);
}

}  // namespace

BatchNormState::BatchNormState(size_t channels, bool affine, bool tracked) {
  if (affine) {
    weight.assign(channels, 1);
    bias.assign(channels, 0);
  }
  if (tracked) {
    running_mean.assign(channels, 0);
    running_var.assign(channels, 1);
  }
}

const ChannelValues* BatchNormState::Find(std::string_view name) const {
  const std::array all = {&weight, &bias, &running_mean, &running_var};
  for (size_t i = 0; i < all.size(); ++i) {
    if (kNames[i] == name && !all[i]->empty()) return all[i];
  }
  return nullptr;
}

ChannelValues* BatchNormState::Find(std::string_view name) {
  return const_cast<ChannelValues*>(std::as_const(*this).Find(name));
}

ChannelValues Kept(DType dtype, std::span<const double> values) {
  ChannelValues kept(values.begin(), values.end());
  if (dtype != DType::kFloat64) {
    for (double& value : kept) value = static_cast<double>(static_cast<float>(value));
  }
  return kept;
}

Result<void> LoadState(const std::string& path, const std::string& prefix, DType dtype, BatchNormState* state) {
  CREASE_ASSIGN_OR_RETURN(const NamedTensors tensors, ReadState(path, prefix, *state));
  BatchNormState loaded = *state;
  for (const std::string_view name : kNames) {
    ChannelValues* values = loaded.Find(name);
    if (values == nullptr) continue;
    const std::string key = prefix + std::string(name);
    const Tensor* tensor = FindTensor(tensors, key);
    if (tensor == nullptr) return Error{ErrorCode::kInvalidArgument, "no array '" + key + "'", path};
    if (!IsFloat(tensor->dtype()) || tensor->size() != static_cast<int64_t>(values->size())) {
      return Error{ErrorCode::kInvalidArgument,
                   key + ": expected " + std::to_string(values->size()) + " floats, got " + Name(tensor->dtype()) +
                       " " + ToString(tensor->shape()),
                   path};
    }
    *values = Kept(dtype, *tensor);
  }
  const Tensor* batches = FindTensor(tensors, prefix + std::string(kBatches));
  if (batches != nullptr) {
    if (IsFloat(batches->dtype()) || batches->size() != 1 || batches->AsInt64(0) < 0) {
      return Error{ErrorCode::kInvalidArgument,
                   prefix + std::string(kBatches) + ": expected one integer >= 0, got " + Name(batches->dtype()) + " " +
                       ToString(batches->shape()) +
                       (batches->size() == 1 ? " of " + std::to_string(batches->AsDouble(0)) : ""),
                   path};
    }
    loaded.num_batches_tracked = batches->AsInt64(0);
  }
  *state = std::move(loaded);
  return {};
}

Result<void> SaveState(const std::string& path, const std::string& prefix, DType dtype, const BatchNormState& state) {
  const bool npz = EndsWith(path, ".npz");
  if (!npz && !EndsWith(path, ".safetensors")) return UnknownSuffix(path);
  NamedTensors tensors;
  for (const std::string_view name : kNames) {
    const ChannelValues* values = state.Find(name);
    if (values == nullptr) continue;
    Tensor tensor = Tensor::From<double>({static_cast<int64_t>(values->size())}, *values);
    if (dtype != DType::kFloat64) {
      CREASE_ASSIGN_OR_RETURN(tensor, tensor.ConvertedTo(DType::kFloat32));
    }
    tensors.emplace_back(prefix + std::string(name), std::move(tensor));
  }
  if (state.tracked()) {
    tensors.emplace_back(prefix + std::string(kBatches), Tensor::Scalar<int64_t>(state.num_batches_tracked));
  }
  return npz ? WriteNpz(path, tensors) : WriteSafetensors(path, tensors);
}

Result<NodeState> ReadNodeState(const std::string& path, const std::string& node_name, DType dtype) {
  CREASE_ASSIGN_OR_RETURN(const Graph graph, ImportOnnxFile(path));
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, InferTypes(graph, {}, false));
  ConstEval constants(graph, types);
  for (const NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    const bool named = node.name == node_name || (!node.outputs.empty() && node.outputs[0] != kNone &&
                                                  graph.value(node.outputs[0]).name == node_name);
    if (node.op_type != "BatchNormalization" || !node.domain.empty() || !named) continue;
    NodeState result;
    const std::array targets = {&result.state.weight, &result.state.bias, &result.state.running_mean,
                                &result.state.running_var};
    for (size_t i = 0; i < targets.size(); ++i) {
      const Tensor* constant = node.inputs.size() > i + 1 ? constants.Get(node.inputs[i + 1]) : nullptr;
      if (constant == nullptr || constant->size() == 0) {
        return Error{ErrorCode::kInvalidArgument, std::string(kNames[i]) + " is not constant", graph.Describe(id)};
      }
      if (constant->rank() != 1) {
        return Error{ErrorCode::kInvalidArgument,
                     std::string(kNames[i]) + ": expected one value a channel, got " + ToString(constant->shape()),
                     graph.Describe(id)};
      }
      *targets[i] = Kept(dtype, *constant);
      if (targets[i]->size() != targets[0]->size()) {
        return Error{ErrorCode::kInvalidModel, "parameters of different lengths", graph.Describe(id)};
      }
    }
    CREASE_ASSIGN_OR_RETURN(const float eps, AttrFloat(node, "epsilon", 1e-5f));
    CREASE_ASSIGN_OR_RETURN(const float momentum, AttrFloat(node, "momentum", 0.9f));
    result.eps = static_cast<double>(eps);
    result.momentum = static_cast<double>(momentum);
    return result;
  }
  return Error{ErrorCode::kInvalidArgument, "no BatchNormalization node of that name: " + node_name, path};
}

}  // namespace crease
