// SPDX-License-Identifier: Apache-2.0
// Type inference over whole graphs and the interpreter.
#include "graph/interpreter.h"

#include <gtest/gtest.h>

#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::Floats;
using test::IntList;
using test::Ints;

TensorType Images(const char* batch) {
  TensorType type = TensorType::Of(DType::kFloat32, {1, 4, 3, 3});
  type.dims[0] = Dim{Dim::kUnknown, batch};
  return type;
}

struct Built {
  Graph graph;
  ValueId output;
};

// Flattening as exporters write it: Reshape(x, Concat(Unsqueeze(Gather(Shape(x), 0)), -1)).
Built Flattener(const char* batch) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", Images(batch));
  const ValueId shape = builder.Add("Shape", {x}, "shape");
  const ValueId zero = builder.AddConstant("zero", Ints({}, {0}));
  const ValueId n = builder.Add("Gather", {shape, zero}, "n");
  const ValueId axes = builder.AddConstant("axes", Ints({0}));
  const ValueId row = builder.Add("Unsqueeze", {n, axes}, "row");
  const ValueId rest = builder.AddConstant("rest", Ints({-1}));
  const ValueId target = builder.Add("Concat", {row, rest}, "target", {MakeAttr("axis", int64_t{0})});
  const ValueId y = builder.Add("Reshape", {x, target}, "y");
  builder.AddOutput(y);
  Result<Graph> graph = std::move(builder).Build();
  EXPECT_TRUE(graph.ok()) << graph.error().ToString();
  return {std::move(graph).value(), y};
}

TEST(InferTypes, ShapeArithmeticKeepsTheBatchSymbolic) {
  const Built built = Flattener("N");
  const Result<InferredTypes> inferred = InferTypes(built.graph);
  ASSERT_TRUE(inferred.ok()) << inferred.error().ToString();
  const TensorType& y = inferred->types[static_cast<size_t>(built.output)];
  EXPECT_EQ(y.dims, (std::vector<Dim>{Dim{Dim::kUnknown, "N"}, Dim{36, ""}}));
}

TEST(InferTypes, ANamelessBatchLeavesTheRankOnly) {
  const Built built = Flattener("");
  const Result<InferredTypes> inferred = InferTypes(built.graph);
  ASSERT_TRUE(inferred.ok()) << inferred.error().ToString();
  EXPECT_EQ(inferred->types[static_cast<size_t>(built.output)].rank(), 2);
}

TEST(InferTypes, OverridesMakeShapesStatic) {
  const Built built = Flattener("N");
  const InputOverride batch = {built.graph.FindValue("x"), TensorType::Of(DType::kFloat32, {5, 4, 3, 3})};
  const Result<InferredTypes> inferred = InferTypes(built.graph, {&batch, 1});
  ASSERT_TRUE(inferred.ok()) << inferred.error().ToString();
  EXPECT_EQ(inferred->types[static_cast<size_t>(built.output)].shape(), (Shape{5, 36}));
  const Tensor& target = inferred->constants[static_cast<size_t>(built.graph.FindValue("target"))];
  ASSERT_TRUE(target.defined());
  EXPECT_EQ(target.AsInt64(0), 5);
  EXPECT_EQ(target.AsInt64(1), -1);
}

TEST(InferTypes, ErrorsNameTheNode) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {1, 3, 8, 8}));
  const ValueId w = builder.AddConstant("w", Counting({2, 4, 3, 3}));
  builder.AddOutput(builder.Add("Conv", {x, w}, "features"));
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  const Result<InferredTypes> inferred = InferTypes(*graph);
  ASSERT_FALSE(inferred.ok());
  EXPECT_EQ(inferred.error().code, ErrorCode::kInvalidModel);
  EXPECT_NE(inferred.error().where.find("features"), std::string::npos) << inferred.error().where;
  EXPECT_NE(inferred.error().message.find("input channels"), std::string::npos) << inferred.error().message;
}

TEST(InferTypes, UnknownOperatorsAreOpaque) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", Images("N"));
  const ValueId odd = builder.Add("NoSuchOperator", {x}, "odd");
  const ValueId y = builder.Add("Relu", {odd}, "y");
  builder.AddOutput(y);
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  const Result<InferredTypes> inferred = InferTypes(*graph);
  ASSERT_TRUE(inferred.ok()) << inferred.error().ToString();
  EXPECT_FALSE(inferred->types[static_cast<size_t>(y)].has_rank);
  const Result<std::vector<Tensor>> run = Interpret(*graph, {{"x", Counting({1, 4, 3, 3})}});
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(run.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(run.error().message.find("NoSuchOperator"), std::string::npos);
}

TEST(Interpret, RunsInDoubleAndReportsValues) {
  const Built built = Flattener("N");
  std::vector<ValueId> seen;
  InterpretOptions options;
  options.on_value = [&seen](ValueId id, const Tensor&) { seen.push_back(id); };
  const Result<std::vector<Tensor>> outputs = Interpret(built.graph, {{"x", Counting({2, 4, 3, 3})}}, options);
  ASSERT_TRUE(outputs.ok()) << outputs.error().ToString();
  ASSERT_EQ(outputs->size(), 1u);
  EXPECT_EQ((*outputs)[0].dtype(), DType::kFloat64);
  EXPECT_EQ((*outputs)[0].shape(), (Shape{2, 36}));
  EXPECT_EQ((*outputs)[0].AsDouble(71), 71);
  EXPECT_EQ(seen.size(), 5u);
  EXPECT_EQ(seen.back(), built.output);
}

TEST(Interpret, KeepsWhatSinglePrecisionLoses) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {1}));
  const ValueId big = builder.AddConstant("big", Floats({1}, {1e9f}));
  const ValueId sum = builder.Add("Add", {x, big}, "sum");
  builder.AddOutput(builder.Add("Sub", {sum, big}, "y"));
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  const Result<std::vector<Tensor>> outputs = Interpret(*graph, {{"x", Floats({1}, {0.125f})}});
  ASSERT_TRUE(outputs.ok()) << outputs.error().ToString();
  EXPECT_EQ((*outputs)[0].AsDouble(0), 0.125);
}

// 10 * 0.9f is 8.9999998 in double precision and 9 in the network's own: the size must be 9.
TEST(Interpret, SizesComeOutAsInTheNetworksPrecision) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {10}));
  const ValueId shape = builder.Add("Shape", {x}, "shape");
  const ValueId real = builder.Add("Cast", {shape}, "real", {MakeAttr("to", int64_t{1})});
  const ValueId factor = builder.AddConstant("factor", Floats({1}, {0.9f}));
  const ValueId scaled = builder.Add("Mul", {real, factor}, "scaled");
  const ValueId floor = builder.Add("Floor", {scaled}, "floor");
  const ValueId size = builder.Add("Cast", {floor}, "size", {MakeAttr("to", int64_t{7})});
  builder.AddOutput(builder.Add("ConstantOfShape", {size}, "y"));
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  const Result<std::vector<Tensor>> outputs = Interpret(*graph, {{"x", Counting({10})}});
  ASSERT_TRUE(outputs.ok()) << outputs.error().ToString();
  EXPECT_EQ((*outputs)[0].shape(), (Shape{9}));
}

TEST(Interpret, AnInitializerThatIsAnInputCanBeReplaced) {
  GraphBuilder builder;
  builder.info().opsets[""] = 13;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {4}));
  const ValueId target = builder.AddInput("target", TensorType::Of(DType::kInt64, {2}));
  builder.value(target).constant = Ints({2, 2});
  builder.AddOutput(builder.Add("Reshape", {x, target}, "y"));
  const Result<Graph> graph = std::move(builder).Build();
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ((*Interpret(*graph, {{"x", Counting({4})}}))[0].shape(), (Shape{2, 2}));
  EXPECT_EQ((*Interpret(*graph, {{"x", Counting({4})}, {"target", Ints({4, 1})}}))[0].shape(), (Shape{4, 1}));
}

TEST(Interpret, InputErrorsNameTheInput) {
  const Graph graph = Flattener("N").graph;
  const auto where = [&graph](const std::map<std::string, Tensor>& inputs) {
    const Result<std::vector<Tensor>> outputs = Interpret(graph, inputs);
    EXPECT_FALSE(outputs.ok());
    return outputs.ok() ? "" : outputs.error().ToString();
  };
  EXPECT_NE(where({}).find("'x'"), std::string::npos);
  EXPECT_NE(where({{"z", Counting({1})}}).find("'z'"), std::string::npos);
  EXPECT_NE(where({{"x", Counting({1, 5, 3, 3})}}).find("(1, 5, 3, 3)"), std::string::npos);
  EXPECT_NE(where({{"x", Ints({1, 4, 3, 3}, std::vector<int64_t>(36))}}).find("int64"), std::string::npos);
}

TEST(AllOps, SortedAndComplete) {
  const std::span<const OpDef* const> all = AllOps();
  for (size_t i = 0; i < all.size(); ++i) {
    if (i > 0) {
      EXPECT_LT(all[i - 1]->name, all[i]->name);
    }
    EXPECT_EQ(FindOp("", all[i]->name, 30), all[i]);
    EXPECT_EQ(FindOp("ai.onnx", all[i]->name, all[i]->min_opset), all[i]);
    EXPECT_EQ(FindOp("", all[i]->name, all[i]->min_opset - 1), nullptr);
    EXPECT_NE(all[i]->eval, nullptr);
  }
  EXPECT_EQ(FindOp("com.microsoft", "Conv", 13), nullptr);
}

}  // namespace
}  // namespace crease
