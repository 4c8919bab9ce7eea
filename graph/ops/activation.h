// SPDX-License-Identifier: Apache-2.0
// Parameters of the element-wise activations, with each operator's defaults.
#pragma once

#include "graph/graph.h"

namespace crease::ops {

// LeakyRelu, Elu, Celu, ThresholdedRelu: alpha. Selu: alpha, and gamma in beta. HardSigmoid: alpha,
// beta. Gelu: alpha is 1 for approximate = "tanh". Others: unused.
struct ActivationParameters {
  double alpha = 0, beta = 0;
};
Result<ActivationParameters> ParseActivation(const Node& node);

// Bounds of Clip: min(max(x, low), high), so that high wins where low > high; infinite where
// absent.
struct ClipBounds {
  double low, high;
};
// `min` and `max`: inputs 1 and 2 from opset 11 on, null where absent; ignored before. Errors: a
// bound that is not one element.
Result<ClipBounds> ParseClip(const Node& node, int opset, const Tensor* min, const Tensor* max);

// One element-wise operator of one input, in double precision (Relu, Sigmoid, Erf, ...; not Clip);
// null for other operators. Tests of kernels use it as the twin.
using UnaryFunction = double (*)(double x, const ActivationParameters& parameters);
UnaryFunction FindUnaryFunction(std::string_view op_type);

}  // namespace crease::ops
