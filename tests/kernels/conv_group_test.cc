// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_group.h"

#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

// Rounding of at most 400 products in f32, with a margin.
constexpr double kBound = 5e-6;

// False where this instruction set has no kernel for the group's size.
bool RunCase(const ConvCase& test, int workers, ConvData& data) {
  GroupConv::Options options;
  options.epilogue = test.epilogue;
  options.prologue = data.prologue;
  options.workers = workers;
  auto conv = GroupConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr, options);
  if (!conv.ok()) return false;
  ThreadsExecutor executor(workers);
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
  return true;
}

void CheckOnEveryTarget(const std::vector<ConvCase>& cases) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      ConvData one(test), three(test);
      const bool made = RunCase(test, 1, one);
      EXPECT_EQ(made, test.shape.group_channels() <= GetGroupOps().lanes);
      if (!made) continue;
      one.Check(kBound);
      ASSERT_TRUE(RunCase(test, 3, three));
      ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

ConvCase Grouped(int64_t h, int64_t w, int64_t group, int64_t groups, int64_t kernel, int64_t stride = 1,
                 int64_t pad = -1, int64_t dilation = 1) {
  return {MakeConvShape(2, h, w, group * groups, group * groups, kernel, stride, pad, dilation, groups)};
}

TEST(GroupConv, Shapes) {
  std::vector<ConvCase> cases;
  for (const int64_t group : {2, 4, 8, 16}) {
    for (const int64_t groups : {2, 3, 7}) {
      for (const int64_t kernel : {1, 3, 5}) {
        for (const int64_t stride : {1, 2, 3}) cases.push_back(Grouped(7, 11, group, groups, kernel, stride));
        cases.push_back(Grouped(12, 9, group, groups, kernel, 1, 0));
        cases.push_back(Grouped(12, 13, group, groups, kernel, 1, -1, 2));
      }
    }
    for (int64_t w = 1; w <= 20; ++w) cases.push_back(Grouped(3, w, group, 5, 3));
  }
  CheckOnEveryTarget(cases);
}

// Tiles take one to three rows, and pixels up to eight.
TEST(GroupConv, RowsAndPixelsOfTiles) {
  std::vector<ConvCase> cases;
  for (const int64_t group : {2, 4, 8, 16}) {
    for (const int64_t stride : {1, 2}) {
      for (int64_t h = 1; h <= 9; ++h) {
        for (const int64_t w : {4, 13, 15, 16}) {
          ConvCase test = Grouped(h, w, group, 48 / group, 3, stride);
          test.epilogue.residual = h % 2 == 0 ? Residual::kNone : Residual::kAfterActivation;
          test.epilogue.activation = w % 2 == 0 ? Activation::kRelu : Activation::kSilu;
          cases.push_back(test);
        }
      }
    }
  }
  CheckOnEveryTarget(cases);
}

// Few rows and many channels: each worker takes some of the channels.
TEST(GroupConv, SplitByChannels) {
  std::vector<ConvCase> cases;
  for (const int64_t group : {2, 4, 8, 16}) {
    for (const int64_t stride : {1, 2}) {
      ConvCase test = Grouped(5, 7, group, 208 / group, 3, stride);
      test.src_extra = 8;
      cases.push_back(test);
      test.prologue = true;
      cases.push_back(test);
    }
  }
  CheckOnEveryTarget(cases);
}

TEST(GroupConv, EpiloguesPitchesAndPrologue) {
  std::vector<ConvCase> cases;
  for (int i = 0; i <= static_cast<int>(Activation::kMish); ++i) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      ConvCase test = Grouped(5, 9, 4, 5, 3);
      test.epilogue = {static_cast<Activation>(i), -0.25f, 0.75f, residual};
      test.in_place = i % 2 == 0 && residual != Residual::kNone;
      test.src_extra = 3;
      test.dst_extra = 5;
      test.bias = i % 2 == 0;
      test.prologue = i % 3 == 0;
      cases.push_back(test);
    }
  }
  CheckOnEveryTarget(cases);
}

}  // namespace
}  // namespace crease::test
