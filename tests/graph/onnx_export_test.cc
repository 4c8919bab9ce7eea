// SPDX-License-Identifier: Apache-2.0
// What the exporter keeps, what it writes anew, and what it leaves on disk.
#include "graph/onnx/exporter.h"

#include <gtest/gtest.h>

#include "graph/op.h"
#include "graph/patch.h"
#include "tests/graph/onnx_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

ImportOptions AllowUnknown() {
  ImportOptions options;
  options.allow_unknown_ops = true;
  return options;
}

Graph Loaded(const OnnxModel& model) {
  Result<Graph> graph = Load(model, AllowUnknown());
  EXPECT_TRUE(graph.ok()) << graph.error().ToString();
  return graph.ok() ? std::move(graph).value() : Graph();
}

std::string Exported(const Graph& graph) {
  Result<std::vector<std::byte>> bytes = ExportOnnx(graph);
  EXPECT_TRUE(bytes.ok()) << bytes.error().ToString();
  return bytes.ok() ? ToText(*bytes) : "";
}

Graph Reloaded(const Graph& graph) {
  Result<Graph> again = Load(Exported(graph), AllowUnknown());
  EXPECT_TRUE(again.ok()) << again.error().ToString();
  return again.ok() ? std::move(again).value() : Graph();
}

// x * w + b, twice over, with all the fields that a file can have besides.
OnnxModel RichModel(int64_t ir_version = 8) {
  OnnxModel model(13, ir_version);
  Proto first = NodeProto("Mul", {"x", "w"}, {"m"}, "scale", {FloatAttr("old", 1), IntAttr("kept", 2)});
  first.String(6, "doc of a node").Message(9, Proto().String(1, "k").String(2, "v")).String(555, "unknown of a node");
  model.Node(first).Node("Add", {"m", "b"}, {"a"}, "shift").Node("Odd", {"a", "", "x"}, {"y"}, "odd");
  model.GraphField(2, Proto().Raw("main")).Initializer(FloatTensor("w", {4}, {1, 2, 3, 4}).String(12, "doc of w"));
  model.Initializer(FloatTensor("b", {4}, {5, 6, 7, 8})).Initializer(FloatTensor("unused", {1}, {9}));
  model.GraphField(10, Proto().Raw("doc of the graph")).Input("x", {1, 4});
  if (ir_version == 3) model.Input("w", {4}).Input("b", {4}).Input("unused", {1});
  model.Output("y", {1, 4}).GraphField(13, ValueInfo("m", {1, 4})).GraphField(13, ValueInfo("a", {1, 4}));
  model.GraphField(13, ValueInfo("stale", {7})).GraphField(14, Proto().String(1, "m"));
  model.GraphField(16, Proto().String(1, "gk").String(2, "gv")).GraphField(999, Proto().String(1, "unknown"));
  model.ModelField(14, Proto().String(1, "license").String(2, "free")).ModelField(1234, Proto().Raw("unknown"));
  return model.Opset("unused.domain", 3);
}

TEST(OnnxExport, UnchangedGivesTheSameBytes) {
  for (const int64_t ir_version : {3, 8}) {
    const OnnxModel model = RichModel(ir_version);
    EXPECT_EQ(Exported(Loaded(model)), model.Bytes());
  }
}

TEST(OnnxExport, UnsortedNodesAreWrittenSorted) {
  OnnxModel unsorted, sorted;
  unsorted.Node("Relu", {"a"}, {"y"}).Node("Relu", {"x"}, {"a"}).Input("x", {1}).Output("y", {1});
  sorted.Node("Relu", {"x"}, {"a"}).Node("Relu", {"a"}, {"y"}).Input("x", {1}).Output("y", {1});
  EXPECT_EQ(Exported(Loaded(unsorted)), sorted.Bytes());
}

// Each edit changes its node and nothing else.
TEST(OnnxExport, EditedNodeKeepsWhatIsNotKnown) {
  Graph graph = Loaded(RichModel());
  Patch patch(graph);
  patch.SetAttribute(0, MakeAttr("old", 7.0f));
  patch.SetAttribute(0, MakeAttr("ints", std::vector<int64_t>{1, -2}));
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  const std::string text = Exported(graph);

  OnnxModel expected(13);
  Proto first =
      NodeProto("Mul", {"x", "w"}, {"m"}, "scale",
                {Proto().String(1, "old").Float(2, 7).Int(20, 1), IntAttr("kept", 2), IntsAttr("ints", {1, -2})});
  first.String(6, "doc of a node").Message(9, Proto().String(1, "k").String(2, "v")).String(555, "unknown of a node");
  EXPECT_NE(text.find(Proto().Message(1, first).bytes()), std::string::npos);
  const std::string original = RichModel().Bytes();
  const std::string behind = Proto().Message(1, NodeProto("Add", {"m", "b"}, {"a"}, "shift")).bytes();
  EXPECT_EQ(text.substr(text.find(behind)), original.substr(original.find(behind)));
}

TEST(OnnxExport, EveryAttributeTypeComesBack) {
  Graph graph = Loaded(RichModel());
  Patch patch(graph);
  Attribute strings{"strings", std::vector<std::string>{"a", std::string("\0b", 2)}, {}};
  patch.SetAttribute(2, MakeAttr("i", int64_t{-5}));
  patch.SetAttribute(2, MakeAttr("f", -0.5f));
  patch.SetAttribute(2, MakeAttr("s", std::string_view("text")));
  patch.SetAttribute(2, MakeAttr("ints", std::vector<int64_t>{}));
  patch.SetAttribute(2, MakeAttr("floats", std::vector<float>{1, 2}));
  patch.SetAttribute(2, MakeAttr("t", Tensor::From<int64_t>({2}, {3, 4})));
  patch.SetAttribute(2, strings);
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  const Graph again = Reloaded(graph);
  const Node& node = again.node(2);
  EXPECT_EQ(*AttrInt(node, "i", 0), -5);
  EXPECT_EQ(*AttrFloat(node, "f", 0), -0.5f);
  EXPECT_EQ(*AttrString(node, "s", ""), "text");
  EXPECT_TRUE(AttrInts(node, "ints", {1})->empty());
  EXPECT_EQ(*AttrFloats(node, "floats", {}), (std::vector<float>{1, 2}));
  EXPECT_EQ(std::get<Tensor>(node.FindAttribute("t")->data).AsInt64(1), 4);
  EXPECT_EQ(std::get<std::vector<std::string>>(node.FindAttribute("strings")->data),
            std::get<std::vector<std::string>>(strings.data));
  EXPECT_EQ(node.inputs[1], kNone);
}

// As folding does: `shift` goes, its bias joins a new weight; what becomes unused goes with it.
Graph Folded(int64_t ir_version = 8) {
  Graph graph = Loaded(RichModel(ir_version));
  Patch patch(graph);
  const ValueId folded = patch.AddConstant("w_folded", Tensor::From<float>({4}, {9, 9, 9, 9}));
  patch.ReplaceInput(0, 1, folded);
  patch.RemoveNode(1);
  patch.ReplaceOutput(0, 0, graph.FindValue("a"));
  const Result<void> applied = std::move(patch).ApplyTo(graph);
  EXPECT_TRUE(applied.ok()) << applied.error().ToString();
  return graph;
}

TEST(OnnxExport, DropsWhatBecameUnusedAndNothingElse) {
  const Graph graph = Folded();
  const Graph again = Reloaded(graph);
  EXPECT_EQ(again.node_count(), 2);
  EXPECT_EQ(again.FindValue("w"), kNone);
  EXPECT_EQ(again.FindValue("b"), kNone);
  EXPECT_NE(again.FindValue("unused"), kNone);  // it was unused before
  EXPECT_EQ(again.constant(again.FindValue("w_folded"))->AsDouble(3), 9);
  const std::string text = Exported(graph);
  EXPECT_EQ(text.find(Proto().Message(13, ValueInfo("m", {1, 4})).bytes()), std::string::npos);
  EXPECT_NE(text.find(Proto().Message(13, ValueInfo("a", {1, 4})).bytes()), std::string::npos);
  EXPECT_NE(text.find(Proto().Message(13, ValueInfo("stale", {7})).bytes()), std::string::npos);
  EXPECT_EQ(text.find(Proto().Message(14, Proto().String(1, "m")).bytes()), std::string::npos);
  for (const char* kept : {"doc of a node", "unknown of a node", "doc of the graph", "license", "unused.domain"}) {
    EXPECT_NE(text.find(kept), std::string::npos) << kept;
  }
  EXPECT_EQ(text, Exported(graph));  // deterministic
  EXPECT_EQ(text, Exported(again));  // and stable
}

TEST(OnnxExport, Ir3FilesListEveryInitializerAsInput) {
  const Graph again = Reloaded(Folded(3));
  std::vector<std::string> names;
  for (ValueId id : again.inputs()) names.push_back(again.value(id).name);
  EXPECT_EQ(names, (std::vector<std::string>{"x", "unused", "w_folded"}));
  EXPECT_EQ(again.value(again.FindValue("w_folded")).type.ToString(), "float32 (4)");
}

TEST(OnnxExport, ConstantNodesThatBecameUnusedGo) {
  OnnxModel model;
  model.Node("Constant", {}, {"c"}, "used", {FloatAttr("value_float", 2)});
  model.Node("Constant", {}, {"d"}, "never used", {FloatAttr("value_float", 3)});
  model.Node("Mul", {"x", "c"}, {"y"}, "m").Input("x", {1}).Output("y", {1});
  EXPECT_EQ(Exported(Loaded(model)), model.Bytes());
  Graph graph = Loaded(model);
  Patch patch(graph);
  patch.ReplaceInput(2, 1, patch.AddConstant("e", Tensor::Scalar(4.0f)));
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  const Graph again = Reloaded(graph);
  EXPECT_EQ(again.node_count(), 2);
  EXPECT_EQ(again.node(0).name, "never used");
}

TEST(OnnxExport, HintsThatAPassContradictsGo) {
  Graph graph = Loaded(RichModel());
  Patch patch(graph);
  patch.SetType(graph.FindValue("m"), TensorType::Of(DType::kFloat32, {2, 4}));
  patch.SetType(graph.FindValue("a"), TensorType::OfRank(DType::kFloat32, 2));
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  const std::string text = Exported(graph);
  EXPECT_EQ(text.find(Proto().Message(13, ValueInfo("m", {1, 4})).bytes()), std::string::npos);
  EXPECT_NE(text.find(Proto().Message(13, ValueInfo("a", {1, 4})).bytes()), std::string::npos);
}

TEST(OnnxExport, EditedModelInfoIsWritten) {
  Graph graph = Loaded(RichModel());
  graph.info().producer_version = "1.2";
  graph.info().metadata.emplace_back("folded", "yes");
  graph.info().opsets["new.domain"] = 4;
  graph.info().graph_name = "renamed";
  const Graph again = Reloaded(graph);
  EXPECT_EQ(again.info().producer_version, "1.2");
  EXPECT_EQ(again.info().metadata, graph.info().metadata);
  EXPECT_EQ(again.info().opsets, graph.info().opsets);
  EXPECT_EQ(again.info().graph_name, "renamed");
}

TEST(OnnxExport, SubgraphsFindWhatTheyCapture) {
  Proto branch;
  branch.Message(1, NodeProto("Relu", {"m"}, {"t"})).Message(12, ValueInfo("t", {1}));
  OnnxModel model;
  model.Node("Relu", {"x"}, {"m"}).Node("If", {"c"}, {"y"}, "choice", {GraphAttr("then_branch", branch)});
  model.Input("x", {1}).Input("c", {}, kOnnxBool).Output("y", {1});
  Graph graph = Loaded(model);
  Patch patch(graph);
  const ValueId other = patch.AddValue("other");
  Node identity;
  identity.op_type = "Sigmoid";
  identity.inputs = {graph.FindValue("x")};
  identity.outputs = {other};
  patch.AddNode(identity);
  patch.ReplaceUses(graph.FindValue("m"), other);
  patch.RemoveNode(0);
  ASSERT_TRUE(std::move(patch).ApplyTo(graph).ok());
  const Graph again = Reloaded(graph);
  const NodeId maker = again.producer(again.FindValue("m"));
  ASSERT_NE(maker, kNone);
  EXPECT_EQ(again.node(maker).op_type, "Identity");
  EXPECT_EQ(again.value(again.node(maker).inputs[0]).name, "other");
}

TEST(OnnxExport, AGraphWithoutAFile) {
  GraphBuilder builder;
  TensorType type = TensorType::Of(DType::kFloat32, {-1, 4});
  type.dims[0].symbol = "N";
  const ValueId x = builder.AddInput("x", type);
  const ValueId w = builder.AddConstant("w", Tensor::From<float>({4}, {1, 2, 3, 4}));
  const ValueId y = builder.Add("Mul", {x, w}, "y", {MakeAttr("note", std::string_view("hi"))});
  builder.AddOutput(y);
  builder.value(y).type = type;
  builder.info().opsets[""] = 14;
  builder.info().producer_name = "tests";
  Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  const Graph again = Reloaded(*graph);
  EXPECT_EQ(again.info().opset(), 14);
  EXPECT_EQ(again.info().producer_name, "tests");
  EXPECT_EQ(again.value(again.inputs()[0]).type.ToString(), "float32 (N, 4)");
  EXPECT_EQ(again.value(again.outputs()[0]).type.ToString(), "float32 (N, 4)");
  EXPECT_EQ(again.constant(again.FindValue("w"))->AsDouble(3), 4);
  EXPECT_EQ(*AttrString(again.node(0), "note", ""), "hi");
}

// Tensor w of 1,024 floats in w.bin, b of 4 inside.
std::string WriteExternalModel(const TemporaryFolder& folder) {
  std::vector<float> values(1024);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  folder.Write("w.bin", "skip" + BytesOf(values));
  OnnxModel model;
  Proto w = ExternalTensor("w", {1024}, {{"location", "w.bin"}, {"offset", "4"}, {"length", "4096"}});
  model.Node("Mul", {"x", "w"}, {"m"}).Node("Add", {"m", "b"}, {"y"}).Initializer(w.String(12, "doc of w"));
  model.Initializer(FloatTensor("b", {1}, {5})).Input("x", {1}).Output("y", {1024});
  return folder.Write("model.onnx", model.Bytes());
}

TEST(OnnxExportFile, ExternalDataIsWrittenBesideTheNewFile) {
  const TemporaryFolder source, target;
  Result<Graph> graph = ImportOnnxFile(WriteExternalModel(source));
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  ASSERT_TRUE(WriteOnnxFile(*graph, target / "out.onnx").ok());
  const std::vector<std::string> names = target.List();
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[0], "out.onnx");
  EXPECT_TRUE(names[1].starts_with("out.onnx.") && names[1].ends_with(".data")) << names[1];
  const std::string model = ReadBack(target / "out.onnx");
  EXPECT_EQ(model.find("w.bin"), std::string::npos);
  EXPECT_NE(model.find("doc of w"), std::string::npos);
  EXPECT_LT(model.size(), 1000u);

  Result<Graph> again = ImportOnnxFile(target / "out.onnx");
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->constant(again->FindValue("w"))->AsDouble(1023), 1023);
  EXPECT_EQ(again->constant(again->FindValue("b"))->AsDouble(0), 5);
  // Written again it has the same name and bytes.
  ASSERT_TRUE(WriteOnnxFile(*again, target / "out.onnx").ok());
  EXPECT_EQ(target.List(), names);
  EXPECT_EQ(ReadBack(target / "out.onnx"), model);
}

TEST(OnnxExportFile, NewTensorsJoinTheExternalOnes) {
  const TemporaryFolder folder;
  Result<Graph> graph = ImportOnnxFile(WriteExternalModel(folder));
  ASSERT_TRUE(graph.ok());
  Patch patch(*graph);
  const std::vector<float> values(512, 3.0f);
  patch.ReplaceInput(1, 1, patch.AddConstant("large", Tensor::From<float>({512}, values)));
  ASSERT_TRUE(std::move(patch).ApplyTo(*graph).ok());
  ASSERT_TRUE(WriteOnnxFile(*graph, folder / "out.onnx").ok());
  EXPECT_LT(std::filesystem::file_size(folder / "out.onnx"), 1000u);
  Result<Graph> again = ImportOnnxFile(folder / "out.onnx");
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->constant(again->FindValue("large"))->AsDouble(511), 3);
}

TEST(OnnxExportFile, InMemoryAllIsInside) {
  const TemporaryFolder folder;
  Result<Graph> graph = ImportOnnxFile(WriteExternalModel(folder));
  ASSERT_TRUE(graph.ok());
  Result<Graph> again = Load(Exported(*graph));
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->constant(again->FindValue("w"))->AsDouble(7), 7);
}

TEST(OnnxExportFile, ExternalDataOnDemand) {
  const TemporaryFolder folder;
  OnnxModel model;
  model.Node("Constant", {}, {"c"}, "", {TensorAttr("value", FloatTensor("", {500}, std::vector<float>(500, 2)))});
  model.Node("Mul", {"c", "w"}, {"y"}).Initializer(FloatTensor("w", {500}, std::vector<float>(500, 3)));
  model.Output("y", {500});
  const Graph graph = Loaded(model);
  ExportOptions options;
  options.external_data = ExportOptions::ExternalData::kAlways;
  ASSERT_TRUE(WriteOnnxFile(graph, folder / "out.onnx", options).ok());
  ASSERT_EQ(folder.List().size(), 2u);
  Result<Graph> again = ImportOnnxFile(folder / "out.onnx");
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->constant(again->FindValue("w"))->AsDouble(499), 3);
}

TEST(OnnxExportFile, ReplacesAFileAndItsPermissionsStay) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("out.onnx", "old");
  std::filesystem::permissions(path, std::filesystem::perms(0640));
  ASSERT_TRUE(WriteOnnxFile(Loaded(RichModel()), path).ok());
  EXPECT_EQ(ReadBack(path), RichModel().Bytes());
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0640));
  EXPECT_EQ(folder.List().size(), 1u);
}

TEST(OnnxExportFile, FailuresLeaveTheOldFile) {
  const TemporaryFolder folder;
  const Graph graph = Loaded(RichModel());
  EXPECT_FALSE(WriteOnnxFile(graph, folder / "missing/out.onnx").ok());
  EXPECT_FALSE(WriteOnnxFile(graph, folder.path()).ok());
  EXPECT_FALSE(WriteOnnxFile(graph, folder / "").ok());
  EXPECT_FALSE(WriteOnnxFile(graph, "").ok());
  const Result<void> device = WriteOnnxFile(graph, "/dev/null");
  ASSERT_FALSE(device.ok());
  EXPECT_NE(device.error().message.find("regular file"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_TRUE(folder.List().empty());
}

TEST(OnnxExportFile, ALinkStaysALink) {
  const TemporaryFolder folder;
  const std::string real = folder.Write("real.onnx", "old");
  std::filesystem::create_symlink("real.onnx", folder / "link.onnx");
  ASSERT_TRUE(WriteOnnxFile(Loaded(RichModel()), folder / "link.onnx").ok());
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link.onnx"));
  EXPECT_EQ(ReadBack(real), RichModel().Bytes());
  std::filesystem::create_symlink("nothing", folder / "dangling.onnx");
  EXPECT_FALSE(WriteOnnxFile(Loaded(RichModel()), folder / "dangling.onnx").ok());
}

}  // namespace
}  // namespace crease::test
