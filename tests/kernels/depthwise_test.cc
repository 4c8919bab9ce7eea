// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise.h"

#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

// Rounding of at most 81 products in f32, with a margin.
constexpr double kBound = 4e-6;

void RunCase(const ConvCase& test, int workers, ConvData& data) {
  auto conv = DepthwiseConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr, test.epilogue, nullptr);
  ASSERT_TRUE(conv.ok());
  ThreadsExecutor executor(workers);
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
}

void CheckOnEveryTarget(const std::vector<ConvCase>& cases) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      ConvData one(test), three(test);
      RunCase(test, 1, one);
      one.Check(kBound);
      RunCase(test, 3, three);
      ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

ConvCase Depthwise(int64_t batch, int64_t h, int64_t w, int64_t c, int64_t kernel, int64_t stride = 1, int64_t pad = -1,
                   int64_t dilation = 1) {
  return {MakeConvShape(batch, h, w, c, c, kernel, stride, pad, dilation, c)};
}

TEST(Depthwise, KernelsAndStrides) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {1, 2, 3, 4, 5, 7, 9}) {
    for (const int64_t stride : {1, 2, 3}) {
      for (const int64_t c : {1, 4, 16, 24, 37}) cases.push_back(Depthwise(1, 9, 13, c, kernel, stride));
      cases.push_back(Depthwise(2, 10, 9, 33, kernel, stride, 0));
      cases.push_back(Depthwise(1, 9, 11, 16, kernel, stride, kernel));  // whole windows of padding
    }
    cases.push_back(Depthwise(1, 20, 19, 20, kernel, 1, -1, 2));
    cases.push_back(Depthwise(1, 20, 19, 20, kernel, 2, -1, 2));
  }
  CheckOnEveryTarget(cases);
}

TEST(Depthwise, Widths) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {3, 5, 7}) {
    for (int64_t w = 1; w <= 26; ++w) {
      cases.push_back(Depthwise(1, 3, w, 16, kernel, 1));
      cases.push_back(Depthwise(1, 3, w, 16, kernel, 2));
    }
    for (const int64_t w : {28, 32, 40, 57, 80}) {  // several tiles at once
      for (const int64_t stride : {1, 2}) {
        for (const int64_t pad : {-1, 0, 1}) {
          cases.push_back(Depthwise(2, 8, w, 21, kernel, stride, pad));
          cases.back().epilogue = {Activation::kClip, -0.5f, 6, Residual::kBeforeActivation};
          cases.push_back(Depthwise(1, 8, w, 32, kernel, stride, pad));
          cases.push_back(Depthwise(1, 8, w, 7, kernel, stride, pad));
        }
      }
    }
  }
  cases.push_back(Depthwise(1, 16, 56, 150, 3));  // several blocks of channels
  CheckOnEveryTarget(cases);
}

TEST(Depthwise, EpiloguesAndPitches) {
  std::vector<ConvCase> cases;
  for (int i = 0; i <= static_cast<int>(Activation::kMish); ++i) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      for (const bool in_place : {false, true}) {
        ConvCase test = Depthwise(1, 5, 9, 21, 3);
        test.epilogue = {static_cast<Activation>(i), -0.25f, 0.75f, residual};
        test.in_place = in_place && residual != Residual::kNone;
        test.src_extra = 3;
        test.dst_extra = 5;
        test.bias = i % 2 == 0;
        cases.push_back(test);
      }
    }
  }
  CheckOnEveryTarget(cases);
}

}  // namespace
}  // namespace crease::test
