// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/reference/batch_norm.h"

namespace crease::test {
namespace {

// Channels of a plain tensor, each by its own statistics, written past the caches or not, in the order of addresses or
// page by page, to memory that lies after the source's by little more than whole pages or not: the same bits. Where
// images are read in turns, as from memory in order, or side by side, sums differ in their last bits.
template <typename T>
void CheckChannels(DType dtype, int64_t batch, int64_t channels, int64_t plane) {
  constexpr int64_t kPage = 4096;
  const int64_t count = batch * channels * plane;
  const auto bytes = static_cast<size_t>(count) * sizeof(T);
  Tensor values = RandomTensor({count}, 1);
  // The mean of what came before is a bad pivot: of later images, and of what lies behind in a plane; that of the first
  // image, in every third channel, so bad that channels are read again.
  for (int64_t i = 0; i < count; ++i) {
    const int64_t image = i / (channels * plane);
    const bool apart = i / plane % channels % 3 == 1;
    values.mutable_data<float>()[i] += static_cast<float>((apart ? 20 * (image > 0) : 5 * image) + i % plane / 500);
  }
  const Tensor x = values.ConvertedTo(dtype).value();
  Tensor memory = Tensor::Allocate(dtype, {count + 2 * kPage}).value();
  const std::vector<double> weight(static_cast<size_t>(channels), 1.25), bias(static_cast<size_t>(channels), -0.5);
  NormTensor t;
  t.dtype = dtype;
  t.batch = batch;
  t.channels = channels;
  t.plane = plane;
  constexpr std::byte kUntouched{0xff};
  auto* const all = memory.mutable_data<std::byte>();
  ForEachTarget([&](const char* target) {
    const ChannelNorm norm = FindChannelNorm(dtype);
    struct Wanted {
      Tensor y;  // empty until it is known
      std::vector<double> mean, var;
    } in_order, in_turns, in_units;
    for (const int ahead : {0, 64, 1024, -1}) {  // -1: in place
      const auto from = reinterpret_cast<uintptr_t>(x.bytes()) + (ahead < 0 ? 0 : static_cast<uintptr_t>(ahead));
      auto* const dst = all + (from - reinterpret_cast<uintptr_t>(all)) % kPage;
      for (const ChannelWalk walk : {ChannelWalk{false, false, Walk::kOrder}, ChannelWalk{false, true, Walk::kOrder},
                                     ChannelWalk{true, false, Walk::kOrder}, ChannelWalk{true, true, Walk::kOrder},
                                     ChannelWalk{false, false, Walk::kPages}, ChannelWalk{true, true, Walk::kPages}}) {
        const bool turns = walk.from_memory && walk.walk == Walk::kOrder;
        const std::string what = std::string(target) + " " + Name(dtype) + " batch " + std::to_string(batch) +
                                 " plane " + std::to_string(plane) + ", " + std::to_string(ahead) +
                                 " bytes ahead, stream " + std::to_string(walk.stream) + ", turns " +
                                 std::to_string(turns) + ", pages " + std::to_string(walk.walk == Walk::kPages);
        std::fill_n(all, memory.byte_size(), kUntouched);
        if (ahead < 0) std::memcpy(dst, x.bytes(), bytes);
        t.src = ahead < 0 ? dst : x.bytes();
        t.dst = dst;
        std::vector<double> mean(weight.size(), -1), var(weight.size(), -1);
        // Two workers, who share in different ways.
        const int64_t unit = norm.unit(t, walk);
        const int64_t share = ahead == 64 ? 0 : ahead == 1024 ? channels / 4 : channels / 2;
        const int64_t middle = share / unit * unit;
        norm.run(t, {weight, bias, 1e-5}, walk, 0, middle, mean.data(), var.data());
        norm.run(t, {weight, bias, 1e-5}, walk, middle, channels, mean.data(), var.data());
        Wanted& want = unit > 1 ? in_units : turns ? in_turns : in_order;
        if (want.mean.empty()) {
          Tensor y = Tensor::Allocate(dtype, {count}).value();
          std::memcpy(y.mutable_data<std::byte>(), dst, bytes);
          want = {std::move(y), mean, var};
        }
        ASSERT_EQ(std::memcmp(dst, want.y.bytes(), bytes), 0) << what;
        ASSERT_EQ(mean, want.mean) << what;
        ASSERT_EQ(var, want.var) << what;
        const auto touched = [&](std::byte b) { return b != kUntouched; };
        ASSERT_TRUE(std::none_of(all, dst, touched)) << what;
        ASSERT_TRUE(std::none_of(dst + bytes, all + memory.byte_size(), touched)) << what;
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      const ChannelMoments exact = MomentsOf(
          batch * plane, [&](int64_t i) { return x.AsDouble((i / plane * channels + c) * plane + i % plane); });
      for (const Wanted* got : {&in_order, &in_turns, &in_units}) {
        if (got->mean.empty()) continue;
        const std::string what = std::string(target) + " batch " + std::to_string(batch) + " plane " +
                                 std::to_string(plane) +
                                 (got == &in_units   ? ", several channels at once"
                                  : got == &in_turns ? ", in turns"
                                                     : ", in order");
        ASSERT_NEAR(got->mean[static_cast<size_t>(c)], exact.mean, 1.5e-6 * std::sqrt(exact.var)) << what;
        ASSERT_NEAR(got->var[static_cast<size_t>(c)], exact.var, 5e-6 * exact.var) << what;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const double want = in_order.y.AsDouble(i);
      for (const Wanted* got : {&in_turns, &in_units}) {
        if (got->mean.empty()) continue;
        ASSERT_NEAR(got->y.AsDouble(i), want, (sizeof(T) == 2 ? 8e-3 : 1e-6) * (1 + std::abs(want)))
            << target << " batch " << batch << " plane " << plane << " at " << i;
      }
    }
  });
}

TEST(BatchNormRows, ChannelsInEveryWay) {
  for (const int64_t plane : {4, 49, 600, 1024, 1601, 3333, 9000}) {
    for (const int64_t batch : {1, 3, 9, 70}) {
      if (batch * plane > 40000) continue;  // nothing new, for long
      CheckChannels<float>(DType::kFloat32, batch, 19, plane);
      CheckChannels<double>(DType::kFloat64, batch, 19, plane);
      CheckChannels<uint16_t>(DType::kBFloat16, batch, 19, plane);
      CheckChannels<uint16_t>(DType::kFloat16, batch, 19, plane);
    }
  }
}

TEST(BatchNormRows, ImagesSideBySideInEveryWay) {
  for (const int64_t plane : {16, 36, 49, 64, 128, 256}) {
    for (const int64_t batch : {5, 9}) {
      CheckChannels<float>(DType::kFloat32, batch, 139, plane);
      CheckChannels<double>(DType::kFloat64, batch, 139, plane);
      CheckChannels<uint16_t>(DType::kBFloat16, batch, 139, plane);
      CheckChannels<uint16_t>(DType::kFloat16, batch, 139, plane);
    }
  }
}

TEST(BatchNormRows, PlanesOf49InBlocks) {
  for (const int64_t channels : {15, 16, 17, 33, 143}) {
    for (const int64_t batch : {1, 2, 3, 8}) CheckChannels<float>(DType::kFloat32, batch, channels, 49);
  }
}

// Blocks sample a line of the first image's planes. What it has is nothing like the rest here, so that 23 parts of 24
// of the sums would cancel: channels are read again (without it 5e-6 of a variance).
TEST(BatchNormRows, PlanesOf49AboutPivotsThatAreFarOff) {
  constexpr int64_t kBatch = 8, kChannels = 32, kPlane = 49;
  Tensor x = RandomTensor({kBatch, kChannels, kPlane}, 3);
  const auto is_far = [](int64_t c) { return c % 3 == 0; };
  float* values = x.mutable_data<float>();
  for (int64_t i = 0; i < x.size(); ++i) {
    const int64_t c = i / kPlane % kChannels, line = c % 16 * kPlane + 15, at = i % (16 * kPlane);
    const bool sampled = i < kChannels * kPlane && at >= line / 16 * 16 && at < line / 16 * 16 + 16;
    if (is_far(c) && !sampled) values[i] += 1000;
  }
  Tensor y = Tensor::Allocate(DType::kFloat32, x.shape()).value();
  NormTensor t;
  t.dtype = DType::kFloat32;
  t.batch = kBatch;
  t.channels = kChannels;
  t.plane = kPlane;
  t.src = x.bytes();
  t.dst = y.mutable_data<std::byte>();
  const std::vector<double> ones(kChannels, 1), zeros(kChannels, 0);
  ForEachTarget([&](const char* target) {
    std::vector<double> mean(kChannels), var(kChannels);
    FindChannelNorm(t.dtype).run(t, {ones, zeros, 1e-5}, {false, false, Walk::kOrder}, 0, kChannels, mean.data(),
                                 var.data());
    for (int64_t c = 0; c < kChannels; ++c) {
      const double exact = MomentsOf(kBatch * kPlane, [&](int64_t i) {
                             return static_cast<double>(values[(i / kPlane * kChannels + c) * kPlane + i % kPlane]);
                           }).var;
      ASSERT_NEAR(var[static_cast<size_t>(c)], exact, 1e-6 * exact) << target << " channel " << c;
    }
  });
}

// Only in order and in caches: small planes of several images and many channels, side by side; and float32 planes of 49
// of fewer images or channels, in blocks of 16, where vectors have 16 lanes.
TEST(BatchNormRows, WhatIsDealtOutInUnits) {
  const ChannelWalk order{false, false, Walk::kOrder};
  const auto unit = [](ChannelWalk walk, int64_t batch, int64_t channels, int64_t plane) {
    NormTensor t;
    t.batch = batch;
    t.channels = channels;
    t.plane = plane;
    return FindChannelNorm(DType::kFloat32).unit(t, walk);
  };
  ForEachTarget([&](const char* target) {
    const int64_t of_49 = unit(order, 4, 128, 49);
    EXPECT_TRUE(of_49 == 4 || of_49 == 8 || of_49 == 16) << target << ' ' << of_49;
    EXPECT_EQ(unit(order, 8, 2048, 64), 4) << target;
    const int64_t block = of_49 == 16 ? 16 : 1;
    for (const int64_t images : {1, 3}) {
      for (const int64_t channels : {1, 128}) EXPECT_EQ(unit(order, images, channels, 49), block) << target;
    }
    EXPECT_EQ(unit(order, 8, 127, 49), block) << target;
    EXPECT_EQ(unit(order, 9, 127, 49), 1) << target;
    EXPECT_EQ(unit(order, 3, 128, 48), 1) << target;
    EXPECT_EQ(unit(order, 4, 127, 50), 1) << target;
    EXPECT_EQ(unit(order, 4, 128, 15), 1) << target;
    EXPECT_EQ(unit(order, 4, 128, 513), 1) << target;
    EXPECT_EQ(unit(order, 4000, 128, 49), 1) << target;  // no L2 holds the channels of a vector
    EXPECT_EQ(unit({false, true, Walk::kOrder}, 4, 128, 64), 1) << target;
    EXPECT_EQ(unit({false, false, Walk::kPages}, 4, 128, 64), 1) << target;
    EXPECT_EQ(unit({false, true, Walk::kOrder}, 1, 128, 49), 1) << target;
    EXPECT_EQ(unit({false, false, Walk::kPages}, 1, 128, 49), 1) << target;
  });
}

}  // namespace
}  // namespace crease::test
