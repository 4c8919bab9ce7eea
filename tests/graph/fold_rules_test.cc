// SPDX-License-Identifier: Apache-2.0
// Each rule of docs/folding.md: that it folds where it is exact, and refuses by its code where not.
#include <functional>

#include "tests/support/fold_net.h"

namespace crease {
namespace {

using testing::Attributes;
using testing::FoldAndCompare;
using testing::FoldNet;
using testing::FoldResult;
using testing::IntList;

struct Case {
  const char* name;
  int left;          // maps in the folded graph
  const char* code;  // that the log must have
  std::function<ValueId(FoldNet&)> build;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

ValueId Image(FoldNet& n, int64_t channels = 4) { return n.Input({2, channels, 8, 8}); }
ValueId ConvOf(FoldNet& n, int64_t out = 6) { return n.Conv(Image(n), 4, out); }
// An average pool, padded on all sides, and a batch-norm.
ValueId BnOfPool(FoldNet& n, int64_t kernel, int64_t pad, Attributes more = {}, bool shift = true) {
  more.push_back(MakeAttr("kernel_shape", IntList{kernel, kernel}));
  more.push_back(MakeAttr("pads", IntList{pad, pad, pad, pad}));
  return n.Bn(n.Op("AveragePool", {ConvOf(n)}, more), 6, shift);
}
Attributes Pads(int64_t p) { return {MakeAttr("pads", IntList{p, p, p, p})}; }

const Case kBackward[] = {
    {"Conv", 0, "folded-into-conv", [](FoldNet& n) { return n.Bn(ConvOf(n), 6); }},
    {"ConvMixedSigns", 0, "folded-into-conv", [](FoldNet& n) { return n.Bn(ConvOf(n), 6, true, true); }},
    {"ConvGroups", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(n.Op("Conv", {Image(n), n.Constant({6, 2, 3, 3})}, {MakeAttr("group", int64_t{2})}), 6);
     }},
    {"ConvTransposeGroups", 0, "folded-into-conv-transpose",
     [](FoldNet& n) {
       return n.Bn(n.Op("ConvTranspose", {Image(n), n.Constant({4, 3, 2, 2})}, {MakeAttr("group", int64_t{2})}), 6);
     }},
    {"GemmAlphaBeta", 0, "folded-into-gemm",
     [](FoldNet& n) {
       return n.Bn(n.Op("Gemm", {n.Input({3, 5}), n.Constant({7, 5}), n.Constant({3, 1})},
                        {MakeAttr("transB", int64_t{1}), MakeAttr("alpha", 0.5f), MakeAttr("beta", 3.0f)}),
                   7);
     }},
    {"GemmBetaZero", 0, "folded-into-gemm",
     [](FoldNet& n) {
       return n.Bn(n.Op("Gemm", {n.Input({3, 5}), n.Constant({5, 7}), n.Constant({7})}, {MakeAttr("beta", 0.0f)}), 7);
     }},
    {"MatMulBecomesGemm", 0, "folded-into-matmul",
     [](FoldNet& n) {
       return n.Bn(n.Op("MatMul", {n.Input({3, 5}), n.Constant({5, 7})}), 7);
     }},
    {"MatMulOtherAxis", 1, "axis-mismatch",
     [](FoldNet& n) {
       return n.Bn(n.Op("MatMul", {n.Input({2, 5, 5}), n.Constant({5, 5})}), 5);
     }},
    {"MatMulTransposed", 1, "folded-into-matmul",  // its bias stays an Add
     [](FoldNet& n) {
       const ValueId y = n.Op("MatMul", {n.Input({2, 6, 5}), n.Constant({5, 7})});
       return n.Bn(n.Op("Transpose", {y}, {MakeAttr("perm", IntList{0, 2, 1})}), 7);
     }},
    {"Pieces", 0, "folded-into-conv",
     [](FoldNet& n) {
       const ValueId deviation = n.Op("Sqrt", {n.Op("Add", {n.Constant({6, 1, 1}, 0.3, 1.0), n.Given({}, {1e-5})})});
       const ValueId y = n.Op("Div", {n.Op("Sub", {ConvOf(n), n.Constant({6, 1, 1})}), deviation});
       return n.Op("Add", {n.Constant({1, 6, 1, 1}), n.Op("Mul", {n.Constant({1, 6, 1, 1}), y})});
     }},
    {"ConstantMinus", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Op("Sub", {n.Constant({6, 1, 1}), ConvOf(n)});
     }},
    {"AlongTheWidth", 1, "",
     [](FoldNet& n) {
       return n.Op("Mul", {ConvOf(n), n.Constant({6})});
     }},
    {"PerSample", 1, "",
     [](FoldNet& n) {
       return n.Op("Mul", {ConvOf(n), n.Constant({2, 6, 1, 1})});
     }},
    {"BroadcastsTheChannel", 1, "",
     [](FoldNet& n) {
       return n.Op("Mul", {ConvOf(n, 1), n.Constant({6, 1, 1})});
     }},
    {"TwoBatchNorms", 0, "folded-into-conv", [](FoldNet& n) { return n.Bn(n.Bn(ConvOf(n), 6), 6); }},
    {"Concat", 0, "folded-into-several",
     [](FoldNet& n) {
       const ValueId x = Image(n);
       return n.Bn(n.Op("Concat", {n.Conv(x, 4, 6), n.Conv(x, 4, 2)}, {MakeAttr("axis", int64_t{1})}), 8);
     }},
    {"ConcatPartly", 1, "folded-partly",
     [](FoldNet& n) {
       const ValueId x = Image(n);
       return n.Bn(n.Op("Concat", {n.Conv(x, 4, 6, 3, Pads(1)), n.Op("Sigmoid", {x})}, {MakeAttr("axis", int64_t{1})}),
                   10);
     }},
    {"ConcatConstant", 0, "folded-into-several",
     [](FoldNet& n) {
       return n.Bn(n.Op("Concat", {n.Constant({2, 2, 6, 6}), ConvOf(n)}, {MakeAttr("axis", int64_t{-3})}), 8);
     }},
    {"Residual", 1, "folded-into-several",
     [](FoldNet& n) {
       const ValueId x = Image(n);
       return n.Bn(n.Op("Add", {n.Conv(x, 4, 6), n.Conv(x, 4, 6)}), 6);
     }},
    {"ResidualOfInput", 2, "graph-input",
     [](FoldNet& n) {
       const ValueId x = Image(n);
       return n.Bn(n.Op("Add", {n.Conv(x, 4, 4, 3, Pads(1)), x}), 4);
     }},
    {"SameValueTwice", 2, "other-consumers",
     [](FoldNet& n) {
       const ValueId y = ConvOf(n);
       return n.Bn(n.Op("Add", {y, y}), 6);
     }},
};

const Case kThrough[] = {
    {"AveragePool", 0, "folded-into-conv", [](FoldNet& n) { return BnOfPool(n, 3, 1); }},
    {"AveragePoolCountsPadding", 1, "pool-counts-padding",
     [](FoldNet& n) { return BnOfPool(n, 3, 1, {MakeAttr("count_include_pad", int64_t{1})}); }},
    {"AveragePoolDilated", 0, "folded-into-conv",
     [](FoldNet& n) {
       return BnOfPool(n, 2, 1, {MakeAttr("dilations", IntList{4, 4})});
     }},
    {"AveragePoolMissesItsInput", 1, "pool-counts-padding",
     [](FoldNet& n) {
       return BnOfPool(n, 2, 3, {MakeAttr("dilations", IntList{7, 7})});
     }},
    {"AveragePoolCountsPaddingNoShift", 0, "folded-into-conv",
     [](FoldNet& n) { return BnOfPool(n, 3, 1, {MakeAttr("count_include_pad", int64_t{1})}, false); }},
    {"MaxPool", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(n.Op("MaxPool", {ConvOf(n)}, {MakeAttr("kernel_shape", IntList{2, 2})}), 6);
     }},
    {"MaxPoolNegative", 1, "negative-scale",
     [](FoldNet& n) {
       return n.Bn(n.Op("MaxPool", {ConvOf(n)}, {MakeAttr("kernel_shape", IntList{2, 2})}), 6, true, true);
     }},
    {"PadZero", 1, "pad-value",
     [](FoldNet& n) {
       return n.Bn(n.Op("Pad", {ConvOf(n), n.Ints({0, 0, 1, 1, 0, 0, 1, 1})}), 6);
     }},
    {"PadZeroNoShift", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(n.Op("Pad", {ConvOf(n), n.Ints({0, 0, 1, 1, 0, 0, 1, 1})}), 6, false);
     }},
    {"PadEdge", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(
           n.Op("Pad", {ConvOf(n), n.Ints({0, 0, 1, 1, 0, 0, 1, 1})}, {MakeAttr("mode", std::string_view("edge"))}), 6);
     }},
    {"Relu", 1, "shift-behind-activation", [](FoldNet& n) { return n.Bn(n.Op("Relu", {ConvOf(n)}), 6); }},
    {"ReluNoShift", 0, "folded-into-conv", [](FoldNet& n) { return n.Bn(n.Op("Relu", {ConvOf(n)}), 6, false); }},
    {"ReluNegative", 1, "negative-scale", [](FoldNet& n) { return n.Bn(n.Op("Relu", {ConvOf(n)}), 6, false, true); }},
    {"LeakyReluNoShift", 0, "folded-into-conv",
     [](FoldNet& n) { return n.Bn(n.Op("LeakyRelu", {ConvOf(n)}), 6, false); }},
    {"Sigmoid", 1, "nonlinear", [](FoldNet& n) { return n.Bn(n.Op("Sigmoid", {ConvOf(n)}), 6, false); }},
    {"Transpose", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Op(
           "Add",
           {n.Op("Mul", {n.Op("Transpose", {ConvOf(n)}, {MakeAttr("perm", IntList{0, 2, 3, 1})}), n.Constant({6})}),
            n.Constant({6})});
     }},
    {"ReshapeGemm", 0, "folded-into-gemm",
     [](FoldNet& n) {
       return n.Bn(n.Op("Reshape", {n.Op("Gemm", {n.Input({3, 5}), n.Constant({5, 24})}), n.Ints({-1, 4, 2, 3})}), 4);
     }},
    {"FlattenFeatures", 1, "uneven-channels",
     [](FoldNet& n) { return n.Bn(n.Op("Flatten", {n.Conv(Image(n), 4, 6, 7)}), 24); }},
    {"Shuffle", 0, "folded-into-conv",
     [](FoldNet& n) {
       const ValueId cut = n.Op("Reshape", {ConvOf(n), n.Ints({0, 2, 3, 6, 6})});
       const ValueId moved = n.Op("Transpose", {cut}, {MakeAttr("perm", IntList{0, 2, 1, 3, 4})});
       return n.Bn(n.Op("Reshape", {moved, n.Ints({0, 6, 6, 6})}), 6);
     }},
    {"SliceChannels", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(n.Op("Slice", {ConvOf(n), n.Ints({1}), n.Ints({6}), n.Ints({1}), n.Ints({2})}), 3);
     }},
    {"DepthToSpace", 0, "folded-into-conv",
     [](FoldNet& n) {
       return n.Bn(n.Op("DepthToSpace", {n.Conv(Image(n), 4, 12)}, {MakeAttr("blocksize", int64_t{2})}), 3);
     }},
    {"SpaceToDepth", 1, "uneven-channels",
     [](FoldNet& n) { return n.Bn(n.Op("SpaceToDepth", {ConvOf(n)}, {MakeAttr("blocksize", int64_t{2})}), 24); }},
    {"ResizeLinear", 0, "folded-into-conv",
     [](FoldNet& n) {
       const ValueId scales = n.builder.AddConstant("scales", Tensor::From<float>({4}, {1, 1, 2, 2}));
       return n.Bn(n.Op("Resize", {ConvOf(n), kNone, scales}, {MakeAttr("mode", std::string_view("linear"))}), 6);
     }},
};

const Case kForward[] = {
    {"Conv", 0, "folded-forward", [](FoldNet& n) { return n.Conv(n.Bn(Image(n), 4), 4, 6); }},
    {"ConvGroups", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Op("Conv", {n.Bn(Image(n), 4), n.Constant({6, 2, 3, 3})}, {MakeAttr("group", int64_t{2})});
     }},
    {"ConvZeroPadded", 1, "graph-input", [](FoldNet& n) { return n.Conv(n.Bn(Image(n), 4), 4, 6, 3, Pads(1)); }},
    {"ConvZeroPaddedNoShift", 0, "folded-forward",
     [](FoldNet& n) { return n.Conv(n.Bn(Image(n), 4, false), 4, 6, 3, Pads(1)); }},
    {"ConvTranspose", 1, "graph-input",
     [](FoldNet& n) {
       return n.Op("ConvTranspose", {n.Bn(Image(n), 4), n.Constant({4, 3, 3, 3})});
     }},
    {"ConvTransposePoint", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Op("ConvTranspose", {n.Bn(Image(n), 4), n.Constant({4, 3, 1, 1})});
     }},
    {"Gemm", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Op("Gemm", {n.Bn(n.Input({3, 5}), 5), n.Constant({7, 5})},
                   {MakeAttr("transB", int64_t{1}), MakeAttr("alpha", 0.5f)});
     }},
    {"MatMul", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Op("MatMul", {n.Bn(n.Input({3, 5}), 5), n.Constant({5, 7})});
     }},
    {"FlattenGemm", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Op("Gemm", {n.Op("Flatten", {n.Bn(n.Op("Relu", {Image(n)}), 4)}), n.Constant({256, 3})});
     }},
    {"MaxPoolConv", 0, "folded-forward",
     [](FoldNet& n) {
       return n.Conv(n.Op("MaxPool", {n.Bn(Image(n), 4)}, {MakeAttr("kernel_shape", IntList{2, 2})}), 4, 6);
     }},
    {"PreActivation", 1, "graph-input", [](FoldNet& n) { return n.Conv(n.Op("Relu", {n.Bn(Image(n), 4)}), 4, 6); }},
    {"TwoReaders", 1, "folded-forward",
     [](FoldNet& n) {
       const ValueId y = n.Bn(Image(n), 4);
       return n.Op("Add", {n.Conv(y, 4, 6), n.Conv(y, 4, 6)});
     }},
    {"OneReaderRefuses", 2, "graph-input",
     [](FoldNet& n) {
       const ValueId y = n.Bn(Image(n), 4);
       return n.Op("Add", {n.Conv(y, 4, 4, 1), n.Op("Sigmoid", {y})});
     }},
    {"Concat", 0, "folded-forward",
     [](FoldNet& n) {
       const ValueId x = Image(n);
       return n.Conv(n.Op("Concat", {n.Bn(n.Op("Relu", {x}), 4), x}, {MakeAttr("axis", int64_t{1})}), 8, 6);
     }},
    {"Merged", 1, "merged", [](FoldNet& n) { return n.Op("Sigmoid", {n.Bn(n.Bn(Image(n), 4), 4)}); }},
    {"BothWaysThroughOneConcat", 2, "",  // the conv would meet the value on two ways
     [](FoldNet& n) {
       const ValueId y = n.Bn(Image(n), 4);
       return n.Conv(n.Op("Concat", {n.Op("Relu", {y}), y}, {MakeAttr("axis", int64_t{1})}), 8, 6);
     }},
};

class FoldRules : public ::testing::TestWithParam<Case> {};

TEST_P(FoldRules, KeepsTheFunction) {
  FoldNet net;
  const ValueId output = GetParam().build(net);
  const FoldResult result = FoldAndCompare(std::move(net), {output});
  EXPECT_LE(result.Maps(), GetParam().left);
  EXPECT_GE(result.Maps(), std::min(GetParam().left, 1));
  std::string codes;
  for (const LogEntry& entry : result.log) codes += entry.code + " (" + entry.node + ": " + entry.message + ") ";
  if (*GetParam().code != '\0') {
    EXPECT_TRUE(result.Has(GetParam().code)) << codes;
  }
}

const auto kName = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Backward, FoldRules, ::testing::ValuesIn(kBackward), kName);
INSTANTIATE_TEST_SUITE_P(Through, FoldRules, ::testing::ValuesIn(kThrough), kName);
INSTANTIATE_TEST_SUITE_P(Forward, FoldRules, ::testing::ValuesIn(kForward), kName);

TEST(FoldWhole, SharedWeightsAreNeverEdited) {
  FoldNet n;
  const ValueId x = Image(n), w = n.Constant({4, 4, 1, 1});
  const ValueId a = n.Bn(n.Op("Conv", {x, w}), 4), b = n.Op("Conv", {n.Op("Sigmoid", {x}), w});
  const FoldResult result = FoldAndCompare(std::move(n), {a, b});
  EXPECT_EQ(result.Maps(), 0);
}

TEST(FoldWhole, OutputsInTheMiddleKeepTheBatchNorm) {
  FoldNet n;
  const ValueId y = ConvOf(n), z = n.Bn(y, 6);
  const FoldResult result = FoldAndCompare(std::move(n), {y, z});
  EXPECT_EQ(result.Maps(), 1);
  EXPECT_TRUE(result.Has("graph-output"));
}

TEST(FoldWhole, AnotherReaderKeepsTheBatchNorm) {
  FoldNet n;
  const ValueId y = ConvOf(n), z = n.Bn(y, 6), s = n.Op("Sigmoid", {y});
  const FoldResult result = FoldAndCompare(std::move(n), {z, s});
  EXPECT_TRUE(result.Has("other-consumers"));
}

TEST(FoldWhole, TrainingModeIsLeft) {
  FoldNet n;
  const ValueId y = ConvOf(n);
  Node node;
  node.op_type = "BatchNormalization";
  node.name = "bn";
  node.inputs = {y, n.Constant({6}), n.Constant({6}), n.Constant({6}), n.Constant({6}, 0.2, 1)};
  const ValueId out = n.builder.GetOrAddValue("bn_out");
  node.outputs = {out, n.builder.GetOrAddValue("m"), n.builder.GetOrAddValue("v")};
  node.attributes = {MakeAttr("training_mode", int64_t{1})};
  n.builder.AddNode(std::move(node));
  n.builder.AddOutput(out);
  Result<Graph> graph = std::move(n.builder).Build();
  ASSERT_TRUE(graph.ok());
  Result<PassLog> log = RunPasses(*graph, FoldingPasses());
  ASSERT_TRUE(log.ok()) << log.error().ToString();
  ASSERT_EQ(log->size(), 1u);
  EXPECT_EQ((*log)[0].code, "training-mode");
}

TEST(FoldWhole, OverflowAndDenormalsAreRefused) {
  for (const double gamma : {1e300, 1e-300}) {
    FoldNet n;
    const ValueId w = n.Given({1, 1, 1, 1}, {gamma > 1 ? 1e10 : 1e-10});
    const ValueId y = n.Op("Conv", {n.Input({1, 1, 2, 2}), w});
    const ValueId z = n.Op("Mul", {y, n.Given({1, 1, 1}, {gamma})});
    for (ValueId id : {z}) n.builder.AddOutput(id);
    Result<Graph> graph = std::move(n.builder).Build();
    ASSERT_TRUE(graph.ok());
    ASSERT_TRUE(RunPasses(*graph, FoldingPasses()).ok());
    EXPECT_EQ(graph->topological_order().size(), 2u) << gamma;
  }
}

TEST(FoldWhole, DeadChannelBecomesItsShift) {
  FoldNet n;
  const ValueId y = n.Op("BatchNormalization", {ConvOf(n, 2), n.Given({2}, {0, 1}), n.Given({2}, {3, 0}),
                                                n.Constant({2}), n.Given({2}, {1, 1})});
  const FoldResult result = FoldAndCompare(std::move(n), {y});
  EXPECT_EQ(result.Maps(), 0);
  ASSERT_TRUE(result.Has("folded-into-conv"));
  EXPECT_NE(result.log[0].message.find("1 dead"), std::string::npos) << result.log[0].message;
}

// A search that tried every order of every sum would take 2^60 steps.
TEST(FoldWhole, NestedSumsEnd) {
  FoldNet n;
  const ValueId x = Image(n);
  ValueId sum = n.Op("Add", {n.Conv(x, 4, 4, 1), x});
  for (int i = 0; i < 60; ++i) sum = n.Op("Add", {sum, n.Conv(x, 4, 4, 1)});
  const ValueId y = n.Bn(sum, 4);
  const FoldResult result = FoldAndCompare(std::move(n), {y});
  EXPECT_EQ(result.Count("BatchNormalization"), 1);
}

}  // namespace
}  // namespace crease
