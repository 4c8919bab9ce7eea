// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_winograd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/op.h"
#include "kernels/kernels.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

// Largest error over the rms of the sums: 2e-5 was measured over 8,000 outputs of real layers; 1e-4 is what is
// promised.
constexpr double kBound = 1e-4;

void RunCase(const ConvCase& test, WinogradKind kind, int workers, ConvData& data, bool rectified = false,
             PackCache* cache = nullptr) {
  ThreadsExecutor executor(workers);
  WinogradConv::Options options;
  options.kind = kind;
  options.epilogue = test.epilogue;
  options.prologue = data.prologue;
  options.workers = workers;
  options.executor = &executor;
  options.amx = true;  // where the target has it
  options.rectified = rectified;
  options.cache = cache;
  auto conv = WinogradConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr, options);
  ASSERT_TRUE(conv.ok());
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  // What is left out must not be read from here either.
  std::fill_n(scratch.data(), conv->scratch_bytes(workers) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
}

const std::vector<WinogradKind> kAllKinds = {WinogradKind::kF2, WinogradKind::kF3, WinogradKind::kF4};

// Calls check(test, kind) for the kinds that there are, until one has failed.
template <typename Check>
void ForEachKindOnEveryTarget(const std::vector<ConvCase>& cases, const std::vector<WinogradKind>& kinds,
                              const Check& check) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      for (const WinogradKind kind : kinds) {
        const ConvShape& s = test.shape;
        if (FindWinogradOps(kind, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w) == nullptr) continue;
        SCOPED_TRACE("F" + std::to_string(2 + static_cast<int>(kind)) + ", " + test.ToString());
        check(test, kind);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

void CheckOnEveryTarget(const std::vector<ConvCase>& cases, const std::vector<WinogradKind>& kinds = kAllKinds) {
  ForEachKindOnEveryTarget(cases, kinds, [](const ConvCase& test, WinogradKind kind) {
    ConvData one(test), three(test);
    RunCase(test, kind, 1, one);
    one.Check(kBound);
    RunCase(test, kind, 3, three);
    ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers";
  });
}

TEST(Winograd, Sizes) {
  std::vector<ConvCase> cases;
  for (int64_t h = 1; h <= 9; ++h) {
    for (int64_t w = 1; w <= 9; ++w) cases.push_back({MakeConvShape(1, h, w, 5, 18, 3)});
  }
  cases.push_back({MakeConvShape(2, 14, 14, 24, 20, 3)});
  cases.push_back({MakeConvShape(3, 7, 7, 16, 32, 3)});
  cases.push_back({MakeConvShape(1, 40, 37, 8, 16, 3)});     // several blocks of tiles
  cases.push_back({MakeConvShape(1, 16, 16, 200, 264, 3)});  // and weights past an L2 of 2 MiB, shared by channels
  CheckOnEveryTarget(cases);
}

ConvShape MakeKernelShape(int64_t h, int64_t w, int64_t c, int64_t k, int64_t kernel_h, int64_t kernel_w) {
  ConvShape s = MakeConvShape(1, h, w, c, k, 1);
  s.kernel_h = kernel_h;
  s.kernel_w = kernel_w;
  s.pad_top = (kernel_h - 1) / 2;
  s.pad_left = (kernel_w - 1) / 2;
  return s;
}

TEST(Winograd, RowsAndColumns) {
  std::vector<ConvCase> cases;
  for (const int64_t taps : {3, 5, 7}) {
    for (int64_t size = 1; size <= 9; ++size) {
      cases.push_back({MakeKernelShape(3, size, 5, 18, 1, taps)});
      cases.push_back({MakeKernelShape(size, 3, 5, 18, taps, 1)});
    }
    cases.push_back({MakeKernelShape(17, 17, 40, 35, 1, taps)});
    cases.push_back({MakeKernelShape(17, 17, 40, 35, taps, 1)});
  }
  CheckOnEveryTarget(cases);
}

TEST(Winograd, FiveByFive) {
  std::vector<ConvCase> cases;
  for (int64_t h = 1; h <= 9; h += 2) {
    for (int64_t w = 1; w <= 9; ++w) cases.push_back({MakeConvShape(1, h, w, 5, 18, 5)});
  }
  cases.push_back({MakeConvShape(1, 35, 33, 48, 64, 5)});
  CheckOnEveryTarget(cases);
}

TEST(Winograd, FourByFour) {
  std::vector<ConvCase> cases;
  for (int64_t h = 3; h <= 11; h += 2) {
    for (int64_t w = 3; w <= 11; ++w) cases.push_back({MakeConvShape(1, h, w, 5, 18, 4)});
  }
  cases.push_back({MakeConvShape(1, 35, 33, 48, 64, 4)});
  cases.push_back({MakeConvShape(1, 13, 17, 12, 21, 4), {Activation::kSilu, 0, 0, Residual::kAfterActivation}});
  CheckOnEveryTarget(cases);
}

TEST(Winograd, StrideTwo) {
  std::vector<ConvCase> cases;
  for (int64_t h = 1; h <= 18; ++h) {
    for (int64_t w = 1; w <= 18; w += 1 + h % 3) cases.push_back({MakeConvShape(1, h, w, 5, 18, 3, 2)});
  }
  for (const int64_t pad : {0, 2, 4}) cases.push_back({MakeConvShape(2, 11, 16, 17, 33, 3, 2, pad)});
  cases.push_back({MakeConvShape(1, 56, 55, 40, 48, 3, 2)});
  cases.push_back({MakeConvShape(1, 14, 14, 200, 264, 3, 2)});
  CheckOnEveryTarget(cases);
}

TEST(Winograd, EpilogueAndPrologueOfOtherKernels) {
  std::vector<ConvCase> cases;
  for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
    for (const Activation activation : {Activation::kRelu, Activation::kSilu}) {
      for (ConvShape shape : {MakeKernelShape(9, 13, 12, 21, 1, 7), MakeKernelShape(9, 13, 12, 21, 7, 1),
                              MakeConvShape(1, 9, 13, 12, 21, 5), MakeConvShape(1, 13, 17, 12, 21, 3, 2)}) {
        ConvCase test{shape};
        test.epilogue = {activation, 0, 0, residual};
        test.src_extra = 3;
        test.dst_extra = 5;
        test.prologue = activation == Activation::kRelu;
        cases.push_back(test);
      }
    }
  }
  CheckOnEveryTarget(cases);
}

TEST(Winograd, RefusesWhatHasNoTransform) {
  ConvShape dilated = MakeConvShape(1, 8, 8, 4, 4, 3, 1, 2, 2), grouped = MakeConvShape(1, 8, 8, 4, 4, 3, 1, 1, 1, 2);
  for (const ConvShape& shape :
       {MakeConvShape(1, 8, 8, 4, 4, 6), MakeConvShape(1, 8, 8, 4, 4, 5, 2), dilated, grouped}) {
    const ConvCase test{shape};
    const ConvData data(test);
    const auto conv = WinogradConv::Make(shape, data.weights, nullptr, {});
    ASSERT_FALSE(conv.ok()) << test.ToString();
    EXPECT_EQ(conv.error().code, ErrorCode::kUnsupported);
  }
}

// The kinds that take this convolution, as "2 4".
std::string Taken(const ConvShape& shape, ConvChoice choice = {}) {
  std::string taken;
  if (Takes(MakeWinogradF2, shape, choice)) taken += "2 ";
  if (Takes(MakeWinogradF3, shape, choice)) taken += "3 ";
  if (Takes(MakeWinogradF4, shape, choice)) taken += "4 ";
  return taken;
}

TEST(Winograd, EstimateTakesOneKindWhereItPays) {
  ForEachTarget([](const std::string& target) {
    SCOPED_TRACE(target);
    const bool amx = target == "AMX";
    EXPECT_EQ(Taken(MakeConvShape(1, 35, 35, 48, 64, 5)), "3 ");
    EXPECT_EQ(Taken(MakeConvShape(1, 28, 28, 64, 64, 3)).size(), 2u);
    EXPECT_EQ(Taken(MakeConvShape(1, 56, 56, 256, 256, 3)), "4 ");
    EXPECT_EQ(Taken(MakeConvShape(1, 56, 56, 128, 128, 3, 2)), amx ? "2 " : "4 ");
    EXPECT_EQ(Taken(MakeConvShape(1, 7, 7, 512, 512, 3)), amx ? "" : "2 ");  // direct by AMX
    // Few channels; few pixels.
    EXPECT_EQ(Taken(MakeConvShape(1, 112, 112, 3, 32, 3, 2)), "");
    EXPECT_EQ(Taken(MakeConvShape(1, 2, 2, 64, 64, 3)), "");
  });
}

TEST(Winograd, MeasurementMayAskForAnyKindButNotWhereExactIsAskedFor) {
  EXPECT_EQ(Taken(MakeConvShape(1, 14, 14, 16, 16, 3), {.measured = true}), "2 4 ");
  EXPECT_EQ(Taken(MakeConvShape(1, 14, 14, 16, 16, 3, 2), {.measured = true}), "2 4 ");
  EXPECT_EQ(Taken(MakeConvShape(1, 14, 14, 16, 16, 3), {.measured = true, .exact = true}), "");
  EXPECT_EQ(Taken(MakeConvShape(1, 14, 14, 16, 16, 3, 1, 1, 1, 2), {.measured = true}), "");
}

// Weights that no L2 holds are shared out, large maps of few channels are not.
TEST(Winograd, SplitFollowsTheWeights) {
  const auto describe = [](const ConvShape& shape, int workers) {
    const ConvCase test{shape};
    const ConvData data(test);
    WinogradConv::Options options;
    options.workers = workers;
    auto conv = WinogradConv::Make(shape, data.weights, nullptr, options);
    return conv.ok() ? conv->Describe() : conv.error().message;
  };
  EXPECT_NE(describe(MakeConvShape(1, 14, 14, 512, 512, 3), 2).find("split by channels"), std::string::npos);
  EXPECT_NE(describe(MakeConvShape(1, 14, 14, 512, 512, 3), 1).find("split by pixels"), std::string::npos);
  EXPECT_NE(describe(MakeConvShape(1, 56, 56, 16, 16, 3), 2).find("split by pixels"), std::string::npos);
  // Many tiles make up for the reading.
  EXPECT_NE(describe(MakeConvShape(1, 56, 56, 160, 160, 3), 2).find("split by pixels"), std::string::npos);
}

// One worker's block of sources is several times an L2 of 512 KiB, three workers' are not: panels in groups of either
// size.
TEST(Winograd, GroupsOfPanels) { CheckOnEveryTarget({{MakeConvShape(1, 24, 24, 420, 48, 3)}}, {WinogradKind::kF4}); }

TEST(Winograd, Channels) {
  std::vector<ConvCase> cases;
  for (const int64_t c : {1, 3, 8, 16, 17, 40, 256}) {
    for (const int64_t k : {1, 4, 15, 16, 17, 31, 33, 72}) cases.push_back({MakeConvShape(1, 6, 7, c, k, 3)});
  }
  cases.push_back({MakeConvShape(1, 5, 6, kMaxZeroChannels + 21, 5, 3)});  // edges from zeros, the rest from a buffer
  CheckOnEveryTarget(cases);
}

// Zeros in a source: of `share` of the channels, squares of `side` pixels, and half of the rest.
void Thin(const ConvShape& s, double share, int64_t side, ConvData& data) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  const int64_t columns = s.width / side + 1;
  std::vector<bool> absent(static_cast<size_t>(s.batch * (s.height / side + 1) * columns * s.channels));
  for (size_t i = 0; i < absent.size(); ++i) absent[i] = uniform(random) < share;
  for (int64_t i = 0; i < s.batch * s.height * s.width; ++i) {
    const int64_t image = i / (s.height * s.width), y = i / s.width % s.height, x = i % s.width;
    const int64_t square = (image * (s.height / side + 1) + y / side) * columns + x / side;
    for (int64_t c = 0; c < s.channels; ++c) {
      if (!absent[static_cast<size_t>(square * s.channels + c)] && uniform(random) > 0.5) continue;
      data.src[static_cast<size_t>(i * data.src_pitch + c)] = i % 2 == 0 ? 0.0f : -0.0f;
    }
  }
}

void CheckZerosOnEveryTarget(const std::vector<ConvCase>& cases, double share, int64_t side) {
  ForEachKindOnEveryTarget(cases, kAllKinds, [&](const ConvCase& test, WinogradKind kind) {
    ConvData all(test), one(test), three(test);
    for (ConvData* data : {&all, &one, &three}) Thin(test.shape, share, side, *data);
    RunCase(test, kind, 1, all);
    RunCase(test, kind, 1, one, true);
    if (test.shape.channels < 100) one.Check(kBound);
    ASSERT_EQ(one.dst, all.dst) << "other bits than all products";
    RunCase(test, kind, 3, three, true);
    ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers";
  });
}

TEST(WinogradZeros, LeftOutWithTheBitsOfAllProducts) {
  std::vector<ConvCase> cases;
  for (int64_t h = 1; h <= 15; h += 2) {
    for (int64_t w = 1; w <= 15; w += 1 + h % 3) cases.push_back({MakeConvShape(1, h, w, 40, 72, 3)});
  }
  cases.push_back({MakeConvShape(2, 14, 14, 70, 100, 3)});
  cases.push_back({MakeConvShape(1, 16, 16, 200, 264, 3)});  // shared by channels
  cases.push_back({MakeConvShape(1, 24, 24, 420, 48, 3)});   // groups of panels
  cases.push_back({MakeConvShape(1, 24, 24, 420, 112, 3)});  // on AVX-512
  cases.push_back({MakeConvShape(1, 13, 19, 50, 40, 5)});
  cases.push_back({MakeConvShape(1, 14, 19, 50, 40, 4)});
  cases.push_back({MakeConvShape(1, 27, 22, 50, 40, 3, 2)});
  cases.push_back({MakeKernelShape(17, 16, 50, 40, 1, 7)});
  cases.push_back({MakeKernelShape(16, 17, 50, 40, 7, 1)});
  CheckZerosOnEveryTarget(cases, 0.5, 100);  // whole maps
}

TEST(WinogradZeros, OfAllShares) {
  ConvCase plain{MakeConvShape(1, 14, 17, 60, 40, 3)}, prologue = plain;
  prologue.prologue = true;
  prologue.src_extra = 5;
  for (const double share : {0.0, 0.1, 0.6, 0.97, 1.0}) CheckZerosOnEveryTarget({plain, prologue}, share, 9);
}

TEST(WinogradZeros, Epilogues) {
  std::vector<ConvCase> cases;
  for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
    for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kSilu}) {
      for (const int64_t filters : {40, 64}) {
        ConvCase test{MakeConvShape(1, 11, 13, 56, filters, 3), {activation, 0, 0, residual}};
        test.dst_extra = 5;
        test.in_place = residual == Residual::kBeforeActivation;
        cases.push_back(test);
      }
    }
  }
  CheckZerosOnEveryTarget(cases, 0.7, 7);
}

// Panels are of other widths, so that neither may take the other's.
TEST(WinogradZeros, OneCacheWithAllProducts) {
  const ConvCase test{MakeConvShape(1, 14, 13, 72, 112, 3)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    PackCache cache;
    ConvData all(test), rectified(test);
    RunCase(test, WinogradKind::kF4, 1, all, false, &cache);
    RunCase(test, WinogradKind::kF4, 1, rectified, true, &cache);
    all.Check(kBound);
    rectified.Check(kBound);
  });
}

std::string DescribeRectified(const ConvShape& shape, const Tensor& weights) {
  WinogradConv::Options options;
  options.rectified = true;
  const auto conv = WinogradConv::Make(shape, weights, nullptr, options);
  return conv.ok() ? conv->Describe() : conv.error().message;
}

// Zero times infinity is NaN, also where only the transform makes a weight infinite.
TEST(WinogradZeros, NotWithInfiniteWeights) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    const ConvCase test{MakeConvShape(1, 9, 9, 40, 64, 3)};
    ConvData data(test);
    EXPECT_NE(DescribeRectified(test.shape, data.weights).find("zeros left out"), std::string::npos);
    const std::span good(data.weights.data<float>(), static_cast<size_t>(64 * 40 * 9));
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), -0x1p127f}) {
      std::vector<float> weights(good.begin(), good.end());
      weights[480 * 9 - 1] = bad;  // the last tap is multiplied by 8 at the point at infinity
      const Tensor tensor = Tensor::From<float>({64, 40, 3, 3}, std::span<const float>(weights));
      EXPECT_EQ(DescribeRectified(test.shape, tensor).find("zeros left out"), std::string::npos);
    }
  });
}

// NaN is no zero, wherever in a patch it is.
TEST(WinogradZeros, NaNsStay) {
  const ConvCase test{MakeConvShape(1, 13, 13, 40, 64, 3)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const int64_t at : {0, 7, 30, 84, 121, 168}) {
      ConvData data(test);
      std::fill(data.src.begin(), data.src.end(), 0.0f);
      data.src[static_cast<size_t>(at * 40 + 39)] = std::numeric_limits<float>::quiet_NaN();
      RunCase(test, WinogradKind::kF4, 1, data, true);
      ASSERT_TRUE(std::isnan(data.dst[static_cast<size_t>(at * 64 + 5)])) << at;
    }
  });
}

// Where few channels are zero, lists cost more than they save.
TEST(WinogradZeros, NotForFewChannels) {
  const ConvCase test{MakeConvShape(1, 9, 9, 8, 64, 3)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    // With AVX-512 a tile's list costs no more than a tile of all products.
    if (GetGemmOps().lanes == kMaxLanes) return;
    EXPECT_EQ(DescribeRectified(test.shape, ConvData(test).weights).find("zeros left out"), std::string::npos);
  });
}

TEST(WinogradZeros, NotForFewFilters) {
  const ConvCase test{MakeConvShape(1, 9, 9, 8, 4, 3)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    EXPECT_EQ(DescribeRectified(test.shape, ConvData(test).weights).find("zeros left out"), std::string::npos);
  });
}

TEST(Winograd, Padding) {
  std::vector<ConvCase> cases;
  for (const int64_t pad : {0, 2, 5}) {
    cases.push_back({MakeConvShape(1, 8, 9, 6, 10, 3, 1, pad)});
    ConvCase uneven{MakeConvShape(1, 8, 9, 6, 10, 3, 1, pad)};
    uneven.shape.pad_left = 1;
    uneven.shape.out_width += 1;
    cases.push_back(uneven);
  }
  CheckOnEveryTarget(cases);
}

TEST(Winograd, EpiloguesPitchesAndPrologue) {
  std::vector<ConvCase> cases;
  for (int i = 0; i <= static_cast<int>(Activation::kMish); ++i) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      for (const bool in_place : {false, true}) {
        ConvCase test{MakeConvShape(1, 7, 9, 12, 21, 3)};
        test.epilogue = {static_cast<Activation>(i), -0.25f, 0.75f, residual};
        test.in_place = in_place && residual != Residual::kNone;
        test.src_extra = 3;
        test.dst_extra = 5;
        test.bias = i % 2 == 0;
        test.prologue = i % 3 == 0;
        cases.push_back(test);
      }
    }
  }
  CheckOnEveryTarget(cases);
}

}  // namespace
}  // namespace crease::test
