// SPDX-License-Identifier: Apache-2.0
// The network whose run yields batch statistics, what becomes of them, and the network that gets them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace crease::tools {

// Running statistics of one BatchNormalization, as PyTorch keeps them.
struct NormStatistics {
  NodeId node = kNone;  // of the original graph
  std::string name;
  bool was_training = false;  // it normalized by batch statistics
  double epsilon = 0;
  std::vector<double> old_mean, old_var;  // the file's
  DType mean_dtype = DType::kUndefined, var_dtype = DType::kUndefined;
  std::vector<double> mean, var;
  int64_t batches = 0;

  // One batch's mean and biased variance, over `samples` > 1 values a channel. momentum: of the new
  // value; none: cumulative average. The variance enters unbiased.
  void Update(const Tensor& batch_mean, const Tensor& batch_var, int64_t samples, std::optional<double> momentum);
  // How far the statistics moved, over channels whose old ones could normalize.
  struct Change {
    int64_t channels = 0;
    double mean_shift = 0;                         // largest |mean - old_mean| in deviations of the new statistics
    double least_variance = 0, most_variance = 0;  // of (var + epsilon) / (old_var + epsilon)
  };
  Change ChangeOfAll() const;
};

struct StatisticsGraph {
  // What the original's batch-norms depend on, with every BatchNormalization normalizing by its batch, and no
  // Dropout that drops; its outputs are the batch's mean and biased variance of norms[0], norms[1], ... in turn. A
  // first axis that the file fixed is free.
  Graph graph;
  std::vector<NormStatistics> norms;
  std::vector<ValueId> data;           // what norms[i] normalizes
  std::vector<NodeId> dropouts;        // of the original, in training mode
  int64_t file_batch = Dim::kUnknown;  // the inputs' first axis, where the file fixes it
};
// Errors: no BatchNormalization; statistics that are not constant; a node's running statistics are used
// elsewhere, which the inference form cannot give; an unknown operator before a node; inputs without a batch, or fixed
// to different ones.
Result<StatisticsGraph> MakeStatisticsGraph(const Graph& original);

// Errors: a stored statistic is not finite.
Result<void> CheckStored(const Graph& original, const std::vector<NormStatistics>& norms);

// The original with the new statistics, every BatchNormalization and the given Dropouts in their inference form.
Result<Graph> WithStatistics(const Graph& original, const std::vector<NormStatistics>& norms,
                             const std::vector<NodeId>& dropouts);

}  // namespace crease::tools
