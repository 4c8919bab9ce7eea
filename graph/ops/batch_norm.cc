// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/batch_norm.h"

#include <array>
#include <cmath>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

constexpr std::array<std::string_view, 4> kParameterNames = {"scale", "B", "mean", "var"};

// Parameters are vectors of the channel count, as far as types tell; returns that count.
Result<Dim> CheckParameters(const InferContext& context) {
  const TensorType& x = context.input(0);
  Dim channels = x.has_rank ? Dim{x.rank() > 1 ? x.dims[1].value : 1, ""} : Dim{};
  for (int i = 1; i < 5; ++i) {
    CREASE_RETURN_IF_ERROR(RequireFloat(context, i));
    CREASE_RETURN_IF_ERROR(RequireRank(context, i, 1, 1));
    if (!context.has_input(i) || !context.input(i).has_rank) continue;
    CREASE_ASSIGN_OR_RETURN(channels, MergeDims(channels, context.input(i).dims[0],
                                                StrCat("the input's channels and the length of ",
                                                       kParameterNames[static_cast<size_t>(i) - 1])));
  }
  return channels;
}

Result<void> InferBatchNormalization(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const BatchNormAttributes attributes, ParseBatchNorm(context.node, context.opset));
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_ASSIGN_OR_RETURN(const Dim channels, CheckParameters(context));
  std::array<const Tensor*, 4> parameters{};
  bool all = true;
  for (int i = 0; i < 4; ++i) {
    parameters[static_cast<size_t>(i)] = context.constant(i + 1);
    all = all && context.constant(i + 1) != nullptr;
  }
  if (all && !attributes.training && context.check_values) {
    CREASE_RETURN_IF_ERROR(
        ResolveBatchNorm(attributes, *parameters[0], *parameters[1], *parameters[2], *parameters[3]));
  }
  SetOutput(context, 0, context.input(0));
  for (int i = 1; i < context.output_count(); ++i) {
    const int source = context.opset >= 14 ? 3 : 1;
    SetOutput(context, i,
              TypeOf(context.has_input(source) ? context.input(source).dtype : DType::kUndefined, {channels}));
  }
  return {};
}

// Elements of x belonging to one channel: images of `pixels`, `channels * pixels` apart.
struct ChannelView {
  int64_t images = 1, channels = 1, pixels = 1;
};
ChannelView ViewOf(const Shape& shape) {
  ChannelView view;
  view.images = shape[0];
  if (shape.size() > 1) view.channels = shape[1];
  for (size_t i = 2; i < shape.size(); ++i) view.pixels *= shape[i];
  return view;
}

struct Moments {
  double mean = 0, var = 0;
};
// Mean and population variance of one channel, in two passes.
Moments MomentsOf(const double* x, const ChannelView& view, int64_t channel) {
  const double count = static_cast<double>(view.images * view.pixels);
  Moments moments;
  for (int pass = 0; pass < 2; ++pass) {
    double total = 0;
    for (int64_t n = 0; n < view.images; ++n) {
      const double* plane = x + (n * view.channels + channel) * view.pixels;
      for (int64_t p = 0; p < view.pixels; ++p) {
        const double centred = plane[p] - moments.mean;
        total += pass == 0 ? plane[p] : centred * centred;
      }
    }
    (pass == 0 ? moments.mean : moments.var) = total / count;
  }
  return moments;
}

Result<std::vector<Tensor>> EvalTraining(const EvalContext& context, const BatchNormAttributes& attributes,
                                         std::vector<Tensor> outputs) {
  const ChannelView view = ViewOf(context.input(0).shape());
  if (view.images * view.pixels == 0) return InvalidModel("batch statistics need at least one value per channel");
  const double* x = context.input(0).data<double>();
  for (int64_t c = 0; c < view.channels; ++c) {
    const Moments moments = MomentsOf(x, view, c);
    const double scale = context.input(1).AsDouble(c) / std::sqrt(moments.var + attributes.epsilon);
    const double shift = context.input(2).AsDouble(c) - moments.mean * scale;
    for (int64_t n = 0; n < view.images; ++n) {
      const int64_t first = (n * view.channels + c) * view.pixels;
      for (int64_t p = first; p < first + view.pixels; ++p) outputs[0].mutable_data<double>()[p] = x[p] * scale + shift;
    }
    const double momentum = attributes.momentum;
    const std::array<double, 4> statistics = {context.input(3).AsDouble(c) * momentum + moments.mean * (1 - momentum),
                                              context.input(4).AsDouble(c) * momentum + moments.var * (1 - momentum),
                                              moments.mean, moments.var};
    for (size_t i = 1; i < outputs.size() && i <= statistics.size(); ++i) {
      if (outputs[i].defined()) outputs[i].mutable_data<double>()[c] = statistics[i - 1];
    }
  }
  return outputs;
}

Result<std::vector<Tensor>> EvalBatchNormalization(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferBatchNormalization, context));
  CREASE_ASSIGN_OR_RETURN(const BatchNormAttributes attributes, ParseBatchNorm(context.node, context.opset));
  if (attributes.training) return EvalTraining(context, attributes, std::move(outputs));
  CREASE_ASSIGN_OR_RETURN(const BatchNormAffine affine, ResolveBatchNorm(attributes, context.input(1), context.input(2),
                                                                         context.input(3), context.input(4)));
  const ChannelView view = ViewOf(context.input(0).shape());
  const double* x = context.input(0).data<double>();
  double* y = outputs[0].mutable_data<double>();
  for (int64_t plane = 0; plane < view.images * view.channels; ++plane) {
    const auto c = static_cast<size_t>(plane % view.channels);
    for (int64_t p = plane * view.pixels; p < (plane + 1) * view.pixels; ++p) {
      y[p] = x[p] * affine.scale[c] + affine.shift[c];
    }
  }
  return outputs;
}

}  // namespace

Result<BatchNormAttributes> ParseBatchNorm(const Node& node, int opset) {
  BatchNormAttributes attributes;
  CREASE_ASSIGN_OR_RETURN(attributes.epsilon, AttrFloat(node, "epsilon", 1e-5f));
  CREASE_ASSIGN_OR_RETURN(attributes.momentum, AttrFloat(node, "momentum", 0.9f));
  if (!(attributes.epsilon >= 0) || std::isinf(attributes.epsilon)) {
    return InvalidModel("attribute 'epsilon' must be finite and not negative, it is ", attributes.epsilon);
  }
  int extra = 0;
  for (size_t i = 1; i < node.outputs.size(); ++i) extra += node.outputs[i] != kNone;
  if (opset >= 14) {
    CREASE_ASSIGN_OR_RETURN(const int64_t mode, AttrInt(node, "training_mode", 0));
    attributes.training = mode != 0;
    if (node.outputs.size() > 3 || (extra > 0 && !attributes.training)) {
      return InvalidModel("expected ", attributes.training ? "1 to 3 outputs" : "1 output with training_mode = 0",
                          ", found ", node.outputs.size());
    }
    return attributes;
  }
  CREASE_ASSIGN_OR_RETURN(const int64_t spatial, AttrInt(node, "spatial", 1));
  if (opset < 9 && spatial == 0) {
    return Unsupported("attribute 'spatial' must be 1 (statistics per channel), it is 0 (per activation)");
  }
  attributes.training = extra > 0;
  return attributes;
}

Result<BatchNormAffine> ResolveBatchNorm(const BatchNormAttributes& attributes, const Tensor& gamma, const Tensor& beta,
                                         const Tensor& mean, const Tensor& var) {
  const std::array<const Tensor*, 4> parameters = {&gamma, &beta, &mean, &var};
  for (size_t i = 1; i < parameters.size(); ++i) {
    if (parameters[i]->size() != gamma.size()) {
      return InvalidModel(kParameterNames[i], " must have ", gamma.size(), " elements as scale has, it has ",
                          parameters[i]->size());
    }
  }
  // Converted as a whole: every pass asks for it again.
  std::array<Tensor, 4> converted;
  std::array<const double*, 4> values{};
  for (size_t i = 0; i < parameters.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(const Tensor doubles, parameters[i]->ConvertedTo(DType::kFloat64));
    CREASE_ASSIGN_OR_RETURN(converted[i], doubles.Aligned());
    values[i] = converted[i].data<double>();
  }
  const double epsilon = static_cast<double>(attributes.epsilon);
  const auto channels = static_cast<size_t>(gamma.size());
  for (size_t c = 0; c < channels; ++c) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!std::isfinite(values[i][c])) {
        return InvalidModel(kParameterNames[i], " must be finite, at channel ", c, " it is ", values[i][c]);
      }
    }
    const double spread = values[3][c] + epsilon;
    if (!(spread > 0)) {
      return InvalidModel("var + epsilon must be positive, at channel ", c, " it is ", values[3][c], " + ",
                          attributes.epsilon, " = ", spread);
    }
  }
  BatchNormAffine affine;
  affine.scale.resize(channels);
  affine.shift.resize(channels);
  for (size_t c = 0; c < channels; ++c) {
    const double scale = values[0][c] / std::sqrt(values[3][c] + epsilon);
    affine.scale[c] = scale;
    affine.shift[c] = values[1][c] - values[2][c] * scale;
  }
  return affine;
}

const OpDef kBatchNormalization = {"BatchNormalization",  "", 7, 5, 5, 1, 5, InferBatchNormalization,
                                   EvalBatchNormalization};

}  // namespace crease::ops
