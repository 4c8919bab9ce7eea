// SPDX-License-Identifier: Apache-2.0
// Parsing of Resize and Upsample, and their coordinate arithmetic (formulas: ONNX Resize-19).
#include <algorithm>
#include <cmath>
#include <string>

#include "graph/ops/common.h"
#include "graph/ops/resize.h"

namespace crease::ops {
namespace {

template <typename T>
struct NamedValue {
  std::string_view name;
  T value;
  int min_opset = 0, max_opset = 1 << 20;
};

constexpr NamedValue<ResizeMode> kModes[] = {
    {"nearest", ResizeMode::kNearest},
    {"linear", ResizeMode::kLinear},
    {"bilinear", ResizeMode::kLinear, 0, 8},
    {"cubic", ResizeMode::kCubic, 11},
};
constexpr NamedValue<ResizeCoordinates> kCoordinates[] = {
    {"half_pixel", ResizeCoordinates::kHalfPixel},
    {"half_pixel_symmetric", ResizeCoordinates::kHalfPixelSymmetric, 19},
    {"pytorch_half_pixel", ResizeCoordinates::kPytorchHalfPixel},
    {"align_corners", ResizeCoordinates::kAlignCorners},
    {"asymmetric", ResizeCoordinates::kAsymmetric},
    {"tf_half_pixel_for_nn", ResizeCoordinates::kTfHalfPixelForNn, 0, 12},
};
constexpr NamedValue<ResizeNearest> kNearest[] = {
    {"round_prefer_floor", ResizeNearest::kRoundPreferFloor},
    {"round_prefer_ceil", ResizeNearest::kRoundPreferCeil},
    {"floor", ResizeNearest::kFloor},
    {"ceil", ResizeNearest::kCeil},
};
constexpr NamedValue<ResizeAspect> kAspects[] = {
    {"stretch", ResizeAspect::kStretch},
    {"not_larger", ResizeAspect::kNotLarger},
    {"not_smaller", ResizeAspect::kNotSmaller},
};

template <typename T, size_t kCount>
Result<T> ReadNamed(const Node& node, int opset, std::string_view attribute, std::string_view fallback,
                    const NamedValue<T> (&values)[kCount]) {
  CREASE_ASSIGN_OR_RETURN(const std::string text, AttrString(node, attribute, fallback));
  std::string allowed;
  for (const NamedValue<T>& entry : values) {
    if (opset < entry.min_opset || opset > entry.max_opset) continue;
    if (entry.name == text) return entry.value;
    allowed += StrCat(allowed.empty() ? "" : ", ", entry.name);
  }
  return InvalidModel("attribute '", attribute, "' must be one of ", allowed, ", it is '", Printable(text), "'");
}

// Resize-11 and later.
Result<void> ReadModern(const Node& node, int opset, ResizeAttributes& attributes) {
  CREASE_ASSIGN_OR_RETURN(const std::string coordinates,
                          AttrString(node, "coordinate_transformation_mode", "half_pixel"));
  if (coordinates == "tf_crop_and_resize") return Unsupported("tf_crop_and_resize is not supported");
  CREASE_ASSIGN_OR_RETURN(attributes.coordinates,
                          ReadNamed(node, opset, "coordinate_transformation_mode", "half_pixel", kCoordinates));
  CREASE_ASSIGN_OR_RETURN(attributes.nearest, ReadNamed(node, opset, "nearest_mode", "round_prefer_floor", kNearest));
  CREASE_ASSIGN_OR_RETURN(attributes.cubic_a, AttrFloat(node, "cubic_coeff_a", -0.75f));
  CREASE_ASSIGN_OR_RETURN(const int64_t exclude, AttrInt(node, "exclude_outside", 0));
  attributes.exclude_outside = exclude != 0;
  if (opset < 18) return {};
  CREASE_ASSIGN_OR_RETURN(const int64_t antialias, AttrInt(node, "antialias", 0));
  if (antialias != 0) return Unsupported("attribute 'antialias' must be 0, it is ", antialias);
  CREASE_ASSIGN_OR_RETURN(attributes.axes, AttrInts(node, "axes", {}));
  CREASE_ASSIGN_OR_RETURN(attributes.aspect, ReadNamed(node, opset, "keep_aspect_ratio_policy", "stretch", kAspects));
  return {};
}

// Position in the input, in pixels, of output pixel `dst`; computed in the order in which ONNX Runtime does.
template <typename T>
T Source(ResizeCoordinates coordinates, int64_t dst, T scale, int64_t input, int64_t output) {
  const T x = static_cast<T>(dst), in = static_cast<T>(input), out = static_cast<T>(output), half = T{0.5};
  switch (coordinates) {
    case ResizeCoordinates::kHalfPixel:
      return (x + half) / scale - half;
    case ResizeCoordinates::kHalfPixelSymmetric: {
      const T offset = in / 2 * (1 - out / (scale * in));
      return static_cast<T>(static_cast<double>(offset) + (static_cast<double>(x) + 0.5) / static_cast<double>(scale) -
                            0.5);
    }
    case ResizeCoordinates::kPytorchHalfPixel:
      return output > 1 ? (x + half) / scale - half : 0;
    case ResizeCoordinates::kAlignCorners:
      return output > 1 ? x * (in - 1) / (out - 1) : 0;
    case ResizeCoordinates::kAsymmetric:
      return x / scale;
    case ResizeCoordinates::kTfHalfPixelForNn:
      return (x + half) / scale;
  }
  return 0;
}

float Rounded(ResizeNearest nearest, float position, float scale) {
  const float floor = std::floor(position), fraction = position - floor;
  const bool half = std::fabs(fraction - 0.5f) <= 1e-6f;  // what ONNX Runtime takes for a tie
  switch (nearest) {
    case ResizeNearest::kRoundPreferFloor:
      return fraction > 0.5f && !half ? floor + 1 : floor;
    case ResizeNearest::kRoundPreferCeil:
      return fraction > 0.5f || half ? floor + 1 : floor;
    case ResizeNearest::kFloor:
      return floor;
    case ResizeNearest::kCeil:
      return std::ceil(position);
    case ResizeNearest::kSimple:
      return scale < 1 ? std::ceil(position) : floor;
  }
  return floor;
}

int64_t NearestIndex(const ResizeAttributes& attributes, const ResizePlan& plan, size_t axis, int64_t dst,
                     int64_t input) {
  const int64_t output = plan.output[axis];
  if (plan.stretched && attributes.coordinates == ResizeCoordinates::kAsymmetric &&
      attributes.nearest == ResizeNearest::kFloor) {
    const float step = static_cast<float>(input) / static_cast<float>(output);
    return std::min(static_cast<int64_t>(static_cast<float>(dst) * step), input - 1);
  }
  const auto scale = static_cast<float>(plan.scales[axis]);
  const float index = Rounded(attributes.nearest, Source(attributes.coordinates, dst, scale, input, output), scale);
  return static_cast<int64_t>(std::clamp<double>(index, 0, static_cast<double>(input - 1)));
}

double CubicWeight(double distance, double a) {
  const double x = std::fabs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

}  // namespace

Result<ResizeAttributes> ParseResize(const Node& node, int opset) {
  ResizeAttributes attributes;
  const bool upsample = node.op_type == "Upsample";
  CREASE_ASSIGN_OR_RETURN(attributes.mode, ReadNamed(node, opset, "mode", "nearest", kModes));
  if (!upsample && opset >= 11) {
    CREASE_RETURN_IF_ERROR(ReadModern(node, opset, attributes));
    return attributes;
  }
  attributes.coordinates = ResizeCoordinates::kAsymmetric;
  attributes.nearest = ResizeNearest::kSimple;
  attributes.sizes_slot = kNone;
  attributes.scales_slot = 1;
  if (upsample && opset < 9) {
    attributes.scales_slot = kNone;
    if (!HasAttr(node, "scales")) return InvalidModel("attribute 'scales' is missing");
    CREASE_ASSIGN_OR_RETURN(attributes.scales, AttrFloats(node, "scales", {}));
  }
  return attributes;
}

ResizeTaps ResizeTapsAt(const ResizeAttributes& attributes, const ResizePlan& plan, size_t axis, int64_t dst,
                        int64_t input) {
  ResizeTaps taps;
  if (attributes.mode == ResizeMode::kNearest) {
    taps.count = 1;
    taps.index[0] = NearestIndex(attributes, plan, axis, dst, input);
    taps.weight[0] = 1;
    return taps;
  }
  const double position = Source<double>(attributes.coordinates, dst, plan.scales[axis], input, plan.output[axis]);
  const double floor = std::floor(position), fraction = position - floor;
  const auto base = static_cast<int64_t>(floor);
  if (attributes.mode == ResizeMode::kLinear) {
    taps.count = 2;
    taps.weight = {1 - fraction, fraction, 0, 0};
    taps.index = {base, base + 1, 0, 0};
  } else {
    taps.count = 4;
    for (int i = 0; i < 4; ++i) {
      taps.index[static_cast<size_t>(i)] = base + i - 1;
      taps.weight[static_cast<size_t>(i)] = CubicWeight(fraction - (i - 1), attributes.cubic_a);
    }
  }
  double total = 0;
  for (size_t i = 0; i < static_cast<size_t>(taps.count); ++i) {
    const int64_t inside = std::clamp<int64_t>(taps.index[i], 0, input - 1);
    if (attributes.exclude_outside && inside != taps.index[i]) taps.weight[i] = 0;
    taps.index[i] = inside;
    total += taps.weight[i];
  }
  if (attributes.exclude_outside && total != 0) {
    for (double& weight : taps.weight) weight /= total;
  }
  return taps;
}

}  // namespace crease::ops
