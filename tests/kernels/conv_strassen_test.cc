// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_strassen.h"

#include <cmath>

#include "kernels/amx.h"
#include "kernels/kernels.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

// Largest error over the rms of the sums: 1e-5 was measured for 1,024 channels.
constexpr double kBound = 3e-5;

// `planned`: workers that it is made for.
void RunCase(const ConvCase& test, int workers, ConvData& data, int planned) {
  ThreadsExecutor executor(workers);
  StrassenConv::Options options;
  options.epilogue = test.epilogue;
  options.prologue = data.prologue;
  options.executor = &executor;
  options.workers = planned;
  auto conv = StrassenConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr, options);
  ASSERT_TRUE(conv.ok());
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  const std::vector<std::vector<ConstBytes>> fetch = SomethingToFetch(workers);
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data()), fetch}, data.operands());
}

void RunCase(const ConvCase& test, int workers, ConvData& data) { RunCase(test, workers, data, workers); }

void CheckOnEveryTarget(const std::vector<ConvCase>& cases) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      ASSERT_TRUE(StrassenConv::CanRun(test.shape)) << test.ToString();
      ConvData one(test), three(test), planned(test);
      RunCase(test, 1, one);
      one.Check(kBound);
      RunCase(test, 3, three);
      ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
      RunCase(test, 1, planned, 3);
      ASSERT_EQ(one.dst, planned.dst) << "bits depend on the plan: " << test.ToString();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(Strassen, Sizes) {
  std::vector<ConvCase> cases;
  for (const int64_t c : {2, 6, 16, 38}) {
    for (const int64_t k : {2, 14, 16, 18, 30, 34, 100, 144}) cases.push_back({MakeConvShape(1, 5, 7, c, k, 1)});
  }
  for (int64_t w = 1; w <= 31; ++w) cases.push_back({MakeConvShape(1, 1, w, 18, 40, 1)});
  cases.push_back({MakeConvShape(3, 3, 3, 20, 24, 1)});      // images of odd pixels
  cases.push_back({MakeConvShape(30, 5, 5, 20, 24, 1)});     // the same in blocks across images
  cases.push_back({MakeConvShape(1, 15, 15, 22, 72, 1)});    // three workers share the pixels, above the filters
  cases.push_back({MakeConvShape(1, 9, 7, 1024, 64, 1)});    // left factors alias in L1
  cases.push_back({MakeConvShape(1, 13, 11, 2318, 20, 1)});  // several pieces, several blocks
  CheckOnEveryTarget(cases);
}

TEST(Strassen, Strides) {
  CheckOnEveryTarget({{MakeConvShape(2, 9, 8, 12, 20, 1, 2, 0)},
                      {MakeConvShape(2, 7, 7, 12, 20, 1, 3, 0)},
                      {MakeConvShape(1, 15, 1, 12, 20, 1, 2, 0)}});
}

TEST(Strassen, EpiloguesAndPrologues) {
  std::vector<ConvCase> cases;
  for (int activation = 0; activation <= static_cast<int>(Activation::kMish); ++activation) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      ConvCase test{MakeConvShape(1, 5, 5, 12, 22, 1), {static_cast<Activation>(activation), 0.1f, 0.9f, residual}};
      test.src_extra = 3;
      test.dst_extra = 5;
      test.bias = activation % 2 == 0;
      cases.push_back(test);
      test.prologue = true;
      test.in_place = residual != Residual::kNone;
      cases.push_back(test);
    }
  }
  cases.push_back({MakeConvShape(2, 9, 8, 12, 20, 1, 2, 0)});
  cases.back().prologue = true;
  CheckOnEveryTarget(cases);
}

// Filters and channels whose sizes differ by factors of up to 2^14 each: every filter's error is bounded by its own
// results, not by those of the filter that its sums have been mixed with.
TEST(Strassen, UnlikeFiltersAndChannels) {
  const auto power = [](int64_t i) { return std::ldexp(1.0f, static_cast<int>(i * 7 % 21) - 10); };
  ConvCase test{MakeConvShape(1, 8, 8, 128, 64, 1)};
  test.bias = false;
  const ConvShape& s = test.shape;
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ConvData data(test);
    std::vector<float> weights(data.weights.data<float>(), data.weights.data<float>() + s.filters * s.channels);
    for (int64_t j = 0; j < s.filters; ++j) {
      for (int64_t k = 0; k < s.channels; ++k) weights[static_cast<size_t>(j * s.channels + k)] *= power(j) / power(k);
    }
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      for (int64_t k = 0; k < s.channels; ++k) data.src[static_cast<size_t>(pixel * s.channels + k)] *= power(k);
    }
    data.weights = Tensor::From<float>({s.filters, s.channels, 1, 1}, std::span<const float>(weights));
    RunCase(test, 1, data);
    for (int64_t j = 0; j < s.filters; ++j) {
      double worst = 0, squares = 0;
      for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
        double sum = 0;
        for (int64_t k = 0; k < s.channels; ++k) {
          sum += double{data.src[static_cast<size_t>(pixel * s.channels + k)]} *
                 double{weights[static_cast<size_t>(j * s.channels + k)]};
        }
        squares += sum * sum;
        worst = std::max(worst, std::abs(sum - double{data.dst[static_cast<size_t>(pixel * s.filters + j)]}));
      }
      EXPECT_LE(worst, kBound * std::sqrt(squares / static_cast<double>(s.out_pixels()))) << "filter " << j;
    }
  });
}

TEST(Strassen, ZeroAndInfiniteWeights) {
  ConvCase test{MakeConvShape(1, 4, 4, 8, 16, 1)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ConvData data(test);
    data.weights = Tensor::From<float>({16, 8, 1, 1}, std::vector<float>(16 * 8));
    RunCase(test, 1, data);
    for (int64_t i = 0; i < 16 * 16; ++i) {
      ASSERT_EQ(data.dst[static_cast<size_t>(i)], data.bias.data<float>()[i % 16]);
    }
    std::vector<float> weights(16 * 8, 1.0f);
    weights[3 * 8 + 2] = std::numeric_limits<float>::infinity();
    data.weights = Tensor::From<float>({16, 8, 1, 1}, std::span<const float>(weights));
    RunCase(test, 1, data);
    for (int64_t pixel = 0; pixel < 16; ++pixel) {
      ASSERT_FALSE(std::isfinite(data.dst[static_cast<size_t>(pixel * 16 + 3)]));
      ASSERT_TRUE(std::isfinite(data.dst[static_cast<size_t>(pixel * 16 + 4)]));
    }
  });
}

// A filter of zeros is its bias, and large numbers of a channel that no filter reads leave no trace, though both are
// paired with others.
TEST(Strassen, PrunedFiltersAndChannels) {
  ConvCase test{MakeConvShape(1, 6, 6, 32, 48, 1)};
  const ConvShape& s = test.shape;
  constexpr int64_t kFilter = 5, kChannel = 3;
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ConvData data(test);
    std::vector<float> weights(data.weights.data<float>(), data.weights.data<float>() + s.filters * s.channels);
    for (int64_t k = 0; k < s.channels; ++k) weights[static_cast<size_t>(kFilter * s.channels + k)] = 0;
    for (int64_t j = 0; j < s.filters; ++j) weights[static_cast<size_t>(j * s.channels + kChannel)] = 0;
    data.weights = Tensor::From<float>({s.filters, s.channels, 1, 1}, std::span<const float>(weights));
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      data.src[static_cast<size_t>(pixel * s.channels + kChannel)] *= 1e6f;
    }
    RunCase(test, 1, data);
    data.Check(kBound);
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      ASSERT_EQ(data.dst[static_cast<size_t>(pixel * s.filters + kFilter)], data.bias.data<float>()[kFilter]);
    }
  });
}

// What an image gives does not depend on the others of its batch.
TEST(Strassen, ImagesAreIndependent) {
  ConvCase test{MakeConvShape(3, 3, 5, 16, 32, 1)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ConvData data(test), spoilt(test);
    const auto image = static_cast<std::ptrdiff_t>(15 * 16), result = static_cast<std::ptrdiff_t>(15 * 32);
    std::fill_n(spoilt.src.begin() + image, image, std::numeric_limits<float>::infinity());
    RunCase(test, 1, data);
    RunCase(test, 1, spoilt);
    EXPECT_TRUE(std::equal(data.dst.begin(), data.dst.begin() + result, spoilt.dst.begin()));
    EXPECT_TRUE(std::equal(data.dst.begin() + 2 * result, data.dst.end(), spoilt.dst.begin() + 2 * result));
  });
}

TEST(Strassen, Rule) {
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 16, 15, 1)));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 15, 16, 1)));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 3)));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 1, 1, 1)));  // padding
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 1, 1, 0, 1, 2)));
  ConvShape below = MakeConvShape(1, 8, 8, 16, 16, 1, 2);  // padded below alone
  EXPECT_TRUE(StrassenConv::CanRun(below));
  ++below.out_height;
  EXPECT_FALSE(StrassenConv::CanRun(below));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(0, 8, 8, 16, 16, 1)));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 0, 16, 1)));
  EXPECT_FALSE(StrassenConv::CanRun(MakeConvShape(1, 8, 8, 16, 0, 1)));
  // Pixels against the memory of the weights: 1024-1024 at 14x14, at 7x7 only for a batch; narrow ones never.
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    const bool ever = GetAmxOps() == nullptr;
    EXPECT_EQ(StrassenConv::Pays(MakeConvShape(1, 14, 14, 1024, 1024, 1)), ever);
    EXPECT_FALSE(StrassenConv::Pays(MakeConvShape(1, 7, 7, 1024, 1024, 1)));
    EXPECT_EQ(StrassenConv::Pays(MakeConvShape(4, 7, 7, 1024, 1024, 1)), ever);
    EXPECT_FALSE(StrassenConv::Pays(MakeConvShape(1, 56, 56, 128, 512, 1)));
    EXPECT_FALSE(StrassenConv::Pays(MakeConvShape(1, 56, 56, 512, 48, 1)));
  });
}

TEST(Strassen, MeasurementMayAskForItButNotWhereExactIsAskedFor) {
  const ConvShape small = MakeConvShape(1, 14, 14, 16, 16, 1), large = MakeConvShape(1, 14, 14, 512, 256, 1);
  EXPECT_FALSE(Takes(MakeConvStrassen, small));
  EXPECT_TRUE(Takes(MakeConvStrassen, small, {.measured = true}));
  EXPECT_FALSE(Takes(MakeConvStrassen, small, {.measured = true, .exact = true}));
  EXPECT_FALSE(Takes(MakeConvStrassen, large, {.exact = true}));
  EXPECT_FALSE(Takes(MakeConvStrassen, MakeConvShape(1, 14, 14, 16, 16, 3), {.measured = true}));
}

}  // namespace
}  // namespace crease::test
