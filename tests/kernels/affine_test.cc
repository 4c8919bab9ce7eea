// SPDX-License-Identifier: Apache-2.0
// Batch-norm at inference: y = scale * x + shift. Bound: two roundings of the larger term, that of
// scale and shift, and the activation's own.
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

KernelCase BatchNorm(const Shape& shape) {
  KernelCase c;
  c.node = MakeNode("BatchNormalization", {MakeAttr("epsilon", 1e-5f)});
  const Shape channels = {shape[1]};
  c.inputs = {RandomTensor(shape, 1), RandomTensor(channels, 2, 0.5f, 2), RandomTensor(channels, 3),
              RandomTensor(channels, 4), RandomTensor(channels, 5, 0.1f, 4)};
  c.constant = {false, true, true, true, true};
  c.absolute = 6e-6;  // |scale| <= 6.3 times |x - mean| <= 6, in ulps of 40
  return c;
}

TEST(Affine, AwkwardSizes) {
  for (const int64_t channels : {1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 48, 67}) {
    for (const Shape& space : {Shape{}, Shape{1}, Shape{5}, Shape{1, 1}, Shape{7, 7}, Shape{3, 11}, Shape{2, 3, 5}}) {
      Shape shape = {2, channels};
      shape.insert(shape.end(), space.begin(), space.end());
      CheckLayouts(BatchNorm(shape), "affine");
    }
  }
  CheckLayouts(BatchNorm({0, 5, 3, 3}), "affine");
  CheckLayouts(BatchNorm({2, 5, 0, 3}), "affine");
}

TEST(Affine, EveryEpilogue) {
  for (int a = 0; a <= static_cast<int>(Activation::kMish); ++a) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      KernelCase c = BatchNorm({2, 19, 5, 3});
      c.epilogue = {static_cast<Activation>(a), 0.1f, 0.6f, residual};
      if (residual != Residual::kNone) c.residual = RandomTensor({2, 19, 5, 3}, 6);
      c.relative = 1e-6;
      c.absolute = 1e-5;
      const std::string refusal = Refusal(c, "affine");
      const bool rare = a >= static_cast<int>(Activation::kHardSigmoid) && c.epilogue.activation != Activation::kSilu;
      EXPECT_EQ(refusal, rare && residual != Residual::kNone ? "this activation with a residual" : "");
      if (!refusal.empty()) continue;
      CheckLayouts(c, "affine");
      c.in_place = true;
      CheckLayouts(c, "affine");
    }
  }
}

TEST(Affine, LargeTensorsOnThreads) {
  CheckLayouts(BatchNorm({2, 3, 83, 91}), "affine");
  CheckLayouts(BatchNorm({1, 130, 17, 13}), "affine");
  CheckLayouts(BatchNorm({33, 700}), "affine");
}

TEST(Affine, Refuses) {
  KernelCase c = BatchNorm({2, 4, 3, 3});
  c.constant[3] = false;
  EXPECT_EQ(Refusal(c, "affine"), "parameters are not constant");
}

}  // namespace
}  // namespace crease::test
