// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/commute.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "graph/ops/common.h"
#include "graph/ops/pad.h"
#include "graph/ops/pool.h"
#include "graph/ops/reduce.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"

namespace crease::fold {
namespace {

using ops::StrCat;

struct Through {
  const FoldContext& context;
  NodeId id;
  int output_slot;
  const Affine& map;
  Direction direction;
  DType rounded_to;

  const Node& node() const { return context.graph.node(id); }
  ValueId input() const { return node().inputs[0]; }
  ValueId output() const { return node().outputs[static_cast<size_t>(output_slot)]; }
  bool backward() const { return direction == Direction::kBackward; }
  // The side that the map is on, and the one that it goes to.
  ValueId from() const { return backward() ? output() : input(); }
  ValueId to() const { return backward() ? input() : output(); }
  std::string self() const { return context.graph.Describe(id); }
  Refusal Refuse(std::string_view code, std::string message) const { return {code, self(), std::move(message)}; }
  const Tensor* Constant(size_t slot) const {
    return slot < node().inputs.size() ? context.constants.Get(node().inputs[slot]) : nullptr;
  }
  bool HasInput(size_t slot) const { return slot < node().inputs.size() && node().inputs[slot] != kNone; }
};

bool OneOf(std::string_view name, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

Outcome<Affine> ThroughCopy(const Through& t) {
  if (t.node().op_type == "Dropout") {
    if (t.node().outputs.size() > 1 && t.node().outputs[1] != kNone)
      return t.Refuse("unsupported-producer", "its mask is used");
    if (t.HasInput(2)) {
      const Tensor* training = t.Constant(2);
      if (training == nullptr || training->size() != 1 || training->AsInt64(0) != 0) {
        return t.Refuse("training-mode", "its training_mode is not the constant false");
      }
    }
  }
  return t.map;
}

// Where a Cast narrows, the map would change which value it rounds. Where it widens it rounds nothing: a
// map may go forward into the wider type, and backward only if its result is rounded to the narrower
// type anyway.
Outcome<Affine> ThroughCast(const Through& t) {
  const DType in = t.context.type(t.input()).dtype, out = t.context.type(t.output()).dtype;
  if (!IsFloat(in) || !IsFloat(out)) return t.Refuse("nonlinear", "it casts between other types than floats");
  if (!HoldsEvery(out, in))
    return t.Refuse("cast-rounds", StrCat("it rounds ", Name(in), " to ", Name(out), ": another value with the map"));
  if (t.backward() && in != out && !HoldsEvery(in, t.rounded_to))
    return t.Refuse("cast-rounds", StrCat("before it the map's result would be rounded to ", Name(in)));
  return t.map;
}

// f(s x) = s f(x) for s >= 0.
Outcome<Affine> ThroughRectifier(const Through& t) {
  if (t.map.min_scale() < 0) return t.Refuse("negative-scale", StrCat("a scale is ", t.map.min_scale()));
  if (t.map.has_shift()) return t.Refuse("shift-behind-activation", "a shift is not zero");
  return t.map;
}

// A map of channels: pools, Resize and padding work on axes 2 and up.
Outcome<Affine> RequireChannelAxis(const Through& t) {
  if (t.map.uniform() || t.map.axis == 1) return t.map;
  return t.Refuse("axis-mismatch", StrCat("it works along axis ", t.map.axis, ", the map's"));
}

Outcome<Affine> ThroughMaximum(const Through& t) {
  const bool indices = t.node().outputs.size() > 1 && t.node().outputs[1] != kNone;
  if (t.map.min_scale() < 0) return t.Refuse("negative-scale", StrCat("a scale is ", t.map.min_scale()));
  if (indices && t.map.zero_scales() > 0) return t.Refuse("indices-used", "a scale is zero");
  return RequireChannelAxis(t);
}

// Whether a window may lie between two taps' pixels, in padding alone: its mean is 0 then.
bool MayMissTheInput(const Through& t, const std::vector<int64_t>& dilations) {
  const TensorType& in = t.context.type(t.input());
  for (size_t i = 0; i < dilations.size(); ++i) {
    if (dilations[i] <= 1) continue;
    const bool known = in.has_rank && i + 2 < in.dims.size() && in.dims[i + 2].known();
    if (!known || in.dims[i + 2].value < dilations[i]) return true;
  }
  return false;
}

Outcome<Affine> ThroughAveragePool(const Through& t) {
  if (t.map.has_shift()) {
    const Result<int64_t> include = AttrInt(t.node(), "count_include_pad", 0);
    const Result<int64_t> ceil = AttrInt(t.node(), "ceil_mode", 0);
    const Result<std::string> auto_pad = AttrString(t.node(), "auto_pad", "NOTSET");
    const Result<std::vector<int64_t>> pads = AttrInts(t.node(), "pads", {});
    const Result<std::vector<int64_t>> dilations = AttrInts(t.node(), "dilations", {});
    if (!include.ok() || !ceil.ok() || !auto_pad.ok() || !pads.ok() || !dilations.ok())
      return t.Refuse("unsupported-producer", "bad attributes");
    const bool padded = !OneOf(*auto_pad, {"NOTSET", "VALID"}) ||
                        std::any_of(pads->begin(), pads->end(), [](int64_t p) { return p != 0; });
    if (*include != 0 && padded) return t.Refuse("pool-counts-padding", "count_include_pad = 1 with padding");
    if (padded && MayMissTheInput(t, *dilations))
      return t.Refuse("pool-counts-padding", "a dilation larger than its input, with padding");
    // Windows past the end: runtimes differ in what they divide by.
    if (*ceil != 0) return t.Refuse("pool-counts-padding", "ceil_mode = 1 with a shift");
  }
  return RequireChannelAxis(t);
}

Outcome<Affine> ThroughReduceMean(const Through& t) {
  const TensorType& in = t.context.type(t.input());
  if (!in.has_rank) return t.Refuse("shape-unknown", "its input's rank is unknown");
  const bool axes_are_input = ops::ReduceAxesAreInput(t.node(), t.context.opset());
  const Tensor* axes = axes_are_input ? t.Constant(1) : nullptr;
  if (axes_are_input && t.HasInput(1) && axes == nullptr) return t.Refuse("shape-unknown", "its axes are not constant");
  // The plan needs no sizes: any will do.
  const Shape ones(static_cast<size_t>(in.rank()), 1);
  Result<ops::ReducePlan> plan = ops::ResolveReduce(t.node(), t.context.opset(), ones, axes);
  if (!plan.ok()) return t.Refuse("unsupported-producer", plan.error().message);
  if (t.map.uniform()) return t.map;
  int input_axis = t.map.axis;
  if (t.backward() && !plan->keepdims) {
    input_axis = -1;
    int kept = -1;
    for (int axis = 0; axis < in.rank(); ++axis) {
      kept += !plan->reduced[static_cast<size_t>(axis)];
      if (kept == t.map.axis) {
        input_axis = axis;
        break;
      }
    }
  }
  if (input_axis < 0 || input_axis >= in.rank() || plan->reduced[static_cast<size_t>(input_axis)]) {
    return t.Refuse("axis-mismatch", "it averages over the channels");
  }
  Affine result = t.map;
  result.axis = input_axis;
  if (!t.backward() && !plan->keepdims) {
    result.axis = static_cast<int>(std::count(plan->reduced.begin(), plan->reduced.begin() + input_axis, false));
  }
  return result;
}

Outcome<Affine> ThroughResize(const Through& t) {
  const Result<std::string> coordinates = AttrString(t.node(), "coordinate_transformation_mode", "half_pixel");
  if (!coordinates.ok() || *coordinates == "tf_crop_and_resize")
    return t.Refuse("resize-extrapolates", "tf_crop_and_resize");
  if (t.map.uniform()) return t.map;
  const int64_t in = t.context.dim(t.input(), t.map.axis), out = t.context.dim(t.output(), t.map.axis);
  if (in < 0 || out < 0) return t.Refuse("shape-unknown", "its channel count is unknown");
  if (in != out) return t.Refuse("axis-mismatch", "it resizes the channels");
  return t.map;
}

Outcome<Affine> ThroughPad(const Through& t) {
  const TensorType& in = t.context.type(t.input());
  if (!in.has_rank) return t.Refuse("shape-unknown", "its input's rank is unknown");
  const bool by_input = t.context.opset() >= 11;
  for (size_t slot = 1; by_input && slot < 4; ++slot) {
    if (t.HasInput(slot) && t.Constant(slot) == nullptr)
      return t.Refuse("shape-unknown", "its pads or its value are not constant");
  }
  // Sizes matter only for the checks of reflect and wrap, which the model's own types have passed.
  Shape sizes(static_cast<size_t>(in.rank()), int64_t{1} << 30);
  if (!t.map.uniform() && t.context.dim(t.input(), t.map.axis) >= 0)
    sizes[static_cast<size_t>(t.map.axis)] = t.context.dim(t.input(), t.map.axis);
  Result<ops::PadPlan> plan =
      ops::ResolvePad(t.node(), t.context.opset(), sizes, t.Constant(1), t.Constant(2), t.Constant(3));
  if (!plan.ok()) return t.Refuse("unsupported-producer", plan.error().message);
  const bool constant = plan->mode == ops::PadMode::kConstant;
  const int axis = t.map.uniform() ? -1 : t.map.axis;
  int64_t begin = 0, end = 0;
  bool spatial = false;
  for (int i = 0; i < in.rank(); ++i) {
    const int64_t b = plan->begin[static_cast<size_t>(i)], e = plan->end[static_cast<size_t>(i)];
    if (i == axis) {
      begin = b;
      end = e;
    } else {
      spatial = spatial || b > 0 || e > 0;
    }
  }
  const auto keeps = [&](size_t c) { return t.map.scale_at(c) * plan->value + t.map.shift_at(c) == plan->value; };
  if (begin < 0 || end < 0 || (!constant && (begin > 0 || end > 0)))
    return t.Refuse("axis-mismatch", "it pads or cuts the channels");
  const auto channels = static_cast<int64_t>(t.map.size());
  if (t.backward() && begin + end > channels) return t.Refuse("shape-unknown", "it pads more channels than there are");
  for (int64_t c = 0; constant && c < channels; ++c) {
    const bool padding = t.backward() && (c < begin || c >= channels - end);
    if ((padding || spatial) && !keeps(static_cast<size_t>(c))) {
      return t.Refuse("pad-value", StrCat("channel ", c, " maps the padding ", plan->value, " to another value"));
    }
  }
  Affine result = t.map;
  if (axis >= 0 && (begin > 0 || end > 0)) {
    if (t.backward()) {
      result.scale.assign(t.map.scale.begin() + begin, t.map.scale.end() - end);
      result.shift.assign(t.map.shift.begin() + begin, t.map.shift.end() - end);
    } else {
      result = Affine::Identity(axis, static_cast<size_t>(begin + channels + end));
      std::copy(t.map.scale.begin(), t.map.scale.end(), result.scale.begin() + begin);
      std::copy(t.map.shift.begin(), t.map.shift.end(), result.shift.begin() + begin);
    }
  }
  if (result.size() == 0) return t.Refuse("uneven-channels", "it makes every channel");
  return result;
}

Outcome<Affine> ThroughSlice(const Through& t) {
  if (t.map.uniform()) return t.map;
  const TensorType& in = t.context.type(t.input());
  const int64_t channels = t.context.dim(t.input(), t.map.axis);
  if (!in.has_rank || channels < 0) return t.Refuse("shape-unknown", "its input's shape is unknown");
  for (size_t slot = 1; t.context.opset() >= 10 && slot < 5; ++slot) {
    if (t.HasInput(slot) && t.Constant(slot) == nullptr)
      return t.Refuse("shape-unknown", "its bounds are not constant");
  }
  Shape sizes(static_cast<size_t>(in.rank()), 1);
  sizes[static_cast<size_t>(t.map.axis)] = channels;
  Result<ops::SlicePlan> plan =
      ops::ResolveSlice(t.node(), t.context.opset(), sizes, t.Constant(1), t.Constant(2), t.Constant(3), t.Constant(4));
  if (!plan.ok()) return t.Refuse("unsupported-producer", plan.error().message);
  const auto axis = static_cast<size_t>(t.map.axis);
  const int64_t start = plan->start[axis], step = plan->step[axis], count = plan->output[axis];
  Affine result = Affine::Identity(t.map.axis, static_cast<size_t>(t.backward() ? channels : count));
  if (static_cast<int64_t>(t.map.size()) != (t.backward() ? count : channels))
    return t.Refuse("parameter-length", "channel counts differ");
  if (result.size() == 0) return t.Refuse("uneven-channels", "it leaves no channel");
  for (int64_t i = 0; i < count; ++i) {
    const auto inner = static_cast<size_t>(start + i * step), outer = static_cast<size_t>(i);
    const size_t dst = t.backward() ? inner : outer, src = t.backward() ? outer : inner;
    result.scale[dst] = t.map.scale[src];
    result.shift[dst] = t.map.shift[src];
  }
  return result;
}

// Channels that nobody picks get the identity.
Outcome<Affine> ThroughGather(const Through& t) {
  if (t.map.uniform()) return t.map;
  const int rank = t.context.rank(t.input());
  if (rank < 0 || t.node().inputs.size() < 2 || t.context.rank(t.node().inputs[1]) != 1)
    return t.Refuse("shape-unknown", "its rank is unknown, or its indices are no vector");
  const Result<int> axis = ops::ParseAxis(t.node(), rank, 0);
  if (!axis.ok()) return t.Refuse("unsupported-producer", axis.error().message);
  if (t.map.axis != *axis) return t.map;
  const Tensor* indices = t.Constant(1);
  const int64_t channels = t.context.dim(t.input(), *axis);
  if (indices == nullptr || channels < 1) return t.Refuse("shape-unknown", "its indices are not constant");
  if (static_cast<int64_t>(t.map.size()) != (t.backward() ? indices->size() : channels))
    return t.Refuse("parameter-length", "channel counts differ");
  if (indices->size() == 0) return t.Refuse("uneven-channels", "it leaves no channel");
  Affine result = Affine::Identity(*axis, static_cast<size_t>(t.backward() ? channels : indices->size()));
  std::vector<bool> picked(static_cast<size_t>(channels), false);
  for (int64_t i = 0; i < indices->size(); ++i) {
    const int64_t index = indices->AsInt64(i) < 0 ? indices->AsInt64(i) + channels : indices->AsInt64(i);
    if (index < 0 || index >= channels) return t.Refuse("shape-unknown", "an index is out of range");
    const auto inner = static_cast<size_t>(index), outer = static_cast<size_t>(i);
    const size_t dst = t.backward() ? inner : outer, src = t.backward() ? outer : inner;
    const bool differs = t.map.scale[src] != result.scale[dst] || t.map.shift[src] != result.shift[dst];
    if (t.backward() && picked[inner] && differs)
      return t.Refuse("uneven-channels", StrCat("it picks channel ", index, " for different maps"));
    picked[inner] = true;
    result.scale[dst] = t.map.scale[src];
    result.shift[dst] = t.map.shift[src];
  }
  return result;
}

// The other outputs get the identity: what comes back has one entry for every channel of the input.
Outcome<Affine> ThroughSplit(const Through& t) {
  const int rank = t.context.rank(t.input());
  if (rank < 0) return t.Refuse("shape-unknown", "its input's rank is unknown");
  Result<int> axis = ops::ParseAxis(t.node(), rank, 0);
  if (!axis.ok()) return t.Refuse("unsupported-producer", axis.error().message);
  if (!t.map.uniform() && t.map.axis != *axis) {
    if (t.node().outputs.size() == 1 || !t.backward()) return t.map;
    return t.Refuse("uneven-channels", "its outputs share their channels");
  }
  if (t.map.uniform() && !t.backward()) return t.map;
  int64_t begin = 0;
  for (int i = 0; i < t.output_slot; ++i) {
    const ValueId before = t.node().outputs[static_cast<size_t>(i)];
    const int64_t size = t.context.dim(before, *axis);
    if (before == kNone || size < 0) return t.Refuse("shape-unknown", "an output's size is unknown");
    begin += size;
  }
  const int64_t whole = t.context.dim(t.input(), *axis), part = t.context.dim(t.output(), *axis);
  if (whole <= 0 || part <= 0 || begin + part > whole) return t.Refuse("shape-unknown", "a size is unknown or zero");
  const Affine map = t.map.Broadcast(*axis, static_cast<size_t>(part));
  if (static_cast<int64_t>(map.size()) != (t.backward() ? part : whole))
    return t.Refuse("parameter-length", "channel counts differ");
  Affine result = Affine::Identity(*axis, static_cast<size_t>(t.backward() ? whole : part));
  for (int64_t i = 0; i < part; ++i) {
    const auto dst = static_cast<size_t>(t.backward() ? begin + i : i),
               src = static_cast<size_t>(t.backward() ? i : begin + i);
    result.scale[dst] = map.scale[src];
    result.shift[dst] = map.shift[src];
  }
  return result;
}

Outcome<Affine> ThroughTranspose(const Through& t) {
  if (t.map.uniform()) return t.map;
  const int rank = t.context.rank(t.from());
  if (rank < 0) return t.Refuse("shape-unknown", "its rank is unknown");
  Result<std::vector<int>> perm = ops::ParseTranspose(t.node(), rank);
  if (!perm.ok() || t.map.axis >= rank) return t.Refuse("unsupported-producer", "bad perm");
  Affine result = t.map;
  result.axis = t.backward() ? (*perm)[static_cast<size_t>(t.map.axis)]
                             : static_cast<int>(std::find(perm->begin(), perm->end(), t.map.axis) - perm->begin());
  return result;
}

// Channel of the deep side that holds part `part` of channel `c` of the wide side.
Outcome<Affine> ThroughDepth(const Through& t) {
  if (t.map.uniform()) return t.map;
  if (t.map.axis != 1) return t.Refuse("axis-mismatch", "the map is along another axis than the channels");
  Result<int64_t> block = AttrInt(t.node(), "blocksize", 0);
  Result<std::string> mode = AttrString(t.node(), "mode", "DCR");
  if (!block.ok() || !mode.ok() || *block < 1 || *block > 1024)
    return t.Refuse("unsupported-producer", "bad attributes");
  const bool to_space = t.node().op_type == "DepthToSpace";
  const bool crd = to_space && *mode == "CRD";
  const int64_t parts = *block * *block;
  const bool from_wide = to_space == t.backward();  // the map is on the side with fewer channels
  const auto size = static_cast<int64_t>(t.map.size());
  if (!from_wide && size % parts != 0)
    return t.Refuse("parameter-length", "channels are no multiple of blocksize squared");
  const int64_t wide = from_wide ? size : size / parts;
  const auto deep = [&](int64_t c, int64_t part) {
    return static_cast<size_t>(crd ? c * parts + part : part * wide + c);
  };
  Affine result = Affine::Identity(1, static_cast<size_t>(from_wide ? wide * parts : wide));
  for (int64_t c = 0; c < wide; ++c) {
    for (int64_t part = 0; part < parts; ++part) {
      const size_t d = deep(c, part), w = static_cast<size_t>(c);
      if (!from_wide && part > 0 && (t.map.scale[d] != result.scale[w] || t.map.shift[d] != result.shift[w])) {
        return t.Refuse("uneven-channels", StrCat("the parts of channel ", c, " have different maps"));
      }
      result.scale[from_wide ? d : w] = t.map.scale[from_wide ? w : d];
      result.shift[from_wide ? d : w] = t.map.shift[from_wide ? w : d];
    }
  }
  return result;
}

Outcome<Affine> ThroughReshape(const Through& t) { return CommuteReshape(t.context, t.from(), t.to(), t.map); }

struct Rule {
  std::string_view op;
  Outcome<Affine> (*apply)(const Through& t);
};
constexpr Rule kRules[] = {
    {"AveragePool", ThroughAveragePool},
    {"Cast", ThroughCast},
    {"DepthToSpace", ThroughDepth},
    {"Dropout", ThroughCopy},
    {"Flatten", ThroughReshape},
    {"Gather", ThroughGather},
    {"GlobalAveragePool", RequireChannelAxis},
    {"GlobalMaxPool", ThroughMaximum},
    {"Identity", ThroughCopy},
    {"LeakyRelu", ThroughRectifier},
    {"MaxPool", ThroughMaximum},
    {"PRelu", ThroughRectifier},
    {"Pad", ThroughPad},
    {"ReduceMean", ThroughReduceMean},
    {"Relu", ThroughRectifier},
    {"Reshape", ThroughReshape},
    {"Resize", ThroughResize},
    {"Slice", ThroughSlice},
    {"SpaceToDepth", ThroughDepth},
    {"Split", ThroughSplit},
    {"Squeeze", ThroughReshape},
    {"Transpose", ThroughTranspose},
    {"Unsqueeze", ThroughReshape},
    {"Upsample", ThroughResize},
};

const Rule* FindRule(const Node& node) {
  if (!node.domain.empty()) return nullptr;
  const auto* found =
      std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& rule) { return rule.op == node.op_type; });
  return found == std::end(kRules) ? nullptr : found;
}

bool IsNonlinear(std::string_view op) {
  return OneOf(op, {"Sigmoid",
                    "HardSigmoid",
                    "HardSwish",
                    "Tanh",
                    "Clip",
                    "Elu",
                    "Selu",
                    "Celu",
                    "Gelu",
                    "Mish",
                    "Softplus",
                    "Softsign",
                    "Exp",
                    "Log",
                    "Sqrt",
                    "Pow",
                    "Erf",
                    "Softmax",
                    "LogSoftmax",
                    "Abs",
                    "ThresholdedRelu",
                    "InstanceNormalization",
                    "LayerNormalization",
                    "GroupNormalization",
                    "LRN",
                    "LpNormalization"});
}

}  // namespace

bool HoldsEvery(DType wide, DType narrow) {
  const bool half = narrow == DType::kFloat16 || narrow == DType::kBFloat16;
  return wide == narrow || (wide == DType::kFloat32 && half) ||
         (wide == DType::kFloat64 && (half || narrow == DType::kFloat32));
}

bool HasCommuteRule(const Node& node) { return FindRule(node) != nullptr; }

Outcome<Affine> Commute(const FoldContext& context, NodeId node, int output, const Affine& map, Direction direction,
                        DType rounded_to) {
  const Through through{context, node, output, map, direction, rounded_to};
  const Node& n = context.graph.node(node);
  const Rule* rule = FindRule(n);
  if (rule == nullptr || n.inputs.empty() || n.inputs[0] == kNone || through.output() == kNone) {
    const bool nonlinear = n.domain.empty() && IsNonlinear(n.op_type);
    return through.Refuse(nonlinear                                                 ? "nonlinear"
                          : FindOp(n.domain, n.op_type, context.opset()) == nullptr ? "no-definition"
                                                                                    : "unsupported-producer",
                          StrCat(Printable(n.op_type), nonlinear ? " is not linear" : " has no rule"));
  }
  if (!map.uniform()) {
    const int64_t found = context.dim(through.from(), map.axis);
    if (context.rank(through.from()) >= 0 && map.axis >= context.rank(through.from())) {
      return through.Refuse("shape-unknown", "the map's axis is past its rank");
    }
    if (found >= 0 && found != static_cast<int64_t>(map.size())) {
      return through.Refuse("parameter-length", StrCat(map.size(), " parameters for ", found, " channels"));
    }
  }
  return rule->apply(through);
}

}  // namespace crease::fold
