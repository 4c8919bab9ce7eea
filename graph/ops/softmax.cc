// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<int> SoftmaxAxis(const Node& node, int opset, int rank) {
  CREASE_ASSIGN_OR_RETURN(const int64_t axis, AttrInt(node, "axis", opset >= 13 ? -1 : 1));
  if (opset < 13 && axis == rank) return rank;  // all axes are before it: vectors of one element
  return NormalizeAxis(axis, rank);
}

Result<void> InferSoftmax(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  const TensorType& input = context.input(0);
  if (input.has_rank) CREASE_RETURN_IF_ERROR(SoftmaxAxis(context.node, context.opset, input.rank()));
  SetOutput(context, 0, input);
  return {};
}

// Each reads and writes `length` elements that are `step` apart.
void SoftmaxVector(const double* x, double* y, int64_t length, int64_t step) {
  double top = -std::numeric_limits<double>::infinity(), total = 0;
  for (int64_t i = 0; i < length; ++i) top = std::max(top, x[i * step]);
  for (int64_t i = 0; i < length; ++i) total += y[i * step] = std::exp(x[i * step] - top);
  for (int64_t i = 0; i < length; ++i) y[i * step] /= total;
}

void LogSoftmaxVector(const double* x, double* y, int64_t length, int64_t step) {
  double top = -std::numeric_limits<double>::infinity(), total = 0;
  for (int64_t i = 0; i < length; ++i) top = std::max(top, x[i * step]);
  for (int64_t i = 0; i < length; ++i) total += std::exp(x[i * step] - top);
  for (int64_t i = 0; i < length; ++i) y[i * step] = x[i * step] - top - std::log(total);
}

// One at the first of the largest elements.
void HardmaxVector(const double* x, double* y, int64_t length, int64_t step) {
  int64_t best = 0;
  for (int64_t i = 1; i < length; ++i) {
    if (x[i * step] > x[best * step]) best = i;
  }
  for (int64_t i = 0; i < length; ++i) y[i * step] = i == best ? 1.0 : 0.0;
}

template <void (*kVector)(const double*, double*, int64_t, int64_t)>
Result<std::vector<Tensor>> EvalSoftmax(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferSoftmax, context));
  if (outputs[0].size() == 0) return outputs;
  CREASE_ASSIGN_OR_RETURN(const SoftmaxShape shape,
                          ResolveSoftmax(context.node, context.opset, context.input(0).shape()));
  for (int64_t outer = 0; outer < shape.outer; ++outer) {
    for (int64_t inner = 0; inner < shape.inner; ++inner) {
      const int64_t first = outer * shape.length * shape.inner + inner;
      kVector(context.input(0).data<double>() + first, outputs[0].mutable_data<double>() + first, shape.length,
              shape.inner);
    }
  }
  return outputs;
}

}  // namespace

Result<SoftmaxShape> ResolveSoftmax(const Node& node, int opset, const Shape& input) {
  CREASE_ASSIGN_OR_RETURN(const int axis, SoftmaxAxis(node, opset, static_cast<int>(input.size())));
  const auto along = static_cast<size_t>(axis);
  SoftmaxShape shape;
  shape.outer = Product(input, 0, along);
  if (opset >= 13) {
    shape.length = input[along];
    shape.inner = Product(input, along + 1, input.size());
  } else {
    shape.length = Product(input, along, input.size());
  }
  return shape;
}

const OpDef kSoftmax = {"Softmax", "", 7, 1, 1, 1, 1, InferSoftmax, EvalSoftmax<SoftmaxVector>};
const OpDef kLogSoftmax = {"LogSoftmax", "", 7, 1, 1, 1, 1, InferSoftmax, EvalSoftmax<LogSoftmaxVector>};
const OpDef kHardmax = {"Hardmax", "", 7, 1, 1, 1, 1, InferSoftmax, EvalSoftmax<HardmaxVector>};

}  // namespace crease::ops
