// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/window.h"

#include <algorithm>
#include <array>
#include <string>

#include "graph/ops/common.h"

namespace crease::ops {
namespace {

// The attribute `name`: `count` values in [least, kMaxWindowValue], or that many times the fallback.
Result<std::vector<int64_t>> ReadValues(const Node& node, std::string_view name, size_t count, int64_t least,
                                        int64_t fallback) {
  if (!HasAttr(node, name)) return std::vector<int64_t>(count, fallback);
  CREASE_ASSIGN_OR_RETURN(std::vector<int64_t> values, AttrInts(node, name, {}));
  if (values.size() != count) {
    return InvalidModel("attribute '", name, "' must have ", count, " values, it has ", values.size());
  }
  for (int64_t value : values) {
    if (value < least || value > kMaxWindowValue) {
      return InvalidModel("attribute '", name, "' must be in [", least, ", ", kMaxWindowValue, "], found ", value);
    }
  }
  return values;
}

Result<AutoPad> ReadAutoPad(const Node& node) {
  CREASE_ASSIGN_OR_RETURN(const std::string text, AttrString(node, "auto_pad", "NOTSET"));
  if (text == "NOTSET" || text.empty()) return AutoPad::kNotSet;
  if (text == "SAME_UPPER") return AutoPad::kSameUpper;
  if (text == "SAME_LOWER") return AutoPad::kSameLower;
  if (text == "VALID") return AutoPad::kValid;
  return InvalidModel("attribute 'auto_pad' must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, it is '", Printable(text),
                      "'");
}

Result<std::vector<int64_t>> ReadKernel(const Node& node, size_t rank, std::span<const int64_t> weight_kernel) {
  if (!HasAttr(node, "kernel_shape")) {
    for (int64_t size : weight_kernel) {
      if (size < 1 || size > kMaxWindowValue) {
        return InvalidModel("the weights' kernel must be in [1, ", kMaxWindowValue, "], it is ",
                            ToString(weight_kernel));
      }
    }
    return std::vector<int64_t>(weight_kernel.begin(), weight_kernel.end());
  }
  CREASE_ASSIGN_OR_RETURN(std::vector<int64_t> kernel, ReadValues(node, "kernel_shape", rank, 1, 1));
  if (!weight_kernel.empty() && !std::equal(kernel.begin(), kernel.end(), weight_kernel.begin(), weight_kernel.end())) {
    return InvalidModel("attribute 'kernel_shape' must be the weights' ", ToString(weight_kernel), ", it is ",
                        ToString(kernel));
  }
  return kernel;
}

}  // namespace

Result<WindowAttributes> ParseWindow(const Node& node, int spatial_rank, std::span<const int64_t> weight_kernel) {
  if (spatial_rank < 1 || spatial_rank > kMaxRank - 2) {
    return InvalidModel("expected 1 to ", kMaxRank - 2, " spatial axes, found ", spatial_rank);
  }
  const auto rank = static_cast<size_t>(spatial_rank);
  WindowAttributes window;
  CREASE_ASSIGN_OR_RETURN(window.kernel, ReadKernel(node, rank, weight_kernel));
  CREASE_ASSIGN_OR_RETURN(window.strides, ReadValues(node, "strides", rank, 1, 1));
  CREASE_ASSIGN_OR_RETURN(window.dilations, ReadValues(node, "dilations", rank, 1, 1));
  CREASE_ASSIGN_OR_RETURN(window.pads, ReadValues(node, "pads", 2 * rank, 0, 0));
  CREASE_ASSIGN_OR_RETURN(window.auto_pad, ReadAutoPad(node));
  if (window.auto_pad != AutoPad::kNotSet &&
      std::any_of(window.pads.begin(), window.pads.end(), [](int64_t pad) { return pad != 0; })) {
    return InvalidModel("attributes 'pads' and 'auto_pad' exclude each other, found pads ", ToString(window.pads));
  }
  return window;
}

void WindowSources(std::span<const WindowAxis> axes, int64_t dst, std::span<int64_t> sources) {
  std::array<int64_t, kMaxRank> first{}, tap{};
  for (size_t i = axes.size(); i-- > 0;) {
    first[i] = dst % axes[i].output * axes[i].stride - axes[i].pad_begin;
    dst /= axes[i].output;
  }
  for (int64_t& source : sources) {
    source = 0;
    for (size_t i = 0; i < axes.size() && source >= 0; ++i) {
      const int64_t position = first[i] + tap[i] * axes[i].dilation;
      source = position >= 0 && position < axes[i].input ? source * axes[i].input + position : -1;
    }
    for (size_t i = axes.size(); i-- > 0;) {
      if (++tap[i] < axes[i].kernel) break;
      tap[i] = 0;
    }
  }
}

Result<Dim> ResolveWindowDim(const WindowAttributes& attributes, int axis, const Dim& input) {
  if (attributes.kernel.empty()) return Dim{};
  const auto i = static_cast<size_t>(axis);
  if (input.known()) {
    CREASE_ASSIGN_OR_RETURN(const WindowAxis window, ResolveAxis(attributes, axis, input.value));
    return Dim{window.output, ""};
  }
  if (attributes.strides[i] != 1) return Dim{};
  const bool same = attributes.auto_pad == AutoPad::kSameUpper || attributes.auto_pad == AutoPad::kSameLower;
  const int64_t pads = attributes.pads[i] + attributes.pads[i + static_cast<size_t>(attributes.rank())];
  const int64_t shrink = (attributes.kernel[i] - 1) * attributes.dilations[i];
  return same || pads == shrink ? input : Dim{};
}

Result<WindowAxis> ResolveAxis(const WindowAttributes& attributes, int axis, int64_t input) {
  constexpr int64_t kMaxInput = int64_t{1} << 60;  // leaves room for a pad and a kernel in int64
  if (input > kMaxInput) {
    return Error{ErrorCode::kLimitExceeded, StrCat("spatial axis ", axis, " must be at most 2^60, it is ", input), ""};
  }
  const auto i = static_cast<size_t>(axis);
  WindowAxis window;
  window.input = input;
  window.kernel = attributes.kernel[i];
  window.stride = attributes.strides[i];
  window.dilation = attributes.dilations[i];
  if (attributes.auto_pad == AutoPad::kSameUpper || attributes.auto_pad == AutoPad::kSameLower) {
    window.output = CeilDiv(input, window.stride);
    const int64_t total = std::max<int64_t>(0, (window.output - 1) * window.stride + window.extent() - input);
    window.pad_begin = attributes.auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
    window.pad_end = total - window.pad_begin;
    return window;
  }
  window.pad_begin = attributes.pads[i];
  window.pad_end = attributes.pads[i + static_cast<size_t>(attributes.rank())];
  const int64_t padded = input + window.pad_begin + window.pad_end, room = padded - window.extent();
  // Rounded up, a window may lack up to a stride, the first one as well.
  const bool ceil = attributes.ceil_mode && attributes.auto_pad == AutoPad::kNotSet;
  if (room < 0 && !(ceil && padded > 0 && room > -window.stride)) {
    return InvalidModel("the dilated kernel must fit the padded input along spatial axis ", axis, ": kernel ",
                        window.kernel, ", dilation ", window.dilation, " cover ", window.extent(), ", input ", input,
                        " with pads ", window.pad_begin, " and ", window.pad_end, " has ", padded);
  }
  window.output = 1 + (room < 0 ? 0 : ceil ? CeilDiv(room, window.stride) : room / window.stride);
  if (ceil && (window.output - 1) * window.stride >= input + window.pad_begin) --window.output;
  return window;
}

}  // namespace crease::ops
