// SPDX-License-Identifier: Apache-2.0
#include "runtime/fusion/fusion.h"

#include <algorithm>
#include <limits>

#include "graph/op.h"
#include "graph/ops/activation.h"
#include "graph/ops/conv.h"
#include "kernels/kernels.h"

namespace crease {

std::span<const FusionPass> FusionPasses() {
  static constexpr FusionPass kPasses[] = {
      {"lower_sum", LowerSum},
      {"fuse_composed_activations", FuseComposedActivations},
      {"fuse_matmul_bias", FuseMatMulBias},
      {"fuse_pad", FusePad},
      {"fuse_channel_shuffle", FuseChannelShuffle},
      {"fuse_global_average_pool", FuseGlobalAveragePool},
      {"pool_before_pointwise", PoolBeforePointwise},
      {"skip_unread_pixels", SkipUnreadPixels},
      {"share_concat_prefixes", ShareConcatPrefixes},
      {"fuse_epilogues", FuseEpilogues},
      {"fuse_prologues", FusePrologues},
  };
  return kPasses;
}

bool IsPointwiseConv(const Program& program, const ProgramOp& op) {
  if (op.type() != "Conv" || !op.node.domain.empty()) return false;
  const auto conv = ops::ResolveConv(op.node, program.value(op.input(0)).shape, program.value(op.input(1)).shape);
  return conv.ok() && std::all_of(conv->axes.begin(), conv->axes.end(), [](const ops::WindowAxis& axis) {
           return axis.kernel == 1 && axis.stride == 1 && axis.pad_begin == 0 && axis.pad_end == 0;
         });
}

std::optional<double> ScalarConstant(const Program& program, ValueId id) {
  const Tensor* tensor = program.constant(id);
  if (tensor == nullptr || tensor->size() != 1) return std::nullopt;
  return tensor->AsDouble(0);
}

std::optional<ActivationOf> AsActivation(const Program& program, const ProgramOp& op) {
  if (op.node.inputs.empty() || program.value(op.output()).dtype != DType::kFloat32) return std::nullopt;
  const std::string_view type = op.type();
  if (type == "Silu" && op.node.domain == kInternalDomain) return ActivationOf{Activation::kSilu};
  if (!op.node.domain.empty()) return std::nullopt;
  if (type == "Relu") return ActivationOf{Activation::kRelu};
  if (type == "Sigmoid") return ActivationOf{Activation::kSigmoid};
  if (type == "HardSwish") return ActivationOf{Activation::kHardSwish};
  if (type == "Tanh") return ActivationOf{Activation::kTanh};
  if (type == "Mish") return ActivationOf{Activation::kMish};
  if (type == "Clip") {
    const Tensor* low = program.constant(op.input(1));
    const Tensor* high = program.constant(op.input(2));
    if ((op.input(1) != kNone && !low) || (op.input(2) != kNone && !high)) return std::nullopt;
    const Result<ops::ClipBounds> bounds = ops::ParseClip(op.node, program.opset, low, high);
    if (!bounds.ok()) return std::nullopt;
    return ActivationOf{Activation::kClip, static_cast<float>(bounds->low), static_cast<float>(bounds->high)};
  }
  if (type == "LeakyRelu" || type == "Elu" || type == "HardSigmoid" || type == "Gelu") {
    const Result<ops::ActivationParameters> parameters = ops::ParseActivation(op.node);
    if (!parameters.ok()) return std::nullopt;
    const float alpha = static_cast<float>(parameters->alpha), beta = static_cast<float>(parameters->beta);
    if (type == "LeakyRelu") return ActivationOf{Activation::kLeakyRelu, alpha};
    if (type == "Elu") return ActivationOf{Activation::kElu, alpha};
    if (type == "HardSigmoid") return ActivationOf{Activation::kHardSigmoid, alpha, beta};
    if (alpha == 0) return ActivationOf{Activation::kGelu};
  }
  return std::nullopt;
}

Node ActivationNode(const Epilogue& epilogue, ValueId src, ValueId dst) {
  Node node;
  node.inputs = {src};
  node.outputs = {dst};
  const auto set = [&](std::string_view name, float value) { node.attributes.push_back(MakeAttr(name, value)); };
  switch (epilogue.activation) {
    case Activation::kNone:
      node.op_type = "Identity";
      break;
    case Activation::kRelu:
      node.op_type = "Relu";
      break;
    case Activation::kClip:
      node.op_type = "Clip";
      break;
    case Activation::kLeakyRelu:
      node.op_type = "LeakyRelu";
      set("alpha", epilogue.a);
      break;
    case Activation::kHardSwish:
      node.op_type = "HardSwish";
      break;
    case Activation::kHardSigmoid:
      node.op_type = "HardSigmoid";
      set("alpha", epilogue.a);
      set("beta", epilogue.b);
      break;
    case Activation::kSigmoid:
      node.op_type = "Sigmoid";
      break;
    case Activation::kSilu:
      node.op_type = "Silu";
      node.domain = kInternalDomain;
      break;
    case Activation::kTanh:
      node.op_type = "Tanh";
      break;
    case Activation::kElu:
      node.op_type = "Elu";
      set("alpha", epilogue.a);
      break;
    case Activation::kGelu:
      node.op_type = "Gelu";
      break;
    case Activation::kMish:
      node.op_type = "Mish";
      break;
  }
  return node;
}

}  // namespace crease
