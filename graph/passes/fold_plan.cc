// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/fold_plan.h"

#include <algorithm>
#include <cmath>

#include "graph/passes/weights.h"

namespace crease::fold {
namespace {

// Parameters that CheckAffine has found to fit.
ValueId AddParameter(const FoldContext& context, Patch& patch, std::string_view name, std::span<const double> values,
                     DType dtype, Shape shape) {
  Outcome<Rounded> made = RoundTo(values, dtype, std::move(shape));
  return context.unrounded.AddConstant(patch, name, made.ok() ? *made : Rounded{});
}

// The shape in which a vector along the map's axis broadcasts against data of that rank.
Shape BroadcastShape(const Affine& map, int rank) {
  if (map.uniform()) return {};
  Shape shape(static_cast<size_t>(rank - map.axis), 1);
  shape[0] = static_cast<int64_t>(map.size());
  return shape;
}

void AddBinary(const FoldContext& context, Patch& patch, std::string_view op, ValueId data,
               const std::vector<double>& values, const Affine& map, int rank, DType dtype, ValueId out,
               std::string_view name) {
  Node node;
  node.op_type = std::string(op);
  node.name = std::string(name);
  const ValueId constant = AddParameter(context, patch, std::string(name) + (op == "Mul" ? "_scale" : "_shift"), values,
                                        dtype, BroadcastShape(map, rank));
  node.inputs = {data, constant};
  node.outputs = {out};
  patch.AddNode(std::move(node));
}

bool FitsBatchNorm(const Affine& map, int rank) { return !map.uniform() && map.axis == 1 && (rank < 0 || rank >= 2); }

}  // namespace

bool FoldPlan::IsRemade(ValueId value) const {
  return std::find(remade_.begin(), remade_.end(), value) != remade_.end();
}

bool FoldPlan::Visit(NodeId id) {
  if (++steps_ > kMaxFoldSteps || std::find(visited_.begin(), visited_.end(), id) != visited_.end()) return false;
  visited_.push_back(id);
  return true;
}

FoldPlan::Mark FoldPlan::Save() const {
  return {edits_.size(), visited_.size(), absorbed_.size(), remade_.size(), new_nodes, added_bytes, dead_channels};
}

void FoldPlan::Restore(const Mark& mark) {
  edits_.resize(mark.edits);
  visited_.resize(mark.visited);
  absorbed_.resize(mark.absorbed);
  remade_.resize(mark.remade);
  new_nodes = mark.new_nodes;
  added_bytes = mark.added_bytes;
  dead_channels = mark.dead;
}

int AffineNodeCount(const Affine& map, int rank) {
  if (FitsBatchNorm(map, rank)) return 1;
  if (!map.uniform() && rank < 0) return 0;
  return map.has_scale() && map.has_shift() ? 2 : 1;
}

Outcome<Done> CheckAffine(const Affine& map, DType dtype) {
  for (const auto* values : {&map.scale, &map.shift}) {
    Outcome<Rounded> rounded = RoundTo(*values, dtype, {static_cast<int64_t>(values->size())});
    if (!rounded.ok()) return rounded.refusal();
  }
  // A scale that rounds to a denormal would lose its precision.
  const double tiny = dtype == DType::kFloat64 ? 0x1p-1022 : dtype == DType::kFloat16 ? 0x1p-14 : 0x1p-126;
  for (double scale : map.scale) {
    if (scale != 0 && std::abs(scale) < tiny) return Refusal{"denormal-weight", "", "a scale would become denormal"};
  }
  return Done{};
}

void EmitAffine(const FoldContext& context, Patch& patch, const Affine& map, int rank, DType dtype, ValueId data,
                ValueId out, std::string_view name) {
  const bool broadcastable = map.uniform() || rank >= 0;
  if (!map.has_shift() && broadcastable)
    return AddBinary(context, patch, "Mul", data, map.scale, map, rank, dtype, out, name);
  if (!map.has_scale() && broadcastable) {
    return AddBinary(context, patch, "Add", data, map.shift, map, rank, dtype, out, name);
  }
  if (!FitsBatchNorm(map, rank)) {
    const ValueId scaled = patch.AddValue(std::string(name) + "_scaled");
    AddBinary(context, patch, "Mul", data, map.scale, map, rank, dtype, scaled, name);
    return AddBinary(context, patch, "Add", scaled, map.shift, map, rank, dtype, out, std::string(name) + "_add");
  }
  const auto channels = static_cast<int64_t>(map.size());
  const std::string base(name);
  Node node;
  node.op_type = "BatchNormalization";
  node.name = base;
  const auto add = [&](const char* suffix, std::span<const double> values) {
    return AddParameter(context, patch, base + suffix, values, dtype, {channels});
  };
  const std::vector<double> zeros(map.size(), 0.0), ones(map.size(), 1.0);
  node.inputs = {data, add("_scale", map.scale), add("_shift", map.shift), add("_mean", zeros), add("_var", ones)};
  node.outputs = {out};
  node.attributes.push_back(MakeAttr("epsilon", 0.0f));
  patch.AddNode(std::move(node));
}

}  // namespace crease::fold
