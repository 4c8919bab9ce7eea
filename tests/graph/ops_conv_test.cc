// SPDX-License-Identifier: Apache-2.0
// Conv and ConvTranspose against values worked out by hand and against a direct loop.
#include <gtest/gtest.h>

#include "graph/ops/conv.h"
#include "graph/ops/conv_transpose.h"
#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectValues;
using test::Floats;
using test::IntList;
using test::OpCase;

Tensor Ones(Shape shape) {
  const auto count = static_cast<size_t>(*ElementCount(shape));
  return Floats(std::move(shape), std::vector<float>(count, 1.0f));
}

TEST(OpsConv, SumsWindows) {
  ExpectValues({"Conv", 11, {Counting({1, 1, 3, 3}), Ones({1, 1, 2, 2})}, {}}, {1, 1, 2, 2}, {8, 12, 20, 24});
}

TEST(OpsConv, PadsStridesAndBias) {
  const OpCase op = {"Conv",
                     11,
                     {Counting({1, 1, 3, 3}), Ones({1, 1, 3, 3}), Floats({1}, {0.5f})},
                     {MakeAttr("pads", IntList({1, 1, 1, 1})), MakeAttr("strides", IntList({2, 2}))}};
  ExpectValues(op, {1, 1, 2, 2}, {8.5, 12.5, 20.5, 24.5});
}

TEST(OpsConv, OneDimension) {
  ExpectValues({"Conv", 11, {Counting({1, 1, 5}), Floats({1, 1, 2}, {1, -1})}, {MakeAttr("dilations", IntList({2}))}},
               {1, 1, 3}, {-2, -2, -2});
}

TEST(OpsConv, ThreeDimensions) {
  ExpectValues({"Conv", 11, {Counting({1, 1, 2, 2, 2}), Ones({1, 1, 2, 2, 2})}, {}}, {1, 1, 1, 1, 1}, {28});
}

TEST(OpsConv, GroupsTakeTheirOwnChannels) {
  const OpCase op = {
      "Conv", 11, {Counting({2, 2, 1, 1}), Floats({4, 1, 1, 1}, {1, 10, 100, 1000})}, {MakeAttr("group", int64_t{2})}};
  ExpectValues(op, {2, 4, 1, 1}, {0, 0, 100, 1000, 2, 20, 300, 3000});
}

TEST(OpsConv, AutoPad) {
  for (const auto& [mode, first] : {std::pair{"SAME_UPPER", 1.0}, std::pair{"SAME_LOWER", 0.0}}) {
    const OpCase op = {"Conv", 11, {Counting({1, 1, 3}), Ones({1, 1, 2})}, {MakeAttr("auto_pad", mode)}};
    ExpectValues(op, {1, 1, 3}, {first, first == 1 ? 3.0 : 1.0, first == 1 ? 2.0 : 3.0});
  }
  ExpectValues({"Conv", 11, {Counting({1, 1, 3}), Ones({1, 1, 2})}, {MakeAttr("auto_pad", "VALID")}}, {1, 1, 2},
               {1, 3});
}

// More outputs and pixels than the blocks of the evaluation, against the plainest loop.
TEST(OpsConv, AgreesWithDirectLoopAtAwkwardSizes) {
  const int64_t channels = 3, outputs = 7, size = 11, kernel = 3;
  const Tensor x = Counting({1, channels, size, size}), w = Counting({outputs, channels, kernel, kernel});
  std::vector<double> expected;
  for (int64_t m = 0; m < outputs; ++m) {
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        double total = 0;
        for (int64_t c = 0; c < channels; ++c) {
          for (int64_t a = 0; a < kernel * kernel; ++a) {
            const int64_t row = i + a / kernel - 1, column = j + a % kernel - 1;
            if (row < 0 || row >= size || column < 0 || column >= size) continue;
            total += x.AsDouble((c * size + row) * size + column) * w.AsDouble((m * channels + c) * 9 + a);
          }
        }
        expected.push_back(total);
      }
    }
  }
  ExpectValues({"Conv", 11, {x, w}, {MakeAttr("pads", IntList({1, 1, 1, 1}))}}, {1, outputs, size, size}, expected);
}

TEST(OpsConv, Errors) {
  const Tensor x = Counting({1, 4, 5, 5}), w = Ones({6, 2, 3, 3});
  const auto with = [&](std::vector<Attribute> attributes) {
    return OpCase{"Conv", 11, {x, w}, std::move(attributes)};
  };
  ExpectFailure(with({}), {"channels / group", "4", "2"});
  ExpectFailure(with({MakeAttr("group", int64_t{0})}), {"group", "at least 1"});
  ExpectFailure(with({MakeAttr("group", int64_t{4})}), {"6", "multiple of group 4"});
  const Attribute group = MakeAttr("group", int64_t{2});
  ExpectFailure(with({group, MakeAttr("strides", IntList({0, 1}))}), {"strides", "found 0"});
  ExpectFailure(with({group, MakeAttr("dilations", IntList({1, -1}))}), {"dilations", "found -1"});
  ExpectFailure(with({group, MakeAttr("pads", IntList({1, 1}))}), {"pads", "4 values", "has 2"});
  ExpectFailure(with({group, MakeAttr("pads", IntList({1, 1, 1, int64_t{1} << 62}))}), {"pads", "4611686018427387904"});
  ExpectFailure(with({group, MakeAttr("kernel_shape", IntList({5, 5}))}), {"kernel_shape", "(3, 3)", "(5, 5)"});
  ExpectFailure(with({group, MakeAttr("dilations", IntList({4, 4}))}), {"fit the padded input", "9"});
  ExpectFailure(with({group, MakeAttr("auto_pad", "SOME")}), {"auto_pad", "SOME"});
  ExpectFailure({"Conv", 11, {Counting({1, 4, 5}), w}, {group}}, {"same rank"});
  ExpectFailure({"Conv", 11, {x, w, Ones({5})}, {group}}, {"bias", "6", "5"});
  ExpectFailure({"Conv", 11, {x, test::Ints({6, 2, 3, 3}, std::vector<int64_t>(108, 1))}, {group}}, {"float"});
}

TEST(OpsConv, SymbolsSurviveWhereTheWindowKeepsTheSize) {
  TensorType x = TensorType::OfRank(DType::kFloat32, 4);
  x.dims = {Dim{-1, "N"}, Dim{4, ""}, Dim{-1, "H"}, Dim{-1, "W"}};
  const OpCase op = {"Conv", 11, {Tensor(), Ones({6, 4, 3, 3})}, {MakeAttr("pads", IntList({1, 0, 1, 0}))}};
  OpCase present = op;
  present.inputs[0] = Counting({1, 4, 3, 3});
  const Result<TensorType> y = test::InferOne(present, {x});
  ASSERT_TRUE(y.ok()) << y.error().message;
  EXPECT_EQ(y->dims, (std::vector<Dim>{Dim{-1, "N"}, Dim{6, ""}, Dim{-1, "H"}, Dim{}}));
}

TEST(OpsConvTranspose, Spreads) {
  ExpectValues({"ConvTranspose", 11, {Floats({1, 1, 2}, {1, 2}), Floats({1, 1, 3}, {1, 10, 100})}, {}}, {1, 1, 4},
               {1, 12, 120, 200});
  ExpectValues({"ConvTranspose",
                11,
                {Floats({1, 1, 2}, {1, 2}), Floats({1, 1, 2}, {1, 10}), Floats({1}, {0.5f})},
                {MakeAttr("strides", IntList({3})), MakeAttr("output_padding", IntList({1}))}},
               {1, 1, 6}, {1.5, 10.5, 0.5, 2.5, 20.5, 0.5});
}

TEST(OpsConvTranspose, Groups) {
  // Two groups of one input and two outputs.
  ExpectValues({"ConvTranspose",
                11,
                {Floats({1, 2, 1, 1}, {1, 2}), Floats({2, 2, 1, 1}, {1, 10, 100, 1000})},
                {MakeAttr("group", int64_t{2})}},
               {1, 4, 1, 1}, {1, 10, 200, 2000});
}

TEST(OpsConvTranspose, OutputShapeAndAutoPadDecideThePads) {
  const Tensor x = Floats({1, 1, 2}, {1, 2}), w = Floats({1, 1, 3}, {1, 10, 100});
  // Without pads: 1, 10, 102, 20, 200. One of the five goes: at the end, or at the start.
  const auto with = [&](std::vector<Attribute> more) {
    more.push_back(MakeAttr("strides", IntList({2})));
    return OpCase{"ConvTranspose", 11, {x, w}, std::move(more)};
  };
  ExpectValues(with({MakeAttr("auto_pad", "SAME_UPPER")}), {1, 1, 4}, {1, 10, 102, 20});
  ExpectValues(with({MakeAttr("auto_pad", "SAME_LOWER")}), {1, 1, 4}, {10, 102, 20, 200});
  ExpectValues(with({MakeAttr("output_shape", IntList({4}))}), {1, 1, 4}, {10, 102, 20, 200});
  ExpectValues(with({MakeAttr("output_shape", IntList({7}))}), {1, 1, 7}, {1, 10, 102, 20, 200, 0, 0});
  ExpectValues(with({MakeAttr("pads", IntList({1, 1}))}), {1, 1, 3}, {10, 102, 20});
}

TEST(OpsConvTranspose, Errors) {
  const Tensor x = Ones({1, 3, 4}), w = Ones({2, 2, 3});
  ExpectFailure({"ConvTranspose", 11, {x, w}, {}}, {"3 channels", "2"});
  ExpectFailure({"ConvTranspose", 11, {x, Ones({3, 2, 3})}, {MakeAttr("group", int64_t{2})}}, {"multiple of group 2"});
  ExpectFailure({"ConvTranspose", 11, {x, Ones({3, 2, 3})}, {MakeAttr("output_padding", IntList({-1}))}}, {"-1"});
  ExpectFailure({"ConvTranspose", 11, {x, Ones({3, 2, 3})}, {MakeAttr("pads", IntList({3, 3}))}}, {"at least 1"});
  ExpectFailure({"ConvTranspose", 11, {x, Ones({3, 2, 3})}, {MakeAttr("group", int64_t{1} << 62)}}, {"multiple"});
}

TEST(OpsConv, ResolvedShapeForKernels) {
  const OpCase op = {"Conv", 11, {Tensor()}, {MakeAttr("group", int64_t{8}), MakeAttr("strides", IntList({2, 1}))}};
  const Result<ops::ConvShape> shape = ops::ResolveConv(op.MakeNode(), {2, 8, 9, 7}, {16, 1, 3, 1});
  ASSERT_TRUE(shape.ok()) << shape.error().message;
  EXPECT_TRUE(shape->depthwise());
  EXPECT_EQ(shape->group_outputs(), 2);
  EXPECT_EQ(shape->output(), (Shape{2, 16, 4, 7}));
}

}  // namespace
}  // namespace crease
