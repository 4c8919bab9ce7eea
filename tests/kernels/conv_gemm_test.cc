// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_gemm.h"

#include <algorithm>

#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

// Rounding of at most ~2,000 products in f32: 1e-5 of the rms leaves a margin of 5.
constexpr double kBound = 1e-5;

void RunCase(const ConvCase& test, int workers, ConvData& data) {
  const Tensor* bias = test.bias ? &data.bias : nullptr;
  const MatrixSource matrix =
      test.planar ? PlanarMatrix(test.shape, data.weights, bias) : ConvMatrix(test.shape, data.weights, bias);
  ThreadsExecutor executor(workers);
  GemmConv::Options options;
  options.epilogue = test.epilogue;
  options.prologue = data.prologue;
  options.src_pitch = data.src_pitch;
  options.workers = workers;
  options.executor = &executor;
  options.planar = test.planar;
  options.amx = !test.planar;  // where the target has it
  auto conv = GemmConv::Make(test.shape, matrix, options);
  ASSERT_TRUE(conv.ok());
  FloatBuffer scratch(conv->scratch_bytes(workers) / sizeof(float));
  const std::vector<std::vector<ConstBytes>> fetch = SomethingToFetch(workers);
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data()), fetch}, data.operands());
}

void CheckOnEveryTarget(const std::vector<ConvCase>& cases, double bound = kBound) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      ConvData one(test), three(test);
      RunCase(test, 1, one);
      one.Check(bound);
      RunCase(test, 3, three);
      ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(ConvGemm, Pointwise) {
  std::vector<ConvCase> cases;
  for (const int64_t c : {1, 3, 16, 37}) {
    for (const int64_t k : {1, 7, 8, 15, 16, 17, 33, 48, 100}) {
      cases.push_back({MakeConvShape(1, 5, 7, c, k, 1)});
      cases.push_back({MakeConvShape(2, 1, 1, c, k, 1)});
    }
  }
  for (int64_t w = 1; w <= 31; ++w) cases.push_back({MakeConvShape(1, 1, w, 19, 40, 1)});
  cases.push_back({MakeConvShape(1, 14, 14, 512, 96, 1)});  // pixels alias in L1: copied
  CheckOnEveryTarget(cases);
}

// Summed in pieces: a chain of 9,000 products is 4.8e-6 off here.
TEST(ConvGemm, LongSums) {
  constexpr double kLongBound = 3e-6;
  std::vector<ConvCase> cases;
  cases.push_back({MakeConvShape(1, 7, 7, 1000, 40, 3)});  // a part of a row of taps
  cases.push_back({MakeConvShape(1, 9, 8, 70, 33, 7)});    // rows of taps
  cases.push_back({MakeConvShape(1, 4, 5, 8999, 17, 1)});
  for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
    for (const Activation activation : {Activation::kRelu, Activation::kSilu}) {
      if (residual == Residual::kAfterActivation && activation == Activation::kRelu) continue;  // in one piece
      ConvCase test{MakeConvShape(1, 5, 6, 1201, 35, 1)};
      test.epilogue = {activation, 0, 0, residual};
      test.dst_extra = 3;
      cases.push_back(test);
    }
  }
  CheckOnEveryTarget(cases, kLongBound);
}

TEST(ConvGemm, Spatial) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {2, 3, 5, 7}) {
    for (const int64_t stride : {1, 2, 3}) {
      cases.push_back({MakeConvShape(1, 13, 17, 3, 20, kernel, stride)});
      cases.push_back({MakeConvShape(2, 7, 7, 17, 33, kernel, stride)});
      cases.push_back({MakeConvShape(1, 9, 29, 5, 18, kernel, stride, 0)});
      cases.push_back({MakeConvShape(1, 9, 8, 5, 18, kernel, stride, kernel)});  // whole windows of padding
    }
    cases.push_back({MakeConvShape(1, 17, 15, 6, 18, kernel, 1, -1, 2)});
    cases.push_back({MakeConvShape(1, 17, 15, 6, 18, kernel, 2, -1, 3)});
  }
  cases.push_back({MakeConvShape(1, 10, 9, 8, 16, 1, 2)});
  cases.push_back({MakeConvShape(1, 10, 9, 8, 16, 1, 3, 1)});  // padded 1x1
  ConvCase below{MakeConvShape(1, 10, 9, 70, 33, 1, 2)};       // and padded below and on the right alone
  ++below.shape.out_height;
  ++below.shape.out_width;
  cases.push_back(below);
  ConvCase line{MakeConvShape(1, 1, 40, 6, 10, 3)};  // a 1-D convolution
  line.shape.kernel_h = line.shape.out_height = 1;
  line.shape.pad_top = 0;
  cases.push_back(line);
  cases.push_back({MakeConvShape(1, 8, 8, 256, 20, 3, 2)});  // pixels alias in L1: padded pitch
  CheckOnEveryTarget(cases);
}

TEST(ConvGemm, PlanarSource) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {1, 2, 3, 5, 7}) {
    for (const int64_t stride : {1, 2, 3}) {
      cases.push_back({MakeConvShape(1, 13, 37, 3, 20, kernel, stride)});
      cases.push_back({MakeConvShape(2, 7, 7, 4, 33, kernel, stride), {Activation::kSilu}});
      cases.push_back({MakeConvShape(3, 9, 8, 1, 18, kernel, stride, kernel)});  // whole windows of padding
      cases.push_back({MakeConvShape(1, 70, 229, 3, 16, kernel, stride)});       // several bands
      cases.back().dst_extra = 5;
    }
    cases.push_back({MakeConvShape(2, 17, 15, 2, 18, kernel, 2, 0, 2)});
  }
  for (const int64_t k : {9, 20, 40, 64}) {  // tiles of every width; more than 576 products, in pieces
    cases.push_back({MakeConvShape(1, 13, 37, 3, k, 3, 2)});
    cases.push_back({MakeConvShape(1, 15, 40, 4, k, 13)});
  }
  ConvCase line{MakeConvShape(1, 1, 40, 3, 10, 3)};  // a 1-D convolution
  line.shape.kernel_h = line.shape.out_height = 1;
  line.shape.pad_top = 0;
  cases.push_back(line);
  for (ConvCase& test : cases) test.planar = true;
  CheckOnEveryTarget(cases);
}

TEST(ConvGemm, Groups) {
  std::vector<ConvCase> cases;
  for (const int64_t group : {1, 3, 4, 8, 16, 24}) {
    cases.push_back({MakeConvShape(1, 9, 11, 3 * group, 3 * group, 3, 1, -1, 1, 3)});
    cases.push_back({MakeConvShape(1, 9, 11, 2 * group, 6 * group, 3, 2, -1, 1, 2)});
    cases.push_back({MakeConvShape(1, 5, 4, 4 * group, 2 * group, 1, 1, 0, 1, 2)});
  }
  // Each group is copied by itself: with its part of a prologue, for several panels, in several bands of two images.
  for (const bool prologue : {false, true}) {
    cases.push_back({MakeConvShape(2, 7, 6, 3 * 20, 3 * 150, 3, 1, -1, 1, 3), {Activation::kSilu}, true, prologue});
    cases.push_back({MakeConvShape(2, 20, 64, 2 * 70, 2 * 5, 3, 1, -1, 1, 2), {Activation::kRelu}, true, prologue});
    cases.push_back({MakeConvShape(1, 8, 9, 5 * 12, 5 * 16, 3, 2, -1, 2, 5)});
    cases.back().prologue = prologue;
    cases.back().src_extra = 3;
  }
  CheckOnEveryTarget(cases);
}

TEST(ConvGemm, Epilogues) {
  std::vector<ConvCase> cases;
  for (int i = 0; i <= static_cast<int>(Activation::kMish); ++i) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      for (const bool in_place : {false, true}) {
        ConvCase test{MakeConvShape(1, 7, 5, 12, 21, 1)};
        test.epilogue = {static_cast<Activation>(i), -0.25f, 0.75f, residual};
        test.in_place = in_place && residual != Residual::kNone;
        test.dst_extra = 5;
        test.bias = i % 2 == 0;
        cases.push_back(test);
      }
    }
  }
  CheckOnEveryTarget(cases);
}

// More tiles in a call than one buffer of sums holds, of two sizes, with a last vector of every kind.
TEST(ConvGemm, ManyTiles) {
  std::vector<ConvCase> cases;
  for (const int64_t filters : {9, 24, 33, 59, 64}) {
    for (const Activation activation : {Activation::kRelu, Activation::kClip, Activation::kSilu}) {
      for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
        ConvCase test{MakeConvShape(1, 14, 13, 20, filters, 1)};
        test.epilogue = {activation, -0.25f, 0.75f, residual};
        cases.push_back(test);
        test.shape = MakeConvShape(1, 5, 43, 7, filters, 3);
        cases.push_back(test);
      }
    }
  }
  CheckOnEveryTarget(cases);
}

// Every column once, in order; each part whole vectors, as many as the others or one more; panels as even as before.
TEST(ConvGemm, PanelsOfEvenParts) {
  for (const int lanes : {4, 8, 16}) {
    for (const int widest : {2, 3, 4}) {
      for (const int64_t parts : {1, 2, 3, 5}) {
        for (const int64_t columns : {1, 7, 16, 33, 96, 160, 368, 1000}) {
          SCOPED_TRACE(std::to_string(columns) + " columns in " + std::to_string(parts) + " parts, lanes " +
                       std::to_string(lanes) + ", widest " + std::to_string(widest));
          const int64_t vectors = (columns + lanes - 1) / lanes;
          std::vector<int64_t> borders(static_cast<size_t>(parts) + 1);
          for (int64_t i = 0; i <= parts; ++i) borders[static_cast<size_t>(i)] = vectors * i / parts;
          int64_t column = 0, group = 0, vector = 0;
          size_t offset = 0;
          for (const GemmPanel& panel : PlanPanels(3, columns, 10, lanes, widest, parts)) {
            EXPECT_EQ(panel.column, column);
            EXPECT_EQ(panel.group, group);
            EXPECT_GE(panel.offset, offset);
            EXPECT_TRUE(panel.vectors >= 1 && panel.vectors <= widest && panel.last >= 1 && panel.last <= lanes);
            const auto border = std::upper_bound(borders.begin(), borders.end(), vector);
            EXPECT_LE(vector + panel.vectors, *border) << "a panel of two parts";
            offset = panel.offset + static_cast<size_t>(10 * panel.vectors * lanes);
            vector += panel.vectors;
            column += (panel.vectors - 1) * lanes + panel.last;
            if (vector < vectors) continue;
            EXPECT_EQ(column, ++group * columns);
            vector = 0;
          }
          EXPECT_EQ(group, 3);
        }
      }
    }
  }
}

// By channels the widest worker has no more than its share of vectors, which panels of four would not allow.
TEST(ConvGemm, EvenSharesOfChannels) {
  std::vector<ConvCase> cases;
  for (const int64_t filters : {96, 100, 160, 161, 200}) cases.push_back({MakeConvShape(1, 3, 3, 512, filters, 1)});
  const ConvData data(cases.front());
  GemmConv::Options options;
  options.src_pitch = data.src_pitch;
  options.workers = 3;
  const auto conv =
      GemmConv::Make(cases.front().shape, ConvMatrix(cases.front().shape, data.weights, nullptr), options);
  ASSERT_TRUE(conv.ok());
  EXPECT_NE(conv->Describe().find("split by channels"), std::string::npos);
  CheckOnEveryTarget(cases);
}

TEST(ConvGemm, PitchesAndPrologue) {
  std::vector<ConvCase> cases;
  for (const int64_t kernel : {1, 3}) {
    for (const int64_t stride : {1, 2}) {
      ConvCase test{MakeConvShape(2, 9, 10, 21, 35, kernel, stride)};
      test.src_extra = 11;
      test.dst_extra = 7;
      cases.push_back(test);
      test.prologue = true;
      cases.push_back(test);
    }
  }
  CheckOnEveryTarget(cases);
}

}  // namespace
}  // namespace crease::test
