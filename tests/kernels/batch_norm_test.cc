// SPDX-License-Identifier: Apache-2.0
// Batch normalization as functions, on every target, against double precision.
#include "kernels/batch_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "kernels/cache_sizes.h"
#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/reference/batch_norm.h"

namespace crease::test {
namespace {

struct NormCase {
  int64_t batch, channels, plane;
  Layout layout = Layout::kPlain;
  DType dtype = DType::kFloat32;
  double mean = 1, deviation = 2;
  int64_t extra = 0;  // pitch beyond the channels
  double step = 0;    // every third channel's mean is so much larger, and that of images from the 21st on
  int workers = 3;    // whose bits are to be those of one

  double Shift(int64_t n, int64_t channel) const { return step * ((channel % 3 == 1 ? 1 : 0) + (n >= 20 ? 1 : 0)); }
};

int64_t Offset(const NormCase& c, int64_t n, int64_t channel, int64_t i) {
  return c.layout == Layout::kPlain ? (n * c.channels + channel) * c.plane + i
                                    : (n * c.plane + i) * (c.channels + c.extra) + channel;
}

// How far a value of this size may be from the exact result: roundings of scale, shift and of two
// operations, and that of the dtype.
double Unit(DType dtype) {
  if (dtype == DType::kFloat64) return 0x1p-50;
  if (dtype == DType::kFloat16) return 0x1p-11;
  if (dtype == DType::kBFloat16) return 0x1p-8;
  return 0x1p-22;  // 2 units in the last place
}

struct Outcome {
  Tensor y;
  std::vector<double> mean, var;
  std::vector<double> running_mean, running_var;
};

constexpr double kFactor = 0.1, kOldMean = 0.25, kOldVar = 3;  // of running statistics

Outcome RunCase(const NormCase& c, const Tensor& x, const NormParameters& parameters, bool training, int workers) {
  ThreadsExecutor executor(workers);
  std::vector<std::byte> scratch;
  const auto each = [&](double value) { return std::vector<double>(static_cast<size_t>(c.channels), value); };
  Outcome out{Tensor::Allocate(c.dtype, x.shape()).value(), each(0.5), each(2.25), each(kOldMean), each(kOldVar)};
  NormTensor t;
  t.src = x.bytes();
  t.dst = out.y.mutable_data<std::byte>();
  t.dtype = c.dtype;
  t.layout = c.layout;
  t.batch = c.batch;
  t.channels = c.channels;
  t.plane = c.plane;
  t.src_pitch = t.dst_pitch = c.channels + c.extra;
  scratch.resize(NormScratchBytes(t));
  if (training) {
    const RunningStatistics running{out.running_mean, out.running_var, kFactor};
    NormalizeByBatch({executor, scratch.data()}, t, parameters, out.mean, out.var, &running);
  } else {
    NormalizeWith({executor, scratch.data()}, t, parameters, out.mean, out.var);
    const Tensor prepared = Tensor::Allocate(c.dtype, x.shape()).value();
    t.dst = const_cast<std::byte*>(prepared.bytes());
    NormMap(c.dtype, parameters, out.mean, out.var).Apply({executor}, t);
    EXPECT_EQ(std::memcmp(prepared.bytes(), out.y.bytes(), prepared.byte_size()), 0);
  }
  return out;
}

void Check(const NormCase& c) {
  const int64_t width = c.channels + (c.layout == Layout::kPlain ? 0 : c.extra);
  std::mt19937 random(5);
  std::normal_distribution<double> normal(c.mean, c.deviation);
  Tensor wide = Tensor::Allocate(DType::kFloat64, {c.batch * c.plane * width}).value();
  for (int64_t i = 0; i < wide.size(); ++i) wide.mutable_data<double>()[i] = normal(random);
  for (int64_t i = 0; i < c.batch * c.channels * c.plane; ++i) {
    const int64_t n = i / (c.channels * c.plane), channel = i / c.plane % c.channels;
    wide.mutable_data<double>()[Offset(c, n, channel, i % c.plane)] += c.Shift(n, channel);
  }
  const Tensor x = wide.ConvertedTo(c.dtype).value();
  std::vector<double> weight, bias;
  for (int64_t i = 0; i < c.channels; ++i) {
    weight.push_back(0.5 + 0.125 * static_cast<double>(i % 9));
    bias.push_back(static_cast<double>(i % 7) - 3);
  }
  const NormParameters parameters{weight, bias, 1e-5};
  ForEachTarget([&](const char* target) {
    for (const bool training : {false, true}) {
      const Outcome got = RunCase(c, x, parameters, training, 1);
      const Outcome other = RunCase(c, x, parameters, training, c.workers);
      ASSERT_EQ(std::memcmp(got.y.bytes(), other.y.bytes(), got.y.byte_size()), 0) << target;
      ASSERT_EQ(got.mean, other.mean);
      ASSERT_EQ(got.var, other.var);
      ASSERT_EQ(got.running_mean, other.running_mean);
      ASSERT_EQ(got.running_var, other.running_var);
      for (int64_t channel = 0; channel < c.channels; ++channel) {
        const auto k = static_cast<size_t>(channel);
        ChannelMap map{.mean = 0.5, .var = 2.25, .weight = weight[k], .bias = bias[k]};
        if (training) {
          const auto count = static_cast<double>(c.batch * c.plane);
          const ChannelMoments moments = MomentsOf(
              c.batch * c.plane, [&](int64_t i) { return x.AsDouble(Offset(c, i / c.plane, channel, i % c.plane)); });
          const double mean = map.mean = moments.mean, var = map.var = moments.var;
          // Single-precision sums of a block, about a pivot that is up to two deviations off its mean.
          ASSERT_NEAR(got.mean[k], mean, 1e-12 * std::fabs(mean) + 3e-7 * std::sqrt(var)) << target;
          ASSERT_NEAR(got.var[k], var, 7e-7 * var + 1e-24 * mean * mean) << target;
          const double unbiased = got.var[k] * count / (count - 1);
          const auto near = [&](double value, double wanted) {
            return std::fabs(value - wanted) <= 1e-7 * std::fabs(wanted);
          };
          ASSERT_TRUE(near(got.running_mean[k], kOldMean + kFactor * (got.mean[k] - kOldMean))) << target;
          ASSERT_TRUE(near(got.running_var[k], kOldVar + kFactor * (unbiased - kOldVar))) << target;
        }
        for (int64_t n = 0; n < c.batch; ++n) {
          for (int64_t i = 0; i < c.plane; ++i) {
            const int64_t at = Offset(c, n, channel, i);
            const double product = map.Scaled(x.AsDouble(at)), want = map(x.AsDouble(at));
            const double size = std::max({std::fabs(product), std::fabs(bias[k]), std::fabs(want), 1e-3});
            // The batch's mean is good to 1e-7 deviations, which become `weight` deviations of y.
            const double statistics = training ? 3e-7 * (size + weight[k]) : 0;
            ASSERT_NEAR(got.y.AsDouble(at), want, Unit(c.dtype) * size + statistics)
                << target << " training " << training << " at " << n << ", " << channel << ", " << i;
          }
        }
      }
    }
  });
}

TEST(BatchNormFunctions, AwkwardSizes) {
  for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
    for (const int64_t channels : {1, 3, 15, 16, 17, 33, 70}) {
      for (const int64_t plane : {1, 2, 7, 16, 49, 131}) Check({3, channels, plane, layout});
    }
  }
}

// Several blocks of images, and groups of channels that begin where a worker's do.
TEST(BatchNormFunctions, SmallPlanesAndManyThreads) {
  Check({23, 70, 49, Layout::kPlain});
  Check({9, 70, 131, Layout::kPlain});
  Check({2, 343, 49, Layout::kPlain});
  // Some channels of those that are done together far from 0, and all of them in the second block of images.
  Check({1, 70, 49, Layout::kPlain, DType::kFloat32, 0, 1, 0, 30});
  Check({23, 70, 49, Layout::kPlain, DType::kFloat32, 0, 1, 0, 30});
}

// Images side by side: batches of fours and of what is left over, channels that fill no whole vectors and a few more,
// more values than are added up at once.
TEST(BatchNormFunctions, SmallPlanesSideBySide) {
  for (const int64_t plane : {7, 15, 16, 17}) Check({17, 139, plane, Layout::kPlain});
  for (const int64_t plane : {36, 49, 64, 100, 131, 512, 513}) Check({5, 139, plane, Layout::kPlain});
  for (const int64_t batch : {4, 6, 8, 11}) Check({batch, 144, 49, Layout::kPlain});
  Check({90, 130, 49, Layout::kPlain});
  Check({4, 128, 49, Layout::kPlain, DType::kFloat32, 1, 2, 0, 0, 11});
  Check({90, 130, 49, Layout::kPlain, DType::kFloat32, 0, 1, 0, 30});
  Check({7, 135, 49, Layout::kPlain, DType::kFloat32, 1e4, 1e-2});
  for (const DType dtype : {DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    Check({7, 135, 49, Layout::kPlain, dtype, 0.5, 1});
    Check({13, 135, 49, Layout::kPlain, dtype, 0.5, 1});
  }
}

// More than the L2 of three workers holds.
TEST(BatchNormFunctions, RowsPastL2) {
  const auto l2 = static_cast<int64_t>(GetCacheSizes().l2);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat64}) {
    Check({1, 512, 3 * l2 / (512 * static_cast<int64_t>(ByteSize(dtype))) + 3, Layout::kChannelsLast, dtype});
  }
  Check({1, 320, 3 * l2 / 1280 + 3, Layout::kChannelsLast, DType::kFloat32, 1, 2, 16});
}

TEST(BatchNormFunctions, Pitches) {
  Check({2, 19, 50, Layout::kChannelsLast, DType::kFloat32, 1, 2, 5});
  Check({2, 64, 1100, Layout::kChannelsLast, DType::kFloat32, 1, 2, 16});
}

// In caches columns are done by one worker each, but where rows lie alike in their pages they are only summed up so.
TEST(BatchNormFunctions, WideRows) {
  Check({3, 300, 43, Layout::kChannelsLast, DType::kFloat32, 1, 2, 0, 5});
  Check({8, 300, 49, Layout::kChannelsLast, DType::kFloat32, 1, 2, 0, 5});
  Check({25, 300, 5, Layout::kChannelsLast, DType::kFloat32, 1, 2, 3, 5});
  Check({2, 300, 25, Layout::kChannelsLast, DType::kFloat32, 1, 2, 212});
  Check({2, 257, 200, Layout::kChannelsLast, DType::kFloat32, 1, 2, 255, 5});
  Check({2, 261, 20, Layout::kChannelsLast, DType::kBFloat16, 1, 2, 763});
  Check({2, 261, 20, Layout::kChannelsLast, DType::kFloat64, 1, 2, 251});
  Check({3, 300, 25, Layout::kChannelsLast});
  Check({1, 257, 512, Layout::kChannelsLast, DType::kFloat32, 1, 2, 5});
  Check({2, 1000, 49, Layout::kChannelsLast});
  Check({300, 512, 1, Layout::kPlain});
  Check({2, 261, 20, Layout::kChannelsLast, DType::kBFloat16});
  Check({2, 261, 20, Layout::kChannelsLast, DType::kFloat64});
}

TEST(BatchNormFunctions, LargePlanesAndManyThreads) {
  Check({1, 3, 40000, Layout::kPlain});
  Check({1, 3, 40000, Layout::kChannelsLast});
  Check({4, 40, 900, Layout::kPlain});
  Check({2, 17, 2501, Layout::kPlain});
  Check({1, 16, 9000, Layout::kPlain});
  Check({2, 130, 700, Layout::kChannelsLast});
  // Parts of rows and of columns: one group of them is a worker's, one is divided, and the last one is short.
  Check({1, 272, 4200, Layout::kChannelsLast, DType::kFloat32, 1, 2, 0, 5, 2});
}

// Written past the caches: more than 16 MiB, by several workers more than 21.
TEST(BatchNormFunctions, PastTheCaches) {
  Check({2, 256, 12000, Layout::kChannelsLast});
  Check({2, 130, 23000, Layout::kChannelsLast});
  Check({2, 18, 120000, Layout::kPlain});
  Check({3, 10000, 147, Layout::kPlain});
  Check({5, 7000, 147, Layout::kPlain});
  Check({5, 40, 45000, Layout::kPlain});  // no cache of 32 MiB holds it
  Check({2, 48, 45000, Layout::kChannelsLast});
  Check({1, 3, 1440000, Layout::kChannelsLast});
}

TEST(BatchNormFunctions, EveryType) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
      for (const int64_t channels : {3, 17, 32}) Check({2, channels, 75, layout, dtype, 0.5, 1});
    }
  }
}

TEST(BatchNormFunctions, RowsAlikeInTheirPages) {
  for (const int64_t channels : {128, 256, 2048}) {
    Check({2, channels, 35, Layout::kChannelsLast, DType::kFloat64, 0.5, 1});
  }
  Check({2, 512, 35, Layout::kChannelsLast, DType::kFloat32, 0.5, 1});
  Check({1, 1024, 49, Layout::kChannelsLast});
  Check({3, 1016, 20, Layout::kChannelsLast, DType::kFloat32, 1, 2, 8, 5});
  Check({3, 500, 20, Layout::kChannelsLast, DType::kFloat32, 1, 2, 12, 5, 2});
  Check({1, 1024, 49, Layout::kChannelsLast, DType::kBFloat16});
  Check({1, 512, 49, Layout::kChannelsLast, DType::kFloat64});
}

TEST(BatchNormFunctions, LargeMeanCancelsNothing) {
  for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
    Check({2, 17, 5000, layout, DType::kFloat32, 1e4, 1e-2});
    Check({3, 17, 49, layout, DType::kFloat32, 1e4, 1e-2});
    Check({2, 3, 5000, layout, DType::kFloat32, -1e6, 1});
  }
}

constexpr Activation kFusedActivations[] = {Activation::kNone,      Activation::kRelu,      Activation::kClip,
                                            Activation::kLeakyRelu, Activation::kHardSwish, Activation::kSilu};

// Half a unit in the last place of the dtype, relative to the value.
double HalfUnit(DType dtype) {
  return dtype == DType::kFloat16 ? 0x1p-11 : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-24;
}

// The map with an epilogue against double precision, out of place and into the residual's memory. Bound: the map's own
// error and the sum's, which HardSwish makes 1.5 times as large; the activation's; one rounding to the dtype.
void CheckEpilogue(const NormCase& c, const Epilogue& epilogue, const Tensor& x, const Tensor& r, const char* target) {
  const bool added = epilogue.residual != Residual::kNone;
  std::vector<double> weight, bias, mean, var;
  for (int64_t i = 0; i < c.channels; ++i) {
    weight.push_back(0.5 + 0.125 * static_cast<double>(i % 9));
    bias.push_back(static_cast<double>(i % 7) - 3);
    mean.push_back(0.25 * static_cast<double>(i % 5));
    var.push_back(1 + 0.5 * static_cast<double>(i % 3));
  }
  const NormMap map(c.dtype, {weight, bias, 1e-5}, mean, var);
  Tensor y = Tensor::Allocate(c.dtype, x.shape()).value(), again = r.ConvertedTo(c.dtype).value();
  NormTensor t{
      x.bytes(), added ? r.bytes() : nullptr, y.mutable_data<std::byte>(), c.dtype, c.layout, c.batch, c.channels,
      c.plane};
  t.src_pitch = t.residual_pitch = t.dst_pitch = c.channels + c.extra;
  ThreadsExecutor executor(3);
  map.Apply({executor}, t, epilogue);
  for (int64_t n = 0; n < c.batch; ++n) {
    for (int64_t i = 0; i < c.plane * c.channels; ++i) {
      const int64_t channel = i % c.channels, at = Offset(c, n, channel, i / c.channels);
      const auto k = static_cast<size_t>(channel);
      const ChannelMap exact{mean[k], var[k], weight[k], bias[k]};
      const double product = exact.Scaled(x.AsDouble(at)), residual = added ? r.AsDouble(at) : 0;
      const double want = Finish(epilogue, exact(x.AsDouble(at)), residual);
      const double size = std::max({std::fabs(product), std::fabs(bias[k]), std::fabs(residual), std::fabs(want)});
      ASSERT_NEAR(y.AsDouble(at), want, HalfUnit(c.dtype) * std::fabs(want) + 1e-6 * size + 0x1p-25)
          << target << " " << Name(c.dtype) << " " << Name(epilogue.activation) << " residual "
          << static_cast<int>(epilogue.residual) << " plane " << c.plane << " at " << n << ", " << channel << ", " << i;
    }
  }
  if (!added) return;
  t.residual = t.dst = again.mutable_data<std::byte>();
  map.Apply({executor}, t, epilogue);
  for (int64_t n = 0; n < c.batch; ++n) {
    for (int64_t i = 0; i < c.plane * c.channels; ++i) {
      const int64_t at = Offset(c, n, i % c.channels, i / c.channels);
      ASSERT_EQ(again.AsDouble(at), y.AsDouble(at)) << target << " in place at " << at;
    }
  }
}

void CheckEpilogues(const NormCase& c) {
  const Shape shape = {c.batch * c.plane * (c.channels + (c.layout == Layout::kPlain ? 0 : c.extra))};
  const Tensor x = RandomTensor(shape, 1).ConvertedTo(c.dtype).value();
  const Tensor r = RandomTensor(shape, 2).ConvertedTo(c.dtype).value();
  ForEachTarget([&](const char* target) {
    for (const Activation activation : kFusedActivations) {
      for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
        Epilogue epilogue{activation, 0, 6, residual};
        if (activation == Activation::kLeakyRelu) epilogue.a = 0.1f;
        CheckEpilogue(c, epilogue, x, r, target);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(BatchNormEpilogues, AwkwardSizesOfEveryType) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
      for (const int64_t channels : {1, 3, 16, 37}) {
        for (const int64_t plane : {1, 2, 7, 16, 49, 131}) CheckEpilogues({2, channels, plane, layout, dtype});
      }
    }
    CheckEpilogues({2, 19, 50, Layout::kChannelsLast, dtype, 0, 1, 5});
    CheckEpilogues({1, 7, 9001, Layout::kPlain, dtype});
  }
}

TEST(BatchNormEpilogues, WhatIsNotFused) {
  EXPECT_FALSE(CanFuse(DType::kFloat64, {Activation::kRelu}));
  EXPECT_FALSE(CanFuse(DType::kFloat32, {Activation::kMish}));
  EXPECT_TRUE(CanFuse(DType::kFloat64, {}));
}

// A channel with a NaN or an infinity has a NaN for a variance, as in PyTorch, and harms no other: not those that share
// vectors with it, or are read beside it.
TEST(BatchNormFunctions, NotFiniteStaysInItsChannel) {
  for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
    // Many of small planes are read side by side, fewer of 7x7 in blocks; few rows, or wide ones, by columns.
    const std::pair<int64_t, int64_t> sizes[] = {{1, 19},   {10, 67},  {49, 131}, {49, 67},
                                                 {49, 300}, {600, 19}, {5000, 19}};
    for (const auto& [plane, channels] : sizes) {
      for (const float bad : {NAN, INFINITY, -INFINITY}) {
        constexpr int64_t kBatch = 5, kBad = 5;
        const NormCase c{kBatch, channels, plane, layout};
        const Tensor x = RandomTensor({kBatch, channels, plane}, 1);
        for (const int64_t image : {int64_t{1}, kBatch - 1}) {
          const int64_t element = bad > 0 ? 0 : bad < 0 ? plane - 1 : plane / 2;
          Tensor spoilt = RandomTensor({kBatch, channels, plane}, 1);
          spoilt.mutable_data<float>()[Offset(c, image, kBad, element)] = bad;
          ForEachTarget([&](const char* target) {
            const Outcome want = RunCase(c, x, {}, true, 1), got = RunCase(c, spoilt, {}, true, 1);
            for (int64_t channel = 0; channel < channels; ++channel) {
              const auto k = static_cast<size_t>(channel);
              const std::string what = std::string(target) + " plane " + std::to_string(plane) + " image " +
                                       std::to_string(image) + " channel " + std::to_string(channel);
              if (channel == kBad) {
                EXPECT_FALSE(std::isfinite(got.mean[k])) << what;
                EXPECT_TRUE(std::isnan(got.var[k])) << what << " value " << bad;
                EXPECT_TRUE(std::isnan(got.y.AsDouble(Offset(c, 2, kBad, 0)))) << what;
                continue;
              }
              EXPECT_EQ(got.mean[k], want.mean[k]) << what;
              EXPECT_EQ(got.var[k], want.var[k]) << what;
              for (int64_t i = 0; i < kBatch * plane; ++i) {
                const int64_t at = Offset(c, i / plane, channel, i % plane);
                ASSERT_EQ(got.y.AsDouble(at), want.y.AsDouble(at)) << what << " element " << i;
              }
            }
          });
        }
      }
    }
  }
}

// 1e8 values in one channel: the sums stay exact to single precision.
TEST(BatchNormFunctions, HundredMillionValues) {
  constexpr int64_t kCount = 100'000'000;
  Tensor x = Tensor::Allocate(DType::kFloat32, {kCount}).value();
  auto* values = x.mutable_data<float>();
  for (int64_t i = 0; i < kCount; ++i) values[i] = 100.0f + static_cast<float>(i % 5) * 0.5f;
  ThreadsExecutor executor(2);
  NormTensor t;
  t.src = values;
  t.batch = t.channels = 1;
  t.plane = kCount;
  double mean = 0, var = 0;
  std::vector<std::byte> scratch(NormScratchBytes(t));
  BatchStatistics({executor, scratch.data()}, t, {&mean, 1}, {&var, 1});
  EXPECT_NEAR(mean, 101, 1e-9);
  EXPECT_NEAR(var, 0.5, 1e-7);
}

}  // namespace
}  // namespace crease::test
