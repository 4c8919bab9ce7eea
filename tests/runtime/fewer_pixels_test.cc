// SPDX-License-Identifier: Apache-2.0
// Rewrites that compute fewer pixels: pools before 1x1 convolutions, strides into what makes a map.
#include <algorithm>

#include "tests/runtime/runtime_test_util.h"

namespace crease {
namespace {

using test::ExpectMatchesInterpreter;
using test::MakeImpl;
using test::Net;

constexpr double kBound = 2e-5;

std::vector<Attribute> Window(std::vector<int64_t> kernel, std::vector<int64_t> strides, int64_t pad = 0,
                              int64_t counted = 0, int64_t ceil_mode = 0) {
  const std::vector<int64_t> pads(2 * kernel.size(), pad);
  return {MakeAttr("kernel_shape", std::move(kernel)), MakeAttr("strides", std::move(strides)), MakeAttr("pads", pads),
          MakeAttr("count_include_pad", counted), MakeAttr("ceil_mode", ceil_mode)};
}

// Multiply-adds that the plan does for the graph's first input shape, times 2.
double FlopsOf(const Session::Impl& impl) {
  std::vector<Shape> shapes;
  for (const TensorSpec& spec : impl.inputs()) shapes.push_back(spec.shape);
  const auto plan = impl.PlanFor(shapes);
  EXPECT_TRUE(plan.ok());
  return plan.ok() ? (*plan)->flops() : 0;
}

// Runs the graph against the interpreter on one thread and on two; the flops that it takes.
double CheckedFlops(const Graph& graph) {
  double flops = 0;
  for (const int threads : {1, 2}) {
    Options options;
    options.threads = threads;
    const auto impl = MakeImpl(graph, options);
    ExpectMatchesInterpreter(graph, *impl, 3, 1, kBound);
    flops = FlopsOf(*impl);
  }
  return flops;
}

double ConvFlops(int64_t pixels, int64_t in, int64_t out, int64_t taps = 1) {
  return 2.0 * static_cast<double>(pixels * in * out * taps);
}

// DenseNet's transitions: BatchNormalization, Relu, Conv of 1x1, AveragePool.
TEST(PoolBeforePointwise, WithAPrologue) {
  Net net(1);
  const ValueId x = net.Input("x", {2, 37, 14, 18});
  const ValueId shared = net.Conv(x, 37, 37, 3);
  ValueId y = net.Op("Relu", {net.BatchNorm(shared, 37)});
  y = net.Op("AveragePool", {net.Conv(y, 37, 19, 1)}, Window({2, 2}, {2, 2}));
  net.Output(y);
  net.Output(net.Op("Sigmoid", {shared}));
  const double all = ConvFlops(2 * 14 * 18, 37, 37, 9) + ConvFlops(2 * 14 * 18, 37, 19);
  const double fewer = ConvFlops(2 * 14 * 18, 37, 37, 9) + ConvFlops(2 * 7 * 9, 37, 19);
  const double flops = CheckedFlops(net.Build());
  EXPECT_LT(flops, 0.5 * (all + fewer));
  EXPECT_GE(flops, fewer);
}

// Every activation in the pool's prologue, any number of channels; where windows overlap it is a step of its own.
TEST(PoolBeforePointwise, PrologueOfEveryKind) {
  for (const char* activation : {"Relu", "LeakyRelu", "Sigmoid", "Tanh"}) {
    for (const int64_t kernel : {2, 3, 5}) {
      for (const int64_t channels : {1, 8, 13, 33}) {
        SCOPED_TRACE(std::string(activation) + " " + std::to_string(kernel) + " " + std::to_string(channels));
        Net net(10);
        const ValueId x = net.Op("Tanh", {net.Input("x", {1, channels, 11, 9})});
        net.Output(net.Op("AveragePool", {net.Op(activation, {net.BatchNorm(x, channels)})},
                          Window({kernel, kernel}, {2, 3}, 1, channels % 2)));
        net.Output(net.Op("Sigmoid", {x}));
        CheckedFlops(net.Build());
      }
    }
  }
}

// No kernel takes doubles with a prologue.
TEST(PoolBeforePointwise, NoPrologueForDoubles) {
  for (const char* pool : {"AveragePool", "GlobalAveragePool"}) {
    Net net(13);
    const auto wide = [&](ValueId id) { return net.Op("Cast", {id}, {MakeAttr("to", int64_t{11})}); };
    std::vector<ValueId> inputs = {wide(net.Input("x", {1, 6, 8, 9}))};
    for (int i = 0; i < 3; ++i) inputs.push_back(wide(net.Weights({6}, 1)));
    inputs.push_back(wide(net.Op("Exp", {net.Weights({6}, 1)})));
    const ValueId y = net.Op("BatchNormalization", inputs);
    net.Output(net.Op("Cast", {net.Op(pool, {y}, pool[0] == 'G' ? std::vector<Attribute>() : Window({2, 2}, {2, 2}))},
                      {MakeAttr("to", int64_t{1})}));
    CheckedFlops(net.Build());
  }
}

// Whatever the pads and the rounding: a bias stays right, also where padding counts and the pool has to stay behind.
TEST(PoolBeforePointwise, PadsCeilModeAndBias) {
  for (const int64_t pad : {0, 1}) {
    for (const int64_t counted : {0, 1}) {
      for (const int64_t ceil_mode : {0, 1}) {
        for (const bool bias : {false, true}) {
          SCOPED_TRACE(std::to_string(pad) + " pad, counted " + std::to_string(counted) + ", ceil_mode " +
                       std::to_string(ceil_mode) + ", bias " + std::to_string(bias));
          Net net(2);
          const ValueId x = net.Input("x", {1, 9, 14, 13});
          const ValueId conv = net.Conv(x, 9, 21, 1, 1, 1, bias);
          net.Output(net.Op("Relu", {net.Op("AveragePool", {conv}, Window({3, 2}, {2, 2}, pad, counted, ceil_mode))}));
          const double flops = CheckedFlops(net.Build());
          const bool moved = !bias || counted == 0 || (pad == 0 && ceil_mode == 0);
          EXPECT_EQ(flops < 0.8 * ConvFlops(14 * 13, 9, 21), moved);
        }
      }
    }
  }
}

// A window of one pixel of padding on each side of the input: its mean is 0, not the bias.
TEST(PoolBeforePointwise, WindowsWithoutInput) {
  for (const int64_t size : {3, 4, 6}) {
    Net net(11);
    const ValueId conv = net.Conv(net.Input("x", {1, 4, size, size}), 4, 5, 1);
    std::vector<Attribute> window = Window({2, 2}, {2, 2}, 1);
    window.push_back(MakeAttr("dilations", std::vector<int64_t>{4, 4}));
    net.Output(net.Op("AveragePool", {conv}, std::move(window)));
    CheckedFlops(net.Build());
  }
}

TEST(PoolBeforePointwise, OfAllPixels) {
  Net net(9);
  const ValueId x = net.Input("x", {2, 16, 9, 7});
  net.Output(net.Op("Flatten", {net.Op("GlobalAveragePool", {net.Conv(net.Op("Relu", {x}), 16, 100, 1)})}));
  EXPECT_LT(CheckedFlops(net.Build()), 0.2 * ConvFlops(2 * 63, 16, 100));
}

TEST(PoolBeforePointwise, StaysWhereItMust) {
  const auto flops_of = [](const char* between, int64_t kernel, int64_t conv_stride, int64_t pool_stride, bool shared) {
    Net net(3);
    ValueId y = net.Conv(net.Input("x", {1, 16, 16, 16}), 16, 24, kernel, conv_stride);
    if (shared) net.Output(net.Op("Tanh", {y}));
    if (between != nullptr) y = net.Op(between, {y});
    net.Output(net.Op("AveragePool", {y}, Window({2, 2}, {pool_stride, pool_stride})));
    return CheckedFlops(net.Build());
  };
  EXPECT_LT(flops_of(nullptr, 1, 1, 2, false), 0.5 * ConvFlops(256, 16, 24));
  EXPECT_GE(flops_of("Relu", 1, 1, 2, false), ConvFlops(256, 16, 24));
  EXPECT_GE(flops_of(nullptr, 1, 1, 2, true), ConvFlops(256, 16, 24));
  EXPECT_GE(flops_of(nullptr, 1, 1, 1, false), ConvFlops(256, 16, 24));
  EXPECT_GE(flops_of(nullptr, 3, 1, 2, false), ConvFlops(256, 16, 24, 9));
}

// A bottleneck of ResNet before a stage whose two first convolutions skip every second pixel.
Graph EndOfStage(int64_t height, int64_t width, bool other_reader, int64_t second_stride = 2) {
  Net net(4);
  const ValueId r = net.Op("Relu", {net.Conv(net.Input("x", {1, 5, height, width}), 5, 40, 1)});
  ValueId y = net.Op("Relu", {net.Conv(r, 40, 12, 1)});
  y = net.Op("Relu", {net.Conv(y, 12, 12, 3)});
  y = net.Op("Relu", {net.Op("Add", {net.Conv(y, 12, 40, 1), r})});
  net.Output(net.Conv(y, 40, 16, 1, 2));
  net.Output(net.Op("Relu", {net.Conv(y, 40, 24, 1, second_stride)}));
  if (other_reader) net.Output(net.Op("Sigmoid", {y}));
  return net.Build();
}

TEST(SkipUnreadPixels, EndOfAStage) {
  for (const int64_t height : {1, 2, 7, 14}) {
    for (const int64_t width : {1, 8, 13}) {
      SCOPED_TRACE(std::to_string(height) + "x" + std::to_string(width));
      const double flops = CheckedFlops(EndOfStage(height, width, false));
      const int64_t all = height * width, read = ((height + 1) / 2) * ((width + 1) / 2);
      const double fewer = ConvFlops(all, 5, 40) + ConvFlops(all, 40, 12) + ConvFlops(read, 12, 12, 9) +
                           ConvFlops(read, 12, 40) + ConvFlops(read, 40, 16) + ConvFlops(read, 40, 24);
      // Sums, activations and what is sampled: an operation an element.
      EXPECT_LE(flops, fewer + static_cast<double>(250 * all));
      EXPECT_GE(flops, fewer);
    }
  }
}

TEST(SkipUnreadPixels, NotWhatSomeoneReads) {
  const double all = ConvFlops(14 * 13, 12, 12, 9) + ConvFlops(14 * 13, 12, 40);
  EXPECT_GE(CheckedFlops(EndOfStage(14, 13, true)), all);
  EXPECT_GE(CheckedFlops(EndOfStage(14, 13, false, 1)), all);
}

// SE-ResNet's: the gate is made of the means of all pixels, which are those of the means before the convolution.
TEST(SkipUnreadPixels, EndOfAStageWithAGate) {
  Net net(8);
  const ValueId r = net.Op("Relu", {net.Conv(net.Input("x", {2, 5, 14, 13}), 5, 40, 1)});
  ValueId y = net.Op("Relu", {net.Conv(r, 40, 12, 3)});
  y = net.Conv(y, 12, 40, 1);
  const ValueId squeezed = net.Op("Relu", {net.Conv(net.Op("GlobalAveragePool", {y}), 40, 4, 1)});
  const ValueId gate = net.Op("Sigmoid", {net.Conv(squeezed, 4, 40, 1)});
  y = net.Op("Relu", {net.Op("Add", {net.Op("Mul", {y, gate}), r})});
  net.Output(net.Conv(y, 40, 16, 1, 2));
  net.Output(net.Conv(y, 40, 24, 1, 2));
  const int64_t all = 2 * 14 * 13, read = 2 * 7 * 7;
  const double flops = CheckedFlops(net.Build());
  const double fewer = ConvFlops(all, 5, 40) + ConvFlops(all, 40, 12, 9) + ConvFlops(read, 12, 40) +
                       ConvFlops(read, 40, 16) + ConvFlops(read, 40, 24);
  EXPECT_LT(flops, fewer + static_cast<double>(250 * all));
  EXPECT_GE(flops, fewer);
}

// Strides go up through batch-norms, activations, sums, gates and pools of one pixel, and stay below what they can't
// pass.
TEST(SkipUnreadPixels, ThroughWhatWorksPixelByPixel) {
  Net net(5);
  const ValueId x = net.Input("x", {2, 6, 11, 12});
  const ValueId stem = net.Conv(x, 6, 20, 3);
  const ValueId gate = net.Op("Sigmoid", {net.Conv(net.Op("GlobalAveragePool", {stem}), 20, 20, 1)});
  const ValueId other = net.Conv(x, 6, 20, 5);
  ValueId y = net.Op("Add", {net.Op("Mul", {gate, stem}), net.Op("LeakyRelu", {other})});
  y = net.Op("Sub", {net.Op("Sigmoid", {net.BatchNorm(y, 20)}), net.Weights({20, 1, 1}, 1)});
  y = net.Op("Add", {y, y});
  net.Output(net.Op("MaxPool",
                    {net.Op("Identity", {net.Op("MaxPool", {y},
                                                {MakeAttr("kernel_shape", std::vector<int64_t>{1, 1}),
                                                 MakeAttr("strides", std::vector<int64_t>{2, 3})})})},
                    {MakeAttr("kernel_shape", std::vector<int64_t>{2, 2})}));
  net.Output(net.Conv(
      net.Op("MaxPool", {y},
             {MakeAttr("kernel_shape", std::vector<int64_t>{1, 1}), MakeAttr("strides", std::vector<int64_t>{2, 3})}),
      20, 7, 1));
  const double flops = CheckedFlops(net.Build());
  EXPECT_LT(flops, ConvFlops(2 * 11 * 12, 6, 20, 9) + 0.5 * ConvFlops(2 * 11 * 12, 6, 20, 25));
}

// Pads that follow from auto_pad are those of the stride that there was.
TEST(SkipUnreadPixels, AutoPadDilationAndGroups) {
  for (const char* pad : {"SAME_UPPER", "SAME_LOWER", "VALID"}) {
    for (const int64_t stride : {1, 2}) {
      for (const int64_t size : {15, 16}) {
        SCOPED_TRACE(std::string(pad) + " stride " + std::to_string(stride) + " size " + std::to_string(size));
        Net net(6);
        const ValueId x = net.Input("x", {1, 12, size, size + 3});
        ValueId y = net.Op("Conv", {x, net.Weights({18, 4, 4, 4}, 0.2f), net.Weights({18}, 1)},
                           {MakeAttr("group", int64_t{3}), MakeAttr("auto_pad", std::string(pad)),
                            MakeAttr("strides", std::vector<int64_t>{stride, stride})});
        y = net.Op("Relu", {y});
        y = net.Op("Conv", {y, net.Weights({10, 18, 1, 1}, 0.2f)},
                   {MakeAttr("auto_pad", std::string(pad)), MakeAttr("strides", std::vector<int64_t>{2, 3})});
        net.Output(net.Op("Tanh", {y}));
        CheckedFlops(net.Build());
      }
    }
  }
}

// With auto_pad an input may have no pixels; none of it may turn into one.
TEST(SkipUnreadPixels, NoPixels) {
  Net net(12);
  const ValueId x = net.Input("x", {-1, 4, -1, 8});
  const std::vector<Attribute> skip = {MakeAttr("kernel_shape", std::vector<int64_t>{1, 1}),
                                       MakeAttr("strides", std::vector<int64_t>{2, 2}),
                                       MakeAttr("auto_pad", std::string("SAME_UPPER"))};
  const ValueId y = net.Op("MaxPool", {net.Op("Relu", {x})}, skip);
  net.Output(net.Op("Concat", {y, net.Input("q", {-1, 4, 3, 4})}, {MakeAttr("axis", int64_t{2})}));
  const Graph graph = net.Build();
  const auto impl = MakeImpl(graph, {});
  std::mt19937 random(1);
  const Tensor q = test::RandomTensor(random, {1, 4, 3, 4});
  const auto none = Tensor::Allocate(DType::kFloat32, {1, 4, 0, 8});
  ASSERT_TRUE(none.ok());
  const std::vector<Tensor> results = test::RunImpl(*impl, {{"x", *none}, {"q", q}});
  ASSERT_EQ(results.size(), 1u);
  ASSERT_EQ(results[0].shape(), (Shape{1, 4, 3, 4}));
  for (int64_t i = 0; i < q.size(); ++i) EXPECT_EQ(results[0].AsDouble(i), q.AsDouble(i));
}

TEST(SkipUnreadPixels, OneAndThreeAxes) {
  for (const int rank : {3, 5}) {
    const auto axes = static_cast<size_t>(rank - 2);
    Shape shape = {1, 6, 9, 8, 7}, taps = {16, 6, 3, 3, 3}, one = {11, 16, 1, 1, 1};
    for (Shape* s : {&shape, &taps, &one}) s->resize(static_cast<size_t>(rank));
    Net net(7);
    ValueId y = net.Op("Conv", {net.Input("x", shape), net.Weights(taps, 0.2f)},
                       {MakeAttr("pads", std::vector<int64_t>(2 * axes, 1))});
    y = net.Op("Relu", {y});
    net.Output(net.Op("Conv", {y, net.Weights(one, 0.2f)}, {MakeAttr("strides", std::vector<int64_t>(axes, 2))}));
    CheckedFlops(net.Build());
  }
}

}  // namespace
}  // namespace crease
