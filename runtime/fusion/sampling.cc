// SPDX-License-Identifier: Apache-2.0
// A map of which all readers take every second pixel only, as stride-2 convolutions of 1x1 do at the end of a ResNet's
// stages, need not be computed at the others. Strides move up through what works pixel by pixel into the convolution
// that makes the map. (OpenVINO has the same as StridesOptimization.)
#include <algorithm>
#include <optional>

#include "graph/op.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/window.h"
#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

using Steps = std::vector<int64_t>;  // by spatial axis

// The windows of a Conv or MaxPool along its axes.
std::optional<std::vector<ops::WindowAxis>> AxesOf(const Program& program, const ProgramOp& op) {
  const Shape& x = program.value(op.input(0)).shape;
  std::vector<int64_t> kernel;
  if (op.type() == "Conv") {
    const Shape& weights = program.value(op.input(1)).shape;
    if (weights.size() < 3) return std::nullopt;
    kernel.assign(weights.begin() + 2, weights.end());
  }
  const Result<ops::WindowAttributes> window = ops::ParseWindow(op.node, static_cast<int>(x.size()) - 2, kernel);
  if (!window.ok() || window->kernel.empty() || window->ceil_mode) return std::nullopt;
  std::vector<ops::WindowAxis> axes;
  for (int i = 0; i < window->rank(); ++i) {
    const Result<ops::WindowAxis> axis = ops::ResolveAxis(*window, i, x[static_cast<size_t>(i) + 2]);
    if (!axis.ok()) return std::nullopt;
    axes.push_back(*axis);
  }
  return axes;
}

void SetStrides(Node& node, const std::vector<ops::WindowAxis>& axes, const Steps& strides) {
  std::erase_if(node.attributes,
                [](const Attribute& a) { return a.name == "strides" || a.name == "pads" || a.name == "auto_pad"; });
  std::vector<int64_t> pads;
  for (const ops::WindowAxis& axis : axes) pads.push_back(axis.pad_begin);
  for (const ops::WindowAxis& axis : axes) pads.push_back(axis.pad_end);
  node.attributes.push_back(MakeAttr("strides", strides));
  node.attributes.push_back(MakeAttr("pads", std::move(pads)));
}

// The steps of an op that takes single pixels of its first input and skips others; empty for any other op.
Steps StepsOf(const Program& program, const ProgramOp& op) {
  if (!op.node.domain.empty() || op.node.outputs.size() != 1) return {};
  if (op.type() != "Conv" && (op.type() != "MaxPool" || program.is_output(op.output()))) return {};
  const auto axes = AxesOf(program, op);
  if (!axes) return {};
  Steps steps;
  for (const ops::WindowAxis& axis : *axes) {
    if (axis.kernel != 1 || axis.pad_begin != 0 || axis.pad_end != 0) return {};
    steps.push_back(axis.stride);
  }
  const bool skips = std::any_of(steps.begin(), steps.end(), [](int64_t step) { return step > 1; });
  return skips ? steps : Steps();
}

// What every reader of the value skips by; empty where they differ or one reads all of it.
Steps CommonSteps(const Program& program, ValueId id) {
  Steps common;
  for (const int reader : program.users(id)) {
    const ProgramOp& op = program.op(reader);
    if (op.input(0) != id || std::count(op.node.inputs.begin(), op.node.inputs.end(), id) != 1) return {};
    const Steps steps = StepsOf(program, op);
    if (steps.empty() || (!common.empty() && steps != common)) return {};
    common = steps;
  }
  return common;
}

Shape Sampled(Shape shape, const Steps& steps) {
  for (size_t i = 0; i < steps.size(); ++i) shape[i + 2] = (shape[i + 2] - 1) / steps[i] + 1;
  return shape;
}

bool IsAffine(const Program& program, const ProgramOp& op) {
  for (size_t i = 1; i < op.node.inputs.size(); ++i) {
    if (!program.constant(op.input(i))) return false;
  }
  if (op.type() == "Affine") return op.node.domain == kInternalDomain;
  if (op.type() != "BatchNormalization" || !op.node.domain.empty()) return false;
  const auto attributes = ops::ParseBatchNorm(op.node, program.opset);
  return attributes.ok() && !attributes->training;
}

// The inputs of which an op that works pixel by pixel needs one pixel for one of its result; the others are the same
// for all pixels. None for any other op.
std::optional<std::vector<size_t>> PixelwiseInputs(const Program& program, const ProgramOp& op) {
  if (IsAffine(program, op) || AsActivation(program, op)) return std::vector<size_t>{0};
  if (!op.node.domain.empty()) return std::nullopt;
  if (op.type() != "Add" && op.type() != "Sub" && op.type() != "Mul" && op.type() != "Div") return std::nullopt;
  const Shape& y = program.value(op.output()).shape;
  std::vector<size_t> slots;
  for (size_t slot = 0; slot < op.node.inputs.size(); ++slot) {
    const Shape& x = program.value(op.input(slot)).shape;
    const auto spatial = static_cast<int64_t>(std::min(x.size(), y.size() - 2));
    const bool same = x.size() == y.size() && std::equal(x.end() - spatial, x.end(), y.end() - spatial);
    const bool one = std::all_of(x.end() - spatial, x.end(), [](int64_t dim) { return dim == 1; });
    if (same) {
      slots.push_back(slot);
    } else if (!one) {
      return std::nullopt;
    }
  }
  return slots;
}

// Takes the steps over from the readers. False, and nothing done, where the op can't.
bool TakeOver(Program& program, size_t index, const Steps& steps) {
  ProgramOp& op = program.ops[index];
  const ValueId result = op.output();
  std::vector<ProgramOp> samplers;
  if (op.type() == "Conv" && op.node.domain.empty()) {
    const auto axes = AxesOf(program, op);
    if (!axes) return false;
    Steps strides;
    for (size_t i = 0; i < steps.size(); ++i) {
      if ((*axes)[i].stride > ops::kMaxWindowValue / steps[i]) return false;
      strides.push_back((*axes)[i].stride * steps[i]);
    }
    SetStrides(op.node, *axes, strides);
  } else {
    const auto slots = PixelwiseInputs(program, op);
    if (!slots) return false;
    for (const size_t slot : *slots) {
      if (program.constant(op.input(slot))) return false;
    }
    for (const size_t slot : *slots) {
      const ValueId x = op.input(slot);
      ProgramOp sampler;
      sampler.node.op_type = "MaxPool";
      sampler.node.inputs = {x};
      sampler.node.attributes = {MakeAttr("kernel_shape", Steps(steps.size(), 1)), MakeAttr("strides", steps)};
      const ValueId sampled = program.AddValue(program.value(x).name + "/sampled", program.value(x).dtype,
                                               Sampled(program.value(x).shape, steps));
      sampler.node.outputs = {sampled};
      program.op(static_cast<int>(index)).node.inputs[slot] = sampled;
      samplers.push_back(std::move(sampler));
    }
  }
  program.values[static_cast<size_t>(result)].shape = Sampled(program.value(result).shape, steps);
  const std::vector<int> readers = program.users(result);
  for (const int id : readers) {
    ProgramOp& reader = program.op(id);
    if (reader.type() == "MaxPool") {
      program.ReplaceUses(reader.output(), result);
      program.Kill(id);
    } else {
      SetStrides(reader.node, std::vector<ops::WindowAxis>(steps.size()), Steps(steps.size(), 1));
    }
  }
  program.ops[index].fused.push_back("only pixels that are read");
  program.ops.insert(program.ops.begin() + static_cast<std::ptrdiff_t>(index),
                     std::make_move_iterator(samplers.begin()), std::make_move_iterator(samplers.end()));
  program.Reindex();
  return true;
}

}  // namespace

void SkipUnreadPixels(Program& program, ConstantPool&) {
  // Readers before what they read: strides go up as far as they can.
  for (size_t i = program.ops.size(); i-- > 0;) {
    const ProgramOp& op = program.ops[i];
    if (!op.alive || op.node.outputs.size() != 1) continue;
    const ProgramValue& value = program.value(op.output());
    if (value.rank() < 3 || value.dtype != DType::kFloat32 || program.is_output(op.output())) continue;
    const Steps steps = CommonSteps(program, op.output());
    if (!steps.empty()) TakeOver(program, i, steps);
  }
}

}  // namespace crease
