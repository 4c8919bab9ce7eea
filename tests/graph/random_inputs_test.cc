// SPDX-License-Identifier: Apache-2.0
// Which sizes inputs get where the file leaves them open.
#include "graph/random_inputs.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/op.h"

namespace crease {
namespace {

TensorType Typed(std::vector<Dim> dims) { return {DType::kFloat32, true, std::move(dims)}; }
Dim Open(std::string symbol = "") { return {Dim::kUnknown, std::move(symbol)}; }
Dim Fixed(int64_t size) { return {size, ""}; }

// Inputs of these types, and nothing that minds their sizes.
Graph Inputs(const std::map<std::string, std::vector<Dim>>& inputs) {
  GraphBuilder builder;
  for (const auto& [name, dims] : inputs) {
    builder.AddOutput(builder.Add("Relu", {builder.AddInput(name, Typed(dims))}, name + "_out"));
  }
  return *std::move(builder).Build();
}

std::map<std::string, Shape> ShapesOf(const Graph& graph, const RandomInputOptions& options = {}) {
  std::map<std::string, Shape> shapes;
  const Result<TensorMap> inputs = RandomInputs(graph, options);
  EXPECT_TRUE(inputs.ok()) << inputs.error().ToString();
  if (!inputs.ok()) return shapes;
  for (const auto& [name, tensor] : *inputs) shapes[name] = tensor.shape();
  return shapes;
}

using Shapes = std::map<std::string, Shape>;

TEST(RandomInputs, OpenAxesOfOneSymbolHaveOneSize) {
  EXPECT_EQ(ShapesOf(Inputs({{"x", {Open(), Fixed(3), Open(), Open("w")}}})), (Shapes{{"x", {1, 3, 64, 64}}}));
  // One name for all that is open.
  EXPECT_EQ(ShapesOf(Inputs({{"x", {Open("N"), Fixed(3), Open("N"), Open("N")}}})), (Shapes{{"x", {1, 3, 64, 64}}}));
  const Graph graph = Inputs({{"a", {Fixed(2), Open("n"), Open("t")}}, {"b", {Open("n"), Open("t")}}});
  EXPECT_EQ(ShapesOf(graph), (Shapes{{"a", {2, 1, 64}}, {"b", {1, 64}}}));
  RandomInputOptions options;
  options.batch = 5;
  EXPECT_EQ(ShapesOf(graph, options), (Shapes{{"a", {5, 5, 64}}, {"b", {5, 64}}}));
}

TEST(RandomInputs, SizesThatAnotherNetworkFixes) {
  const Graph graph = Inputs({{"a", {Open("n"), Open("t")}}, {"b", {Open("n"), Open("t"), Open()}}});
  const Graph other = Inputs({{"a", {Open("n"), Open()}}, {"b", {Fixed(4), Fixed(7), Fixed(9)}}});
  RandomInputOptions options;
  options.other = &other;
  EXPECT_EQ(ShapesOf(graph, options), (Shapes{{"a", {4, 7}}, {"b", {4, 7, 9}}}));
}

// A pool that takes no fewer pixels.
Graph Needs(int64_t pixels) {
  GraphBuilder builder;
  const ValueId x = builder.AddInput("x", Typed({Open(), Fixed(1), Open()}));
  const ValueId pool = builder.Add("MaxPool", {x}, "y", {MakeAttr("kernel_shape", std::vector<int64_t>{pixels})});
  builder.AddOutput(pool);
  return *std::move(builder).Build();
}

TEST(RandomInputs, TheFirstSizeThatFits) {
  EXPECT_EQ(ShapesOf(Needs(64)), (Shapes{{"x", {1, 1, 64}}}));
  EXPECT_EQ(ShapesOf(Needs(65)), (Shapes{{"x", {1, 1, 128}}}));
  RandomInputOptions options;
  const Graph other = Needs(225);
  options.other = &other;
  EXPECT_EQ(ShapesOf(Needs(65), options), (Shapes{{"x", {1, 1, 256}}})) << "both networks must take it";
}

TEST(RandomInputs, NoSizeFits) {
  const Result<TensorMap> inputs = RandomInputs(Needs(300), {});
  ASSERT_FALSE(inputs.ok());
  const std::string text = inputs.error().ToString();
  for (const char* part : {"64, 128, 224, 256", "--input", "MaxPool"}) EXPECT_NE(text.find(part), text.npos) << text;
}

}  // namespace
}  // namespace crease
