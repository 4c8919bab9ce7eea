// SPDX-License-Identifier: Apache-2.0
#include "graph/graph.h"

#include <gtest/gtest.h>

#include "graph/op.h"
#include "graph/patch.h"

namespace crease {
namespace {

TensorType Image() { return TensorType::Of(DType::kFloat32, {1, 3, 8, 8}); }

Graph ChainOfRelus(int length) {
  GraphBuilder builder;
  ValueId value = builder.AddInput("x", Image());
  for (int i = 0; i < length; ++i) value = builder.Add("Relu", {value}, "r" + std::to_string(i));
  builder.AddOutput(value);
  Result<Graph> graph = std::move(builder).Build();
  EXPECT_TRUE(graph.ok());
  return std::move(graph).value();
}

TEST(Graph, SortsNodesAndKeepsTheFilesOrderAmongEquals) {
  GraphBuilder builder;
  const ValueId x = builder.AddInput("x", Image());
  const ValueId late = builder.GetOrAddValue("late");
  const ValueId sum = builder.Add("Add", {x, late}, "sum");
  Node relu;
  relu.op_type = "Relu";
  relu.inputs = {x};
  relu.outputs = {late};
  builder.AddNode(relu);
  builder.AddOutput(sum);
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->topological_order(), (std::vector<NodeId>{1, 0}));
  EXPECT_EQ(graph->consumers(x).size(), 2u);
  EXPECT_EQ(graph->use_count(sum), 1);
  EXPECT_EQ(graph->producer(late), 1);
}

TEST(Graph, PrintsTheCycle) {
  GraphBuilder builder;
  const ValueId x = builder.AddInput("x", Image());
  const ValueId b = builder.GetOrAddValue("b");
  const ValueId a = builder.Add("Add", {x, b}, "a");
  Node back;
  back.op_type = "Relu";
  back.name = "back";
  back.inputs = {a};
  back.outputs = {b};
  builder.AddNode(back);
  builder.AddOutput(a);
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_FALSE(graph.ok());
  EXPECT_NE(graph.error().message.find("cycle"), std::string::npos);
  EXPECT_NE(graph.error().message.find("Relu 'back'"), std::string::npos);
  EXPECT_NE(graph.error().message.find("Add 'a'"), std::string::npos);
}

TEST(Graph, NamesWhatIsUndefinedOrMadeTwice) {
  GraphBuilder undefined;
  undefined.AddOutput(undefined.Add("Relu", {undefined.GetOrAddValue("ghost")}, "y"));
  const Result<Graph> first = std::move(undefined).Build();
  ASSERT_FALSE(first.ok());
  EXPECT_NE(first.error().ToString().find("'ghost'"), std::string::npos);

  GraphBuilder twice;
  const ValueId x = twice.AddInput("x", Image());
  twice.Add("Relu", {x}, "y");
  twice.AddOutput(twice.Add("Abs", {x}, "y"));
  const Result<Graph> second = std::move(twice).Build();
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().ToString().find("'y' is made twice"), std::string::npos);

  GraphBuilder no_output;
  no_output.AddInput("x", Image());
  no_output.AddOutput(no_output.GetOrAddValue("nothing"));
  EXPECT_FALSE(std::move(no_output).Build().ok());
}

TEST(Graph, HoldsAChainOfThirtyThousandNodes) {
  const Graph graph = ChainOfRelus(30'000);
  EXPECT_EQ(graph.topological_order().size(), 30'000u);
}

TEST(Graph, FindsConstantsOfInitializersAndConstantNodes) {
  GraphBuilder builder;
  const ValueId w = builder.AddConstant("w", Tensor::Scalar(2.0f));
  Node constant;
  constant.op_type = "Constant";
  constant.attributes = {MakeAttr("value", Tensor::Scalar(3.0f))};
  const ValueId c = builder.GetOrAddValue("c");
  constant.outputs = {c};
  builder.AddNode(constant);
  const ValueId sum = builder.Add("Add", {w, c}, "sum");
  builder.AddOutput(sum);
  const Graph graph = std::move(builder).Build().value();
  ASSERT_NE(graph.constant(w), nullptr);
  ASSERT_NE(graph.constant(c), nullptr);
  EXPECT_EQ(graph.constant(c)->AsDouble(0), 3.0);
  EXPECT_EQ(graph.constant(sum), nullptr);
  EXPECT_EQ(graph.constant(kNone), nullptr);
}

TEST(Patch, ReplacesRemovesAndAdds) {
  Graph graph = ChainOfRelus(3);
  const ValueId r0 = graph.FindValue("r0");
  Patch patch(graph);
  Node abs;
  abs.op_type = "Abs";
  abs.inputs = {graph.FindValue("x")};
  const ValueId made = patch.AddValue("r0");
  abs.outputs = {made};
  patch.AddNode(abs);
  patch.ReplaceUses(r0, made);
  patch.RemoveNode(graph.producer(r0));
  EXPECT_TRUE(patch.touches(graph.producer(r0)));
  EXPECT_FALSE(patch.touches(2));
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  EXPECT_EQ(graph.value(made).name, "r0_1");
  EXPECT_EQ(graph.node(1).inputs[0], made);
  EXPECT_FALSE(graph.alive(0));
  EXPECT_EQ(graph.topological_order().size(), 3u);
}

TEST(Patch, LeavesTheGraphAloneWhenTheResultIsInvalid) {
  Graph graph = ChainOfRelus(3);
  Patch patch(graph);
  patch.RemoveNode(1);
  const Result<void> applied = std::move(patch).ApplyTo(graph);
  ASSERT_FALSE(applied.ok());
  EXPECT_NE(applied.error().ToString().find("'r1'"), std::string::npos);
  EXPECT_TRUE(graph.alive(1));
  EXPECT_EQ(graph.topological_order().size(), 3u);
}

Node Abs(std::string name, ValueId src, ValueId dst) {
  Node node;
  node.op_type = "Abs";
  node.name = std::move(name);
  node.inputs = {src};
  node.outputs = {dst};
  return node;
}

TEST(Patch, GivesNewNodesNamesOfTheirOwn) {
  Graph graph = ChainOfRelus(3);
  const ValueId x = graph.FindValue("x");
  Patch patch(graph);
  // Named like a node that stays, like one that goes (added before and after that), like one another, not at all.
  for (const char* name : {"r2", "r0", "new", "new", "r2", "", ""}) patch.AddNode(Abs(name, x, patch.AddValue("a")));
  const ValueId made = patch.AddValue("r1");
  for (const char* gone : {"r0", "r1"}) patch.RemoveNode(graph.producer(graph.FindValue(gone)));
  patch.AddNode(Abs("r1", x, made));
  patch.ReplaceUses(graph.FindValue("r1"), made);
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  std::vector<std::string> names;
  for (NodeId id = 2; id < graph.node_count(); ++id) names.push_back(graph.node(id).name);
  EXPECT_EQ(names, (std::vector<std::string>{"r2", "r2_1", "r0", "new", "new_1", "r2_2", "", "", "r1"}));

  // The names of one patch are taken for the next one.
  Patch next(graph);
  next.AddNode(Abs("new", x, next.AddValue("a")));
  ASSERT_TRUE(std::move(next).ApplyTo(graph).ok());
  EXPECT_EQ(graph.node(graph.node_count() - 1).name, "new_2");
}

TEST(Patch, GivesNewValuesNamesOfTheirOwn) {
  GraphBuilder builder;
  builder.AddOutput(builder.Add("Relu", {builder.AddInput("x", Image())}, "y"));
  builder.ReserveName("w_folded");
  builder.ReserveName("w_folded_2");
  Graph graph = std::move(builder).Build().value();
  EXPECT_EQ(graph.FindValue("w_folded"), kNone);
  const ValueId first = graph.value_count();
  Patch patch(graph);
  for (const char* hint : {"w_folded", "w_folded", "y", "", "w_folded_1", ""}) patch.AddValue(hint);
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  std::vector<std::string> names;
  for (ValueId id = first; id < graph.value_count(); ++id) names.push_back(graph.value(id).name);
  EXPECT_EQ(names, (std::vector<std::string>{"w_folded_1", "w_folded_3", "y_1", "crease", "w_folded_1_1", "crease_1"}));
}

TEST(Patch, FollowsChainsOfReplacements) {
  Graph graph = ChainOfRelus(3);
  const ValueId x = graph.FindValue("x");
  Patch patch(graph);
  patch.ReplaceUses(graph.FindValue("r0"), x);
  patch.ReplaceUses(graph.FindValue("r1"), graph.FindValue("r0"));
  patch.RemoveNode(0);
  patch.RemoveNode(1);
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  EXPECT_EQ(graph.node(2).inputs[0], x);
}

TEST(Patch, EditsAttributes) {
  Graph graph = ChainOfRelus(1);
  Patch set(graph);
  set.SetAttribute(0, MakeAttr("alpha", 0.5f));
  ASSERT_TRUE(std::move(set).ApplyTo(graph).ok());
  EXPECT_EQ(*AttrFloat(graph.node(0), "alpha", 0), 0.5f);
  EXPECT_FALSE(AttrInt(graph.node(0), "alpha", 0).ok());
  Patch remove(graph);
  remove.RemoveAttribute(0, "alpha");
  ASSERT_TRUE(std::move(remove).ApplyTo(graph).ok());
  EXPECT_FALSE(HasAttr(graph.node(0), "alpha"));
}

TEST(Printable, EscapesControlAndInvalidUtf8) {
  EXPECT_EQ(Printable("conv1"), "conv1");
  EXPECT_EQ(Printable("größe"), "größe");
  EXPECT_EQ(Printable(std::string_view("a\0b\n\x7F", 5)), "a\\x00b\\x0a\\x7f");
  EXPECT_EQ(Printable("\xFF\xC0\x80"), "\\xff\\xc0\\x80");
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");  // half a surrogate pair
  EXPECT_LT(Printable(std::string(100'000, 'x')).size(), 300u);
}

TEST(IsUtf8, KnowsTheRangesOfEveryLength) {
  for (const std::string valid :
       {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "größe 漢字 🎉"}) {
    EXPECT_TRUE(IsUtf8(valid)) << Printable(valid);
  }
  for (const std::string invalid :
       {"\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF8\x88\x80\x80\x80", "a\xC3", "\xC3(", "\xE6\xBC"}) {
    EXPECT_FALSE(IsUtf8(invalid)) << Printable(invalid);
  }
}

}  // namespace
}  // namespace crease
