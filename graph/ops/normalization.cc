// SPDX-License-Identifier: Apache-2.0
// Normalization by the input's own statistics: InstanceNormalization, GroupNormalization,
// LayerNormalization, LpNormalization, LRN.
#include <algorithm>
#include <cmath>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

// y = (x - mean) / sqrt(var + epsilon) over `count` dense elements; returns (mean, 1 / sqrt(...)).
struct Spread {
  double mean = 0, inverse = 0;
};
Spread NormalizeRun(const double* x, double* y, int64_t count, double epsilon) {
  Spread spread;
  for (int64_t i = 0; i < count; ++i) spread.mean += x[i];
  spread.mean /= static_cast<double>(count);
  double square = 0;
  for (int64_t i = 0; i < count; ++i) square += (x[i] - spread.mean) * (x[i] - spread.mean);
  spread.inverse = 1 / std::sqrt(square / static_cast<double>(count) + epsilon);
  for (int64_t i = 0; i < count; ++i) y[i] = (x[i] - spread.mean) * spread.inverse;
  return spread;
}

Result<double> ReadEpsilon(const Node& node) {
  CREASE_ASSIGN_OR_RETURN(const float epsilon, AttrFloat(node, "epsilon", 1e-5f));
  if (!(epsilon >= 0)) return InvalidModel("attribute 'epsilon' must not be negative, it is ", epsilon);
  return static_cast<double>(epsilon);
}

Result<void> RequireVector(const InferContext& context, int input, const Dim& length, std::string_view what) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, input));
  CREASE_RETURN_IF_ERROR(RequireRank(context, input, 1, 1));
  if (context.input(input).has_rank) CREASE_RETURN_IF_ERROR(MergeDims(length, context.input(input).dims[0], what));
  return {};
}

Result<void> InferInstanceNormalization(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 3));
  CREASE_RETURN_IF_ERROR(ReadEpsilon(context.node));
  const TensorType& x = context.input(0);
  const Dim channels = x.has_rank ? x.dims[1] : Dim{};
  CREASE_RETURN_IF_ERROR(RequireVector(context, 1, channels, "the input's channels and the length of scale"));
  CREASE_RETURN_IF_ERROR(RequireVector(context, 2, channels, "the input's channels and the length of B"));
  SetOutput(context, 0, x);
  return {};
}

// y = y * scale + bias for the planes of one tensor (batch, channels, ...); `owner` maps a channel to the
// element of scale and bias.
void ScalePlanes(const EvalContext& context, Tensor& y, int64_t channels_per_element) {
  const int64_t channels = y.dim(1), pixels = Product(y.shape(), 2, y.shape().size());
  double* data = y.mutable_data<double>();
  for (int64_t plane = 0; plane < y.dim(0) * channels; ++plane) {
    const int64_t element = plane % channels / channels_per_element;
    const double scale = context.input(1).AsDouble(element), bias = context.input(2).AsDouble(element);
    for (int64_t p = plane * pixels; p < (plane + 1) * pixels; ++p) data[p] = data[p] * scale + bias;
  }
}

Result<std::vector<Tensor>> EvalInstanceNormalization(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferInstanceNormalization, context));
  CREASE_ASSIGN_OR_RETURN(const double epsilon, ReadEpsilon(context.node));
  const Tensor& x = context.input(0);
  const int64_t pixels = Product(x.shape(), 2, x.shape().size());
  for (int64_t plane = 0; plane < x.dim(0) * x.dim(1); ++plane) {
    NormalizeRun(x.data<double>() + plane * pixels, outputs[0].mutable_data<double>() + plane * pixels, pixels,
                 epsilon);
  }
  ScalePlanes(context, outputs[0], 1);
  return outputs;
}

// Opset 18: scale and bias have one element a group; from 21 on one a channel.
Result<void> InferGroupNormalization(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 3));
  CREASE_RETURN_IF_ERROR(ReadEpsilon(context.node));
  CREASE_ASSIGN_OR_RETURN(const int64_t groups, AttrInt(context.node, "num_groups", 0));
  if (groups < 1) return InvalidModel("attribute 'num_groups' must be at least 1, it is ", groups);
  const TensorType& x = context.input(0);
  const Dim channels = x.has_rank ? x.dims[1] : Dim{};
  if (channels.known() && channels.value % groups != 0) {
    return InvalidModel("the input's ", channels.value, " channels must be a multiple of num_groups ", groups);
  }
  const Dim length = context.opset < 21 ? Dim{groups, ""} : channels;
  CREASE_RETURN_IF_ERROR(RequireVector(context, 1, length, "the expected and the found length of scale"));
  CREASE_RETURN_IF_ERROR(RequireVector(context, 2, length, "the expected and the found length of bias"));
  SetOutput(context, 0, x);
  return {};
}

Result<std::vector<Tensor>> EvalGroupNormalization(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGroupNormalization, context));
  CREASE_ASSIGN_OR_RETURN(const double epsilon, ReadEpsilon(context.node));
  CREASE_ASSIGN_OR_RETURN(const int64_t groups, AttrInt(context.node, "num_groups", 1));
  const Tensor& x = context.input(0);
  if (x.size() == 0) return outputs;
  const int64_t run = x.size() / (x.dim(0) * groups);
  for (int64_t first = 0; first < x.size(); first += run) {
    NormalizeRun(x.data<double>() + first, outputs[0].mutable_data<double>() + first, run, epsilon);
  }
  ScalePlanes(context, outputs[0], context.opset < 21 ? x.dim(1) / groups : 1);
  return outputs;
}

Result<void> InferLayerNormalization(InferContext& context) {
  for (int i = 0; i < 3; ++i) CREASE_RETURN_IF_ERROR(RequireFloat(context, i));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_RETURN_IF_ERROR(ReadEpsilon(context.node));
  const TensorType& x = context.input(0);
  TensorType statistics = WithDType(x, DType::kFloat32);
  if (x.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, x.rank(), -1));
    for (int i = 1; i < 3; ++i) {
      CREASE_RETURN_IF_ERROR(RequireRank(context, i, 0, x.rank()));
      if (!context.has_input(i) || !context.input(i).has_rank) continue;
      const std::vector<const std::vector<Dim>*> operands = {&x.dims, &context.input(i).dims};
      CREASE_ASSIGN_OR_RETURN(const std::vector<Dim> dims, BroadcastDims(operands));
      for (size_t d = 0; d < dims.size(); ++d) CREASE_RETURN_IF_ERROR(MergeDims(dims[d], x.dims[d], "X and its scale"));
    }
    for (size_t i = static_cast<size_t>(axis); i < x.dims.size(); ++i) statistics.dims[i] = Dim{1, ""};
  }
  SetOutput(context, 0, x);
  SetOutput(context, 1, statistics);
  SetOutput(context, 2, statistics);
  return {};
}

Result<std::vector<Tensor>> EvalLayerNormalization(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferLayerNormalization, context));
  CREASE_ASSIGN_OR_RETURN(const double epsilon, ReadEpsilon(context.node));
  const Tensor& x = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, x.rank(), -1));
  const int64_t run = Product(x.shape(), static_cast<size_t>(axis), x.shape().size());
  double* y = outputs[0].mutable_data<double>();
  for (int64_t n = 0; n < (run == 0 ? 0 : x.size() / run); ++n) {
    const Spread spread = NormalizeRun(x.data<double>() + n * run, y + n * run, run, epsilon);
    if (outputs.size() > 1 && outputs[1].defined()) outputs[1].mutable_data<double>()[n] = spread.mean;
    if (outputs.size() > 2 && outputs[2].defined()) outputs[2].mutable_data<double>()[n] = spread.inverse;
  }
  const std::vector<int64_t> none(x.shape().size(), 0);
  const auto strides = [&](int i) {
    return context.has(i) ? BroadcastStrides(context.input(i).shape(), x.shape()) : none;
  };
  int64_t i = 0;
  ForEachIndex<2>(x.shape(), {strides(1), strides(2)}, [&](const std::array<int64_t, 2>& offsets) {
    y[i] *= context.input(1).data<double>()[offsets[0]];
    if (context.has(2)) y[i] += context.input(2).data<double>()[offsets[1]];
    ++i;
  });
  return outputs;
}

Result<void> InferLpNormalization(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_ASSIGN_OR_RETURN(const int64_t p, AttrInt(context.node, "p", 2));
  if (p != 1 && p != 2) return InvalidModel("attribute 'p' must be 1 or 2, it is ", p);
  if (context.input(0).has_rank) CREASE_RETURN_IF_ERROR(ParseAxis(context.node, context.input(0).rank(), -1));
  SetOutput(context, 0, context.input(0));
  return {};
}

Result<std::vector<Tensor>> EvalLpNormalization(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferLpNormalization, context));
  const Tensor& x = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, x.rank(), -1));
  CREASE_ASSIGN_OR_RETURN(const int64_t p, AttrInt(context.node, "p", 2));
  const auto along = static_cast<size_t>(axis);
  const int64_t outer = Product(x.shape(), 0, along), inner = Product(x.shape(), along + 1, x.shape().size());
  const int64_t length = x.dim(axis);
  for (int64_t vector = 0; vector < outer * inner; ++vector) {
    const int64_t first = vector / inner * length * inner + vector % inner;
    const double* from = x.data<double>() + first;
    double total = 0;
    for (int64_t k = 0; k < length; ++k) {
      const double value = from[k * inner];
      total += p == 1 ? std::fabs(value) : value * value;
    }
    const double norm = p == 1 ? total : std::sqrt(total);
    for (int64_t k = 0; k < length; ++k) {
      outputs[0].mutable_data<double>()[first + k * inner] = norm == 0 ? 0 : from[k * inner] / norm;
    }
  }
  return outputs;
}

Result<void> InferLrn(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 2));
  CREASE_ASSIGN_OR_RETURN(const int64_t size, AttrInt(context.node, "size", 0));
  if (size < 1) return InvalidModel("attribute 'size' must be at least 1, it is ", size);
  SetOutput(context, 0, context.input(0));
  return {};
}

// y = x / (bias + alpha / size * sum of squares over the channels c - floor((size - 1) / 2) to
// c + ceil((size - 1) / 2)) ^ beta.
Result<std::vector<Tensor>> EvalLrn(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferLrn, context));
  CREASE_ASSIGN_OR_RETURN(const int64_t size, AttrInt(context.node, "size", 1));
  CREASE_ASSIGN_OR_RETURN(const float alpha, AttrFloat(context.node, "alpha", 1e-4f));
  CREASE_ASSIGN_OR_RETURN(const float beta, AttrFloat(context.node, "beta", 0.75f));
  CREASE_ASSIGN_OR_RETURN(const float bias, AttrFloat(context.node, "bias", 1));
  const Tensor& x = context.input(0);
  const int64_t channels = x.dim(1), pixels = Product(x.shape(), 2, x.shape().size());
  const double* from = x.data<double>();
  for (int64_t i = 0; i < x.size(); ++i) {
    const int64_t channel = i / pixels % channels, base = i - channel * pixels;
    const int64_t first = std::max<int64_t>(0, channel - (size - 1) / 2);
    const int64_t reach = std::min(size / 2, channels);  // size may be past the channels
    const int64_t last = std::min(channels - 1, channel + reach);
    double total = 0;
    for (int64_t c = first; c <= last; ++c) total += from[base + c * pixels] * from[base + c * pixels];
    const double scale = bias + static_cast<double>(alpha) / static_cast<double>(size) * total;
    outputs[0].mutable_data<double>()[i] = from[i] / std::pow(scale, static_cast<double>(beta));
  }
  return outputs;
}

}  // namespace

const OpDef kInstanceNormalization = {"InstanceNormalization",  "", 7, 3, 3, 1, 1, InferInstanceNormalization,
                                      EvalInstanceNormalization};
const OpDef kGroupNormalization = {"GroupNormalization",  "", 18, 3, 3, 1, 1, InferGroupNormalization,
                                   EvalGroupNormalization};
const OpDef kLayerNormalization = {"LayerNormalization",  "", 17, 2, 3, 1, 3, InferLayerNormalization,
                                   EvalLayerNormalization};
const OpDef kLpNormalization = {"LpNormalization", "", 7, 1, 1, 1, 1, InferLpNormalization, EvalLpNormalization};
const OpDef kLRN = {"LRN", "", 7, 1, 1, 1, 1, InferLrn, EvalLrn};

}  // namespace crease::ops
