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

double ResizeSource(ResizeCoordinates coordinates, int64_t dst, double scale, int64_t input, int64_t output) {
  const auto x = static_cast<double>(dst);
  const auto in = static_cast<double>(input), out = static_cast<double>(output);
  switch (coordinates) {
    case ResizeCoordinates::kHalfPixel:
      return (x + 0.5) / scale - 0.5;
    case ResizeCoordinates::kHalfPixelSymmetric: {
      const double adjustment = out / (scale * in);
      return in / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5;
    }
    case ResizeCoordinates::kPytorchHalfPixel:
      return output > 1 ? (x + 0.5) / scale - 0.5 : 0;
    case ResizeCoordinates::kAlignCorners:
      return output > 1 ? x * (in - 1) / (out - 1) : 0;
    case ResizeCoordinates::kAsymmetric:
      return x / scale;
    case ResizeCoordinates::kTfHalfPixelForNn:
      return (x + 0.5) / scale;
  }
  return 0;
}

int64_t ResizeNearestIndex(ResizeNearest nearest, double position, double scale, int64_t input) {
  double index = 0;
  switch (nearest) {
    case ResizeNearest::kRoundPreferFloor:
      index = std::ceil(position - 0.5);
      break;
    case ResizeNearest::kRoundPreferCeil:
      index = std::floor(position + 0.5);
      break;
    case ResizeNearest::kFloor:
      index = std::floor(position);
      break;
    case ResizeNearest::kCeil:
      index = std::ceil(position);
      break;
    case ResizeNearest::kSimple:
      index = scale < 1 ? std::ceil(position) : std::floor(position);
      break;
  }
  return static_cast<int64_t>(std::clamp(index, 0.0, static_cast<double>(input - 1)));
}

ResizeTaps ResizeTapsAt(const ResizeAttributes& attributes, double position, int64_t input) {
  ResizeTaps taps;
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
