// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "tests/support/fold_net.h"

namespace crease {
namespace {

using testing::FoldNet;

std::multiset<std::string> Operators(const Graph& graph) {
  std::multiset<std::string> operators;
  for (NodeId id : graph.topological_order()) operators.insert(graph.node(id).op_type);
  return operators;
}

// x (1, 4, 5, 6) through Add(offset), Clip(0, top), then what `finish` adds; composed, and compared in
// double: alpha and beta are attributes in float, so 1e-7 of values of some units.
template <typename Finish>
std::multiset<std::string> Compose(double offset, double top, Finish finish) {
  FoldNet net;
  const ValueId x = net.Input({1, 4, 5, 6});
  const ValueId sum = net.Op("Add", {x, net.Given({}, {offset})});
  const ValueId ramp = net.Op("Clip", {sum, net.Given({}, {0.0}), net.Given({}, {top})});
  net.builder.AddOutput(finish(net, x, ramp));
  const std::map<std::string, Tensor> inputs = net.inputs;
  Graph graph = std::move(net.builder).Build().value();
  const std::vector<Tensor> before = Interpret(graph, inputs).value();
  EXPECT_TRUE(RunPasses(graph, PreparationPasses()).ok());
  const std::vector<Tensor> after = Interpret(graph, inputs).value();
  for (int64_t i = 0; i < before[0].size(); ++i) {
    EXPECT_NEAR(after[0].AsDouble(i), before[0].AsDouble(i), 1e-6) << i;
  }
  return Operators(graph);
}

TEST(ComposeActivations, DivisionOfARampIsAHardSigmoid) {
  const auto operators = Compose(3, 6, [](FoldNet& net, ValueId, ValueId ramp) {
    return net.Op("Div", {ramp, net.Given({}, {6.0})});
  });
  EXPECT_EQ(operators, (std::multiset<std::string>{"HardSigmoid"}));
}

TEST(ComposeActivations, AnyOffsetAndTopBySameFactor) {
  const auto operators = Compose(0.7, 2.5, [](FoldNet& net, ValueId, ValueId ramp) {
    return net.Op("Mul", {net.Given({1}, {0.4}), ramp});
  });
  EXPECT_EQ(operators, (std::multiset<std::string>{"HardSigmoid"}));
}

TEST(ComposeActivations, HardSwishInPartsIsGated) {
  const auto operators = Compose(3, 6, [](FoldNet& net, ValueId x, ValueId ramp) {
    return net.Op("Div", {net.Op("Mul", {x, ramp}), net.Given({}, {6.0})});
  });
  EXPECT_EQ(operators, (std::multiset<std::string>{"HardSigmoid", "Mul"}));
}

TEST(ComposeActivations, LeavesOtherFactorsAndSharedParts) {
  const auto other = Compose(3, 6, [](FoldNet& net, ValueId, ValueId ramp) {
    return net.Op("Div", {ramp, net.Given({}, {5.0})});
  });
  EXPECT_EQ(other, (std::multiset<std::string>{"Add", "Clip", "Div"}));
  const auto shared = Compose(3, 6, [](FoldNet& net, ValueId, ValueId ramp) {
    return net.Op("Add", {net.Op("Div", {ramp, net.Given({}, {6.0})}), ramp});
  });
  EXPECT_EQ(shared, (std::multiset<std::string>{"Add", "Add", "Clip", "Div"}));
}

}  // namespace
}  // namespace crease
