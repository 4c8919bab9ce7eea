// SPDX-License-Identifier: Apache-2.0
// Resize and Upsample on rows of a few pixels, where every coordinate is worked out by hand.
#include <gtest/gtest.h>

#include "graph/ops/resize.h"
#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectValues;
using test::Floats;
using test::IntList;
using test::Ints;
using test::OpCase;

OpCase Scaled(Tensor x, std::vector<float> scales, std::vector<Attribute> attributes, int opset = 13) {
  const auto count = static_cast<int64_t>(scales.size());
  return {"Resize", opset, {std::move(x), Tensor(), Floats({count}, std::move(scales))}, std::move(attributes)};
}
OpCase Sized(Tensor x, std::vector<int64_t> sizes, std::vector<Attribute> attributes, int opset = 13) {
  return {"Resize", opset, {std::move(x), Tensor(), Tensor(), Ints(std::move(sizes))}, std::move(attributes)};
}
Attribute Mode(const char* mode) { return MakeAttr("mode", mode); }
Attribute Coordinates(const char* mode) { return MakeAttr("coordinate_transformation_mode", mode); }

TEST(OpsResize, Nearest) {
  const Tensor x = Counting({4});
  ExpectValues(Scaled(Counting({2}), {2}, {}), {4}, {0, 0, 1, 1});
  // Half-pixel centres 0.5 and 2.5: the two ways to round a tie, down and up.
  ExpectValues(Scaled(x, {0.5f}, {}), {2}, {0, 2});
  ExpectValues(Scaled(x, {0.5f}, {MakeAttr("nearest_mode", "round_prefer_ceil")}), {2}, {1, 3});
  ExpectValues(Scaled(x, {0.5f}, {MakeAttr("nearest_mode", "floor")}), {2}, {0, 2});
  ExpectValues(Scaled(x, {0.5f}, {MakeAttr("nearest_mode", "ceil")}), {2}, {1, 3});
  ExpectValues(Scaled(Counting({2}), {2}, {Coordinates("asymmetric"), MakeAttr("nearest_mode", "ceil")}), {4},
               {0, 1, 1, 1});
  ExpectValues(Scaled(Counting({2}), {2}, {Coordinates("tf_half_pixel_for_nn"), MakeAttr("nearest_mode", "floor")}, 11),
               {4}, {0, 0, 1, 1});
}

TEST(OpsResize, NearestTakesThePixelsThatSinglePrecisionTakes) {
  const auto row = [](int64_t pixels, float scale, const char* coordinates, const char* rounding) {
    const OpCase resize =
        Scaled(Counting({pixels}), {scale}, {Coordinates(coordinates), MakeAttr("nearest_mode", rounding)});
    const Tensor taken = (*resize.Evaluate())[0];
    return std::vector<float>(taken.data<float>(), taken.data<float>() + taken.size());
  };
  // 1 / 0.33333334f is 3 in float32, less in double.
  EXPECT_EQ(row(6, 1.0f / 3, "asymmetric", "floor"), (std::vector<float>{0, 3}));
  // 1 / 0.2857143f is 3.4999998: near enough to a half for ONNX Runtime.
  EXPECT_EQ(row(7, 2.0f / 7, "asymmetric", "round_prefer_ceil"), (std::vector<float>{0, 4}));
  // Where no size changes it copies.
  EXPECT_EQ(row(3, 1.1f, "asymmetric", "ceil"), (std::vector<float>{0, 1, 2}));
  const auto sized = [](int64_t from, int64_t to, const char* coordinates, const char* rounding, size_t at) {
    return (*Sized(Counting({from}), {to}, {Coordinates(coordinates), MakeAttr("nearest_mode", rounding)})
                 .Evaluate())[0]
        .data<float>()[at];
  };
  EXPECT_EQ(sized(10, 14, "half_pixel", "ceil", 3), 2);
  // ONNX Runtime has pixel 4 here; what PyTorch exports takes PyTorch's.
  EXPECT_EQ(sized(25, 15, "asymmetric", "floor", 3), 5);
}

TEST(OpsResize, Linear) {
  const Tensor x = Floats({2}, {0, 4});
  ExpectValues(Scaled(x, {2}, {Mode("linear")}), {4}, {0, 1, 3, 4});
  ExpectValues(Scaled(x, {2}, {Mode("linear"), Coordinates("asymmetric")}), {4}, {0, 2, 4, 4});
  ExpectValues(Scaled(x, {2}, {Mode("linear"), Coordinates("align_corners")}), {4}, {0, 4.0 / 3, 8.0 / 3, 4});
  ExpectValues(Scaled(Counting({4}), {0.25f}, {Mode("linear"), Coordinates("half_pixel")}), {1}, {1.5});
  ExpectValues(Scaled(Counting({4}), {0.25f}, {Mode("linear"), Coordinates("pytorch_half_pixel")}), {1}, {0});
  ExpectValues(Scaled(Floats({2, 2}, {0, 4, 8, 12}), {2, 1}, {Mode("linear")}), {4, 2}, {0, 4, 2, 6, 6, 10, 8, 12});
  // 5 * 0.5 = 2.5 pixels: symmetric coordinates centre the two on the five.
  ExpectValues(Scaled(Counting({5}), {0.5f}, {Mode("linear"), Coordinates("half_pixel_symmetric")}, 19), {2}, {1, 3});
}

TEST(OpsResize, Cubic) {
  // Keys' kernel at a distance of up to one pixel, and up to two.
  const double a = -0.75;
  const auto near = [&](double d) { return (a + 2) * d * d * d - (a + 3) * d * d + 1; };
  const auto far = [&](double d) { return a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a; };
  const double middle = far(1.25) * 0 + near(0.25) * 1 + near(0.75) * 2 + far(1.75) * 3;
  const Result<std::vector<Tensor>> y = Scaled(Counting({4}), {2}, {Mode("cubic")}).Evaluate();
  ASSERT_TRUE(y.ok()) << y.error().message;
  EXPECT_NEAR((*y)[0].AsDouble(3), middle, 1e-6);
  // Outer taps left out, the rest scaled to one: at -0.25 pixels -2 and -1 fall away.
  const double first = (near(0.25) * 0 + far(1.25) * 1) / (near(0.25) + far(1.25));
  ExpectValues(Scaled(Counting({2}), {2}, {Mode("cubic"), MakeAttr("exclude_outside", int64_t{1})}), {4},
               {first, (near(0.25) * 0 + near(0.75) * 1) / (near(0.25) + near(0.75)),
                (near(0.75) * 0 + near(0.25) * 1) / (near(0.25) + near(0.75)), 1 - first});
}

TEST(OpsResize, SizesAxesAndAspect) {
  const Tensor x = Counting({1, 2});
  ExpectValues(Sized(x, {1, 4}, {}), {1, 4}, {0, 0, 1, 1});
  ExpectValues(Sized(x, {4}, {MakeAttr("axes", IntList({-1}))}, 18), {1, 4}, {0, 0, 1, 1});
  const auto shape = [](const char* policy) {
    return (*Sized(Counting({2, 4}), {8, 8}, {MakeAttr("keep_aspect_ratio_policy", policy)}, 18).Evaluate())[0].shape();
  };
  EXPECT_EQ(shape("stretch"), (Shape{8, 8}));
  EXPECT_EQ(shape("not_larger"), (Shape{4, 8}));
  EXPECT_EQ(shape("not_smaller"), (Shape{8, 16}));
}

TEST(OpsResize, OldForms) {
  ExpectValues({"Upsample", 7, {Counting({2})}, {MakeAttr("scales", std::vector<float>{2})}}, {4}, {0, 0, 1, 1});
  ExpectValues({"Upsample", 9, {Floats({2}, {0, 4}), Floats({1}, {2})}, {Mode("linear")}}, {4}, {0, 2, 4, 4});
  ExpectValues({"Resize", 10, {Counting({4}), Floats({1}, {0.6f})}, {}}, {2}, {0, 2});
}

TEST(OpsResize, FractionalScalesRoundAsSinglePrecisionDoes) {
  const Result<ops::ResizePlan> plan = ops::ResolveResize({}, {3}, nullptr, nullptr);
  EXPECT_FALSE(plan.ok());
  const Tensor scales = Floats({1}, {7.0f / 3.0f});
  EXPECT_EQ(ops::ResolveResize({}, {3}, &scales, nullptr)->output, (Shape{7}));
}

TEST(OpsResize, Errors) {
  const Tensor x = Counting({2});
  ExpectFailure(Scaled(x, {0}, {}), {"positive", "0"});
  ExpectFailure(Scaled(x, {2, 2}, {}), {"1 elements", "has 2"});
  ExpectFailure(Scaled(x, {1e30f}, {}), {"too large"});
  ExpectFailure(Sized(x, {0}, {}), {"at least 1", "0"});
  ExpectFailure({"Resize", 13, {x}, {}}, {"neither scales nor sizes"});
  ExpectFailure({"Resize", 13, {x, Tensor(), Floats({1}, {2}), Ints({4})}, {}}, {"exactly one"});
  ExpectFailure(Scaled(x, {2}, {Mode("area")}), {"mode", "area"});
  ExpectFailure(Scaled(x, {2}, {Coordinates("tf_crop_and_resize")}), {"tf_crop_and_resize"});
  ExpectFailure(Scaled(x, {2}, {MakeAttr("antialias", int64_t{1})}, 18), {"antialias"});
}

}  // namespace
}  // namespace crease
