// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "graph/ops/pool.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

// Whether the op is a convolution of single pixels, all of them.
bool IsPointwise(const Program& program, const ProgramOp& op) {
  const Shape& weights = program.value(op.input(1)).shape;
  if (!op.node.domain.empty() || weights.size() < 3) return false;
  const Result<ops::WindowAttributes> window =
      ops::ParseWindow(op.node, static_cast<int>(weights.size()) - 2, std::span(weights).subspan(2));
  const auto all = [](const std::vector<int64_t>& values, int64_t wanted) {
    return std::all_of(values.begin(), values.end(), [=](int64_t value) { return value == wanted; });
  };
  return window.ok() && all(window->kernel, 1) && all(window->strides, 1) && all(window->pads, 0);
}

// The factors of every window's mean sum up to 1, so that the mean of x + b is the mean of x, plus b.
bool KeepsConstants(const ops::PoolShape& pool, bool ceil_mode) {
  if (!pool.count_include_pad) return true;
  return !ceil_mode && std::all_of(pool.axes.begin(), pool.axes.end(), [](const ops::WindowAxis& axis) {
    return axis.pad_begin == 0 && axis.pad_end == 0;
  });
}

}  // namespace

void PoolBeforePointwise(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    ProgramOp& pool = program.ops[i];
    if (!pool.alive || pool.type() != "AveragePool" || !pool.node.domain.empty()) continue;
    const ValueId between = pool.input(0), result = pool.output();
    const int conv_index = program.PrivateProducer(between, "Conv");
    if (conv_index == kNone || program.value(between).dtype != DType::kFloat32) continue;
    ProgramOp& conv = program.op(conv_index);
    if (!IsPointwise(program, conv)) continue;
    const ValueId x = conv.input(0);
    const auto shape = ops::ResolvePool(pool.node, program.value(between).shape);
    const auto attributes = ops::ParsePool(pool.node, program.value(between).rank() - 2);
    if (!shape.ok() || !attributes.ok()) continue;
    if (conv.input(2) != kNone && !KeepsConstants(*shape, attributes->window.ceil_mode)) continue;
    // The convolution must have fewer pixels to do.
    int64_t before = 1, after = 1;
    for (const ops::WindowAxis& axis : shape->axes) {
      before *= axis.input;
      after *= axis.output;
    }
    if (2 * after > before) continue;
    Shape pooled = program.value(result).shape;
    pooled[1] = program.value(x).shape[1];
    const ValueId mean = program.AddValue(program.value(x).name + "/pooled", DType::kFloat32, std::move(pooled));
    pool.node.inputs[0] = x;
    pool.node.outputs[0] = mean;
    conv.node.inputs[0] = mean;
    conv.node.outputs[0] = result;
    conv.fused.push_back("after the pool that was behind it");
    std::swap(pool, conv);
    program.Reindex();
  }
}

}  // namespace crease
