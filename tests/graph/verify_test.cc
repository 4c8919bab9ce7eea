// SPDX-License-Identifier: Apache-2.0
// What verification takes for rounding, and what it does not.
#include "graph/verify.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graph/passes/passes.h"

namespace crease {
namespace {

Tensor Doubles(const std::vector<double>& values) {
  return Tensor::From<double>({static_cast<int64_t>(values.size())}, std::span<const double>(values));
}

double Difference(const std::vector<double>& want, const std::vector<double>& got) {
  return DifferenceInDeviations(Doubles(want), Doubles(got));
}

TEST(DifferenceInDeviations, OfOrdinaryOutputs) {
  EXPECT_DOUBLE_EQ(Difference({-1, 1, -1, 1}, {-1, 1.5, -1, 1}), 0.5);
  EXPECT_DOUBLE_EQ(Difference({9, 11, 9, 11}, {9, 11.5, 9, 11}), 0.5);
  EXPECT_EQ(Difference({1, NAN, INFINITY}, {1, NAN, INFINITY}), 0);
  EXPECT_EQ(Difference({1, 2}, {1, NAN}), INFINITY);
  EXPECT_EQ(DifferenceInDeviations(Doubles({1, 2}), Doubles({1})), INFINITY);
}

// The deviation of equal numbers is 0, or what the rounding of their mean makes of it.
TEST(DifferenceInDeviations, OfOutputsThatHardlyVary) {
  const double tolerance = VerifyLimits{}.tolerance;
  const std::vector<double> same(27, 0.050056756);
  EXPECT_LT(Difference(same, std::vector<double>(27, 0.050056756 + 1.9e-8)), tolerance);
  EXPECT_GT(Difference(same, std::vector<double>(27, 0.06)), 1);
  std::vector<double> nearly = same, moved = same;
  nearly[3] += 1e-15;
  moved[5] += 1.9e-8;
  EXPECT_LT(Difference(nearly, moved), tolerance);
  moved[5] += 1e-4;
  EXPECT_GT(Difference(nearly, moved), tolerance);
  EXPECT_GT(Difference(std::vector<double>(5, 0.0), std::vector<double>(5, 0.01)), tolerance);
}

TEST(DifferenceInDeviations, OfOneElementIsOfItsMagnitude) { EXPECT_NEAR(Difference({-200}, {-199}), 0.005, 1e-12); }

struct Layers {
  DType computes = DType::kFloat16, stored = DType::kFloat16;
  int count = 2;
  double beta = 0.3;  // of the last batch-norm's first channel
};

// Convolutions with a batch-norm and a rectifier each. Weights that are stored in another type are made float32 by
// nodes.
Graph Network(const Layers& layers) {
  constexpr int64_t kChannels = 8;
  GraphBuilder builder;
  int names = 0;
  double phase = 0;
  const auto constant = [&](const Shape& shape, double spread, double centre, double first = NAN) {
    std::vector<double> values(static_cast<size_t>(*ElementCount(shape)));
    for (double& v : values) v = centre + spread * std::sin(1.0 + 2.7 * ++phase);
    if (!std::isnan(first)) values[0] = first;
    const Tensor tensor = *Tensor::From<double>(shape, std::span<const double>(values)).ConvertedTo(layers.stored);
    const ValueId stored = builder.AddConstant("c" + std::to_string(++names), tensor);
    if (layers.stored == layers.computes) return stored;
    const ValueId negative = builder.Add("Neg", {stored}, "n" + std::to_string(names));
    return builder.Add("Cast", {negative}, "d" + std::to_string(names), {MakeAttr("to", int64_t{1})});
  };
  ValueId x = builder.AddInput("x", TensorType::Of(layers.computes, {1, kChannels, 8, 8}));
  for (int i = 0; i < layers.count; ++i) {
    const std::string layer = std::to_string(i);
    const double first = i + 1 == layers.count ? layers.beta : NAN;
    x = builder.Add("Conv", {x, constant({kChannels, kChannels, 1, 1}, 0.5, 0)}, "conv" + layer);
    x = builder.Add("BatchNormalization",
                    {x, constant({kChannels}, 0.4, 1), constant({kChannels}, 0.4, 0, first),
                     constant({kChannels}, 0.4, 0), constant({kChannels}, 0.4, 1)},
                    "bn" + layer);
    x = builder.Add("Relu", {x}, "relu" + layer);
  }
  builder.AddOutput(x);
  return *std::move(builder).Build();
}

Graph Folded(Graph graph) {
  EXPECT_TRUE(RunPasses(graph, FoldingPasses()).ok());
  return graph;
}

VerifyLimits Of(const Layers& layers) {
  const Graph graph = Network(layers);
  return LimitsOf(graph, Folded(graph));
}

TEST(LimitsOf, DependOnTheTypesComputedIn) {
  constexpr DType kF32 = DType::kFloat32, kBF16 = DType::kBFloat16;
  EXPECT_EQ(Of({.computes = kF32, .stored = kF32}).tolerance, 1e-3);
  EXPECT_EQ(Of({.computes = kF32}).tolerance, 1e-3) << "only the file's weights are float16";
  const double half = Of({}).tolerance;
  EXPECT_NEAR(half, 24 * 0x1p-11 * std::sqrt(6.0), 1e-12);
  EXPECT_DOUBLE_EQ(Of({.count = 8}).tolerance, 2 * half);
  EXPECT_DOUBLE_EQ(Of({.computes = kBF16, .stored = kBF16}).tolerance, 8 * half);
  EXPECT_EQ(Of({.computes = kBF16, .stored = kBF16, .count = 50}).tolerance, 0.5);
  EXPECT_EQ(LimitsOf(Network({.computes = kF32, .stored = kF32}), Network({})).tolerance, half) << "of either";
}

TEST(CompareInDouble, TellsAWrongFoldInFloat16FromRounding) {
  const Graph network = Network({});
  const VerifyLimits limits = LimitsOf(network, Folded(network));
  const TensorMap inputs = *RandomInputs(network, {});
  const Result<Comparison> right = CompareInDouble(network, Folded(network), inputs, limits);
  ASSERT_TRUE(right.ok()) << right.error().ToString();
  EXPECT_GT(right->worst(), 0);
  EXPECT_LT(right->worst(), limits.tolerance);
  EXPECT_EQ(right->first.name, "");
  const Result<Comparison> wrong = CompareInDouble(network, Folded(Network({.beta = 0.4})), inputs, limits);
  ASSERT_TRUE(wrong.ok()) << wrong.error().ToString();
  EXPECT_GT(wrong->worst(), limits.tolerance);
  EXPECT_NE(wrong->first.name, "");
}

}  // namespace
}  // namespace crease
