// SPDX-License-Identifier: Apache-2.0
// Plans of random networks: right results, and no two live buffers in one place.
#include <algorithm>

#include "runtime/lower.h"
#include "tests/runtime/runtime_test_util.h"

namespace crease {
namespace {

using test::ExpectMatchesInterpreter;
using test::MakeImpl;
using test::Net;

// A value of the pool: (N, channels, height, width).
struct Piece {
  ValueId id;
  int64_t channels, height, width;
};

// Adds random operators of the kinds that planning treats in its own ways.
class RandomNet {
 public:
  RandomNet(uint32_t seed, int64_t batch) : net_(seed), batch_(batch) {
    pool_.push_back({net_.Input("x", {batch, 6, 8, 9}), 6, 8, 9});
  }

  Graph Build(int operators) {
    for (int i = 0; i < operators; ++i) Step();
    for (int i = 0; i < 3; ++i) net_.Output(net_.Op("Identity", {Any().id}));
    net_.Output(pool_.back().id);
    return net_.Build();
  }

 private:
  int Random(int count) { return static_cast<int>(net_.random()() % static_cast<uint32_t>(count)); }
  Piece Any() { return pool_[static_cast<size_t>(Random(static_cast<int>(pool_.size())))]; }
  Piece Recent() {
    const int last = static_cast<int>(pool_.size());
    return pool_[static_cast<size_t>(std::max(0, last - 1 - Random(3)))];
  }
  void Push(ValueId id, int64_t channels, int64_t height, int64_t width) {
    pool_.push_back({id, channels, height, width});
  }
  // Another value of the same image size.
  Piece Like(const Piece& piece) {
    std::vector<Piece> fitting;
    for (const Piece& p : pool_) {
      if (p.height == piece.height && p.width == piece.width) fitting.push_back(p);
    }
    return fitting[static_cast<size_t>(Random(static_cast<int>(fitting.size())))];
  }

  void Step() {
    const Piece x = Recent();
    const auto same = [&](ValueId id) { Push(id, x.channels, x.height, x.width); };
    switch (Random(18)) {
      case 0:
        Push(net_.Conv(x.id, x.channels, 10, 3), 10, x.height, x.width);
        break;
      case 1:
        Push(net_.Conv(x.id, x.channels, 7, 1, 1, 1, false), 7, x.height, x.width);
        break;
      case 2:
        same(net_.Conv(x.id, x.channels, x.channels, 3, 1, x.channels));
        break;
      case 3:
        same(net_.Op("Relu", {x.id}));
        break;
      case 4: {
        const Piece y = Like(x);
        const ValueId conv = net_.Conv(x.id, x.channels, y.channels, 1);
        const ValueId sum = Random(2) ? net_.Op("Add", {conv, y.id}) : net_.Op("Add", {y.id, conv});
        Push(Random(2) ? net_.Op("Relu", {sum}) : sum, y.channels, y.height, y.width);
        break;
      }
      case 5: {
        const Piece y = Like(x);
        Push(net_.Op("Add", {net_.Op("Relu", {net_.Conv(x.id, x.channels, y.channels, 3)}), y.id}), y.channels,
             y.height, y.width);
        break;
      }
      case 6: {
        const Piece y = Like(x);
        Push(net_.Op("Concat", {x.id, y.id}, {MakeAttr("axis", int64_t{1})}), x.channels + y.channels, x.height,
             x.width);
        break;
      }
      case 7: {
        const ValueId a = net_.Conv(x.id, x.channels, 4, 1), b = net_.Op("Relu", {net_.Conv(a, 4, 6, 3)});
        Push(net_.Op("Concat", {x.id, a, b}, {MakeAttr("axis", int64_t{1})}), x.channels + 10, x.height, x.width);
        break;
      }
      case 8: {
        if (x.channels % 2 != 0) break;
        for (const ValueId part : net_.Split(x.id, 2)) Push(part, x.channels / 2, x.height, x.width);
        break;
      }
      case 9: {
        if (x.channels < 3) break;
        Push(net_.Op("Slice", {x.id, net_.Ints({1}), net_.Ints({x.channels - 1}), net_.Ints({1})}), x.channels - 2,
             x.height, x.width);
        break;
      }
      case 10:
        same(net_.Op("Mul", {x.id, net_.Op("Sigmoid", {x.id})}));
        break;
      case 11: {
        const ValueId gate =
            net_.Op("Sigmoid", {net_.Conv(net_.Op("GlobalAveragePool", {x.id}), x.channels, x.channels, 1)});
        same(net_.Op("Mul", {x.id, gate}));
        break;
      }
      case 12:
        same(net_.Op("MaxPool", {x.id},
                     {MakeAttr("kernel_shape", std::vector<int64_t>{3, 3}),
                      MakeAttr("pads", std::vector<int64_t>{1, 1, 1, 1})}));
        break;
      case 13: {
        if (x.channels % 2 != 0) break;
        const ValueId split = net_.Op("Reshape", {x.id, net_.Ints({batch_, 2, x.channels / 2, x.height, x.width})});
        const ValueId exchanged =
            net_.Op("Transpose", {split}, {MakeAttr("perm", std::vector<int64_t>{0, 2, 1, 3, 4})});
        same(net_.Op("Reshape", {exchanged, net_.Ints({batch_, x.channels, x.height, x.width})}));
        break;
      }
      case 14: {
        const ValueId last = net_.Op("Transpose", {x.id}, {MakeAttr("perm", std::vector<int64_t>{0, 2, 3, 1})});
        same(net_.Op("Transpose", {net_.Op("Tanh", {last})}, {MakeAttr("perm", std::vector<int64_t>{0, 3, 1, 2})}));
        break;
      }
      case 15: {  // mostly all that reads x
        const int64_t height = (x.height + 1) / 2, width = (x.width + 1) / 2;
        const ValueId a = net_.Conv(x.id, x.channels, 8, 1, 2);
        Push(Random(2) ? net_.Op("Add", {a, net_.Conv(x.id, x.channels, 8, 1, 2)}) : a, 8, height, width);
        break;
      }
      case 16: {
        if (x.height < 2 || x.width < 2) break;
        const std::vector<int64_t> two = {2, 2};
        Push(net_.Op("AveragePool", {net_.Conv(x.id, x.channels, 9, 1)},
                     {MakeAttr("kernel_shape", two), MakeAttr("strides", two)}),
             9, x.height / 2, x.width / 2);
        break;
      }
      default: {
        const Piece y = Like(x);
        if (y.channels == x.channels) same(net_.Op("Add", {x.id, y.id}));
        break;
      }
    }
  }

  Net net_;
  int64_t batch_;
  std::vector<Piece> pool_;
};

void ExpectNoOverlap(const Plan& plan) {
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    const PlanBuffer& a = plan.buffers[i];
    if (a.kind != PlanBuffer::Kind::kArena || a.first_step == kNone) continue;
    ASSERT_LE(a.offset + a.bytes, plan.arena_bytes);
    for (size_t k = 0; k < i; ++k) {
      const PlanBuffer& b = plan.buffers[k];
      if (b.kind != PlanBuffer::Kind::kArena || b.first_step == kNone) continue;
      if (a.last_step < b.first_step || b.last_step < a.first_step) continue;
      ASSERT_TRUE(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset) << i << " and " << k;
    }
  }
}

class RandomPlans : public testing::TestWithParam<int> {};

TEST_P(RandomPlans, MatchTheInterpreter) {
  const auto seed = static_cast<uint32_t>(GetParam());
  const int64_t batch = 1 + seed % 2;
  const Graph graph = RandomNet(seed, batch).Build(6 + GetParam() % 20);
  Options options;
  options.threads = 1 + GetParam() % 2;
  options.fold = GetParam() % 5 != 0;
  const auto impl = MakeImpl(graph, options);
  ASSERT_TRUE(impl);
  const auto plan = impl->PlanFor(std::vector<Shape>{{batch, 6, 8, 9}});
  ASSERT_TRUE(plan.ok());
  ExpectNoOverlap(**plan);
  ExpectMatchesInterpreter(graph, *impl, seed, batch, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPlans, testing::Range(0, 120));

const PlanStep* FindStep(const Plan& plan, std::string_view type) {
  const auto found =
      std::find_if(plan.steps.begin(), plan.steps.end(), [&](const PlanStep& step) { return step.op_type == type; });
  return found == plan.steps.end() ? nullptr : &*found;
}

std::shared_ptr<const Plan> PlanOf(const Graph& graph) {
  Options options;
  options.threads = 1;
  const auto impl = MakeImpl(graph, options);
  std::vector<Shape> shapes;
  for (const ValueId id : graph.inputs()) shapes.push_back(graph.value(id).type.shape());
  auto plan = impl->PlanFor(shapes);
  EXPECT_TRUE(plan.ok());
  return std::move(plan).value();
}

TEST(Plan, ResidualAndActivationAreFusedAndInPlace) {
  Net net(1);
  const ValueId x = net.Input("x", {1, 16, 8, 8});
  const ValueId stem = net.Op("Relu", {net.Conv(x, 16, 16, 3)});
  const ValueId conv = net.Conv(net.Op("Relu", {net.Conv(stem, 16, 16, 3)}), 16, 16, 3);
  net.Output(net.Op("Flatten", {net.Op("GlobalAveragePool", {net.Op("Relu", {net.Op("Add", {conv, stem})})})}));
  const auto plan = PlanOf(net.Build());
  EXPECT_EQ(FindStep(*plan, "Add"), nullptr);
  EXPECT_EQ(FindStep(*plan, "Relu"), nullptr);
  int in_place = 0;
  for (const PlanStep& step : plan->steps) in_place += step.in_place;
  EXPECT_EQ(in_place, 1);
}

TEST(Plan, AGateTakesTheSumAndTheActivationAfterIt) {
  Net net(2);
  const ValueId x = net.Input("x", {1, 16, 9, 8});
  const ValueId stem = net.Op("Relu", {net.Conv(x, 16, 16, 3)});
  const ValueId conv = net.Conv(stem, 16, 16, 3);
  const ValueId gate = net.Op("Sigmoid", {net.Conv(net.Op("GlobalAveragePool", {conv}), 16, 16, 1)});
  net.Output(net.Op("Relu", {net.Op("Add", {net.Op("Mul", {conv, gate}), stem})}));
  const Graph graph = net.Build();
  const auto plan = PlanOf(graph);
  EXPECT_EQ(FindStep(*plan, "Add"), nullptr);
  EXPECT_EQ(FindStep(*plan, "Relu"), nullptr);
  ASSERT_NE(FindStep(*plan, "Mul"), nullptr);
  ExpectMatchesInterpreter(graph, *MakeImpl(graph), 1, 1, 1e-5);
}

TEST(Plan, ConvolutionsOnLargeMapsAreOneStep) {
  Net net(5);
  const ValueId x = net.Input("x", {1, 4, 96, 80});
  const ValueId narrow = net.Op("Relu", {net.Conv(x, 4, 16, 3)});
  const ValueId wide = net.Op("Relu", {net.Conv(narrow, 16, 256, 1)});
  const ValueId deep = net.Op("Relu", {net.Conv(wide, 256, 256, 3, 1, 256)});
  const ValueId sum = net.Op("Add", {net.Conv(deep, 256, 16, 1), narrow});
  net.Output(net.Op("Relu", {sum}));
  const Graph graph = net.Build();
  Options options;
  options.threads = 2;
  const auto impl = MakeImpl(graph, options);
  const auto plan = impl->PlanFor(std::vector<Shape>{{1, 4, 96, 80}}).value();
  const auto chain =
      std::find_if(plan->steps.begin(), plan->steps.end(), [](const PlanStep& step) { return step.kernel == "chain"; });
  ASSERT_NE(chain, plan->steps.end());
  EXPECT_FALSE(chain->in_place);  // rows of the residual are sources of other rows
  EXPECT_EQ(chain->flops, 96 * 80 * (256 * (2 * 16 + 1) + 256 * (2 * 9 + 1) + 16 * (2 * 256 + 2)));
  ExpectMatchesInterpreter(graph, *impl, 1, 1, 1e-4);
}

TEST(Plan, AnImageIsReadAsItIs) {
  for (const int64_t size : {19, 224}) {  // alone, and as the first stage of a chain
    SCOPED_TRACE(size);
    Net net(6);
    const ValueId x = net.Input("x", {1, 3, size, size});
    const ValueId stem = net.Op("Relu", {net.Conv(x, 3, 32, 3)});
    net.Output(net.Op("Relu", {net.Conv(stem, 32, 32, 3, 1, 32)}));
    const Graph graph = net.Build();
    const auto impl = MakeImpl(graph);
    const auto plan = impl->PlanFor(std::vector<Shape>{{1, 3, size, size}}).value();
    EXPECT_EQ(plan->steps.front().kernel, size == 224 ? "chain" : "planes");
    ExpectMatchesInterpreter(graph, *impl, 1, 1, 1e-5);
  }
}

TEST(Plan, AStemAtAStrideRunsOverBlocks) {
  Net net(6);
  const ValueId x = net.Input("x", {2, 3, 62, 51});
  net.Output(net.Op("Relu", {net.Op("Conv", {x, net.Weights({64, 3, 7, 7}, 0.1f)},
                                    {MakeAttr("strides", std::vector<int64_t>{2, 2}),
                                     MakeAttr("pads", std::vector<int64_t>{3, 3, 3, 3})})}));
  const Graph graph = net.Build();
  Options exact;
  exact.exact = true;
  for (const Options& options : {Options(), exact}) {
    const auto impl = MakeImpl(graph, options);
    const auto plan = impl->PlanFor(std::vector<Shape>{{2, 3, 62, 51}}).value();
    EXPECT_EQ(plan->steps.front().kernel, options.exact ? "planes" : "space_to_depth");
    ExpectMatchesInterpreter(graph, *impl, 1, 2, 1e-4);
  }
}

TEST(Plan, AnImageWithSeveralReaders) {
  Net net(7);
  const ValueId x = net.Input("x", {2, 3, 14, 13});
  const ValueId small = net.Conv(x, 3, 3, 3);
  const ValueId sum = net.Op("Add", {small, x});  // in x's layout
  net.Output(net.Op("Relu", {net.Conv(sum, 3, 5, 3)}));
  net.Output(net.Op("Relu", {net.Conv(x, 3, 5, 1)}));
  const Graph graph = net.Build();
  ExpectMatchesInterpreter(graph, *MakeImpl(graph), 1, 1, 1e-5);
}

TEST(Plan, ConcatSplitAndShuffleMoveNothingButTheShuffle) {
  Net net(1);
  const ValueId x = net.Input("x", {1, 16, 8, 8});
  const std::vector<ValueId> halves = net.Split(net.Op("Relu", {net.Conv(x, 16, 32, 1)}), 2);
  const ValueId right = net.Conv(halves[1], 16, 16, 3);
  const ValueId left = net.Conv(halves[0], 16, 16, 1);
  const ValueId joined = net.Op("Concat", {left, right}, {MakeAttr("axis", int64_t{1})});
  net.Output(net.Op("GlobalAveragePool", {joined}));
  const auto plan = PlanOf(net.Build());
  EXPECT_EQ(FindStep(*plan, "Concat"), nullptr);
  EXPECT_EQ(FindStep(*plan, "Split"), nullptr);
  int reorders = 0;
  for (const PlanStep& step : plan->steps) reorders += step.op_type == "Reorder";
  EXPECT_EQ(reorders, 1);  // of the input
}

TEST(Plan, AConcatOfATransposedConvolutionAndASkip) {
  Net net(1);
  const ValueId x = net.Input("x", {1, 16, 8, 8});
  const ValueId skip = net.Op("Relu", {net.Conv(x, 16, 16, 3)});
  const ValueId low = net.Op("Relu", {net.Conv(skip, 16, 24, 3, 2)});
  const ValueId up = net.Op("ConvTranspose", {low, net.Weights({24, 16, 2, 2}, 0.1f), net.Weights({16}, 1)},
                            {MakeAttr("strides", std::vector<int64_t>{2, 2})});
  net.Output(net.Conv(net.Op("Concat", {up, skip}, {MakeAttr("axis", int64_t{1})}), 32, 8, 3));
  const Graph graph = net.Build();
  ExpectMatchesInterpreter(graph, *MakeImpl(graph), 3, 1, 1e-4);
}

// A batch-norm that no weights can take is applied as its reader reads.
TEST(Plan, ABatchNormBeforeAGlobalPoolIsPartOfIt) {
  Net net(1);
  const ValueId shared = net.Conv(net.Input("x", {2, 8, 9, 13}), 8, 70, 1);
  const ValueId mean = net.Weights({70}, 1), variance = net.Op("Exp", {net.Weights({70}, 1)});
  const ValueId norm =
      net.Op("BatchNormalization", {shared, net.Weights({70}, 1), net.Weights({70}, 1), mean, variance});
  net.Output(net.Op("GlobalAveragePool", {net.Op("Relu", {norm})}));
  net.Output(net.Op("Sigmoid", {shared}));
  const Graph graph = net.Build();
  const auto plan = PlanOf(graph);
  EXPECT_EQ(FindStep(*plan, "BatchNormalization"), nullptr);
  EXPECT_EQ(FindStep(*plan, "Affine"), nullptr);
  EXPECT_EQ(FindStep(*plan, "Relu"), nullptr);
  ExpectMatchesInterpreter(graph, *MakeImpl(graph), 3, 1, 1e-5);
}

// A batch-norm and its convolution are tried as one and as two: both ways to pack the same weights would stay.
TEST(Plan, KernelsThatAreOnlyTriedPackNothingOfTheirOwn) {
  for (const int64_t channels : {64, 512, 992}) {
    for (const int64_t size : {7, 14, 28}) {
      SCOPED_TRACE(std::to_string(channels) + " channels at " + std::to_string(size));
      Net net(1);
      const ValueId x = net.Conv(net.Input("x", {1, 8, size, size}), 8, channels, 1);
      net.Output(net.Conv(
          net.Op("Relu", {net.BatchNorm(net.Op("MaxPool", {net.Op("Concat", {x, x}, {MakeAttr("axis", int64_t{1})})},
                                               {MakeAttr("kernel_shape", std::vector<int64_t>{1, 1})}),
                                        2 * channels)}),
          2 * channels, 128, 1));
      const Graph graph = net.Build();
      PackCache packs;
      ConstantPool constants;
      PlanOptions options;
      options.workers = 2;
      options.packs = &packs;
      options.constants = &constants;
      auto program = Lower(graph, std::vector<Shape>{{1, 8, size, size}}, constants, {});
      ASSERT_TRUE(program.ok());
      const auto plan = MakePlan(std::move(program).value(), options);
      ASSERT_TRUE(plan.ok());
      EXPECT_EQ(packs.unused(), 0u);
    }
  }
}

// What a step streams is fetched before it, each byte once, and not what the last cache would lose again.
TEST(Plan, StepsFetchTheMatricesOfLaterOnes) {
  Net net(1);
  ValueId x = net.Input("x", {1, 24, 14, 14});
  for (int i = 0; i < 6; ++i) x = net.Conv(x, i == 0 ? 24 : 256, 256, 1);
  x = net.Op("GlobalAveragePool", {net.Op("Relu", {x})});
  x = net.Op("Relu", {net.Conv(x, 256, 120, 1)});
  net.Output(net.Conv(x, 120, 60, 1));
  const Graph graph = net.Build();
  for (const int workers : {1, 2}) {
    ConstantPool constants;
    PlanOptions options;
    options.workers = workers;
    options.exact = true;  // tiles of AMX fetch nothing
    options.constants = &constants;
    auto program = Lower(graph, std::vector<Shape>{{1, 24, 14, 14}}, constants, {});
    ASSERT_TRUE(program.ok());
    const auto plan = MakePlan(std::move(program).value(), options);
    ASSERT_TRUE(plan.ok());
    size_t streamed = 0, fetched = 0;
    for (int worker = 0; worker < workers; ++worker) {
      std::vector<ConstBytes> ready;
      for (const PlanStep& step : (*plan)->steps) {
        ConstBytes own = step.run->Streamed(worker, workers);
        streamed += own.size();
        for (const ConstBytes& range : ready) {
          if (!own.empty() && range.data() >= own.data() && range.data() < own.data() + own.size()) {
            fetched += range.size();
            EXPECT_LE(range.data() + range.size(), own.data() + own.size());
          }
        }
        if (step.fetch.empty()) continue;
        size_t bytes = 0;
        for (const ConstBytes& range : step.fetch[static_cast<size_t>(worker)]) {
          bytes += range.size();
          for (const ConstBytes& other : ready) {
            EXPECT_TRUE(range.data() + range.size() <= other.data() || other.data() + other.size() <= range.data());
          }
          ready.push_back(range);
        }
        EXPECT_LE(bytes, static_cast<size_t>(step.run->FetchableBytes(workers)));
      }
    }
    EXPECT_EQ(streamed, (256u * 120 + 120 * 60) * sizeof(float));
    EXPECT_EQ(fetched, streamed) << workers << " workers";
  }
}

TEST(Plan, ADenseBlockSharesOneBuffer) {
  Net net(1);
  const ValueId x = net.Input("x", {1, 8, 8, 8});
  std::vector<ValueId> features = {net.Conv(x, 8, 16, 3)};
  int64_t channels = 16;
  ValueId all = features[0];
  for (int layer = 0; layer < 4; ++layer) {
    features.push_back(net.Conv(net.Op("Relu", {net.Conv(all, channels, 16, 1)}), 16, 8, 3));
    channels += 8;
    all = net.Op("Concat", features, {MakeAttr("axis", int64_t{1})});
  }
  net.Output(net.Op("GlobalAveragePool", {all}));
  const Graph graph = net.Build();
  const auto plan = PlanOf(graph);
  EXPECT_EQ(FindStep(*plan, "Concat"), nullptr);
  int reorders = 0;
  for (const PlanStep& step : plan->steps) reorders += step.op_type == "Reorder";
  EXPECT_EQ(reorders, 1);
  ExpectMatchesInterpreter(graph, *MakeImpl(graph), 3, 1, 1e-4);
}

}  // namespace
}  // namespace crease
