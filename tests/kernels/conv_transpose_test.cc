// SPDX-License-Identifier: Apache-2.0
// Transposed convolutions against the definition in double precision. Bound: sums of up to 1,200 products of values up
// to 1 and weights up to 1/4, and an activation: 3e-5 of the largest magnitude, about 1.
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

using Ints64 = std::vector<int64_t>;

struct Window {
  Ints64 kernel, strides = {1, 1}, pads = {0, 0, 0, 0}, output_padding = {0, 0}, dilations = {1, 1};
};

KernelCase Transposed(const Shape& x, int64_t filters, const Window& window, int64_t groups = 1, bool bias = true) {
  KernelCase c;
  c.node = MakeNode("ConvTranspose",
                    {MakeAttr("strides", window.strides), MakeAttr("pads", window.pads), MakeAttr("group", groups),
                     MakeAttr("output_padding", window.output_padding), MakeAttr("dilations", window.dilations)});
  Shape weights = {x[1], filters / groups};
  weights.insert(weights.end(), window.kernel.begin(), window.kernel.end());
  c.inputs = {RandomTensor(x, 1, -1, 1), RandomTensor(weights, 2, -0.25f, 0.25f)};
  if (bias) c.inputs.push_back(RandomTensor({filters}, 3, -1, 1));
  for (size_t i = 0; i < c.inputs.size(); ++i) c.node.inputs.push_back(static_cast<ValueId>(i));
  c.constant = {false, true, true};
  c.relative = 1e-5;
  c.absolute = 3e-5;
  return c;
}

// By both kernels, where both can.
void Check(KernelCase c) {
  CheckLayouts(c, "gemm", false);
  c.measured = c.channels_last = true;
  const std::string refusal = Refusal(c, "phases");
  if (refusal.empty()) return CheckLayouts(c, "phases", false);
  EXPECT_TRUE(refusal == "groups > 1" || refusal == "pixels without a tap" ||
              refusal == "pads cut off whole source rows or columns")
      << refusal;
}

TEST(ConvTranspose, KernelsStridesPadsAndDilations) {
  const std::vector<Window> windows = {
      {.kernel = {1, 1}},
      {.kernel = {2, 2}, .strides = {2, 2}},
      {.kernel = {3, 3}},
      {.kernel = {3, 3}, .pads = {1, 1, 1, 1}},
      {.kernel = {4, 4}, .strides = {2, 2}, .pads = {1, 1, 1, 1}},
      {.kernel = {3, 3}, .strides = {2, 2}, .pads = {1, 1, 1, 1}, .output_padding = {1, 1}},
      {.kernel = {2, 5}, .strides = {3, 2}, .pads = {0, 3, 1, 0}, .output_padding = {2, 1}},
      {.kernel = {1, 1}, .strides = {3, 4}, .output_padding = {2, 3}},
      {.kernel = {5, 3}, .strides = {2, 3}, .pads = {4, 2, 3, 0}, .dilations = {2, 3}},
      {.kernel = {3, 2}, .strides = {4, 6}, .pads = {1, 0, 0, 5}, .output_padding = {1, 2}, .dilations = {6, 4}},
      {.kernel = {9, 9}, .strides = {3, 3}, .pads = {4, 4, 4, 4}, .output_padding = {2, 2}},
      {.kernel = {4, 4}, .strides = {5, 1}, .pads = {6, 1, 6, 1}},
  };
  for (const Window& window : windows) {
    Check(Transposed({2, 17, 7, 5}, 19, window));
    Check(Transposed({1, 3, 11, 13}, 2, window, 1, false));
  }
}

TEST(ConvTranspose, ChannelsAndFilters) {
  for (const int64_t channels : {1, 2, 16, 33, 100}) {
    for (const int64_t filters : {1, 3, 8, 16, 24, 50}) {
      Check(Transposed({1, channels, 6, 4}, filters, {.kernel = {2, 2}, .strides = {2, 2}}));
      Check(Transposed({2, channels, 3, 5}, filters, {.kernel = {3, 4}, .strides = {2, 2}, .pads = {1, 1, 1, 1}}));
    }
  }
}

TEST(ConvTranspose, Sizes) {
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 9}, {9, 1}, {2, 3}, {31, 2}}) {
    for (const int64_t batch : {1, 3}) {
      Check(Transposed({batch, 9, height, width}, 12, {.kernel = {4, 4}, .strides = {2, 2}, .pads = {1, 1, 1, 1}}));
      Check(Transposed({batch, 9, height, width}, 12, {.kernel = {3, 3}, .strides = {2, 2}}));
    }
  }
}

// Products of a few rows at a time, as their sum is larger than caches.
TEST(ConvTranspose, Bands) {
  KernelCase c = Transposed({2, 5, 40, 17}, 24, {.kernel = {4, 4}, .strides = {2, 2}, .pads = {1, 1, 1, 1}});
  Check(c);
  c = Transposed({1, 4, 45, 20}, 40, {.kernel = {5, 3}, .strides = {2, 1}, .dilations = {1, 2}});
  c.epilogue.activation = Activation::kSilu;
  Check(c);
}

// Weights beyond L2 on the machines that we know.
TEST(ConvTranspose, LargeWeights) {
  Check(Transposed({1, 300, 4, 4}, 200, {.kernel = {4, 4}, .strides = {2, 2}, .pads = {1, 1, 1, 1}}));
}

TEST(ConvTranspose, Groups) {
  for (const int64_t groups : {2, 3}) {
    Check(Transposed({2, 8 * groups, 5, 6}, 17 * groups, {.kernel = {2, 2}, .strides = {2, 2}}, groups));
    Check(Transposed({1, 17 * groups, 5, 6}, 16 * groups, {.kernel = {3, 3}, .strides = {2, 2}}, groups));
  }
}

TEST(ConvTranspose, OneSpatialAxis) {
  const Window window{{4}, {2}, {1, 1}, {1}, {1}};
  for (const int64_t length : {1, 2, 50}) Check(Transposed({2, 9, length}, 20, window));
}

TEST(ConvTranspose, OutputShapeAndAutoPad) {
  for (const char* pad : {"SAME_UPPER", "SAME_LOWER"}) {
    KernelCase c = Transposed({1, 6, 5, 4}, 7, {.kernel = {3, 4}, .strides = {2, 3}});
    c.node.attributes = {MakeAttr("strides", Ints64{2, 3}), MakeAttr("auto_pad", pad)};
    Check(c);
  }
  KernelCase c = Transposed({1, 6, 5, 4}, 7, {.kernel = {3, 3}, .strides = {2, 2}});
  c.node.attributes = {MakeAttr("strides", Ints64{2, 2}), MakeAttr("output_shape", Ints64{9, 11})};
  Check(c);
}

TEST(ConvTranspose, Epilogues) {
  for (int i = 0; i <= static_cast<int>(Activation::kMish); ++i) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      KernelCase c = Transposed({2, 6, 4, 23}, 21, {.kernel = {3, 2}, .strides = {2, 2}, .pads = {1, 0, 0, 1}});
      c.epilogue = {static_cast<Activation>(i), -0.25f, 0.75f, residual};
      if (residual != Residual::kNone) c.residual = RandomTensor(Define(c)->front().shape(), 5, -1, 1);
      Check(c);
    }
  }
}

TEST(ConvTranspose, NanStaysNan) {
  KernelCase c = Transposed({1, 3, 4, 4}, 5, {.kernel = {2, 2}, .strides = {2, 2}});
  c.inputs[0].mutable_data<float>()[5] = std::nanf("");
  c.epilogue.activation = Activation::kRelu;
  Check(c);
}

TEST(ConvTranspose, Refusals) {
  const auto refusal = [](KernelCase c, const char* kernel) {
    c.channels_last = true;
    return Refusal(c, kernel);
  };
  KernelCase c = Transposed({1, 32, 9, 9}, 32, {.kernel = {2, 2}, .strides = {2, 2}});
  EXPECT_EQ(refusal(c, "phases"), "");
  for (const char* kernel : {"gemm", "phases"}) {
    c.constant = {false, false, true};
    EXPECT_EQ(refusal(c, kernel), "weights not a constant of f32");
    c.constant = {false, true, false};
    EXPECT_EQ(refusal(c, kernel), "bias not a constant of f32");
  }
  const auto phases = [&](const Shape& x, int64_t filters, const Window& window, int64_t groups = 1) {
    return refusal(Transposed(x, filters, window, groups), "phases");
  };
  EXPECT_EQ(phases({1, 32, 9, 9}, 32, {.kernel = {2, 2}, .strides = {2, 2}}, 2), "groups > 1");
  EXPECT_EQ(phases({1, 32, 9, 9}, 32, {.kernel = {2, 2}, .strides = {3, 2}}), "pixels without a tap");
  EXPECT_EQ(phases({1, 32, 9, 9}, 32, {.kernel = {2, 2}, .strides = {2, 2}, .pads = {3, 0, 0, 0}}),
            "pads cut off whole source rows or columns");
  EXPECT_EQ(phases({1, 32, 9, 9}, 1, {.kernel = {2, 2}, .strides = {2, 2}}), "too few filters or pixels to gain");
  EXPECT_EQ(phases({1, 32, 1, 1}, 32, {.kernel = {4, 4}}), "too few filters or pixels to gain");
  EXPECT_EQ(phases({1, 4, 9, 9}, 32, {.kernel = {9, 9}, .strides = {9, 9}}), "large strides");
  EXPECT_EQ(refusal(Transposed({1, 1, 2}, 1, {{1}, {5000}, {0, 0}, {0}, {1}}), "gemm"), "large strides");
  EXPECT_EQ(refusal(Transposed({1, 1, 1, 2}, 1, {.kernel = {1, 300}}), "gemm"), "");  // upright
  EXPECT_EQ(refusal(Transposed({1, 1, 2, 2}, 1, {.kernel = {1, 300}}), "gemm"), "many taps at one pixel");
  EXPECT_EQ(refusal(Transposed({1, 1, 64, 70}, 1, {.kernel = {64, 64}}), "gemm"), "products of a few rows too large");
}

}  // namespace
}  // namespace crease::test
