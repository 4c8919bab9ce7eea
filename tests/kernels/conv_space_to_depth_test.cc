// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_space_to_depth.h"

#include <algorithm>
#include <limits>

#include "kernels/kernels.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

constexpr double kBound = 1e-4;  // Winograd's

void RunCase(const ConvCase& test, int workers, PackCache* cache, ConvData& data) {
  ThreadsExecutor executor(workers);
  SpaceToDepthConv::Options options;
  options.epilogue = test.epilogue;
  options.workers = workers;
  options.cache = cache;
  options.executor = &executor;
  const auto conv = SpaceToDepthConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr, options);
  ASSERT_TRUE(conv.ok());
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  std::fill_n(scratch.data(), conv->scratch_bytes(workers) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
}

void CheckOnEveryTarget(std::vector<ConvCase> cases) {
  for (ConvCase& test : cases) test.planar = true;
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      ASSERT_TRUE(SpaceToDepthConv::CanRun(test.shape)) << test.ToString();
      ConvData one(test), three(test);
      RunCase(test, 1, nullptr, one);
      one.Check(kBound);
      RunCase(test, 3, nullptr, three);
      ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(SpaceToDepthConv, SizesAndChannels) {
  std::vector<ConvCase> cases;
  for (int64_t h = 1; h <= 19; h += 3) {
    for (int64_t w = 1; w <= 19; w += 2) cases.push_back({MakeConvShape(1, h, w, 3, 18, 7, 2)});
  }
  for (const int64_t c : {1, 2, 3, 4}) cases.push_back({MakeConvShape(2, 23, 26, c, 35, 7, 2)});
  cases.push_back({MakeConvShape(3, 40, 53, 3, 64, 7, 2)});  // several blocks of tiles
  CheckOnEveryTarget(cases);
}

TEST(SpaceToDepthConv, KernelsAndStrides) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {5, 6, 7, 8}) cases.push_back({MakeConvShape(1, 29, 31, 3, 24, kernel, 2)});
  for (const int64_t kernel : {7, 8, 9, 10, 12}) cases.push_back({MakeConvShape(1, 29, 31, 3, 24, kernel, 3)});
  for (const int64_t kernel : {9, 11, 12, 13, 16}) cases.push_back({MakeConvShape(1, 45, 43, 3, 24, kernel, 4)});
  CheckOnEveryTarget(cases);
}

TEST(SpaceToDepthConv, Padding) {
  std::vector<ConvCase> cases;
  for (const int64_t pad : {0, 1, 2, 3, 7, 9}) {  // from none to windows of nothing else
    cases.push_back({MakeConvShape(1, 15, 18, 3, 20, 7, 2, pad)});
    cases.push_back(cases.back());
    cases.back().shape.pad_left += 1;
    cases.back().shape.out_width += 1;
    cases.push_back({MakeConvShape(1, 22, 19, 3, 20, 11, 4, pad)});
  }
  CheckOnEveryTarget(cases);
}

TEST(SpaceToDepthConv, Epilogues) {
  std::vector<ConvCase> cases;
  for (int activation = 0; activation <= static_cast<int>(Activation::kMish); ++activation) {
    cases.push_back({MakeConvShape(1, 17, 14, 3, 20, 7, 2), {static_cast<Activation>(activation), 0.1f, 0.9f}});
    cases.back().dst_extra = 5;
    cases.back().bias = activation % 2 == 0;
  }
  CheckOnEveryTarget(cases);
}

// The weights of blocks are kept, and what is packed of them.
TEST(SpaceToDepthConv, SharesPackedWeights) {
  ConvCase test{MakeConvShape(1, 17, 14, 3, 20, 7, 2)};
  test.planar = true;
  PackCache cache;
  ConvData one(test, 1), other(test, 2), again = one;
  again.weights = one.weights;
  RunCase(test, 1, &cache, one);
  EXPECT_EQ(cache.unused(), 2u);
  RunCase(test, 3, &cache, again);
  EXPECT_EQ(cache.unused(), 2u);
  EXPECT_EQ(one.dst, again.dst);
  again.Check(kBound);
  RunCase(test, 1, &cache, other);
  EXPECT_EQ(cache.unused(), 4u);
  other.Check(kBound);
}

// 3x3 blocks of both, but of 27 and of 48 channels.
TEST(SpaceToDepthConv, OneTensorAtTwoStrides) {
  ConvCase three{MakeConvShape(1, 29, 31, 3, 24, 9, 3)}, four{MakeConvShape(1, 29, 31, 3, 24, 9, 4)};
  three.planar = four.planar = true;
  PackCache cache;
  ConvData first(three), second(four);
  second.weights = first.weights;
  RunCase(three, 1, &cache, first);
  RunCase(four, 1, &cache, second);
  first.Check(kBound);
  second.Check(kBound);
}

TEST(SpaceToDepthConv, KernelTakesPlainSourcesWhereItPays) {
  const ConvShape stem = MakeConvShape(1, 64, 64, 3, 64, 7, 2);
  ForEachTarget([&](const char*) {
    EXPECT_TRUE(Takes(MakeConvSpaceToDepth, stem, {.planar = true}));
    EXPECT_TRUE(Takes(MakeConvSpaceToDepth, stem, {.measured = true, .planar = true}));
    EXPECT_FALSE(Takes(MakeConvSpaceToDepth, stem, {.measured = true, .exact = true, .planar = true}));
    EXPECT_FALSE(Takes(MakeConvSpaceToDepth, stem, {.measured = true}));  // channels-last
    EXPECT_FALSE(
        Takes(MakeConvSpaceToDepth, MakeConvShape(1, 64, 64, 5, 64, 7, 2), {.measured = true, .planar = true}));
    EXPECT_FALSE(Takes(MakeConvSpaceToDepth, MakeConvShape(1, 64, 64, 1, 8, 5, 2), {.planar = true}));
  });
}

TEST(SpaceToDepthConv, Rule) {
  EXPECT_FALSE(SpaceToDepthConv::CanRun(MakeConvShape(1, 30, 30, 3, 64, 7, 1)));
  EXPECT_FALSE(
      SpaceToDepthConv::CanRun(MakeConvShape(1, 30, 30, 3, 64, 3, 2)));  // 2 taps of stride 1 have no transform
  EXPECT_FALSE(SpaceToDepthConv::CanRun(MakeConvShape(1, 30, 30, 3, 64, 9, 2)));
  EXPECT_FALSE(SpaceToDepthConv::CanRun(MakeConvShape(1, 30, 30, 4, 64, 7, 2, 3, 1, 2)));
  EXPECT_FALSE(SpaceToDepthConv::CanRun(MakeConvShape(1, 40, 40, 3, 64, 7, 2, 3, 2)));
  EXPECT_FALSE(SpaceToDepthConv::CanRun(MakeConvShape(0, 40, 40, 3, 64, 7, 2)));
  EXPECT_GT(SpaceToDepthConv::Gain(MakeConvShape(1, 224, 224, 3, 64, 7, 2)), 1.5);
  EXPECT_LT(SpaceToDepthConv::Gain(MakeConvShape(1, 224, 224, 1, 8, 5, 2)), 1.2);
}

}  // namespace
}  // namespace crease::test
