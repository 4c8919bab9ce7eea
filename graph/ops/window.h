// SPDX-License-Identifier: Apache-2.0
// Sliding windows: the attributes that convolutions and pools share, and their arithmetic.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/graph.h"

namespace crease::ops {

enum class AutoPad : uint8_t { kNotSet, kSameUpper, kSameLower, kValid };

// Kernel, stride, dilation and pad are at most this, so that no product of two of them leaves
// int64.
inline constexpr int64_t kMaxWindowValue = INT32_MAX;

// One entry a spatial axis; pads are (begin..., end...) and zero under an auto_pad other than
// kNotSet. Empty `kernel`: neither the attribute nor the weights tell it yet.
struct WindowAttributes {
  std::vector<int64_t> kernel, strides, dilations, pads;
  AutoPad auto_pad = AutoPad::kNotSet;
  bool ceil_mode = false;

  int rank() const { return static_cast<int>(strides.size()); }
};

// A window along one axis whose sizes are known. Tap k of output o reads input
// o * stride + k * dilation - pad_begin; outside [0, input) it reads padding. With ceil_mode the
// last window may pass input + pad_end; such taps are outside of padding too.
struct WindowAxis {
  int64_t input = 0, output = 0;
  int64_t kernel = 1, stride = 1, dilation = 1;
  int64_t pad_begin = 0, pad_end = 0;

  int64_t extent() const { return (kernel - 1) * dilation + 1; }
  friend bool operator==(const WindowAxis&, const WindowAxis&) = default;
};

// Reads kernel_shape, strides, dilations, pads and auto_pad; ceil_mode is for pools. `weight_kernel` is the
// kernel as the weights have it; empty for pools and while unknown; kernel_shape must agree with
// it. Errors: lengths that differ from spatial_rank, strides, dilations or kernel < 1, pads < 0, a
// value past kMaxWindowValue, non-zero pads with an auto_pad, an unknown auto_pad.
Result<WindowAttributes> ParseWindow(const Node& node, int spatial_rank, std::span<const int64_t> weight_kernel = {});

// The window along spatial axis `axis` over `input` elements; attributes.kernel must be known.
// Formulas: ONNX Conv and MaxPool (output sizes, auto_pad), with PyTorch's rule that under
// ceil_mode no window starts in the end padding. Errors: the dilated kernel exceeds the padded
// input, with ceil_mode by a stride or more.
Result<WindowAxis> ResolveAxis(const WindowAttributes& attributes, int axis, int64_t input);

// For output pixel `dst` (row-major over the axes' outputs): the input pixel that every tap (row-major
// over the kernels) reads, -1 where it reads padding. sources.size() is the product of the kernels.
void WindowSources(std::span<const WindowAxis> axes, int64_t dst, std::span<int64_t> sources);

// The output dimension as far as it is known: an unknown input that the window keeps stays itself.
Result<Dim> ResolveWindowDim(const WindowAttributes& attributes, int axis, const Dim& input);

}  // namespace crease::ops
