// SPDX-License-Identifier: Apache-2.0
// What the loader makes of models, graphs and nodes, good ones and each kind of bad one.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "graph/op.h"
#include "tests/graph/onnx_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

constexpr auto kInvalid = ErrorCode::kInvalidModel;
constexpr auto kUnsupported = ErrorCode::kUnsupported;
constexpr auto kLimit = ErrorCode::kLimitExceeded;

OnnxModel Relu() {
  OnnxModel model;
  model.Node("Relu", {"x"}, {"y"}, "r").Input("x", {-1, 3}).Output("y", {-1, 3});
  return model;
}

// x -> one node -> y.
OnnxModel OneNode(const Proto& node) {
  OnnxModel model;
  model.Node(node).Input("x", {1, 4}).Output("y", {1, 4});
  return model;
}

// A graph with an If whose branch is `branch`; "cond" and "x" are its inputs.
OnnxModel IfModel(const Proto& branch) {
  return OneNode(NodeProto("If", {"cond"}, {"y"}, "choice", {GraphAttr("then_branch", branch)})).Input("cond", {}, 9);
}

ImportOptions AllowUnknown() {
  ImportOptions options;
  options.allow_unknown_ops = true;
  return options;
}

TEST(OnnxFile, WhatIsNoModel) {
  ExpectRejected("", kInvalid, {"empty"});
  ExpectRejected(std::string(1000, '\0'), kInvalid, {"byte 0"});
  ExpectRejected(std::string(1000, '\xff'), kInvalid, {"byte 0", "varint"});
  ExpectRejected("PK\x03\x04 certainly no protobuf", kInvalid, {"damaged ModelProto"});
  ExpectRejected(Proto().Int(1, 8).bytes(), kInvalid, {"no graph"});
}

TEST(OnnxFile, OnlyRegularFiles) {
  const TemporaryFolder folder;
  const auto error_of = [](const std::string& path, const ImportOptions& options = {}) {
    Result<Graph> graph = ImportOnnxFile(path, options);
    EXPECT_FALSE(graph.ok());
    return graph.ok() ? "" : graph.error().ToString();
  };
  EXPECT_NE(error_of(folder.path()).find("a folder"), std::string::npos);
  EXPECT_NE(error_of("/dev/zero").find("a device"), std::string::npos);
  EXPECT_NE(error_of(folder / "none.onnx").find("none.onnx"), std::string::npos);
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_NE(error_of(folder / "fifo").find("a FIFO"), std::string::npos);  // and does not wait for a writer
  EXPECT_NE(error_of(folder.Write("empty.onnx", "")).find("empty"), std::string::npos);

  const std::string path = folder.Write("relu.onnx", Relu().Bytes());
  EXPECT_TRUE(ImportOnnxFile(path).ok());
  ImportOptions small;
  small.limits.max_file_bytes = 10;
  EXPECT_NE(error_of(path, small).find("the limit is 10 (max_file_bytes"), std::string::npos);
  ExpectRejected(Relu(), kLimit, {"max_file_bytes"}, small);
}

// A sparse file: its size alone must be enough to refuse it.
TEST(OnnxFile, MoreThanTwoGiB) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("large.onnx", "x");
  std::filesystem::resize_file(path, (uint64_t{2} << 30) + 1);
  Result<Graph> graph = ImportOnnxFile(path);
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.error().code, kLimit);
}

TEST(OnnxFile, UnknownFieldsAreNoError) {
  OnnxModel model = Relu();
  model.ModelField(4000, Proto().String(1, "new in ONNX 3")).GraphField(900, Proto().Int(1, 2));
  model.Node(NodeProto("Relu", {"y"}, {"z"}).Float(777, 1.5f));
  EXPECT_TRUE(Load(model).ok());
}

TEST(OnnxModelProto, Versions) {
  for (const int64_t ir_version : {int64_t{0}, int64_t{2}, int64_t{15}, int64_t{-1}, (int64_t{1} << 32) + 8}) {
    OnnxModel model(13, ir_version);
    model.Node("Relu", {"x"}, {"y"}).Input("x", {1}).Output("y", {1});
    ExpectRejected(model, kUnsupported, {"IR version " + std::to_string(ir_version)});
  }
  for (const int64_t opset : {int64_t{6}, int64_t{29}, int64_t{-3}, (int64_t{1} << 32) + 13}) {
    OnnxModel model(opset);
    model.Node("Relu", {"x"}, {"y"}).Input("x", {1}).Output("y", {1});
    ExpectRejected(model, kUnsupported, {"Relu", "opset " + std::to_string(opset)});
  }
  for (const int64_t opset : {7, 13, 28}) {
    OnnxModel model(opset, 3);
    model.Node("Relu", {"x"}, {"y"}).Input("x", {1}).Output("y", {1});
    EXPECT_TRUE(Load(model).ok()) << opset;
  }
}

TEST(OnnxModelProto, KeepsWhatItSays) {
  OnnxModel model = Relu();
  model.Opset("com.example", 2).ModelField(14, Proto().String(1, "author").String(2, "me"));
  model.GraphField(2, Proto().Raw("the name"));
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const ModelInfo& info = graph->info();
  EXPECT_EQ(info.ir_version, 8);
  EXPECT_EQ(info.opset(), 13);
  EXPECT_EQ(info.opsets.at("com.example"), 2);
  EXPECT_EQ(info.producer_name, "crease-tests");
  EXPECT_EQ(info.graph_name, "the name");
  EXPECT_EQ(info.metadata, (std::vector<std::pair<std::string, std::string>>{{"author", "me"}}));
}

TEST(OnnxModelProto, DomainsAreAliasedAndUnique) {
  OnnxModel alias(13);
  alias.Opset("ai.onnx", 13);
  alias.Node(NodeProto("Relu", {"x"}, {"y"}, "", {}, "ai.onnx")).Input("x", {1}).Output("y", {1});
  EXPECT_TRUE(Load(alias).ok());
  OnnxModel two = Relu();
  two.Opset("ai.onnx", 12);
  ExpectRejected(two, kInvalid, {"opset 13 and at 12"});
}

TEST(OnnxModelProto, TwoGraphs) {
  OnnxModel model = Relu();
  model.ModelField(7, Proto().String(2, "another"));
  ExpectRejected(model, kInvalid, {"two graphs"});
}

TEST(OnnxModelProto, UnknownOperatorsAreListedAllAtOnce) {
  OnnxModel model;
  model.Opset("com.example", 1);
  model.Node(NodeProto("Whirl", {"x"}, {"a"}, "first")).Node(NodeProto("Whirl", {"a"}, {"b"}, "second"));
  model.Node(NodeProto("Relu", {"b"}, {"c"}, "", {}, "com.example"));
  model.Node(NodeProto("Thing", {"c"}, {"d"}, "third", {}, "org.missing")).Node("Relu", {"d"}, {"y"});
  model.Input("x", {1}).Output("y", {1});
  ExpectRejected(model, kUnsupported,
                 {"3 operators", "Whirl (unknown at opset 13, 2 nodes, first 'first')", "com.example.Relu",
                  "org.missing.Thing (its domain is in no opset_import"});
  Result<Graph> graph = Load(model, AllowUnknown());
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->node_count(), 5);
}

TEST(OnnxModelProto, FunctionsAreRefusedWhereTheyAreUsed) {
  const Proto function = Proto().String(1, "Gelu2").String(10, "my.functions");
  OnnxModel unused = Relu();
  EXPECT_TRUE(Load(unused.ModelField(25, function)).ok());
  OnnxModel used = OneNode(NodeProto("Gelu2", {"x"}, {"y"}, "g", {}, "my.functions"));
  used.Opset("my.functions", 1).ModelField(25, function);
  ExpectRejected(used, kUnsupported, {"my.functions.Gelu2", "a function of the model"});
  EXPECT_TRUE(Load(used, AllowUnknown()).ok());
  // A function in the place of a standard operator would be taken for it by every pass.
  OnnxModel shadow = Relu();
  shadow.ModelField(25, Proto().String(1, "Relu").String(10, "ai.onnx"));
  ExpectRejected(shadow, kInvalid, {"Relu 'r'", "function of its own"}, AllowUnknown());
}

TEST(OnnxGraphProto, InputsHaveTypesWithSymbols) {
  OnnxModel model = Relu();
  Proto negative = ValueInfo("z", {});
  model.GraphField(11, Proto().String(1, "z").Message(
                           2, Proto().Message(1, Proto().Int(1, 1).Message(
                                                     2, Proto().Message(1, Proto().Int(1, -1)).Message(1, Proto())))));
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const TensorType& x = graph->value(graph->inputs()[0]).type;
  EXPECT_EQ(x.ToString(), "float32 (N, 3)");
  EXPECT_EQ(graph->value(graph->inputs()[1]).type.ToString(), "float32 (?, ?)");
  EXPECT_EQ(graph->value(graph->outputs()[0]).type.ToString(), "float32 (N, 3)");
}

TEST(OnnxGraphProto, RankOfAnInputMeetsTheLimit) {
  OnnxModel model = Relu();
  model.Input("z", {1, 2, 3, 4, 5, 6, 7, 8, 9});
  ExpectRejected(model, kLimit, {"'z'", "rank is over the limit of 8"});
}

TEST(OnnxGraphProto, TypesThatNestTooDeep) {
  Proto type = Proto().Message(1, Proto().Int(1, 1));
  for (int i = 0; i < 200; ++i) type = Proto().Message(4, Proto().Message(1, type));  // a sequence of
  OnnxModel model = Relu();
  model.GraphField(11, Proto().String(1, "z").Message(2, type));
  ExpectRejected(model, kLimit, {"'z'", "nests deeper"});
}

TEST(OnnxGraphProto, Ir3InitializersAreInputsToo) {
  OnnxModel model(9, 3);
  model.Node("Add", {"x", "w"}, {"y"}).Initializer(FloatTensor("w", {1}, {3}));
  model.Input("x", {1}).Input("w", {1}).Output("y", {1});
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const ValueId w = graph->FindValue("w");
  EXPECT_TRUE(graph->value(w).is_input);
  ASSERT_NE(graph->constant(w), nullptr);
  EXPECT_EQ(graph->constant(w)->AsDouble(0), 3);
  EXPECT_EQ(graph->inputs().size(), 2u);
}

TEST(OnnxGraphProto, UnsortedNodesAreSorted) {
  OnnxModel model;
  model.Node("Relu", {"b"}, {"y"}).Node("Relu", {"a"}, {"b"}).Node("Relu", {"x"}, {"a"});
  model.Input("x", {1}).Output("y", {1});
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->topological_order(), (std::vector<NodeId>{2, 1, 0}));
}

TEST(OnnxGraphProto, Cycle) {
  OnnxModel model;
  model.Node("Add", {"x", "b"}, {"a"}, "one").Node("Relu", {"a"}, {"b"}, "two").Input("x", {1}).Output("b", {1});
  ExpectRejected(model, kInvalid, {"cycle", "'one'", "'two'", " -> "});
}

TEST(OnnxGraphProto, ALongChainWorks) {
  constexpr int kLength = 30'000;
  OnnxModel model;
  const auto name = [](int i) { return "v" + std::to_string(i); };
  for (int i = kLength; i-- > 0;) model.Node("Relu", {name(i)}, {name(i + 1)});
  model.Input(name(0), {1}).Output(name(kLength), {1});
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->topological_order().front(), kLength - 1);
}

TEST(OnnxGraphProto, NamesThatDoNotFit) {
  OnnxModel twice = Relu();
  twice.Node("Relu", {"x"}, {"y"}, "again");
  ExpectRejected(twice, kInvalid, {"'y'", "made twice", "again"});
  ExpectRejected(OneNode(NodeProto("Split", {"x"}, {"y", "y"})), kInvalid, {"'y'", "made twice"}, AllowUnknown());

  ExpectRejected(OneNode(NodeProto("Relu", {"nowhere"}, {"y"}, "r")), kInvalid, {"'nowhere'", "undefined", "'r'"});

  OnnxModel unmade = Relu();
  ExpectRejected(unmade.Output("nothing", {1}), kInvalid, {"'nothing'", "made by nothing"});
  OnnxModel output_twice = Relu();
  ExpectRejected(output_twice.Output("y", {1}), kInvalid, {"'y'", "graph output twice"});
  OnnxModel input_twice = Relu();
  ExpectRejected(input_twice.Input("x", {1}), kInvalid, {"'x'", "graph input twice"});
  OnnxModel nameless_input = Relu(), nameless_output = Relu();
  ExpectRejected(nameless_input.Input("", {1}), kInvalid, {"input has no name"});
  ExpectRejected(nameless_output.Output("", {1}), kInvalid, {"output has no name"});

  OnnxModel overwritten = Relu();
  ExpectRejected(overwritten.Initializer(FloatTensor("y", {1}, {1})), kInvalid, {"'y'", "initializer"});
  OnnxModel input_made = Relu();
  ExpectRejected(input_made.Node("Relu", {"y"}, {"x"}), kInvalid, {});
}

TEST(OnnxGraphProto, StaleValueInfoMakesNoValue) {
  OnnxModel model = Relu();
  model.GraphField(13, ValueInfo("gone", {1}));
  Result<Graph> graph = Load(model);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->FindValue("gone"), kNone);
}

TEST(OnnxGraphProto, LimitOnNodes) {
  OnnxModel model;
  model.Node("Relu", {"x"}, {"a"}).Node("Relu", {"a"}, {"b"}).Node("Relu", {"b"}, {"y"});
  model.Input("x", {1}).Output("y", {1});
  ImportOptions options;
  options.limits.max_nodes = 3;
  EXPECT_TRUE(Load(model, options).ok());
  options.limits.max_nodes = 2;
  ExpectRejected(model, kLimit, {"max_nodes, 2"}, options);
}

TEST(OnnxGraphProto, LimitOnValues) {
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) names.push_back("v" + std::to_string(i));
  ImportOptions options = AllowUnknown();
  options.limits.max_nodes = 5;
  ExpectRejected(OneNode(NodeProto("Many", {"x"}, names)), kLimit, {"8 x max_nodes"}, options);
}

TEST(OnnxNodeProto, NamesInMessagesAreEscaped) {
  const std::string bad("a\x00\x1b[31m\xff\xc3", 9);
  const Error error = LoadError(OneNode(NodeProto("Relu", {bad}, {"y"}, bad)));
  EXPECT_NE(error.ToString().find("a\\x00\\x1b[31m\\xff\\xc3"), std::string::npos) << error.ToString();
  for (const char c : error.ToString()) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  // And such names work.
  OnnxModel model;
  model.Node("Relu", {bad}, {"y"}, bad).Input(bad, {1}).Output("y", {1});
  EXPECT_TRUE(Load(model).ok());
}

TEST(OnnxNodeProto, TooFewOrTooManyInputs) {
  ExpectRejected(OneNode(NodeProto("Add", {"x"}, {"y"}, "sum")), kInvalid, {"Add 'sum'", "1 inputs", "expected 2"});
  ExpectRejected(OneNode(NodeProto("Add", {"x", "x", "x"}, {"y"})), kInvalid, {"3 inputs"});
  ExpectRejected(OneNode(NodeProto("Add", {"x", ""}, {"y"})), kInvalid, {"number 1 of its inputs", "absent"});
  ExpectRejected(OneNode(NodeProto("Concat", {"x", "", "x"}, {"y"})), kInvalid, {"number 1 of its inputs", "absent"});
  ExpectRejected(OneNode(NodeProto("Relu", {"x"}, {"y", "z"})), kInvalid, {"2 outputs"});
  ExpectRejected(OneNode(NodeProto("Relu", {"x"}, {})), kInvalid, {"0 outputs"});
}

TEST(OnnxNodeProto, AbsentOptionalInputsHaveNoValue) {
  Result<Graph> graph = Load(OneNode(NodeProto("Clip", {"x", "", "x"}, {"y"})));
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->node(0).inputs[1], kNone);
  EXPECT_EQ(graph->node(0).inputs[2], graph->node(0).inputs[0]);
}

TEST(OnnxNodeProto, NoOperator) {
  ExpectRejected(OneNode(Proto().String(1, "x").String(2, "y").String(3, "n")), kInvalid, {"'n'", "no op_type"});
}

TEST(OnnxAttribute, EveryTypeIsRead) {
  const int64_t large = int64_t{1} << 62;
  std::vector<Proto> attributes = {IntAttr("i", large),      FloatAttr("f", 0.5f),
                                   StringAttr("s", "text"),  IntsAttr("is", {1, -large}),
                                   FloatsAttr("fs", {1, 2}), TensorAttr("t", FloatTensor("", {2}, {3, 4}))};
  attributes.push_back(Proto().String(1, "ss").String(9, "a").String(9, "b").Int(20, 8));
  attributes.push_back(Proto().String(1, "packed").PackedInts(8, {7, 8}).Int(20, 7));
  attributes.push_back(Proto().String(1, "untyped").Int(3, 6));
  attributes.push_back(Proto().String(1, "zero").Int(20, 2));  // proto3 leaves zeros out
  attributes.push_back(Proto().String(1, "kept").Message(14, Proto().Int(6, 1)).Int(20, 13));
  Result<Graph> graph = Load(OneNode(NodeProto("Odd", {"x"}, {"y"}, "n", attributes)), AllowUnknown());
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const Node& node = graph->node(0);
  EXPECT_EQ(*AttrInt(node, "i", 0), large);
  EXPECT_EQ(*AttrFloat(node, "f", 0), 0.5f);
  EXPECT_EQ(*AttrString(node, "s", ""), "text");
  EXPECT_EQ(*AttrInts(node, "is", {}), (std::vector<int64_t>{1, -large}));
  EXPECT_EQ(*AttrFloats(node, "fs", {}), (std::vector<float>{1, 2}));
  EXPECT_EQ(*AttrInts(node, "packed", {}), (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(*AttrInt(node, "untyped", 0), 6);
  EXPECT_EQ(*AttrInt(node, "zero", 5), 0);
  EXPECT_EQ(std::get<Tensor>(node.FindAttribute("t")->data).AsDouble(1), 4);
  EXPECT_EQ(std::get<std::vector<std::string>>(node.FindAttribute("ss")->data), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(std::holds_alternative<std::monostate>(node.FindAttribute("kept")->data));
}

TEST(OnnxAttribute, BadOnes) {
  const auto reject = [](const std::vector<Proto>& attributes, const std::string& part) {
    ExpectRejected(OneNode(NodeProto("Relu", {"x"}, {"y"}, "r", attributes)), kInvalid, {"Relu 'r'", part});
  };
  reject({IntAttr("axis", 1), IntAttr("axis", 1)}, "'axis': it is there twice");
  reject({Proto().Int(3, 1).Int(20, 2)}, "an attribute has no name");
  reject({Proto().String(1, "a").Float(2, 1).Int(20, 2)}, "'a': its type is 2, its value has type 1");
  reject({Proto().String(1, "a").Float(2, 1).Int(3, 1)}, "values of two types");
  reject({Proto().String(1, "a")}, "'a': its type is 0");
  reject({Proto().String(1, "a").Int(3, 1).Int(20, 99)}, "its type is 99");
  reject({Proto().String(1, "a").Int(20, 4)}, "'a': its type is 4");  // a tensor that is not there
  reject({Proto().String(1, "a").Int(20, 2).String(21, "outer")}, "refers to a function's attribute");
  reject({TensorAttr("t", FloatTensor("", {3}, {1}))}, "attribute 't': it has 4 bytes");
  reject({Proto().String(1, "a").String(7, "12345").Int(20, 6)}, "damaged AttributeProto");
}

TEST(OnnxAttribute, TooManyOfThem) {
  Proto node = NodeProto("Relu", {"x"}, {"y"});
  for (int i = 0; i < 5000; ++i) node.Message(5, IntAttr("a" + std::to_string(i), 1));
  ExpectRejected(OneNode(node), kLimit, {"attributes"});
}

TEST(OnnxConstant, EveryFormIsATensor) {
  const auto load = [](const Proto& attribute) {
    Result<Graph> graph = Load(OneNode(NodeProto("Constant", {}, {"y"}, "c", {attribute})));
    EXPECT_TRUE(graph.ok()) << graph.error().ToString();
    const Tensor* tensor = graph.ok() ? graph->constant(graph->FindValue("y")) : nullptr;
    return tensor != nullptr ? *tensor : Tensor();
  };
  EXPECT_EQ(load(TensorAttr("value", Int64Tensor("", {2}, {5, 6}))).AsInt64(1), 6);
  const Tensor number = load(FloatAttr("value_float", 1.5f));
  EXPECT_EQ(number.dtype(), DType::kFloat32);
  EXPECT_EQ(number.rank(), 0);
  EXPECT_EQ(number.AsDouble(0), 1.5);
  EXPECT_EQ(load(IntAttr("value_int", -3)).AsInt64(0), -3);
  EXPECT_EQ(load(IntAttr("value_int", -3)).rank(), 0);
  EXPECT_EQ(load(IntsAttr("value_ints", {1, 2, 3})).shape(), (Shape{3}));
  EXPECT_EQ(load(IntsAttr("value_ints", {})).shape(), (Shape{0}));
  EXPECT_EQ(load(FloatsAttr("value_floats", {1, 2})).AsDouble(1), 2);
}

TEST(OnnxConstant, NeedsExactlyOneValue) {
  const auto model = [](const std::vector<Proto>& attributes) {
    return OneNode(NodeProto("Constant", {}, {"y"}, "c", attributes));
  };
  ExpectRejected(model({}), kInvalid, {"Constant 'c'", "it has 0"});
  ExpectRejected(model({IntAttr("value_int", 1), FloatAttr("value_float", 1)}), kInvalid, {"it has 2"});
}

TEST(OnnxSubgraph, CapturesAreUses) {
  Proto branch;
  branch.Message(1, NodeProto("Add", {"x", "local"}, {"t"})).Message(1, NodeProto("Mul", {"t", "outer"}, {"u"}));
  branch.Message(5, FloatTensor("local", {1}, {1})).Message(12, ValueInfo("u", {1}));
  OnnxModel model = IfModel(branch);
  model.Node("Relu", {"x"}, {"outer"});
  Result<Graph> graph = Load(model, AllowUnknown());
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const Node& choice = graph->node(0);
  EXPECT_EQ(choice.captured, (std::vector<ValueId>{graph->FindValue("x"), graph->FindValue("outer")}));
  EXPECT_EQ(std::get<Subgraph>(choice.attributes[0].data).captures, (std::vector<std::string>{"x", "outer"}));
  EXPECT_EQ(graph->topological_order(), (std::vector<NodeId>{1, 0}));  // what it captures comes first
}

TEST(OnnxSubgraph, CapturesOfNestedOnesAndOfOutputs) {
  Proto inner;
  inner.Message(1, NodeProto("Relu", {"mid"}, {"a"})).Message(1, NodeProto("Relu", {"x"}, {"b"}));
  inner.Message(12, ValueInfo("cond", {}));  // an outer value, passed on as an output
  Proto outer;
  outer.Message(1, NodeProto("Relu", {"x"}, {"mid"}));
  outer.Message(1, NodeProto("If", {"cond"}, {"v"}, "", {GraphAttr("else_branch", inner)}));
  Result<Graph> graph = Load(IfModel(outer), AllowUnknown());
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->node(0).captured, (std::vector<ValueId>{graph->FindValue("x"), graph->FindValue("cond")}));
}

TEST(OnnxSubgraph, NamesInsideAreTaken) {
  Proto inner;
  inner.Message(1, NodeProto("Relu", {"x"}, {"deep"})).Message(11, ValueInfo("state", {1}));
  const Proto graphs = Proto().String(1, "more").Message(11, inner).Int(20, 10);
  Proto outer;
  outer.Message(1, NodeProto("Relu", {"local"}, {"mid"})).Message(5, FloatTensor("local", {1}, {1}));
  outer.Message(1, NodeProto("Custom", {"x"}, {"v"}, "", {graphs}));
  Result<Graph> graph = Load(IfModel(outer), AllowUnknown());
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  for (const char* name : {"x", "mid", "local", "v", "deep", "state"}) EXPECT_TRUE(graph->IsTaken(name)) << name;
  EXPECT_FALSE(graph->IsTaken("w"));
  EXPECT_EQ(graph->FindValue("deep"), kNone);
}

TEST(OnnxSubgraph, CaptureOfNothing) {
  ExpectRejected(IfModel(Proto().Message(1, NodeProto("Relu", {"nowhere"}, {"t"}))), kInvalid,
                 {"'nowhere'", "undefined"}, AllowUnknown());
}

TEST(OnnxSubgraph, NestingMeetsItsLimit) {
  const auto nested = [](int depth) {
    Proto graph = Proto().Message(1, NodeProto("Relu", {"x"}, {"t"}));
    for (int i = 1; i < depth; ++i) {
      graph = Proto().Message(1, NodeProto("If", {"cond"}, {"t"}, "", {GraphAttr("then_branch", graph)}));
    }
    return IfModel(graph);
  };
  EXPECT_TRUE(Load(nested(32), AllowUnknown()).ok());
  ExpectRejected(nested(33), kLimit, {"max_nesting, 32"}, AllowUnknown());
  ExpectRejected(nested(500), kLimit, {"max_nesting"}, AllowUnknown());
  ImportOptions options = AllowUnknown();
  options.limits.max_nesting = 2;
  EXPECT_TRUE(Load(nested(2), options).ok());
  ExpectRejected(nested(3), kLimit, {"max_nesting, 2"}, options);
  options.limits.max_nesting = std::numeric_limits<int>::max();
  ExpectRejected(nested(500), kLimit, {"max_nesting"}, options);  // the stack is finite whatever the option
}

TEST(OnnxSubgraph, ManyNodesInside) {
  Proto branch;
  for (int i = 0; i < 50; ++i) branch.Message(1, NodeProto("Relu", {"x"}, {"t" + std::to_string(i)}));
  ImportOptions options = AllowUnknown();
  options.limits.max_nodes = 20;
  ExpectRejected(IfModel(branch), kLimit, {"max_nodes, 20"}, options);
  std::vector<std::string> names;
  for (int i = 0; i < 161; ++i) names.push_back("t" + std::to_string(i));
  ExpectRejected(IfModel(Proto().Message(1, NodeProto("Custom", {"x"}, {names.begin(), names.end()}))), kLimit,
                 {"subgraphs", "more than 160 values"}, options);
}

TEST(OnnxSubgraph, DamageInsideIsFound) {
  ExpectRejected(IfModel(Proto().String(1, "\xff\xff")), kInvalid, {"If 'choice'", "subgraph"}, AllowUnknown());
  ExpectRejected(IfModel(Proto().Message(5, FloatTensor("w", {2}, {1}))), kInvalid, {"'w'", "subgraph"},
                 AllowUnknown());
  ExpectRejected(IfModel(Proto().Message(5, ExternalTensor("w", {2}, {{"location", "f"}}))), kUnsupported,
                 {"'w' has external data"}, AllowUnknown());
}

}  // namespace
}  // namespace crease::test
