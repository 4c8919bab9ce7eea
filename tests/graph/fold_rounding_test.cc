// SPDX-License-Identifier: Apache-2.0
// However many folds go into a weight, it is rounded once: folding a float32 network gives the constants that
// folding it in float64 gives, rounded.
#include <functional>

#include "tests/support/fold_net.h"
#include "tests/support/random_graph.h"

namespace crease {
namespace {

using testing::Attributes;
using testing::FoldNet;
using testing::IntList;
using testing::RandomGraph;

// The network with constants that float32 has, stored as `dtype`.
Graph InDType(const Graph& graph, DType dtype) {
  const auto convert = [&](const Tensor& tensor) {
    return IsFloat(tensor.dtype()) ? *tensor.ConvertedTo(DType::kFloat32)->ConvertedTo(dtype) : tensor;
  };
  GraphBuilder builder;
  builder.info() = graph.info();
  for (ValueId id : graph.inputs()) {
    TensorType type = graph.value(id).type;
    type.dtype = dtype;
    builder.AddInput(graph.value(id).name, type);
  }
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (value.constant) builder.AddConstant(value.name, convert(*value.constant));
  }
  const auto mapped = [&](ValueId id) { return id == kNone ? kNone : builder.GetOrAddValue(graph.value(id).name); };
  for (NodeId id : graph.topological_order()) {
    Node node = graph.node(id);
    for (ValueId& input : node.inputs) input = mapped(input);
    for (ValueId& output : node.outputs) output = mapped(output);
    for (Attribute& attribute : node.attributes) {
      if (Tensor* tensor = std::get_if<Tensor>(&attribute.data)) *tensor = convert(*tensor);
    }
    builder.AddNode(std::move(node));
  }
  for (ValueId id : graph.outputs()) builder.AddOutput(mapped(id));
  return *std::move(builder).Build();
}

// Folds both; the number of folded nodes.
size_t ExpectRoundedOnce(const Graph& graph) {
  Graph narrow = InDType(graph, DType::kFloat32), wide = InDType(graph, DType::kFloat64);
  const Result<PassLog> log = RunPasses(narrow, FoldingPasses()), wide_log = RunPasses(wide, FoldingPasses());
  EXPECT_TRUE(log.ok() && wide_log.ok());
  if (!log.ok() || !wide_log.ok()) return 0;
  for (ValueId id = 0; id < narrow.value_count(); ++id) {
    const Value& value = narrow.value(id);
    if (!value.constant || value.constant->dtype() != DType::kFloat32 || narrow.consumers(id).empty()) continue;
    const ValueId twin = wide.FindValue(value.name);
    EXPECT_NE(twin, kNone) << value.name;
    if (twin == kNone || !wide.value(twin).constant) continue;
    const Tensor& exact = *wide.value(twin).constant;
    EXPECT_EQ(value.constant->shape(), exact.shape()) << value.name;
    for (int64_t i = 0; i < exact.size() && i < value.constant->size(); ++i) {
      EXPECT_EQ(value.constant->AsDouble(i), static_cast<double>(static_cast<float>(exact.AsDouble(i))))
          << value.name << "[" << i << "]";
    }
  }
  return static_cast<size_t>(std::count_if(log->begin(), log->end(), [](const LogEntry& e) { return e.applied; }));
}

struct Case {
  const char* name;
  std::function<ValueId(FoldNet&)> build;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

ValueId PositiveScale(FoldNet& n, ValueId x, int64_t channels) {
  return n.Op("Mul", {x, n.Constant({channels, 1, 1}, 0.3, 0.9)});
}

const Case kTwice[] = {
    {"ConvBothSides",
     [](FoldNet& n) {
       return n.Bn(n.Conv(n.Bn(n.Input({1, 5, 6, 6}), 5), 5, 7), 7);
     }},
    {"ConvGroupsBothSides",
     [](FoldNet& n) {
       const ValueId x = n.Bn(n.Input({1, 4, 6, 6}), 4);
       return n.Bn(n.Op("Conv", {x, n.Constant({6, 2, 3, 3})}, {MakeAttr("group", int64_t{2})}), 6);
     }},
    {"ThroughTwoRectifiers",
     [](FoldNet& n) {
       const ValueId y = n.Op("Relu", {n.Bn(n.Conv(n.Input({1, 3, 6, 6}), 3, 5), 5)});
       return n.Op("Sigmoid", {PositiveScale(n, n.Op("Relu", {PositiveScale(n, y, 5)}), 5)});
     }},
    {"ConvTransposeBothSides",
     [](FoldNet& n) {
       const ValueId x = n.Bn(n.Input({1, 4, 6, 6}), 4);
       return n.Bn(n.Op("ConvTranspose", {x, n.Constant({4, 3, 1, 1})}, {MakeAttr("group", int64_t{2})}), 6);
     }},
    {"GemmBothSides",
     [](FoldNet& n) {
       const Attributes attributes{MakeAttr("transB", int64_t{1}), MakeAttr("alpha", 0.7f), MakeAttr("beta", 1.3f)};
       return n.Bn(n.Op("Gemm", {n.Bn(n.Input({3, 5}), 5), n.Constant({7, 5}), n.Constant({7})}, attributes), 7);
     }},
    {"MatMulBothSides",
     [](FoldNet& n) {
       return n.Bn(n.Op("MatMul", {n.Bn(n.Input({3, 5}), 5), n.Constant({5, 7})}), 7);
     }},
    {"MatMulBatchesBothSides",
     [](FoldNet& n) {
       const ValueId x = n.Op("Mul", {n.Input({2, 4, 5}), n.Constant({5})});
       return n.Op("Mul", {n.Op("MatMul", {x, n.Constant({2, 5, 7})}), n.Constant({7})});
     }},
    {"MapLeftThenFolded",
     [](FoldNet& n) {  // the first two maps meet in a node that is rounded before it is folded
       const ValueId x = n.Op("Relu", {n.Input({1, 5, 6, 6})});
       return n.Conv(n.Op("MaxPool", {n.Bn(n.Bn(x, 5), 5)}, {MakeAttr("kernel_shape", IntList{2, 2})}), 5, 4);
     }},
};

class FoldRounding : public ::testing::TestWithParam<Case> {};

TEST_P(FoldRounding, Once) {
  FoldNet net;
  net.builder.AddOutput(GetParam().build(net));
  EXPECT_GE(ExpectRoundedOnce(*std::move(net.builder).Build()), 2u);
}
INSTANTIATE_TEST_SUITE_P(Twice, FoldRounding, ::testing::ValuesIn(kTwice),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(FoldRounding, RandomGraphs) {
  size_t folded = 0;
  for (uint64_t seed = 1; seed <= 1000 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomGraph random(seed, {DType::kFloat64, false});
    folded += ExpectRoundedOnce(*random.Build());
  }
  EXPECT_GT(folded, 500u);
}

// The constants of a fold forward and one backward, from the definition.
TEST(FoldRounding, ConvAgainstTheDefinition) {
  FoldNet net;
  const ValueId w = net.Constant({3, 2, 1, 1}), first = net.Constant({2, 1, 1}, 0.4, 1.1),
                last = net.Constant({3, 1, 1}, 0.4, 0.8);
  const ValueId y = net.Op("Conv", {net.Op("Mul", {net.Input({1, 2, 4, 4}), first}), w});
  net.builder.AddOutput(net.Op("Mul", {y, last}));
  Graph graph = InDType(*std::move(net.builder).Build(), DType::kFloat32);
  const auto find = [&](const char* name) { return *graph.constant(graph.FindValue(name)); };
  const Tensor weights = find("c1"), before = find("c2"), after = find("c3");
  ASSERT_TRUE(RunPasses(graph, FoldingPasses()).ok());
  ASSERT_EQ(graph.topological_order().size(), 1u);
  const Tensor& result = *graph.constant(graph.node(graph.topological_order()[0]).inputs[1]);
  for (int64_t o = 0; o < 3; ++o) {
    for (int64_t i = 0; i < 2; ++i) {
      const double product = weights.AsDouble(o * 2 + i) * before.AsDouble(i) * after.AsDouble(o);
      EXPECT_EQ(result.AsDouble(o * 2 + i), static_cast<double>(static_cast<float>(product))) << o << ", " << i;
    }
  }
}

}  // namespace
}  // namespace crease
