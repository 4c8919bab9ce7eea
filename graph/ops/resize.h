// SPDX-License-Identifier: Apache-2.0
// Resize (opsets 10, 11, 13, 18, 19) and Upsample (7, 9): one set of attributes, one coordinate
// arithmetic for the definition and for kernels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace crease::ops {

enum class ResizeMode : uint8_t { kNearest, kLinear, kCubic };
enum class ResizeCoordinates : uint8_t {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAlignCorners,
  kAsymmetric,
  kTfHalfPixelForNn,
};
enum class ResizeNearest : uint8_t {
  kRoundPreferFloor,
  kRoundPreferCeil,
  kFloor,
  kCeil,
  kSimple,  // opset 10 and Upsample: up where the scale is below 1, else down
};
enum class ResizeAspect : uint8_t { kStretch, kNotLarger, kNotSmaller };

struct ResizeAttributes {
  ResizeMode mode = ResizeMode::kNearest;
  ResizeCoordinates coordinates = ResizeCoordinates::kHalfPixel;
  ResizeNearest nearest = ResizeNearest::kRoundPreferFloor;
  ResizeAspect aspect = ResizeAspect::kStretch;
  float cubic_a = -0.75f;
  bool exclude_outside = false;
  std::vector<int64_t> axes;            // opset 18: as given; empty: all
  int scales_slot = 2, sizes_slot = 3;  // inputs; kNone where the opset has none
  std::vector<float> scales;            // Upsample 7: the attribute
};

// Errors: unknown modes; antialias, tf_crop_and_resize: unsupported.
Result<ResizeAttributes> ParseResize(const Node& node, int opset);

// One entry an axis of X; an axis that is not resized has scale 1 and the same size.
struct ResizePlan {
  Shape output;
  std::vector<double> scales;  // as given, or output / input where sizes are given
  bool stretched = false;      // sizes are given, and every axis has a scale of its own
};

// `scales` and `sizes`: values of those inputs, null where absent or empty; one of them (or
// attributes.scales) must be there. Output sizes are floor(float32(input) * scale), as ONNX Runtime
// rounds it; where no size changes, scales become 1, as it copies then. Errors: both or none, wrong lengths, scales <=
// 0 or not finite, sizes < 1.
Result<ResizePlan> ResolveResize(const ResizeAttributes& attributes, const Shape& input, const Tensor* scales,
                                 const Tensor* sizes);

// A weighted sum of taps along one axis: what each mode is on each axis. Unused taps have weight 0; every
// index is in [0, input).
struct ResizeTaps {
  std::array<int64_t, 4> index{};
  std::array<double, 4> weight{};
  int count = 0;  // 1 for nearest, 2 for linear, 4 for cubic
};

// The taps of output pixel `dst` along an axis of `input` pixels. kNearest takes ONNX Runtime's pixels: its
// arithmetic is float32, whose last bit may decide between two. Except stretched, asymmetric and floor, which is
// what PyTorch exports: there it takes PyTorch's, dst times input / output in float32.
ResizeTaps ResizeTapsAt(const ResizeAttributes& attributes, const ResizePlan& plan, size_t axis, int64_t dst,
                        int64_t input);

}  // namespace crease::ops
