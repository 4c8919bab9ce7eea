// SPDX-License-Identifier: Apache-2.0
#include "kernels/amx.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/conv_gemm.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

GemmConv MakeConv(const ConvShape& shape, const ConvData& data, bool amx) {
  GemmConv::Options options;
  options.src_pitch = data.src_pitch;
  options.amx = amx;
  auto conv = GemmConv::Make(shape, ConvMatrix(shape, data.weights, &data.bias), options);
  EXPECT_TRUE(conv.ok());
  return std::move(conv).value();
}

void Convolve(const ConvShape& shape, ConvData& data) {
  SerialExecutor executor;
  const GemmConv conv = MakeConv(shape, data, true);
  FloatBuffer scratch(conv.scratch_bytes(1) / sizeof(float));
  conv.Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
}

// For what needs AMX; says so where there is none.
class Amx : public testing::Test {
 protected:
  void SetUp() override {
    if (GetAmxOps() == nullptr) GTEST_SKIP() << "this machine has no AMX";
  }
};

TEST_F(Amx, TakesWhatIsLargeEnoughUnlessTheTargetIsAnother) {
  EXPECT_TRUE(CanUseAmx(MakeConvShape(1, 14, 14, 256, 1024, 1)));
  EXPECT_TRUE(CanUseAmx(MakeConvShape(1, 7, 7, 512, 512, 3)));
  EXPECT_FALSE(CanUseAmx(MakeConvShape(1, 112, 112, 16, 96, 1)));              // a quarter of a chunk
  EXPECT_FALSE(CanUseAmx(MakeConvShape(1, 1, 1, 512, 512, 1)));                // one row of sixteen
  EXPECT_FALSE(CanUseAmx(MakeConvShape(1, 14, 14, 256, 256, 3, 1, 1, 1, 2)));  // groups
  EXPECT_FALSE(CanUseAmx(MakeConvShape(1, 9, 9, 4000, 64, 3)));                // sums past 32 bits
  const ConvShape shape = MakeConvShape(1, 5, 7, 64, 32, 1);
  const ConvData data({shape});
  EXPECT_NE(MakeConv(shape, data, true).Describe().find("digits"), std::string::npos);
  EXPECT_EQ(MakeConv(shape, data, false).Describe().find("digits"), std::string::npos);
  ForEachTarget([&](const std::string& target) {
    EXPECT_EQ(GetAmxOps() != nullptr, target == "AMX");
    EXPECT_EQ(TargetName(), target);
  });
}

// Chunks, tiles and blocks, each whole and with a rest.
TEST_F(Amx, Sizes) {
  for (const int64_t channels : {63, 64, 65, 128, 300}) {
    for (const int64_t filters : {15, 16, 17, 32, 33, 64, 80}) {
      for (const int64_t pixels : {1, 15, 16, 17, 32, 33, 95}) {
        const ConvShape shape = MakeConvShape(1, 1, pixels, channels, filters, 1);
        ConvData data({shape});
        Convolve(shape, data);
        data.Check(3e-6);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// A channel that is large where its weights are small counts as much as any other.
TEST_F(Amx, BalancesChannels) {
  const ConvShape shape = MakeConvShape(1, 6, 7, 200, 48, 1);
  ConvData data({shape});
  std::vector<float> weights(data.weights.data<float>(), data.weights.data<float>() + data.weights.size());
  for (size_t i = 0; i < data.src.size(); ++i) {
    const auto channel = i % 200;
    data.src[i] *= std::exp2(static_cast<float>(channel % 41) - 20);
  }
  for (size_t i = 0; i < weights.size(); ++i) weights[i] *= std::exp2(20 - static_cast<float>(i % 200 % 41));
  data.weights = Tensor::From<float>(Shape(data.weights.shape()), std::span<const float>(weights));
  Convolve(shape, data);
  data.Check(3e-6);
}

TEST_F(Amx, TinyAndHugeNumbers) {
  for (const float scale : {1e-30f, 1e-20f, 1e30f}) {
    const ConvShape shape = MakeConvShape(1, 4, 5, 70, 20, 1);
    ConvCase test{shape};
    test.bias = false;
    ConvData data(test);
    for (float& x : data.src) x *= scale;
    data.bias = Tensor::From<float>({20}, std::vector<float>(20, 0.0f));
    Convolve(shape, data);
    data.Check(3e-6);
  }
}

// Rows and columns with what is not finite are NaN, the others as they would be.
TEST_F(Amx, NanAndInfinity) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    const ConvShape shape = MakeConvShape(1, 1, 40, 70, 40, 1);
    ConvData good({shape}), data({shape});
    Convolve(shape, good);
    data.src[static_cast<size_t>(17 * data.src_pitch + 69)] = bad;
    std::vector<float> weights(data.weights.data<float>(), data.weights.data<float>() + data.weights.size());
    weights[33 * 70 + 3] = bad;
    data.weights = Tensor::From<float>(Shape(data.weights.shape()), std::span<const float>(weights));
    Convolve(shape, data);
    for (int64_t pixel = 0; pixel < 40; ++pixel) {
      for (int64_t filter = 0; filter < 40; ++filter) {
        const auto at = static_cast<size_t>(pixel * data.dst_pitch + filter);
        if (pixel == 17 || filter == 33) {
          EXPECT_TRUE(std::isnan(data.dst[at])) << pixel << " " << filter;
        } else {
          EXPECT_NEAR(data.dst[at], good.dst[at], 1e-5) << pixel << " " << filter;
        }
      }
    }
  }
}

TEST_F(Amx, NothingButZeros) {
  const ConvShape shape = MakeConvShape(1, 3, 3, 64, 20, 1);
  ConvData data({shape});
  std::fill(data.src.begin(), data.src.end(), 0.0f);
  data.weights = Tensor::From<float>({20, 64, 1, 1}, std::vector<float>(20 * 64, 0.0f));
  Convolve(shape, data);
  for (int64_t pixel = 0; pixel < 9; ++pixel) {
    for (int64_t k = 0; k < 20; ++k) {
      EXPECT_EQ(data.dst[static_cast<size_t>(pixel * data.dst_pitch + k)], data.bias.data<float>()[k]);
    }
  }
}

}  // namespace
}  // namespace crease::test
