// SPDX-License-Identifier: Apache-2.0
// Parameters and statistics of a batch-norm, and the files they come from and go to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "graph/tensor.h"
#include "kernels/aligned_vector.h"

namespace crease {

using ChannelValues = AlignedVector<double>;  // one a channel

// Empty vectors: not there (affine or tracking is off).
struct BatchNormState {
  ChannelValues weight, bias, running_mean, running_var;
  int64_t num_batches_tracked = 0;

  BatchNormState() = default;
  BatchNormState(size_t channels, bool affine, bool tracked);
  bool tracked() const { return !running_mean.empty(); }
  ChannelValues* Find(std::string_view name);  // null: no such name, or not there
  const ChannelValues* Find(std::string_view name) const;
};

// The values as a batch-norm of tensors of this dtype keeps them: float32, for float64 tensors float64.
ChannelValues Kept(DType dtype, std::span<const double> values);

// Every vector that is there, from arrays named prefix + name, as Kept(); all or none.
Result<void> LoadState(const std::string& path, const std::string& prefix, DType dtype, BatchNormState* state);
// Vectors as float32, for float64 tensors as float64; num_batches_tracked as int64 if statistics are.
Result<void> SaveState(const std::string& path, const std::string& prefix, DType dtype, const BatchNormState& state);

// A BatchNormalization node of an ONNX file, by its name or its first output's.
struct NodeState {
  BatchNormState state;
  double eps = 0;
  double momentum = 0;  // ONNX's: of the old value
};
// Its vectors as Kept().
Result<NodeState> ReadNodeState(const std::string& path, const std::string& node_name, DType dtype);

}  // namespace crease
