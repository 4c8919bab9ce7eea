// SPDX-License-Identifier: Apache-2.0
// A map of which all readers take every second pixel only, as stride-2 convolutions of 1x1 do at the end of a ResNet's
// stages, need not be computed at the others. Strides move up through what works pixel by pixel into the convolution
// that makes the map. (OpenVINO has the same as StridesOptimization.)
#include <algorithm>
#include <optional>
#include <utility>

#include "graph/op.h"
#include "graph/ops/batch_norm.h"
#include "graph/ops/conv.h"
#include "graph/ops/pool.h"
#include "kernels/kernels.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

using Steps = std::vector<int64_t>;  // by spatial axis

// The windows of a Conv or MaxPool along its axes; none where there are no pixels.
std::optional<std::vector<ops::WindowAxis>> AxesOf(const Program& program, const ProgramOp& op) {
  const Shape& x = program.value(op.input(0)).shape;
  std::vector<ops::WindowAxis> axes;
  if (op.type() == "Conv") {
    Result<ops::ConvShape> conv = ops::ResolveConv(op.node, x, program.value(op.input(1)).shape);
    if (!conv.ok()) return std::nullopt;
    axes = std::move(conv->axes);
  } else {
    Result<ops::PoolShape> pool = ops::ResolvePool(op.node, x);
    if (!pool.ok()) return std::nullopt;
    axes = std::move(pool->axes);
  }
  const auto empty = [](const ops::WindowAxis& axis) { return axis.input == 0 || axis.output == 0; };
  if (std::any_of(axes.begin(), axes.end(), empty)) return std::nullopt;
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

// The mean of a convolution of single pixels needs no pixel of its result: it is that of the mean of what it reads.
bool IsMeanOfConv(const Program& program, const ProgramOp& op, const ProgramOp& producer) {
  return op.type() == "GlobalAveragePool" && op.node.domain.empty() && IsPointwiseConv(program, producer);
}

// What every reader of the op's result skips by; empty where they differ or one reads all of it.
Steps CommonSteps(const Program& program, const ProgramOp& producer) {
  const ValueId id = producer.output();
  Steps common;
  for (const int reader : program.users(id)) {
    const ProgramOp& op = program.op(reader);
    if (IsMeanOfConv(program, op, producer)) continue;
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

// Ops that are to stand right before op `at`.
struct Insertion {
  size_t at;
  ProgramOp op;
};

// Puts the means of what the convolution reads, and the convolution of these, in the place of the means of its result.
void MoveMeans(Program& program, const ProgramOp& conv, std::vector<Insertion>& insertions) {
  const std::vector<int> readers = program.users(conv.output());
  for (const int reader : readers) {
    if (!IsMeanOfConv(program, program.op(reader), conv)) continue;
    const ValueId x = conv.input(0), result = program.op(reader).output();
    Shape shape = program.value(result).shape;
    shape[1] = program.value(x).shape[1];
    const ValueId mean = program.AddValue(program.value(x).name + "/mean", DType::kFloat32, std::move(shape));
    ProgramOp of_mean = conv;
    of_mean.node.inputs[0] = mean;
    of_mean.node.outputs[0] = result;
    ProgramOp& pool = program.op(reader);
    pool.node.inputs[0] = x;
    pool.node.outputs[0] = mean;
    pool.fused.push_back("before " + conv.Describe());
    insertions.push_back({static_cast<size_t>(reader) + 1, std::move(of_mean)});
  }
}

bool MoveIntoConv(Program& program, ProgramOp& conv, const Steps& steps, std::vector<Insertion>& insertions) {
  const auto axes = AxesOf(program, conv);
  if (!axes) return false;
  Steps strides;
  for (size_t i = 0; i < steps.size(); ++i) {
    const ops::WindowAxis& axis = (*axes)[i];
    if (axis.stride > ops::kMaxWindowValue / steps[i]) return false;
    if (std::max(axis.pad_begin, axis.pad_end) > ops::kMaxWindowValue) return false;
    strides.push_back((*axes)[i].stride * steps[i]);
  }
  MoveMeans(program, conv, insertions);
  SetStrides(conv.node, *axes, strides);
  return true;
}

// To a pool of single pixels before each of the op's inputs, which what makes the input takes over, where it can.
bool MoveAbove(Program& program, size_t index, const Steps& steps, std::vector<Insertion>& insertions) {
  const auto slots = PixelwiseInputs(program, program.ops[index]);
  if (!slots) return false;
  for (const size_t slot : *slots) {
    if (program.constant(program.ops[index].input(slot))) return false;
  }
  for (const size_t slot : *slots) {
    const ValueId x = program.ops[index].input(slot);
    const ValueId sampled =
        program.AddValue(program.value(x).name + "/sampled", DType::kFloat32, Sampled(program.value(x).shape, steps));
    ProgramOp pool;
    pool.node.op_type = "MaxPool";
    pool.node.inputs = {x};
    pool.node.outputs = {sampled};
    pool.node.attributes = {MakeAttr("kernel_shape", Steps(steps.size(), 1)), MakeAttr("strides", steps)};
    program.ops[index].node.inputs[slot] = sampled;
    insertions.push_back({index, std::move(pool)});
  }
  return true;
}

// The op takes the steps over from its readers, if it can.
void TakeOver(Program& program, size_t index, const Steps& steps) {
  std::vector<Insertion> insertions;
  ProgramOp& op = program.ops[index];
  const bool conv = op.type() == "Conv" && op.node.domain.empty();
  const std::vector<int> readers = program.users(op.output());
  if (!(conv ? MoveIntoConv(program, op, steps, insertions) : MoveAbove(program, index, steps, insertions))) return;
  const ValueId result = op.output();
  op.fused.push_back("only pixels that are read");
  program.values[static_cast<size_t>(result)].shape = Sampled(program.value(result).shape, steps);
  for (const int id : readers) {
    ProgramOp& reader = program.op(id);
    if (reader.type() == "Conv") {
      SetStrides(reader.node, std::vector<ops::WindowAxis>(steps.size()), Steps(steps.size(), 1));
    } else if (reader.type() == "MaxPool") {
      program.ReplaceUses(reader.output(), result);
      program.Kill(id);
    }
  }
  // The last place first, so that the others stay where they are.
  std::stable_sort(insertions.begin(), insertions.end(),
                   [](const Insertion& a, const Insertion& b) { return a.at > b.at; });
  for (Insertion& insertion : insertions) {
    program.ops.insert(program.ops.begin() + static_cast<std::ptrdiff_t>(insertion.at), std::move(insertion.op));
  }
  program.Reindex();
}

}  // namespace

void SkipUnreadPixels(Program& program, ConstantPool&) {
  // Readers before what they read: strides go up as far as they can.
  for (size_t i = program.ops.size(); i-- > 0;) {
    const ProgramOp& op = program.ops[i];
    if (!op.alive || op.node.outputs.size() != 1) continue;
    const ProgramValue& value = program.value(op.output());
    // MaxPool has at most three spatial axes.
    const bool fits = value.rank() >= 3 && value.rank() <= 5 && value.dtype == DType::kFloat32;
    if (!fits || program.is_output(op.output())) continue;
    const Steps steps = CommonSteps(program, op);
    if (!steps.empty()) TakeOver(program, i, steps);
  }
}

}  // namespace crease
