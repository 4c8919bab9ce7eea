// SPDX-License-Identifier: Apache-2.0
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

// Sizes around every vector length from 4 to 16 lanes, and around a step of 512.
const int64_t kSizes[] = {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 511, 513, 1100};

KernelCase Unary(const std::string& op, const Shape& shape, double bound) {
  KernelCase c;
  c.node = MakeNode(op);
  c.inputs = {RandomTensor(shape, 7)};
  c.relative = c.absolute = bound;
  return c;
}

TEST(Elementwise, UnaryOperatorsAtAwkwardSizes) {
  for (const char* op : {"Relu", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Abs", "Neg", "Exp",
                         "Erf", "Floor", "Ceil", "Softplus", "Identity"}) {
    for (const int64_t n : kSizes) {
      if (n > 40 && std::string(op) != "Tanh") continue;
      CheckLayouts(Unary(op, {1, 2, n, 1}, 7e-7), "elementwise");
      CheckLayouts(Unary(op, {2, n, 3, 1}, 7e-7), "elementwise");
    }
  }
}

TEST(Elementwise, PositiveArguments) {
  for (const char* op : {"Sqrt", "Log", "Reciprocal"}) {
    KernelCase c = Unary(op, {2, 19, 3, 3}, 3e-7);
    c.inputs = {RandomTensor({2, 19, 3, 3}, 3, 0.01f, 40)};
    CheckLayouts(c, "elementwise");
  }
}

TEST(Elementwise, Silu) {
  KernelCase c = Unary("Silu", {2, 19, 3, 3}, 5e-7);
  c.node.domain = kInternalDomain;
  c.definition = [](const EvalContext& e) -> Result<std::vector<Tensor>> {
    Tensor y = Tensor::Allocate(DType::kFloat64, e.input(0).shape()).value();
    for (int64_t i = 0; i < y.size(); ++i) {
      const double x = e.input(0).AsDouble(i);
      y.mutable_data<double>()[i] = x / (1 + std::exp(-x));
    }
    return std::vector<Tensor>{y};
  };
  CheckLayouts(c, "elementwise");
}

TEST(Elementwise, ClipWithBoundsAsInputs) {
  KernelCase c = Unary("Clip", {2, 19, 3, 3}, 0);
  c.inputs.push_back(Tensor::Scalar(-0.5f));
  c.inputs.push_back(Tensor::Scalar(1.25f));
  c.constant = {false, true, true};
  CheckLayouts(c, "elementwise");
  c.inputs[1] = Tensor();
  CheckLayouts(c, "elementwise");
  c.constant[2] = false;
  EXPECT_EQ(Refusal(c, "elementwise"), "bounds are not constant");
}

struct Broadcast {
  Shape a, b;
};

TEST(Elementwise, BinaryOperatorsBroadcast) {
  const Broadcast cases[] = {
      {{2, 17, 5, 3}, {2, 17, 5, 3}},
      {{2, 17, 5, 3}, {1, 17, 1, 1}},
      {{2, 17, 5, 3}, {17, 1, 1}},
      {{2, 17, 5, 3}, {2, 17, 1, 1}},
      {{2, 17, 5, 3}, {}},
      {{2, 17, 5, 3}, {1}},
      {{2, 17, 5, 3}, {3}},
      {{2, 17, 5, 3}, {5, 1}},
      {{2, 1, 5, 3}, {1, 17, 1, 3}},
      {{1, 17, 1, 1}, {2, 17, 5, 3}},
      {{}, {2, 17, 5, 3}},
      {{7}, {7}},
      {{4, 33}, {33}},
      {{3, 1}, {1, 40}},
      {{2, 0, 3, 3}, {1, 1, 1, 1}},
      {{1, 1, 1, 1400}, {1, 1, 1, 1}},
      {{1, 3, 600, 2}, {1, 3, 600, 1}},
  };
  for (const char* op : {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"}) {
    for (const Broadcast& shapes : cases) {
      for (const bool constant : {false, true}) {
        KernelCase c;
        c.node = MakeNode(op);
        c.inputs = {RandomTensor(shapes.a, 1, 0.2f, 3), RandomTensor(shapes.b, 2, 0.2f, 2)};
        c.constant = {false, constant};
        c.relative = 4e-7;
        CheckLayouts(c, "elementwise");
      }
    }
  }
}

TEST(Elementwise, PRelu) {
  KernelCase c;
  c.node = MakeNode("PRelu");
  c.inputs = {RandomTensor({2, 19, 5, 3}, 1), RandomTensor({19, 1, 1}, 2, 0, 1)};
  c.constant = {false, true};
  c.relative = 1e-7;
  CheckLayouts(c, "elementwise");
}

TEST(Elementwise, PowBySmallConstants) {
  for (const float y : {1.0f, 2.0f, 0.5f, 3.0f}) {
    KernelCase c;
    c.node = MakeNode("Pow");
    c.inputs = {RandomTensor({2, 19, 5, 3}, 1, 0, 3), Tensor::Scalar(y)};
    c.constant = {false, true};
    c.relative = 2e-7;
    CheckLayouts(c, "elementwise");
  }
}

TEST(Elementwise, EpiloguesAndResiduals) {
  for (const Activation activation :
       {Activation::kNone, Activation::kRelu, Activation::kSilu, Activation::kHardSwish}) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      KernelCase c;
      c.node = MakeNode("Add");
      c.inputs = {RandomTensor({2, 19, 5, 3}, 1), RandomTensor({2, 19, 5, 3}, 2)};
      c.epilogue = {activation, 0, 0, residual};
      if (residual != Residual::kNone) c.residual = RandomTensor({2, 19, 5, 3}, 3);
      c.relative = c.absolute = 1e-6;
      CheckLayouts(c, "elementwise");
      c.in_place = true;
      CheckLayouts(c, "elementwise");
    }
  }
}

TEST(Elementwise, ActivationWithResidual) {
  KernelCase c = Unary("Relu", {2, 19, 5, 3}, 2e-7);
  c.residual = RandomTensor({2, 19, 5, 3}, 3);
  c.epilogue.residual = Residual::kAfterActivation;
  CheckLayouts(c, "elementwise");
}

TEST(Elementwise, NanPropagatesThroughMaxAndMin) {
  for (const char* op : {"Max", "Min"}) {
    KernelCase c;
    c.node = MakeNode(op);
    const float nan = std::nanf("");
    c.inputs = {Tensor::From<float>({4}, {nan, 1, nan, 2}), Tensor::From<float>({4}, {1, nan, nan, 3})};
    c.definition = [](const EvalContext& e) -> Result<std::vector<Tensor>> {
      const double n = std::nan("");
      return std::vector<Tensor>{Tensor::From<double>({4}, {n, n, n, e.node.op_type == "Max" ? 3.0 : 2.0})};
    };
    CheckKernel(c, "elementwise");
  }
}

TEST(Elementwise, LargeTensorsOnThreads) {
  KernelCase c;
  c.node = MakeNode("Add");
  c.inputs = {RandomTensor({1, 70, 33, 31}, 1), RandomTensor({1, 70, 33, 31}, 2)};
  c.epilogue.activation = Activation::kRelu;
  c.relative = 1e-7;
  c.absolute = 1e-6;
  CheckLayouts(c, "elementwise");
}

TEST(Elementwise, RefusesOtherTypes) {
  KernelCase c;
  c.node = MakeNode("Add");
  c.inputs = {Ints({1, 2}), Ints({3, 4})};
  EXPECT_EQ(Refusal(c, "elementwise"), "not float32");
  EXPECT_EQ(Refusal(c, "reference"), "");
}

}  // namespace
}  // namespace crease::test
