// SPDX-License-Identifier: Apache-2.0
// Operators that move elements: Transpose, Concat, Split, Slice, Gather, Pad, DepthToSpace.
#include <gtest/gtest.h>

#include "graph/ops/slice.h"
#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectTensor;
using test::ExpectValues;
using test::Floats;
using test::IntList;
using test::Ints;
using test::OpCase;

TEST(OpsTranspose, Permutes) {
  ExpectValues({"Transpose", 7, {Counting({2, 3})}, {}}, {3, 2}, {0, 3, 1, 4, 2, 5});
  ExpectValues({"Transpose", 7, {Counting({1, 2, 2})}, {MakeAttr("perm", IntList({1, 0, 2}))}}, {2, 1, 2},
               {0, 1, 2, 3});
  ExpectFailure({"Transpose", 7, {Counting({2, 3})}, {MakeAttr("perm", IntList({0, 0}))}}, {"permutation", "(0, 0)"});
  ExpectFailure({"Transpose", 7, {Counting({2, 3})}, {MakeAttr("perm", IntList({0}))}}, {"2 values"});
}

TEST(OpsConcat, AlongAnyAxis) {
  const Tensor a = Counting({2, 1}), b = Counting({2, 2});
  ExpectValues({"Concat", 7, {a, b}, {MakeAttr("axis", int64_t{1})}}, {2, 3}, {0, 0, 1, 1, 2, 3});
  ExpectValues({"Concat", 11, {a, a}, {MakeAttr("axis", int64_t{-2})}}, {4, 1}, {0, 1, 0, 1});
  ExpectValues({"Concat", 11, {a, Floats({2, 0}, {})}, {MakeAttr("axis", int64_t{1})}}, {2, 1}, {0, 1});
  ExpectFailure({"Concat", 11, {a, b}, {MakeAttr("axis", int64_t{0})}}, {"dimensions 1", "1", "2"});
  ExpectFailure({"Concat", 11, {a, b}, {MakeAttr("axis", int64_t{2})}}, {"axis", "2"});
  ExpectFailure({"Concat", 11, {a, b}, {}}, {"'axis' is missing"});
  ExpectFailure({"Concat", 11, {a, Ints({2, 1}, {1, 2})}, {MakeAttr("axis", int64_t{1})}}, {"one dtype"});
}

void ExpectParts(const OpCase& op, const std::vector<std::vector<double>>& parts) {
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  for (size_t i = 0; i < parts.size(); ++i) {
    ExpectTensor((*outputs)[i], {static_cast<int64_t>(parts[i].size())}, parts[i]);
  }
}

TEST(OpsSplit, SizesByAttributeInputAndCount) {
  const Tensor x = Counting({5});
  ExpectParts({"Split", 11, {x}, {MakeAttr("split", IntList({2, 3}))}, 2}, {{0, 1}, {2, 3, 4}});
  ExpectParts({"Split", 13, {x, Ints({4, 1})}, {}, 2}, {{0, 1, 2, 3}, {4}});
  ExpectParts({"Split", 18, {x}, {MakeAttr("num_outputs", int64_t{2})}, 2}, {{0, 1, 2}, {3, 4}});
  ExpectParts({"Split", 11, {Counting({4})}, {}, 2}, {{0, 1}, {2, 3}});
  ExpectFailure({"Split", 11, {x}, {}, 2}, {"5", "2 equal"});
  ExpectFailure({"Split", 11, {x}, {MakeAttr("split", IntList({2, 2}))}, 2}, {"add up to 5", "4"});
  ExpectFailure({"Split", 11, {x}, {MakeAttr("split", IntList({6, -1}))}, 2}, {"0 or more", "-1"});
  ExpectFailure({"Split", 13, {x, Ints({5})}, {}, 2}, {"2 outputs"});
}

TEST(OpsSlice, AttributesAndInputs) {
  const Tensor x = Counting({2, 4});
  ExpectValues(
      {"Slice",
       9,
       {x},
       {MakeAttr("starts", IntList({1})), MakeAttr("ends", IntList({INT32_MAX})), MakeAttr("axes", IntList({1}))}},
      {2, 3}, {1, 2, 3, 5, 6, 7});
  ExpectValues({"Slice", 10, {x, Ints({0, -1}), Ints({1, INT64_MIN}), Tensor(), Ints({1, -2})}, {}}, {1, 2}, {3, 1});
  ExpectValues({"Slice", 10, {x, Ints({3}), Ints({1}), Ints({-1})}, {}}, {2, 0}, {});
  ExpectFailure({"Slice", 10, {x, Ints({0}), Ints({1}), Ints({0}), Ints({0})}, {}}, {"steps must not be 0"});
  ExpectFailure({"Slice", 10, {x, Ints({0}), Ints({1}), Ints({2})}, {}}, {"axis", "2"});
  ExpectFailure({"Slice", 10, {x, Ints({0, 0}), Ints({1, 1}), Ints({1, -1})}, {}}, {"twice"});
  ExpectFailure({"Slice", 10, {x, Ints({0, 0}), Ints({1})}, {}}, {"one length", "2", "1"});
  ExpectFailure({"Slice", 9, {x}, {}}, {"missing"});
}

TEST(OpsSlice, ClampsAsNumPyDoes) {
  const auto count = [](int64_t start, int64_t end, int64_t step, int64_t size) {
    return ops::ClampSlice(start, end, step, size).count;
  };
  EXPECT_EQ(count(-100, 100, 1, 5), 5);
  EXPECT_EQ(count(0, 5, INT64_MAX, 5), 1);
  EXPECT_EQ(count(100, -100, INT64_MIN, 5), 1);
  EXPECT_EQ(count(4, 0, -1, 5), 4);
  EXPECT_EQ(count(-1, INT64_MIN, -1, 5), 5);
  EXPECT_EQ(count(0, -1, -1, 5), 0);
  EXPECT_EQ(count(0, INT64_MAX, 1, 0), 0);
  EXPECT_EQ(count(-1, INT64_MIN, -1, 0), 0);
}

TEST(OpsGather, RowsByIndex) {
  const Tensor x = Counting({3, 2});
  ExpectValues({"Gather", 11, {x, Ints({2, 2}, {0, -1, 1, 1})}, {}}, {2, 2, 2}, {0, 1, 4, 5, 2, 3, 2, 3});
  ExpectValues({"Gather", 11, {x, Ints({}, {1})}, {MakeAttr("axis", int64_t{1})}}, {3}, {1, 3, 5});
  ExpectFailure({"Gather", 11, {x, Ints({3})}, {}}, {"[-3, 2]", "3"});
  ExpectFailure({"Gather", 11, {x, Floats({1}, {0})}, {}}, {"int64 or int32"});
  ExpectFailure({"Gather", 11, {x, Ints({0})}, {MakeAttr("axis", int64_t{2})}}, {"axis"});
}

TEST(OpsGather, ElementsAndTuples) {
  ExpectValues({"GatherElements", 11, {Counting({2, 2}), Ints({2, 1}, {1, -2})}, {MakeAttr("axis", int64_t{1})}},
               {2, 1}, {1, 2});
  ExpectFailure({"GatherElements", 11, {Counting({2, 2}), Ints({1, 1}, {2})}, {}}, {"2"});
  ExpectFailure({"GatherElements", 11, {Counting({2, 2}), Ints({1, 3}, {0, 0, 0})}, {}}, {"axis 1"});
  ExpectValues({"GatherND", 12, {Counting({2, 2, 2}), Ints({2, 2}, {0, 1, 1, 0})}, {}}, {2, 2}, {2, 3, 4, 5});
  ExpectValues({"GatherND", 12, {Counting({2, 2, 2}), Ints({2, 1}, {1, 0})}, {MakeAttr("batch_dims", int64_t{1})}},
               {2, 2}, {2, 3, 4, 5});
  ExpectFailure({"GatherND", 12, {Counting({2, 2}), Ints({1, 3}, {0, 0, 0})}, {}}, {"do not fit"});
}

TEST(OpsPad, Modes) {
  const Tensor x = Counting({3});
  const auto pad = [&](const char* mode, std::vector<int64_t> pads) {
    return OpCase{"Pad", 19, {x, Ints(std::move(pads))}, {MakeAttr("mode", mode)}};
  };
  ExpectValues({"Pad", 7, {x}, {MakeAttr("pads", IntList({1, 2})), MakeAttr("value", 9.0f)}}, {6}, {9, 0, 1, 2, 9, 9});
  ExpectValues({"Pad", 13, {x, Ints({1, 0}), Floats({}, {7})}, {}}, {4}, {7, 0, 1, 2});
  ExpectValues(pad("reflect", {2, 1}), {6}, {2, 1, 0, 1, 2, 1});
  ExpectValues(pad("edge", {2, 1}), {6}, {0, 0, 0, 1, 2, 2});
  ExpectValues(pad("wrap", {2, 4}), {9}, {1, 2, 0, 1, 2, 0, 1, 2, 0});
  ExpectValues(pad("constant", {-1, -1}), {1}, {1});
  ExpectValues({"Pad", 18, {Counting({1, 2}), Ints({1, 0}), Tensor(), Ints({-1})}, {}}, {1, 3}, {0, 0, 1});
  ExpectFailure(pad("reflect", {3, 0}), {"size - 1", "3"});
  ExpectFailure(pad("constant", {-2, -2}), {"at 0 or more"});
  ExpectFailure(pad("constant", {1}), {"2 values", "has 1"});
  ExpectFailure(pad("constant", {INT64_MAX, INT64_MAX}), {"pads must leave axis 0"});
  ExpectFailure({"Pad", 18, {x, Ints({1, 1})}, {MakeAttr("mode", "circular")}}, {"mode", "circular"});
}

TEST(OpsDepthToSpace, BothOrders) {
  const Tensor x = Counting({1, 4, 1, 2});
  ExpectValues({"DepthToSpace", 11, {x}, {MakeAttr("blocksize", int64_t{2})}}, {1, 1, 2, 4}, {0, 2, 1, 3, 4, 6, 5, 7});
  const Tensor two = Counting({1, 8, 1, 1});
  const Attribute block = MakeAttr("blocksize", int64_t{2});
  ExpectValues({"DepthToSpace", 11, {two}, {block}}, {1, 2, 2, 2}, {0, 2, 4, 6, 1, 3, 5, 7});
  ExpectValues({"DepthToSpace", 11, {two}, {block, MakeAttr("mode", "CRD")}}, {1, 2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  ExpectValues({"SpaceToDepth", 7, {Floats({1, 1, 2, 4}, {0, 2, 1, 3, 4, 6, 5, 7})}, {block}}, {1, 4, 1, 2},
               {0, 1, 2, 3, 4, 5, 6, 7});
  ExpectFailure({"DepthToSpace", 11, {x}, {MakeAttr("blocksize", int64_t{1} << 32)}}, {"blocksize", "4294967296"});
  ExpectFailure({"DepthToSpace", 11, {x}, {MakeAttr("blocksize", int64_t{3})}}, {"multiple of 9", "4"});
  ExpectFailure({"SpaceToDepth", 7, {x}, {MakeAttr("blocksize", int64_t{2})}}, {"height", "1"});
}

}  // namespace
}  // namespace crease
