// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "graph/ops/batch_norm.h"
#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectTensor;
using test::ExpectValues;
using test::Floats;
using test::OpCase;

OpCase BatchNorm(int opset, std::vector<float> var = {4, 9}) {
  return {"BatchNormalization",
          opset,
          {Counting({1, 2, 1, 2}), Floats({2}, {2, 3}), Floats({2}, {1, -1}), Floats({2}, {0, 2}),
           Floats({2}, std::move(var))},
          {MakeAttr("epsilon", 0.0f)}};
}

TEST(OpsBatchNormalization, InferenceForm) {
  for (const int opset : {7, 9, 14, 15}) ExpectValues(BatchNorm(opset), {1, 2, 1, 2}, {1, 2, -1, 0});
}

TEST(OpsBatchNormalization, NamesTheBadChannel) {
  ExpectFailure(BatchNorm(9, {1, 0}), {"var + epsilon", "channel 1"});
  ExpectFailure(BatchNorm(9, {-1, 1}), {"var + epsilon", "channel 0", "-1"});
  ExpectFailure(BatchNorm(9, {1, std::numeric_limits<float>::quiet_NaN()}), {"var", "channel 1", "nan"});
  ExpectFailure(BatchNorm(9, {std::numeric_limits<float>::infinity(), 1}), {"var", "channel 0", "inf"});
}

TEST(OpsBatchNormalization, LengthsMustBeTheChannels) {
  OpCase op = BatchNorm(9);
  op.inputs[3] = Floats({3}, {0, 0, 0});
  ExpectFailure(op, {"length of mean", "2", "3"});
}

TEST(OpsBatchNormalization, SpatialZeroIsUnsupportedOnlyBeforeOpset9) {
  OpCase op = BatchNorm(7);
  op.attributes.push_back(MakeAttr("spatial", int64_t{0}));
  ExpectFailure(op, {"spatial"});
  op.opset = 9;
  ExpectValues(op, {1, 2, 1, 2}, {1, 2, -1, 0});
}

TEST(OpsBatchNormalization, TrainingNormalizesByTheBatch) {
  OpCase op = BatchNorm(14);
  op.outputs = 3;
  op.attributes = {MakeAttr("epsilon", 0.0f), MakeAttr("momentum", 0.75f), MakeAttr("training_mode", int64_t{1})};
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  // Means 0.5 and 2.5, population variances 0.25.
  ExpectTensor((*outputs)[0], {1, 2, 1, 2}, {-1, 3, -4, 2});
  ExpectTensor((*outputs)[1], {2}, {0.125, 2.125});
  ExpectTensor((*outputs)[2], {2}, {3.0625, 6.8125});
}

TEST(OpsBatchNormalization, ExtraOutputs) {
  OpCase op = BatchNorm(14);
  op.outputs = 3;
  ExpectFailure(op, {"1 output", "found 3"});
  op = BatchNorm(9);
  op.outputs = 5;
  EXPECT_TRUE(ops::ParseBatchNorm(op.MakeNode(), 9)->training);
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  ExpectTensor((*outputs)[3], {2}, {0.5, 2.5});    // saved_mean
  ExpectTensor((*outputs)[4], {2}, {0.25, 0.25});  // saved_var
}

TEST(OpsInstanceNormalization, NormalizesEveryPlane) {
  ExpectValues({"InstanceNormalization",
                7,
                {Counting({1, 2, 2}), Floats({2}, {1, 2}), Floats({2}, {0, 10})},
                {MakeAttr("epsilon", 0.0f)}},
               {1, 2, 2}, {-1, 1, 8, 12});
  ExpectFailure({"InstanceNormalization", 7, {Counting({1, 2, 2}), Floats({3}, {1, 2, 3}), Floats({2}, {0, 10})}, {}},
                {"scale", "2", "3"});
}

TEST(OpsGroupNormalization, ParametersPerGroupThenPerChannel) {
  const Attribute groups = MakeAttr("num_groups", int64_t{1}), epsilon = MakeAttr("epsilon", 0.0f);
  ExpectValues(
      {"GroupNormalization", 18, {Floats({1, 2, 1}, {0, 2}), Floats({1}, {3}), Floats({1}, {1})}, {groups, epsilon}},
      {1, 2, 1}, {-2, 4});
  ExpectValues({"GroupNormalization",
                21,
                {Floats({1, 2, 1}, {0, 2}), Floats({2}, {3, 5}), Floats({2}, {1, 2})},
                {groups, epsilon}},
               {1, 2, 1}, {-2, 7});
  ExpectFailure({"GroupNormalization",
                 18,
                 {Counting({1, 3, 1}), Floats({1}, {3}), Floats({1}, {1})},
                 {MakeAttr("num_groups", int64_t{2})}},
                {"multiple of num_groups 2", "3"});
}

TEST(OpsLayerNormalization, LastAxis) {
  const OpCase op = {"LayerNormalization",
                     17,
                     {Floats({2, 2}, {0, 2, 4, 8}), Floats({2}, {1, 2}), Floats({2}, {0, 1})},
                     {MakeAttr("epsilon", 0.0f)},
                     3};
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  ExpectTensor((*outputs)[0], {2, 2}, {-1, 3, -1, 3});
  ExpectTensor((*outputs)[1], {2, 1}, {1, 6});
  ExpectTensor((*outputs)[2], {2, 1}, {1, 0.5});
  ExpectFailure({"LayerNormalization", 17, {Counting({2, 2}), Floats({3}, {1, 2, 3})}, {}}, {"broadcast"});
}

TEST(OpsLrn, NeighbouringChannels) {
  // size 2 reaches the next channel only: squares 1 + 4, 4 + 9, 9; alpha / size = 1.
  ExpectValues(
      {"LRN",
       7,
       {Floats({1, 3, 1}, {1, 2, 3})},
       {MakeAttr("size", int64_t{2}), MakeAttr("alpha", 2.0f), MakeAttr("beta", 1.0f), MakeAttr("bias", 1.0f)}},
      {1, 3, 1}, {1.0 / 6, 2.0 / 14, 3.0 / 10});
  ExpectFailure({"LRN", 7, {Counting({1, 3, 1})}, {MakeAttr("size", int64_t{0})}}, {"size", "0"});
}

TEST(OpsLpNormalization, OneAndTwo) {
  ExpectValues({"LpNormalization", 7, {Floats({2, 2}, {3, 4, 0, 0})}, {}}, {2, 2}, {0.6, 0.8, 0, 0});
  ExpectValues({"LpNormalization",
                7,
                {Floats({2, 2}, {3, 4, -1, 4})},
                {MakeAttr("p", int64_t{1}), MakeAttr("axis", int64_t{0})}},
               {2, 2}, {0.75, 0.5, -0.25, 0.5});
  ExpectFailure({"LpNormalization", 7, {Counting({2, 2})}, {MakeAttr("p", int64_t{3})}}, {"'p'", "3"});
}

}  // namespace
}  // namespace crease
