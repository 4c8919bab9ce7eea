// SPDX-License-Identifier: Apache-2.0
#include "runtime/rectified.h"

#include <algorithm>
#include <functional>

#include "kernels/conv_sparse.h"
#include "runtime/lower.h"
#include "tests/runtime/runtime_test_util.h"

namespace crease {
namespace {

using test::ExpectMatchesInterpreter;
using test::MakeImpl;
using test::Net;

constexpr int64_t kChannels = 24, kSize = 14;

// Whether what `make` makes of two maps is rectified once fusion has done its work: a convolution of 7 filters reads
// it.
bool IsRectified(const std::function<ValueId(Net&, ValueId, ValueId)>& make) {
  Net net(1);
  const ValueId x = net.Input("x", {1, 8, kSize, kSize});
  const ValueId a = net.Conv(x, 8, kChannels, 1), b = net.Conv(x, 8, kChannels, 3);
  const ValueId y = make(net, a, b);
  net.Output(net.Op("Conv", {y, net.Weights({7, kChannels, 1, 1}, 1)},
                    {MakeAttr("kernel_shape", std::vector<int64_t>{1, 1})}));
  const Graph graph = net.Build();
  ConstantPool constants;
  const auto program = Lower(graph, std::vector<Shape>{{1, 8, kSize, kSize}}, constants, {});
  EXPECT_TRUE(program.ok());
  if (!program.ok()) return false;
  const std::vector<bool> rectified = FindRectified(*program);
  for (const ProgramOp& op : program->ops) {
    if (op.type() == "Conv" && program->value(op.output()).shape[1] == 7) {
      return rectified[static_cast<size_t>(op.input(0))];
    }
  }
  ADD_FAILURE() << "the reader is gone";
  return false;
}

ValueId Clip(Net& net, ValueId x, float lo) {
  return net.Op("Clip", {x, net.Constant(Tensor::Scalar<float>(lo)), net.Constant(Tensor::Scalar<float>(6))});
}

TEST(Rectified, WhatMakesZeros) {
  EXPECT_TRUE(IsRectified([](Net& net, ValueId a, ValueId) { return net.Op("Relu", {a}); }));
  EXPECT_TRUE(IsRectified([](Net& net, ValueId a, ValueId) { return Clip(net, a, 0); }));
  EXPECT_TRUE(IsRectified([](Net& net, ValueId a, ValueId) { return net.Op("HardSigmoid", {a}); }));
  EXPECT_TRUE(IsRectified([](Net& net, ValueId a, ValueId) { return net.Op("Mul", {a, net.Op("HardSigmoid", {a})}); }));
  EXPECT_TRUE(IsRectified([](Net& net, ValueId a, ValueId b) { return net.Op("Relu", {net.Op("Add", {a, b})}); }));
  EXPECT_FALSE(IsRectified([](Net&, ValueId a, ValueId) { return a; }));
  EXPECT_FALSE(IsRectified([](Net& net, ValueId a, ValueId) { return Clip(net, a, -1); }));
  EXPECT_FALSE(IsRectified([](Net& net, ValueId a, ValueId) { return net.Op("LeakyRelu", {a}); }));
  EXPECT_FALSE(IsRectified([](Net& net, ValueId a, ValueId) { return net.Op("Mul", {a, net.Op("Sigmoid", {a})}); }));
}

TEST(Rectified, WhatKeepsThem) {
  const auto relu = [](Net& net, ValueId x) { return net.Op("Relu", {x}); };
  const Attribute axis = MakeAttr("axis", int64_t{1});
  EXPECT_TRUE(IsRectified([&](Net& net, ValueId a, ValueId b) {
    const ValueId half = net.Split(net.Op("Concat", {relu(net, a), relu(net, b)}, {axis}), 2)[1];
    return half;
  }));
  EXPECT_TRUE(IsRectified([&](Net& net, ValueId a, ValueId b) {
    return net.Op("Mul", {net.Op("Sigmoid", {a}), relu(net, b)});
  }));
  EXPECT_TRUE(IsRectified([&](Net& net, ValueId a, ValueId) {
    return net.Op(
        "MaxPool", {relu(net, a)},
        {MakeAttr("kernel_shape", std::vector<int64_t>{3, 3}), MakeAttr("pads", std::vector<int64_t>{1, 1, 1, 1})});
  }));
  EXPECT_FALSE(IsRectified([&](Net& net, ValueId a, ValueId b) {
    return net.Split(net.Op("Concat", {relu(net, a), b}, {axis}), 2)[1];
  }));
  EXPECT_FALSE(IsRectified([&](Net& net, ValueId a, ValueId b) { return net.Op("Add", {relu(net, a), b}); }));
  EXPECT_FALSE(IsRectified([&](Net& net, ValueId a, ValueId) {
    return net.Op(
        "AveragePool", {relu(net, a)},
        {MakeAttr("kernel_shape", std::vector<int64_t>{3, 3}), MakeAttr("pads", std::vector<int64_t>{1, 1, 1, 1})});
  }));
}

TEST(Rectified, ConvolutionsBehindReLUsListTheirChannels) {
  Net net(1);
  ValueId x = net.Op("Relu", {net.Conv(net.Input("x", {-1, 8, 13, 11}), 8, 96, 3)});
  x = net.Op("Relu", {net.BatchNorm(net.Conv(x, 96, 150, 1), 150)});
  const ValueId y = net.Conv(x, 150, 96, 1, 2);
  net.Output(y);
  net.Output(net.Conv(net.Op("Relu", {net.BatchNorm(y, 96)}), 96, 64, 1));
  const Graph graph = net.Build();
  const bool pays = SparseConv::Pays({1, 13, 11, 150, 96, 13, 11});
  for (const int threads : {1, 2}) {
    Options options;
    options.threads = threads;
    const auto impl = MakeImpl(graph, options);
    ExpectMatchesInterpreter(graph, *impl, 3, 2, 2e-5);
    const auto plan = impl->PlanFor(std::vector<Shape>{{2, 8, 13, 11}});
    ASSERT_TRUE(plan.ok());
    const auto listing = std::count_if((*plan)->steps.begin(), (*plan)->steps.end(),
                                       [](const PlanStep& step) { return step.kernel == "sparse"; });
    EXPECT_EQ(listing, pays ? 3 : 0);
  }
}

}  // namespace
}  // namespace crease
