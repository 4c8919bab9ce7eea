// SPDX-License-Identifier: Apache-2.0
// The kernel of BatchNormalization nodes, against the interpreter.
#include <gtest/gtest.h>

#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

KernelCase Training(const Shape& shape, int opset) {
  KernelCase c;
  c.opset = opset;
  c.node = MakeNode("BatchNormalization", {MakeAttr("epsilon", 1e-5f), MakeAttr("momentum", 0.75f)}, "",
                    opset >= 14 ? 3 : 5);
  if (opset >= 14) c.node.attributes.push_back(MakeAttr("training_mode", int64_t{1}));
  const Shape channels = {shape[1]};
  c.inputs = {RandomTensor(shape, 1), RandomTensor(channels, 2, 0.5f, 2), RandomTensor(channels, 3),
              RandomTensor(channels, 4), RandomTensor(channels, 5, 0.1f, 4)};
  c.absolute = 6e-6;  // values up to 10: a few roundings, and statistics good to 1e-7 deviations
  return c;
}

TEST(BatchNormKernel, TrainingInEveryOpset) {
  for (const int opset : {7, 8, 9, 13, 14, 15, 17}) CheckLayouts(Training({2, 19, 5, 3}, opset), "batch_norm");
  for (const Shape& shape : {Shape{5, 17}, Shape{3, 1, 7}, Shape{1, 64, 9, 9}, Shape{2, 3, 4, 5, 6}}) {
    CheckLayouts(Training(shape, 17), "batch_norm");
  }
  KernelCase c = Training({2, 19, 5, 3}, 15);
  c.constant = {false, true, true, true, true};
  CheckLayouts(c, "batch_norm");
}

// Any float type at inference, and parameters that something else computes.
TEST(BatchNormKernel, InferenceOfEveryType) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    KernelCase c = Training({2, 19, 5, 3}, 15);
    c.node = MakeNode("BatchNormalization", {MakeAttr("epsilon", 1e-5f)});
    for (size_t i = 1; i < c.inputs.size(); ++i) c.inputs[i] = c.inputs[i].ConvertedTo(dtype).value();
    c.absolute = 4e-5;  // |scale| <= 6.3
    CheckLayouts(c, "batch_norm");
  }
}

TEST(BatchNormKernel, Refuses) {
  KernelCase c = Training({2, 4, 3, 3}, 15);
  c.epilogue.activation = Activation::kRelu;
  EXPECT_EQ(Refusal(c, "batch_norm"), "epilogue");
  c = Training({2, 4, 3, 3}, 15);
  c.constant = {true};
  EXPECT_EQ(Refusal(c, "batch_norm"), "constant input");
}

}  // namespace
}  // namespace crease::test
