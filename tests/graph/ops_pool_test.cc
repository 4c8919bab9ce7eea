// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectValues;
using test::Floats;
using test::IntList;
using test::OpCase;

OpCase Pool(const char* op, Tensor x, std::vector<int64_t> kernel, std::vector<Attribute> more, int opset = 19) {
  more.push_back(MakeAttr("kernel_shape", std::move(kernel)));
  return {op, opset, {std::move(x)}, std::move(more)};
}

TEST(OpsPool, Maximum) {
  ExpectValues(Pool("MaxPool", Counting({1, 1, 3, 3}), {2, 2}, {}), {1, 1, 2, 2}, {4, 5, 7, 8});
  ExpectValues(Pool("MaxPool", Floats({1, 1, 3}, {-3, -1, -2}), {2}, {MakeAttr("pads", IntList({1, 1}))}), {1, 1, 4},
               {-3, -1, -1, -2});
  ExpectValues(Pool("MaxPool", Counting({1, 1, 5}), {2}, {MakeAttr("dilations", IntList({3}))}), {1, 1, 2}, {3, 4});
}

// The number of the maximum among all elements of X; the first one where several are equal.
TEST(OpsPool, Indices) {
  const auto expect = [](OpCase op, const Shape& shape, const std::vector<double>& values) {
    op.outputs = 2;
    const Result<std::vector<Tensor>> outputs = op.Evaluate();
    ASSERT_TRUE(outputs.ok()) << outputs.error().ToString();
    ASSERT_EQ((*outputs)[1].dtype(), DType::kInt64);
    test::ExpectTensor((*outputs)[1], shape, values);
  };
  // ONNX's example: a 5x5 counting map, windows of 5x5 padded by 2; and of 2x2 at stride 2, in both orders.
  std::vector<Attribute> padded = {MakeAttr("pads", IntList({2, 2, 2, 2}))};
  expect(Pool("MaxPool", Counting({1, 1, 5, 5}), {5, 5}, padded), {1, 1, 5, 5},
         {12, 13, 14, 14, 14, 17, 18, 19, 19, 19, 22, 23, 24, 24, 24, 22, 23, 24, 24, 24, 22, 23, 24, 24, 24});
  std::vector<Attribute> strided = {MakeAttr("strides", IntList({2, 2}))};
  expect(Pool("MaxPool", Counting({1, 1, 5, 5}), {2, 2}, strided), {1, 1, 2, 2}, {6, 8, 16, 18});
  strided.push_back(MakeAttr("storage_order", int64_t{1}));
  expect(Pool("MaxPool", Counting({1, 1, 5, 5}), {2, 2}, strided), {1, 1, 2, 2}, {6, 16, 8, 18});
  // Planes of 2x3x2 one after the other; column-major: d + 2 * (h + 3 * w).
  expect(Pool("MaxPool", Counting({1, 2, 2, 3, 2}), {2, 3, 2}, {MakeAttr("storage_order", int64_t{1})}),
         {1, 2, 1, 1, 1}, {11, 23});
  expect(Pool("MaxPool", Counting({1, 2, 2, 3, 2}), {1, 1, 2}, {MakeAttr("storage_order", int64_t{1})}),
         {1, 2, 2, 3, 1}, {6, 8, 10, 7, 9, 11, 18, 20, 22, 19, 21, 23});
  expect(Pool("MaxPool", Floats({1, 1, 4}, {3, 3, 1, 1}), {2}, {}), {1, 1, 3}, {0, 1, 2});
  const float inf = std::numeric_limits<float>::infinity();
  expect(Pool("MaxPool", Floats({1, 1, 2}, {-inf, -inf}), {2}, {}), {1, 1, 1}, {0});
  // Taps at -2 and 1 of an input of one pixel: nothing to choose from.
  expect(Pool("MaxPool", Floats({1, 1, 1}, {7}), {2},
              {MakeAttr("dilations", IntList({3})), MakeAttr("pads", IntList({2, 2}))}),
         {1, 1, 2}, {-1, -1});
}

TEST(OpsPool, NanWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectValues(Pool("MaxPool", Floats({1, 1, 4}, {1, nan, 3, 4}), {2}, {MakeAttr("strides", IntList({2}))}), {1, 1, 2},
               {std::nan(""), 4});
}

TEST(OpsPool, CeilModeAddsAPartialWindowThatStartsInside) {
  const std::vector<Attribute> ceil = {MakeAttr("ceil_mode", int64_t{1}), MakeAttr("strides", IntList({2}))};
  ExpectValues(Pool("MaxPool", Counting({1, 1, 4}), {3}, ceil), {1, 1, 2}, {2, 3});
  ExpectValues(Pool("AveragePool", Counting({1, 1, 4}), {3}, ceil), {1, 1, 2}, {1, 2.5});
  // So may the first one.
  ExpectValues(Pool("MaxPool", Counting({1, 1, 2}), {3}, ceil), {1, 1, 1}, {1});
  ExpectValues(Pool("AveragePool", Counting({1, 1, 2}), {3}, ceil), {1, 1, 1}, {0.5});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 2}), {4}, ceil), {"fit the padded input"});
  // A third window would start in the end padding.
  std::vector<Attribute> padded = ceil;
  padded.push_back(MakeAttr("pads", IntList({0, 1})));
  ExpectValues(Pool("MaxPool", Counting({1, 1, 4}), {2}, padded), {1, 1, 2}, {1, 3});
}

TEST(OpsPool, AverageCountsPaddingOnlyWhenAsked) {
  const Attribute pads = MakeAttr("pads", IntList({1, 1}));
  ExpectValues(Pool("AveragePool", Floats({1, 1, 2}, {2, 4}), {2}, {pads}), {1, 1, 3}, {2, 3, 4});
  ExpectValues(Pool("AveragePool", Floats({1, 1, 2}, {2, 4}), {2}, {pads, MakeAttr("count_include_pad", int64_t{1})}),
               {1, 1, 3}, {1, 3, 2});
  // The last window passes the padded end by one: that tap counts in no case.
  ExpectValues(Pool("AveragePool", Floats({1, 1, 3}, {3, 6, 9}), {3},
                    {MakeAttr("count_include_pad", int64_t{1}), MakeAttr("ceil_mode", int64_t{1}),
                     MakeAttr("strides", IntList({2})), MakeAttr("pads", IntList({1, 0}))}),
               {1, 1, 2}, {3, 7.5});
}

TEST(OpsPool, SamePadding) {
  const std::vector<Attribute> same = {MakeAttr("auto_pad", "SAME_UPPER"), MakeAttr("strides", IntList({2}))};
  ExpectValues(Pool("MaxPool", Counting({1, 1, 5}), {2}, same), {1, 1, 3}, {1, 3, 4});
}

TEST(OpsPool, Global) {
  ExpectValues({"GlobalAveragePool", 7, {Counting({1, 2, 2, 2})}, {}}, {1, 2, 1, 1}, {1.5, 5.5});
  ExpectValues({"GlobalMaxPool", 7, {Counting({2, 1, 3})}, {}}, {2, 1, 1}, {2, 5});
  ExpectFailure({"GlobalAveragePool", 7, {Counting({1, 2, 0, 2})}, {}}, {"at least one pixel"});
}

TEST(OpsPool, Errors) {
  ExpectFailure({"MaxPool", 12, {Counting({1, 1, 4})}, {}}, {"kernel_shape", "missing"});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 4}), {0}, {}), {"kernel_shape", "found 0"});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 4}), {2}, {MakeAttr("pads", IntList({2, 0}))}), {"smaller", "found 2"});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 4}), {2, 2}, {}), {"1 values", "has 2"});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 4}), {5}, {}), {"fit the padded input"});
  ExpectFailure(Pool("MaxPool", Counting({1, 1, 4}), {2}, {MakeAttr("storage_order", int64_t{2})}), {"storage_order"});
  // A kernel of 2^31 over one pixel must neither loop nor allocate.
  const int64_t huge = INT32_MAX;
  ExpectValues(Pool("MaxPool", Floats({1, 1, 1}, {7}), {huge}, {MakeAttr("pads", IntList({huge - 1, 0}))}), {1, 1, 1},
               {7});
}

}  // namespace
}  // namespace crease
