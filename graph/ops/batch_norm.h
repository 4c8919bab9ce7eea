// SPDX-License-Identifier: Apache-2.0
// BatchNormalization in the meanings of opsets 7, 9, 14 and 15. Training form: statistics of the batch,
// the variance biased (opset 14 names the population variance; 7 and 9 name neither), and running ones as
// old * momentum + batch * (1 - momentum). Outputs Y, running mean, running variance; before opset 14 also saved_mean
// and saved_var, the batch's own.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace crease::ops {

struct BatchNormAttributes {
  float epsilon = 1e-5f;
  float momentum = 0.9f;
  // Normalizes by the batch's own statistics: training_mode from opset 14 on; before that, any of
  // the outputs mean, var, saved_mean and saved_var being there.
  bool training = false;
};

// Errors: spatial = 0 (opset 7), epsilon not finite or negative, outputs beyond Y that the opset or
// training_mode = 0 does not allow.
Result<BatchNormAttributes> ParseBatchNorm(const Node& node, int opset);

// y = scale * x + shift, one entry a channel: scale = gamma / sqrt(var + epsilon),
// shift = beta - mean * scale, in double from the stored values.
struct BatchNormAffine {
  std::vector<double> scale, shift;
};

// Of an inference-form node with constant parameters. Errors: lengths that differ; var + epsilon <=
// 0, NaN or infinite, or another parameter not finite: names the channel and the value.
Result<BatchNormAffine> ResolveBatchNorm(const BatchNormAttributes& attributes, const Tensor& gamma, const Tensor& beta,
                                         const Tensor& mean, const Tensor& var);

}  // namespace crease::ops
