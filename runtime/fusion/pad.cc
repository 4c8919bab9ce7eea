// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "graph/op.h"
#include "graph/ops/pad.h"
#include "graph/ops/window.h"
#include "runtime/fusion/fusion.h"

namespace crease {
namespace {

void SetAttr(Node& node, Attribute attribute) {
  std::erase_if(node.attributes, [&](const Attribute& a) { return a.name == attribute.name; });
  node.attributes.push_back(std::move(attribute));
}

// Spatial pads (begin..., end...) of a Pad by zeros that leaves batch and channels alone.
std::optional<std::vector<int64_t>> SpatialZeroPads(const Program& program, const ProgramOp& pad) {
  for (size_t i = 1; i < pad.node.inputs.size(); ++i) {
    if (pad.input(i) != kNone && !program.constant(pad.input(i))) return std::nullopt;
  }
  const Result<ops::PadPlan> plan =
      ops::ResolvePad(pad.node, program.opset, program.value(pad.input(0)).shape, program.constant(pad.input(1)),
                      program.constant(pad.input(2)), program.constant(pad.input(3)));
  if (!plan.ok() || plan->mode != ops::PadMode::kConstant || plan->value != 0 || plan->begin.size() < 3) {
    return std::nullopt;
  }
  std::vector<int64_t> pads;
  for (const std::vector<int64_t>* side : {&plan->begin, &plan->end}) {
    if ((*side)[0] != 0 || (*side)[1] != 0) return std::nullopt;
    for (size_t axis = 2; axis < side->size(); ++axis) {
      if ((*side)[axis] < 0) return std::nullopt;
      pads.push_back((*side)[axis]);
    }
  }
  return pads;
}

// AveragePool divides by the window's size with the padding counted; that is what the Pad's zeros did,
// and its own pads must have counted as well.
bool CanPad(const Program& program, const ProgramOp& consumer, const ops::WindowAttributes& window) {
  if (window.auto_pad != ops::AutoPad::kNotSet || window.ceil_mode) return false;
  if (consumer.type() == "Conv") return program.value(consumer.input(0)).dtype == DType::kFloat32;
  if (consumer.type() != "AveragePool") return false;
  const Result<int64_t> counted = AttrInt(consumer.node, "count_include_pad", 0);
  const bool padded = std::any_of(window.pads.begin(), window.pads.end(), [](int64_t pad) { return pad != 0; });
  return counted.ok() && (*counted != 0 || !padded);
}

}  // namespace

void FusePad(Program& program, ConstantPool&) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const int consumer = static_cast<int>(i);
    ProgramOp& op = program.op(consumer);
    if (!op.alive || !op.node.domain.empty() || (op.type() != "Conv" && op.type() != "AveragePool")) continue;
    const int pad = program.PrivateProducer(op.input(0), "Pad");
    if (pad == kNone) continue;
    const int spatial_rank = program.value(op.input(0)).rank() - 2;
    std::vector<int64_t> kernel;
    if (op.type() == "Conv") {
      const Shape& weights = program.value(op.input(1)).shape;
      if (weights.size() < 3) continue;
      kernel.assign(weights.begin() + 2, weights.end());
    }
    const Result<ops::WindowAttributes> window = ops::ParseWindow(op.node, spatial_rank, kernel);
    const auto pads = SpatialZeroPads(program, program.op(pad));
    if (!window.ok() || !pads || !CanPad(program, op, *window)) continue;
    std::vector<int64_t> sum = *pads;
    for (size_t k = 0; k < sum.size() && k < window->pads.size(); ++k) sum[k] += window->pads[k];
    if (op.type() == "AveragePool") {
      // A window that lies in the padding alone is legal for the pair, not for the pool.
      bool inside = true;
      for (size_t k = 0; k < sum.size(); ++k) inside = inside && sum[k] < window->kernel[k % window->kernel.size()];
      if (!inside) continue;
      SetAttr(op.node, MakeAttr("count_include_pad", int64_t{1}));
    }
    SetAttr(op.node, MakeAttr("pads", std::move(sum)));
    op.fused.push_back(program.op(pad).Describe());
    const ValueId source = program.op(pad).input(0);
    program.Kill(pad);
    program.SetInput(consumer, 0, source);
  }
}

}  // namespace crease
