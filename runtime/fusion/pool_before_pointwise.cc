// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "graph/ops/pool.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

struct Means {
  int64_t pixels = 1, of_pixels = 1;  // of one channel
  // The factors of every mean sum up to 1, so that the mean of x + b is the mean of x, plus b.
  bool keep_constants = true;
};

// What a GlobalAveragePool or an AveragePool does; none for any other op.
std::optional<Means> MeansOf(const Program& program, const ProgramOp& op) {
  const bool global = op.type() == "GlobalAveragePool";
  if (!op.node.domain.empty() || (!global && op.type() != "AveragePool")) return std::nullopt;
  const Shape& x = program.value(op.input(0)).shape;
  Means means;
  if (global) {
    for (size_t axis = 2; axis < x.size(); ++axis) means.of_pixels *= x[axis];
    return means;
  }
  const Result<ops::PoolAttributes> attributes = ops::ParsePool(op.node, static_cast<int>(x.size()) - 2);
  const Result<ops::PoolShape> pool = ops::ResolvePool(op.node, x);
  if (!attributes.ok() || !pool.ok()) return std::nullopt;
  bool padded = attributes->window.ceil_mode;
  bool empty = false;  // a window may lie in padding alone, between its taps' pixels: 0
  for (const ops::WindowAxis& axis : pool->axes) {
    means.pixels *= axis.output;
    means.of_pixels *= axis.input;
    padded = padded || axis.pad_begin != 0 || axis.pad_end != 0;
    empty = empty || axis.dilation > axis.input;
  }
  means.keep_constants = !padded || (!pool->count_include_pad && !empty);
  return means;
}

}  // namespace

void PoolBeforePointwise(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    ProgramOp& pool = program.ops[i];
    if (!pool.alive) continue;
    const std::optional<Means> means = MeansOf(program, pool);
    if (!means) continue;
    const ValueId between = pool.input(0), result = pool.output();
    const int conv_index = program.PrivateProducer(between, "Conv");
    if (conv_index == kNone || program.value(between).dtype != DType::kFloat32) continue;
    ProgramOp& conv = program.op(conv_index);
    if (!IsPointwiseConv(program, conv)) continue;
    const ValueId x = conv.input(0);
    if (conv.input(2) != kNone && !means->keep_constants) continue;
    // The convolution must have fewer pixels to do.
    if (2 * means->pixels > means->of_pixels) continue;
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
