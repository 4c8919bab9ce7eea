// SPDX-License-Identifier: Apache-2.0
// Batch-norm at inference: y = scale * x + shift. Bound: two roundings of the larger term, that of
// scale and shift, and the activation's own.
#include "kernels/affine_rows.h"
#include "kernels/targets.h"
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

// Elements [begin, end) of planes mapped in one go, past the caches or not, and those around them left alone; the
// same bits as plane by plane.
TEST(Affine, RangesOfPlanesPastTheCaches) {
  constexpr int64_t kChannels = 3, kImages = 3;
  constexpr float kUntouched = -77;
  for (const int64_t plane : {2, 16, 17, 49, 64, 333, 784, 1024, 1031, 6000}) {
    const int64_t count = kImages * kChannels * plane;
    const Tensor x = RandomTensor({count}, 1), scale = RandomTensor({kChannels}, 2),
                 shift = RandomTensor({kChannels}, 3);
    ForEachTarget([&](const char* target) {
      const AffinePlanes rows = FindAffineRows(Activation::kNone, Residual::kNone).planes;
      AffineArgs args;
      args.src = x.bytes();
      args.scale = scale.bytes();
      args.shift = shift.bytes();
      std::vector<float> want(static_cast<size_t>(count));
      args.dst = want.data();
      for (int64_t i = 0; i < count; i += plane) rows(args, kChannels, plane, i, i + plane);
      for (const bool stream : {false, true}) {
        for (const int64_t begin : {int64_t{0}, int64_t{13}, plane + 1}) {
          for (const int64_t end : {count, count - 7, std::min(count, begin + 5)}) {
            if (begin >= end) continue;
            std::vector<float> got(static_cast<size_t>(count), kUntouched);
            args.dst = got.data();
            args.stream = stream;
            rows(args, kChannels, plane, begin, end);
            args.stream = false;
            for (int64_t i = 0; i < count; ++i) {
              const auto k = static_cast<size_t>(i);
              ASSERT_EQ(got[k], i < begin || i >= end ? kUntouched : want[k])
                  << target << " plane " << plane << " stream " << stream << " [" << begin << ", " << end << ") at "
                  << i;
            }
          }
        }
      }
    });
  }
}

TEST(Affine, Refuses) {
  KernelCase c = BatchNorm({2, 4, 3, 3});
  c.constant[3] = false;
  EXPECT_EQ(Refusal(c, "affine"), "parameters are not constant");
}

}  // namespace
}  // namespace crease::test
