// SPDX-License-Identifier: Apache-2.0
// Identity elimination, constant folding, dead code, the driver, and the table of reason codes.
#include <fstream>
#include <sstream>

#include "graph/passes/reason_codes.h"
#include "tests/support/fold_net.h"
#include "tests/support/paths.h"

namespace crease {
namespace {

using testing::FoldNet;
using testing::IntList;

size_t NodesAfter(FoldNet net, ValueId output, std::span<const Pass> passes, const DriverOptions& options = {}) {
  net.builder.AddOutput(output);
  Result<Graph> graph = std::move(net.builder).Build();
  EXPECT_TRUE(graph.ok());
  const Graph before = *graph;
  Result<PassLog> log = RunPasses(*graph, passes, options);
  EXPECT_TRUE(log.ok()) << (log.ok() ? "" : log.error().ToString());
  Result<std::vector<Tensor>> want = Interpret(before, net.inputs), got = Interpret(*graph, net.inputs);
  EXPECT_TRUE(want.ok() && got.ok());
  for (int64_t i = 0; want.ok() && got.ok() && i < (*want)[0].size(); ++i) {
    EXPECT_DOUBLE_EQ((*want)[0].AsDouble(i), (*got)[0].AsDouble(i));
  }
  return graph->topological_order().size();
}

TEST(Housekeeping, NodesWithoutEffectGo) {
  FoldNet n;
  ValueId y = n.Op("Identity", {n.Input({2, 3, 4, 4})});
  y = n.Op("Dropout", {y});
  y = n.Op("Reshape", {y, n.Ints({2, 3, 4, 4})});
  y = n.Op("Transpose", {y}, {MakeAttr("perm", IntList{0, 1, 2, 3})});
  y = n.Op("Pad", {y, n.Ints({0, 0, 0, 0, 0, 0, 0, 0})});
  y = n.Op("Slice", {y, n.Ints({0}), n.Ints({100}), n.Ints({1})});
  y = n.Op("Mul", {y, n.Given({}, {1.0})});
  y = n.Op("Relu", {y});
  y = n.Op("Identity", {y});
  EXPECT_EQ(NodesAfter(std::move(n), y, RuntimePasses()), 1u);
}

TEST(Housekeeping, NodesWithEffectStay) {
  FoldNet n;
  ValueId y = n.Op("Reshape", {n.Input({2, 3, 4, 4}), n.Ints({2, 4, 3, 4})});
  y = n.Op("Transpose", {y}, {MakeAttr("perm", IntList{0, 2, 1, 3})});
  y = n.Op("Slice", {y, n.Ints({-1}), n.Ints({-100}), n.Ints({1}), n.Ints({-1})});
  EXPECT_EQ(NodesAfter(std::move(n), y, RuntimePasses()), 3u);
}

TEST(Housekeeping, ConstantsAreEvaluated) {
  FoldNet n;
  const ValueId c = n.Op("Sqrt", {n.Op("Add", {n.Constant({3, 1, 1}, 0.2, 2.0), n.Given({}, {0.5})})});
  const ValueId y = n.Op("Pow", {n.Op("Sigmoid", {n.Input({2, 3, 4, 4})}), c});
  EXPECT_EQ(NodesAfter(std::move(n), y, RuntimePasses()), 2u);
}

// 10f * 0.7f is 7 in float32; Floor of the exact product would be 6.
TEST(Housekeeping, ConstantsAreRoundedAtEachNode) {
  GraphBuilder builder;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {2}));
  const ValueId ten = builder.AddConstant("ten", Tensor::From<float>({1}, {10.0f}));
  const ValueId scale = builder.AddConstant("scale", Tensor::From<float>({1}, {0.7f}));
  const ValueId seven = builder.Add("Floor", {builder.Add("Mul", {ten, scale}, "product")}, "seven");
  builder.AddOutput(builder.Add("Pow", {x, seven}, "y"));
  Graph graph = *std::move(builder).Build();
  const std::map<std::string, Tensor> inputs{{"x", Tensor::From<float>({2}, {1.0f, 2.0f})}};
  EXPECT_EQ((*Interpret(graph, inputs))[0].AsDouble(1), 128.0);
  ASSERT_TRUE(RunPasses(graph, RuntimePasses()).ok());
  ASSERT_EQ(graph.topological_order().size(), 1u);
  EXPECT_EQ((*Interpret(graph, inputs))[0].AsDouble(1), 128.0);
}

TEST(Driver, StopsAfterSteps) {
  FoldNet n;
  const ValueId y = n.Bn(n.Conv(n.Input({1, 2, 5, 5}), 2, 3), 3);
  EXPECT_EQ(NodesAfter(std::move(n), y, FoldingPasses(), {.max_steps = 0}), 2u);
}

TEST(ReasonCodes, AreUniqueAndExplained) {
  std::string last;
  for (const ReasonCode& row : ReasonCodes()) {
    EXPECT_EQ(FindReasonCode(row.code), &row) << row.code;
    EXPECT_FALSE(row.meaning.empty()) << row.code;
    EXPECT_EQ(row.remedy.empty(), row.applied) << row.code;
  }
}

TEST(ReasonCodes, TableInTheDocumentsAgrees) {
  std::ifstream file(test::SourceDir() / "docs/folding.md");
  ASSERT_TRUE(file);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(ReasonCodesMarkdown()), std::string::npos) << "docs/folding.md should have:\n"
                                                                       << ReasonCodesMarkdown();
}

}  // namespace
}  // namespace crease
