// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/slice.h"

#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

struct SliceOptions {
  std::vector<int64_t> starts, ends, axes, steps;
};

Result<SliceOptions> ReadOptions(const Node& node, int opset, const Tensor* starts, const Tensor* ends,
                                 const Tensor* axes, const Tensor* steps) {
  SliceOptions options;
  bool has_axes = axes != nullptr;
  if (opset < 10) {
    if (!HasAttr(node, "starts") || !HasAttr(node, "ends"))
      return InvalidModel("attributes starts or ends are missing");
    CREASE_ASSIGN_OR_RETURN(options.starts, AttrInts(node, "starts", {}));
    CREASE_ASSIGN_OR_RETURN(options.ends, AttrInts(node, "ends", {}));
    CREASE_ASSIGN_OR_RETURN(options.axes, AttrInts(node, "axes", {}));
    has_axes = HasAttr(node, "axes");
  } else {
    if (!starts || !ends) return Unsupported("starts and ends must be known");
    CREASE_ASSIGN_OR_RETURN(options.starts, IntVector(*starts, "input starts"));
    CREASE_ASSIGN_OR_RETURN(options.ends, IntVector(*ends, "input ends"));
    if (axes) {
      CREASE_ASSIGN_OR_RETURN(options.axes, IntVector(*axes, "input axes"));
    }
    if (steps) {
      CREASE_ASSIGN_OR_RETURN(options.steps, IntVector(*steps, "input steps"));
    }
  }
  const size_t count = options.starts.size();
  if (!has_axes) {
    for (size_t i = 0; i < count; ++i) options.axes.push_back(static_cast<int64_t>(i));
  }
  if (opset < 10 || !steps) options.steps.assign(count, 1);
  if (options.ends.size() != count || options.axes.size() != count || options.steps.size() != count) {
    return InvalidModel("starts, ends, axes and steps must have one length, they have ", count, ", ",
                        options.ends.size(), ", ", options.axes.size(), " and ", options.steps.size());
  }
  if (std::find(options.steps.begin(), options.steps.end(), 0) != options.steps.end()) {
    return InvalidModel("steps must not be 0, they are ", ToString(options.steps));
  }
  return options;
}

// Whether all inputs that say what to slice are known.
bool OptionsKnown(const InferContext& context) {
  if (context.opset < 10) return true;
  for (int i = 1; i < context.input_count(); ++i) {
    if (context.has_input(i) && !context.constant(i)) return false;
  }
  return true;
}

Result<void> InferSlice(InferContext& context) {
  const TensorType& input = context.input(0);
  if (context.opset < 10 && context.input_count() > 1) {
    return InvalidModel("expected 1 input before opset 10, found ", context.input_count());
  }
  if (context.opset >= 10 && context.input_count() < 3) {
    return InvalidModel("expected 3 to 5 inputs, found ", context.input_count());
  }
  for (int i = 1; i < context.input_count(); ++i) CREASE_RETURN_IF_ERROR(RequireIndex(context, i));
  TensorType type = input;
  if (!OptionsKnown(context)) {
    for (Dim& dim : type.dims) dim = Dim{};
    SetOutput(context, 0, std::move(type));
    return {};
  }
  CREASE_ASSIGN_OR_RETURN(const SliceOptions options,
                          ReadOptions(context.node, context.opset, context.constant(1), context.constant(2),
                                      context.constant(3), context.constant(4)));
  if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int> axes, NormalizeAxes(options.axes, input.rank()));
    for (size_t i = 0; i < axes.size(); ++i) {
      Dim& dim = type.dims[static_cast<size_t>(axes[i])];
      const bool whole = options.starts[i] == 0 && options.steps[i] == 1 && options.ends[i] >= INT32_MAX;
      if (dim.known()) {
        dim = Dim{ClampSlice(options.starts[i], options.ends[i], options.steps[i], dim.value).count, ""};
      } else if (!whole) {
        dim = Dim{};
      }
    }
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalSlice(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferSlice, context));
  const Tensor& src = context.input(0);
  const auto option = [&context](int i) { return context.has(i) ? &context.input(i) : nullptr; };
  CREASE_ASSIGN_OR_RETURN(const SlicePlan plan, ResolveSlice(context.node, context.opset, src.shape(), option(1),
                                                             option(2), option(3), option(4)));
  std::vector<int64_t> strides = RowMajorStrides(src.shape());
  int64_t offset = 0;
  for (size_t i = 0; i < strides.size(); ++i) {
    offset += plan.start[i] * strides[i];
    strides[i] *= plan.step[i];
  }
  if (outputs[0].size() > 0) GatherStrided(src, offset, strides, outputs[0]);
  return outputs;
}

}  // namespace

SliceRange ClampSlice(int64_t start, int64_t end, int64_t step, int64_t size) {
  const int64_t low = step > 0 ? 0 : -1;  // what an index before the first becomes
  const int64_t high = step > 0 ? size : size - 1;
  const auto clamp = [&](int64_t index) { return std::clamp(index < 0 ? index + size : index, low, high); };
  SliceRange range;
  range.start = clamp(start);
  const int64_t stop = clamp(end);
  const int64_t distance = step > 0 ? stop - range.start : range.start - stop;
  if (distance <= 0) return SliceRange{std::clamp<int64_t>(range.start, 0, std::max<int64_t>(size - 1, 0)), 0};
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  range.count = static_cast<int64_t>((static_cast<uint64_t>(distance) - 1) / stride) + 1;
  return range;
}

Result<SlicePlan> ResolveSlice(const Node& node, int opset, const Shape& input, const Tensor* starts,
                               const Tensor* ends, const Tensor* axes, const Tensor* steps) {
  CREASE_ASSIGN_OR_RETURN(const SliceOptions options, ReadOptions(node, opset, starts, ends, axes, steps));
  CREASE_ASSIGN_OR_RETURN(const std::vector<int> normal, NormalizeAxes(options.axes, static_cast<int>(input.size())));
  SlicePlan plan;
  plan.start.assign(input.size(), 0);
  plan.step.assign(input.size(), 1);
  plan.output = input;
  for (size_t i = 0; i < normal.size(); ++i) {
    const auto axis = static_cast<size_t>(normal[i]);
    const SliceRange range = ClampSlice(options.starts[i], options.ends[i], options.steps[i], input[axis]);
    plan.start[axis] = range.start;
    plan.step[axis] = range.count > 1 ? options.steps[i] : 1;  // a step past int64 would overflow its product
    plan.output[axis] = range.count;
  }
  return plan;
}

const OpDef kSlice = {"Slice", "", 7, 1, 5, 1, 1, InferSlice, EvalSlice};

}  // namespace crease::ops
