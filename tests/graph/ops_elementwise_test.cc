// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "graph/ops/activation.h"
#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::ExpectFailure;
using test::ExpectValues;
using test::Floats;
using test::Ints;
using test::OpCase;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr float kNanF = std::numeric_limits<float>::quiet_NaN();

Tensor Bools(Shape shape, std::vector<uint8_t> values) {
  Tensor bytes = Tensor::From<uint8_t>(std::move(shape), std::span<const uint8_t>(values));
  return *bytes.ConvertedTo(DType::kBool);
}

struct UnaryCase {
  const char* op;
  int opset;
  std::vector<double> expected;  // of -3, -0.5, 0, 0.5, 2.5
};

TEST(OpsUnary, ValuesOfDefaultParameters) {
  const double e3 = std::exp(-3.0), e05 = std::exp(-0.5);
  const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto mish = [](double x) { return x * std::tanh(std::log1p(std::exp(x))); };
  const auto gelu = [](double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); };
  const double scale = 1.0507009873554805, alpha = 1.6732632423543772;
  const std::vector<UnaryCase> cases = {
      {"Relu", 7, {0, 0, 0, 0.5, 2.5}},
      {"LeakyRelu", 7, {-0.03, -0.005, 0, 0.5, 2.5}},
      {"Elu", 7, {e3 - 1, e05 - 1, 0, 0.5, 2.5}},
      {"Celu", 12, {e3 - 1, e05 - 1, 0, 0.5, 2.5}},
      {"Selu", 7, {scale * alpha * (e3 - 1), scale * alpha * (e05 - 1), 0, scale * 0.5, scale * 2.5}},
      {"ThresholdedRelu", 10, {0, 0, 0, 0, 2.5}},
      {"Sigmoid", 7, {logistic(-3), logistic(-0.5), 0.5, logistic(0.5), logistic(2.5)}},
      {"HardSigmoid", 7, {0, 0.4, 0.5, 0.6, 1}},
      {"HardSwish", 14, {0, -0.5 * (2.5 / 6), 0, 0.5 * (3.5 / 6), 2.5 * (5.5 / 6)}},
      {"Tanh", 7, {std::tanh(-3), std::tanh(-0.5), 0, std::tanh(0.5), std::tanh(2.5)}},
      {"Exp", 7, {e3, e05, 1, 1 / e05, std::exp(2.5)}},
      {"Log", 7, {kNan, kNan, -std::numeric_limits<double>::infinity(), std::log(0.5), std::log(2.5)}},
      {"Sqrt", 7, {kNan, kNan, 0, std::sqrt(0.5), std::sqrt(2.5)}},
      {"Reciprocal", 7, {-1.0 / 3, -2, std::numeric_limits<double>::infinity(), 2, 0.4}},
      {"Abs", 7, {3, 0.5, 0, 0.5, 2.5}},
      {"Neg", 7, {3, 0.5, 0, -0.5, -2.5}},
      {"Sign", 9, {-1, -1, 0, 1, 1}},
      {"Floor", 7, {-3, -1, 0, 0, 2}},
      {"Ceil", 7, {-3, 0, 0, 1, 3}},
      {"Round", 11, {-3, 0, 0, 0, 2}},
      {"Erf", 9, {std::erf(-3), std::erf(-0.5), 0, std::erf(0.5), std::erf(2.5)}},
      {"Softplus", 7, {std::log1p(e3), std::log1p(e05), std::log(2.0), std::log1p(1 / e05), std::log1p(std::exp(2.5))}},
      {"Softsign", 7, {-0.75, -1.0 / 3, 0, 1.0 / 3, 2.5 / 3.5}},
      {"Mish", 18, {mish(-3), mish(-0.5), 0, mish(0.5), mish(2.5)}},
      {"Gelu", 20, {gelu(-3), gelu(-0.5), 0, gelu(0.5), gelu(2.5)}},
      {"Sin", 7, {std::sin(-3), std::sin(-0.5), 0, std::sin(0.5), std::sin(2.5)}},
      {"Cos", 7, {std::cos(-3), std::cos(-0.5), 1, std::cos(0.5), std::cos(2.5)}},
      {"Swish", 24, {-3 * logistic(-3), -0.5 * logistic(-0.5), 0, 0.5 * logistic(0.5), 2.5 * logistic(2.5)}},
  };
  for (const UnaryCase& entry : cases) {
    SCOPED_TRACE(entry.op);
    ExpectValues({entry.op, entry.opset, {Floats({5}, {-3, -0.5, 0, 0.5, 2.5})}, {}}, {5}, entry.expected);
    EXPECT_EQ(FindOp("", entry.op, entry.opset - 1), nullptr);
    EXPECT_NE(ops::FindUnaryFunction(entry.op), nullptr);
    ExpectFailure({entry.op, entry.opset, {Bools({1}, {1})}, {}}, {"input 0", "bool"});
  }
}

TEST(OpsUnary, ExtremesStayFinite) {
  ExpectValues({"Sigmoid", 7, {Floats({2}, {-1000, 1000})}, {}}, {2}, {0, 1});
  ExpectValues({"Softplus", 7, {Floats({2}, {-1000, 1000})}, {}}, {2}, {0, 1000});
  ExpectValues({"Relu", 7, {Floats({1}, {kNanF})}, {}}, {1}, {kNan});
}

TEST(OpsUnary, Parameters) {
  ExpectValues({"LeakyRelu", 7, {Floats({2}, {-2, 2})}, {MakeAttr("alpha", 0.25f)}}, {2}, {-0.5, 2});
  ExpectValues({"HardSigmoid", 7, {Floats({1}, {1})}, {MakeAttr("alpha", 0.25f), MakeAttr("beta", 0.25f)}}, {1}, {0.5});
  ExpectValues({"Gelu", 20, {Floats({1}, {1})}, {MakeAttr("approximate", "tanh")}}, {1},
               {0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * 1.044715))});
  ExpectFailure({"Gelu", 20, {Floats({1}, {1})}, {MakeAttr("approximate", "fast")}}, {"approximate", "fast"});
  ExpectFailure({"LeakyRelu", 7, {Floats({1}, {1})}, {MakeAttr("alpha", int64_t{1})}}, {"alpha", "FLOAT"});
}

TEST(OpsUnary, IntegersAndBools) {
  ExpectValues({"Abs", 7, {Ints({-3, 0, 3})}, {}}, {3}, {3, 0, 3});
  ExpectValues({"Sign", 9, {Ints({-3, 0, 3})}, {}}, {3}, {-1, 0, 1});
  ExpectValues({"Neg", 7, {Ints({-3, 0, 3})}, {}}, {3}, {3, 0, -3});
  ExpectValues({"Relu", 14, {Ints({-3, 0, 3})}, {}}, {3}, {0, 0, 3});
  ExpectValues({"Not", 7, {Bools({2}, {0, 1})}, {}}, {2}, {1, 0});
  ExpectFailure({"Not", 7, {Ints({1})}, {}}, {"bool", "int64"});
}

TEST(OpsClip, BoundsAsAttributesAndAsInputs) {
  const Tensor x = Floats({4}, {-2, 0.5, 3, kNanF});
  ExpectValues({"Clip", 7, {x}, {MakeAttr("min", 0.0f), MakeAttr("max", 1.0f)}}, {4}, {0, 0.5, 1, kNan});
  ExpectValues({"Clip", 7, {x}, {MakeAttr("min", 0.0f)}}, {4}, {0, 0.5, 3, kNan});
  ExpectValues({"Clip", 11, {x, Tensor(), Floats({}, {1})}, {}}, {4}, {-2, 0.5, 1, kNan});
  ExpectValues({"Clip", 12, {Ints({-5, 5}), Ints({}, {0}), Ints({}, {3})}, {}}, {2}, {0, 3});
  ExpectFailure({"Clip", 11, {x, Floats({2}, {0, 1})}, {}}, {"min", "one element", "(2)"});
  ExpectFailure({"Clip", 7, {x, Floats({}, {0})}, {}}, {"opset 11"});
}

TEST(OpsArithmetic, Broadcasting) {
  const Tensor column = Floats({2, 1}, {1, 2}), row = Floats({3}, {10, 20, 40});
  ExpectValues({"Add", 7, {column, row}, {}}, {2, 3}, {11, 21, 41, 12, 22, 42});
  ExpectValues({"Sub", 7, {column, row}, {}}, {2, 3}, {-9, -19, -39, -8, -18, -38});
  ExpectValues({"Mul", 7, {column, row}, {}}, {2, 3}, {10, 20, 40, 20, 40, 80});
  ExpectValues({"Div", 7, {row, column}, {}}, {2, 3}, {10, 20, 40, 5, 10, 20});
  ExpectFailure({"Add", 7, {Floats({2}, {1, 2}), row}, {}}, {"broadcast", "2", "3"});
  ExpectFailure({"Add", 7, {row, Ints({1, 2, 3})}, {}}, {"one dtype", "float32", "int64"});
  ExpectValues({"Add", 7, {Floats({0, 1}, {}), row}, {}}, {0, 3}, {});
}

TEST(OpsArithmetic, Integers) {
  ExpectValues({"Div", 7, {Ints({7, -7, INT64_MIN}), Ints({2, 2, -1})}, {}}, {3}, {3, -3, double(INT64_MIN)});
  ExpectValues({"Mod", 13, {Ints({7, -7, 7, INT64_MIN}), Ints({3, 3, -3, -1})}, {}}, {4}, {1, 2, -2, 0});
  ExpectValues({"Mod", 13, {Ints({7, -7, 7}), Ints({3, 3, -3})}, {MakeAttr("fmod", int64_t{1})}}, {3}, {1, -1, 1});
  ExpectFailure({"Div", 7, {Ints({1, 2}), Ints({1, 0})}, {}}, {"division by zero", "element 1"});
  ExpectFailure({"Mod", 13, {Floats({1}, {1}), Floats({1}, {1})}, {}}, {"fmod"});
  ExpectValues({"Add", 7, {Ints({INT64_MAX}), Ints({1})}, {}}, {1}, {double(INT64_MIN)});
}

TEST(OpsArithmetic, PowerOfMixedTypes) {
  ExpectValues({"Pow", 13, {Floats({3}, {2, 4, 9}), Floats({}, {0.5})}, {}}, {3}, {std::sqrt(2.0), 2, 3});
  ExpectValues({"Pow", 13, {Ints({2, -3, 2}), Ints({10, 3, -1})}, {}}, {3}, {1024, -27, 0});
  ExpectValues({"Pow", 13, {Floats({1}, {3}), Ints({2})}, {}}, {1}, {9});
  ExpectValues({"Pow", 13, {Ints({4}), Floats({1}, {0.5})}, {}}, {1}, {2});
}

TEST(OpsArithmetic, PReluSlopeBroadcastsToTheInputOnly) {
  ExpectValues({"PRelu", 9, {Floats({1, 2, 2}, {-1, 2, -3, 4}), Floats({2, 1}, {0.5, 0.25})}, {}}, {1, 2, 2},
               {-0.5, 2, -0.75, 4});
  ExpectFailure({"PRelu", 9, {Floats({1}, {1}), Floats({2}, {1, 1})}, {}}, {"slope"});
}

TEST(OpsArithmetic, Variadic) {
  const Tensor a = Floats({2}, {1, 5}), b = Floats({1}, {3}), c = Floats({2}, {2, kNanF});
  ExpectValues({"Sum", 8, {a, b, a}, {}}, {2}, {5, 13});
  ExpectValues({"Mean", 8, {a, b}, {}}, {2}, {2, 4});
  ExpectValues({"Max", 8, {a, b, c}, {}}, {2}, {3, kNan});
  ExpectValues({"Min", 8, {c, a, b}, {}}, {2}, {1, kNan});
  ExpectValues({"Max", 12, {Ints({1, 5}), Ints({3})}, {}}, {2}, {3, 5});
  ExpectFailure({"Sum", 8, {}, {}}, {"1 or more", "found 0"});
  ExpectFailure({"Sum", 8, {a, Tensor()}, {}}, {"input 1", "absent"});
}

TEST(OpsLogic, ComparisonsAndWhere) {
  const Tensor a = Floats({3}, {1, 2, kNanF}), b = Floats({1}, {2});
  ExpectValues({"Equal", 11, {a, b}, {}}, {3}, {0, 1, 0});
  ExpectValues({"Greater", 9, {b, a}, {}}, {3}, {1, 0, 0});
  ExpectValues({"GreaterOrEqual", 12, {b, a}, {}}, {3}, {1, 1, 0});
  ExpectValues({"Less", 9, {a, b}, {}}, {3}, {1, 0, 0});
  ExpectValues({"LessOrEqual", 12, {a, b}, {}}, {3}, {1, 1, 0});
  const Tensor p = Bools({2, 1}, {0, 1}), q = Bools({2}, {0, 1});
  ExpectValues({"And", 7, {p, q}, {}}, {2, 2}, {0, 0, 0, 1});
  ExpectValues({"Or", 7, {p, q}, {}}, {2, 2}, {0, 1, 1, 1});
  ExpectValues({"Xor", 7, {p, q}, {}}, {2, 2}, {0, 1, 1, 0});
  ExpectValues({"Where", 9, {p, Floats({2}, {1, 2}), Floats({}, {9})}, {}}, {2, 2}, {9, 9, 1, 2});
  ExpectFailure({"Where", 9, {Ints({1}), a, b}, {}}, {"input 0", "bool"});
  ExpectFailure({"And", 7, {p, a}, {}}, {"input 1", "bool", "float32"});
}

TEST(OpsCast, TruncatesSaturatesAndRounds) {
  const auto cast = [](Tensor x, int64_t to) { return OpCase{"Cast", 13, {std::move(x)}, {MakeAttr("to", to)}}; };
  ExpectValues(cast(Floats({4}, {-1.9f, 1.9f, 1e20f, kNanF}), 6), {4}, {-1, 1, INT32_MAX, 0});
  ExpectValues(cast(Floats({3}, {0, 0.5f, kNanF}), 9), {3}, {0, 1, 1});
  ExpectValues(cast(Ints({-1, 300}), 1), {2}, {-1, 300});
  ExpectValues(cast(Floats({1}, {1.0009765f}), 10), {1}, {1.0009765625}, 1e-9);
  const Result<std::vector<Tensor>> half = cast(Floats({1}, {1}), 10).Evaluate();
  ASSERT_TRUE(half.ok());
  EXPECT_EQ((*half)[0].dtype(), DType::kFloat16);
  ExpectFailure(cast(Floats({1}, {1}), 8), {"'to'", "8"});
  ExpectFailure({"Cast", 13, {Floats({1}, {1})}, {}}, {"'to'", "missing"});
  ExpectValues({"CastLike", 15, {Floats({1}, {2.5f}), Ints({1})}, {}}, {1}, {2});
}

TEST(OpsDropout, InferenceFormOnly) {
  const Tensor x = Floats({2}, {1, 2});
  OpCase op = {"Dropout", 13, {x, Floats({}, {0.5f}), Bools({}, {0})}, {}, 2};
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << outputs.error().message;
  test::ExpectTensor((*outputs)[0], {2}, {1, 2});
  test::ExpectTensor((*outputs)[1], {2}, {1, 1});
  EXPECT_EQ((*outputs)[1].dtype(), DType::kBool);
  ExpectValues({"Dropout", 7, {x}, {MakeAttr("ratio", 0.5f)}}, {2}, {1, 2});
  op.inputs[2] = Bools({}, {1});
  ExpectFailure(op, {"training_mode"});
  ExpectValues({"Identity", 13, {Ints({4})}, {}}, {1}, {4});
}

}  // namespace
}  // namespace crease
