// SPDX-License-Identifier: Apache-2.0
// Reductions, softmax, arg and matrix products.
#include <gtest/gtest.h>

#include <limits>

#include "graph/ops/softmax.h"
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

TEST(OpsReduce, EveryKind) {
  const Tensor x = Floats({2, 2}, {1, -2, 3, 4});
  const std::vector<std::pair<const char*, std::vector<double>>> cases = {
      {"ReduceSum", {-1, 7}},
      {"ReduceMean", {-0.5, 3.5}},
      {"ReduceMax", {1, 4}},
      {"ReduceMin", {-2, 3}},
      {"ReduceProd", {-2, 12}},
      {"ReduceL1", {3, 7}},
      {"ReduceL2", {std::sqrt(5.0), 5}},
      {"ReduceSumSquare", {5, 25}},
      {"ReduceLogSumExp", {std::log(std::exp(1.0) + std::exp(-2.0)), std::log(std::exp(3.0) + std::exp(4.0))}},
      {"ReduceLogSum", {std::nan(""), std::log(7.0)}},
  };
  for (const auto& [op, expected] : cases) {
    SCOPED_TRACE(op);
    ExpectValues({op, 11, {x}, {MakeAttr("axes", IntList({-1}))}}, {2, 1}, expected);
    ExpectValues({op, 18, {x, Ints({1})}, {MakeAttr("keepdims", int64_t{0})}}, {2}, expected);
    ExpectFailure({op, 11, {x}, {MakeAttr("axes", IntList({2}))}}, {"axis", "2"});
  }
}

TEST(OpsReduce, AxesForms) {
  const Tensor x = Counting({2, 2});
  ExpectValues({"ReduceSum", 11, {x}, {}}, {1, 1}, {6});
  ExpectValues({"ReduceSum", 13, {x}, {MakeAttr("noop_with_empty_axes", int64_t{1})}}, {2, 2}, {0, 1, 2, 3});
  ExpectValues({"ReduceSum", 13, {x, Ints({0})}, {}}, {1, 2}, {2, 4});
  ExpectFailure({"ReduceMean", 13, {x, Ints({0})}, {}}, {"opset 13", "found 2"});
  ExpectValues({"ReduceMax", 13, {Ints({2, 2}, {3, -9, 4, 5})}, {MakeAttr("axes", IntList({0}))}}, {1, 2}, {4, 5});
  ExpectValues({"ReduceLogSumExp", 13, {Floats({2}, {1000, 1000})}, {}}, {1}, {1000 + std::log(2.0)});
  ExpectValues({"ReduceSum", 13, {Floats({0, 2}, {}), Ints({0})}, {}}, {1, 2}, {0, 0});
}

TEST(OpsSoftmax, OneAxisOrAllAfterIt) {
  const Tensor x = Floats({1, 2, 2}, {0, std::log(3.0f), 0, 0});
  ExpectValues({"Softmax", 13, {x}, {}}, {1, 2, 2}, {0.25, 0.75, 0.5, 0.5});
  ExpectValues({"Softmax", 13, {x}, {MakeAttr("axis", int64_t{1})}}, {1, 2, 2}, {0.5, 0.75, 0.5, 0.25});
  ExpectValues({"Softmax", 11, {x}, {}}, {1, 2, 2}, {1.0 / 6, 0.5, 1.0 / 6, 1.0 / 6});
  ExpectValues({"LogSoftmax", 13, {x}, {}}, {1, 2, 2}, {std::log(0.25), std::log(0.75), std::log(0.5), std::log(0.5)});
  ExpectValues({"Hardmax", 13, {x}, {}}, {1, 2, 2}, {0, 1, 1, 0});
  ExpectValues({"Softmax", 13, {Floats({2}, {10000, 10000})}, {}}, {2}, {0.5, 0.5});
  ExpectFailure({"Softmax", 13, {x}, {MakeAttr("axis", int64_t{3})}}, {"axis", "3"});
  const OpCase op = {"Softmax", 13, {x}, {MakeAttr("axis", int64_t{1})}};
  const Result<ops::SoftmaxShape> shape = ops::ResolveSoftmax(op.MakeNode(), 13, {2, 3, 5});
  EXPECT_EQ(shape->outer, 2);
  EXPECT_EQ(shape->length, 3);
  EXPECT_EQ(shape->inner, 5);
}

TEST(OpsArg, FirstOrLastExtremum) {
  const Tensor x = Floats({2, 3}, {1, 3, 3, 2, 0, 0});
  ExpectValues({"ArgMax", 13, {x}, {MakeAttr("axis", int64_t{1})}}, {2, 1}, {1, 0});
  ExpectValues({"ArgMax", 13, {x}, {MakeAttr("axis", int64_t{1}), MakeAttr("select_last_index", int64_t{1})}}, {2, 1},
               {2, 0});
  ExpectValues({"ArgMin", 13, {x}, {MakeAttr("keepdims", int64_t{0})}}, {3}, {0, 1, 1});
  ExpectFailure({"ArgMax", 13, {Floats({0, 2}, {})}, {}}, {"axis 0", "empty"});
}

TEST(OpsTopK, SortsStably) {
  const OpCase op = {"TopK", 11, {Floats({4}, {1, 3, 3, 2}), Ints({2})}, {}, 2};
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  ExpectTensor((*outputs)[0], {2}, {3, 3});
  ExpectTensor((*outputs)[1], {2}, {1, 2});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectValues({"TopK", 11, {Floats({4}, {1, nan, 3, nan}), Ints({3})}, {}, 2}, {3}, {std::nan(""), std::nan(""), 3});
  ExpectFailure({"TopK", 11, {Floats({2}, {1, 3}), Ints({3})}, {}, 2}, {"K", "3"});
}

TEST(OpsCumSum, Directions) {
  const Tensor x = Counting({4}), axis = Ints({}, {0});
  ExpectValues({"CumSum", 11, {x, axis}, {}}, {4}, {0, 1, 3, 6});
  ExpectValues({"CumSum", 11, {x, axis}, {MakeAttr("reverse", int64_t{1})}}, {4}, {6, 6, 5, 3});
  ExpectValues({"CumSum", 11, {x, axis}, {MakeAttr("exclusive", int64_t{1})}}, {4}, {0, 0, 1, 3});
  ExpectFailure({"CumSum", 11, {x, Ints({}, {1})}, {}}, {"axis", "1"});
  // No elements, and yet 2^40 sums: refused, not walked through.
  ExpectFailure({"CumSum", 11, {Floats({int64_t{1} << 40, 0}, {}), Ints({}, {1})}, {}}, {"1099511627776", "exceeds"});
}

TEST(OpsGemm, EveryAttribute) {
  const Tensor a = Floats({2, 2}, {1, 2, 3, 4}), b = Floats({2, 2}, {1, 10, 100, 1000});
  ExpectValues({"Gemm", 11, {a, b}, {}}, {2, 2}, {201, 2010, 403, 4030});
  ExpectValues({"Gemm", 11, {a, b}, {MakeAttr("transA", int64_t{1})}}, {2, 2}, {301, 3010, 402, 4020});
  ExpectValues({"Gemm", 11, {a, b}, {MakeAttr("transB", int64_t{1})}}, {2, 2}, {21, 2100, 43, 4300});
  ExpectValues({"Gemm", 7, {a, b, Floats({2, 1}, {2, 4})}, {MakeAttr("alpha", 2.0f), MakeAttr("beta", 0.5f)}}, {2, 2},
               {403, 4021, 808, 8062});
  ExpectFailure({"Gemm", 11, {a, Counting({3, 2})}, {}}, {"inner dimensions", "2", "3"});
  ExpectFailure({"Gemm", 11, {a, b, Counting({3})}, {}}, {"C must broadcast", "(3)"});
  ExpectFailure({"Gemm", 9, {a, b}, {}}, {"3 inputs before opset 11"});
  ExpectFailure({"Gemm", 11, {Counting({2}), b}, {}}, {"rank 2"});
}

TEST(OpsMatMul, EveryRank) {
  const Tensor m = Floats({2, 2}, {1, 2, 3, 4}), v = Floats({2}, {1, 10});
  ExpectValues({"MatMul", 9, {m, m}, {}}, {2, 2}, {7, 10, 15, 22});
  ExpectValues({"MatMul", 9, {m, v}, {}}, {2}, {21, 43});
  ExpectValues({"MatMul", 9, {v, m}, {}}, {2}, {31, 42});
  ExpectValues({"MatMul", 9, {v, v}, {}}, {}, {101});
  // Batches (2, 1) and (3) broadcast to (2, 3).
  const Result<std::vector<Tensor>> y =
      OpCase{"MatMul", 9, {Counting({2, 1, 1, 2}), Counting({3, 2, 1})}, {}}.Evaluate();
  ASSERT_TRUE(y.ok()) << y.error().message;
  ExpectTensor((*y)[0], {2, 3, 1, 1}, {1, 3, 5, 3, 13, 23});
  ExpectValues({"MatMul", 9, {Ints({1, 2}, {1, 2}), Ints({2, 1}, {3, 4})}, {}}, {1, 1}, {11});
  ExpectFailure({"MatMul", 9, {m, Counting({3, 2})}, {}}, {"inner dimensions", "2", "3"});
  ExpectFailure({"MatMul", 9, {m, Counting({})}, {}}, {"rank 1 to 8"});
}

}  // namespace
}  // namespace crease
