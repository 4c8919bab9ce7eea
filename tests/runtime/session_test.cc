// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstring>
#include <thread>

#include "tests/runtime/runtime_test_util.h"
#include "tests/support/allocations.h"

namespace crease {
namespace {

using test::ExpectMatchesInterpreter;
using test::MakeImpl;
using test::Net;
using test::RandomInputs;
using test::RunImpl;
using test::TuningFor;

constexpr double kBound = 2e-5;  // of the output's rms; f32 sums of some hundred terms

// Two residual blocks, one with a strided shortcut, pooled and classified.
Graph ResidualNet(int64_t batch) {
  Net net(1);
  const ValueId x = net.Input("x", {batch, 3, 17, 15});
  ValueId v = net.Op("Relu", {net.Conv(x, 3, 16, 3)});
  ValueId branch = net.Op("Relu", {net.Conv(v, 16, 16, 3)});
  v = net.Op("Relu", {net.Op("Add", {net.Conv(branch, 16, 16, 3), v})});
  branch = net.Op("Relu", {net.Conv(v, 16, 24, 3, 2)});
  v = net.Op("Relu", {net.Op("Add", {net.Conv(branch, 24, 24, 3), net.Conv(v, 16, 24, 1, 2)})});
  v = net.Op("Flatten", {net.Op("GlobalAveragePool", {v})});
  net.Output(net.Op("Gemm", {v, net.Weights({24, 10}, 0.2f), net.Weights({10}, 1)}));
  return net.Build();
}

// Transposed convolutions with and without overlapping taps.
Graph UpsamplingNet(int64_t batch) {
  Net net(6);
  const ValueId x = net.Input("x", {batch, 16, 9, 7});
  const std::vector<Attribute> strides = {MakeAttr("strides", std::vector<int64_t>{2, 2})};
  const ValueId up = net.Op("ConvTranspose", {x, net.Weights({16, 24, 2, 2}, 0.2f)}, strides);
  net.Output(net.Op("ConvTranspose", {net.Op("Sigmoid", {up}), net.Weights({24, 8, 3, 3}, 0.1f)}, strides));
  return net.Build();
}

Options Threads(int threads) {
  Options options;
  options.threads = threads;
  return options;
}

TEST(Session, ResidualNetMatchesTheInterpreter) {
  const Graph graph = ResidualNet(2);
  for (int threads : {1, 2, 3}) ExpectMatchesInterpreter(graph, *MakeImpl(graph, Threads(threads)), 5, 2, kBound);
}

TEST(Session, WithoutFolding) {
  const Graph graph = ResidualNet(1);
  Options options = Threads(2);
  options.fold = false;
  ExpectMatchesInterpreter(graph, *MakeImpl(graph, options), 5, 1, kBound);
}

TEST(Session, DynamicBatch) {
  const Graph graph = ResidualNet(-1);
  const auto impl = MakeImpl(graph, Threads(2));
  for (int64_t batch : {1, 3, 2, 1, 5}) ExpectMatchesInterpreter(graph, *impl, 6, batch, kBound);
}

TEST(Session, MoreShapesThanPlansAreKept) {
  const Graph graph = ResidualNet(-1);
  const auto impl = MakeImpl(graph, Threads(1));
  for (int64_t batch = 1; batch <= 20; ++batch) RunImpl(*impl, RandomInputs(graph, 1, batch));
  ExpectMatchesInterpreter(graph, *impl, 6, 1, kBound);
}

TEST(Session, SameBitsAtAnyThreadCount) {
  const Graph graph = ResidualNet(2);
  const auto inputs = RandomInputs(graph, 7);
  const std::vector<Tensor> one = RunImpl(*MakeImpl(graph, Threads(1)), inputs);
  ASSERT_EQ(one.size(), 1u);
  for (int threads : {2, 3, 4}) {
    const std::vector<Tensor> many = RunImpl(*MakeImpl(graph, Threads(threads)), inputs);
    ASSERT_EQ(many.size(), 1u);
    EXPECT_EQ(std::memcmp(one[0].bytes(), many[0].bytes(), one[0].byte_size()), 0) << threads << " threads";
  }
}

TEST(Session, HostsExecutor) {
  const Graph graph = ResidualNet(2);
  Options options;
  options.executor.workers = 3;
  std::atomic<int> loops{0};
  options.executor.parallel_for = [&](int count, const std::function<void(int)>& task) {
    ++loops;
    for (int i = 0; i < count; ++i) task(i);
  };
  ExpectMatchesInterpreter(graph, *MakeImpl(graph, options), 5, 2, kBound);
  EXPECT_GT(loops, 0);
}

void CheckManyCallers(const Graph& graph, const Options& options) {
  auto impl = MakeImpl(graph, options);
  std::vector<std::map<std::string, Tensor>> inputs;
  std::vector<std::vector<Tensor>> expected;
  for (int64_t batch : {1, 2, 3}) {
    inputs.push_back(RandomInputs(graph, 8, batch));
    expected.push_back(RunImpl(*impl, inputs.back()));
  }
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller, copy = impl] {
      for (size_t i = 0; i < 20; ++i) {
        const size_t which = (caller + i) % inputs.size();
        const std::vector<Tensor> actual = RunImpl(*copy, inputs[which]);
        ASSERT_EQ(actual.size(), 1u);
        ASSERT_EQ(std::memcmp(actual[0].bytes(), expected[which][0].bytes(), actual[0].byte_size()), 0);
      }
    });
  }
  impl.reset();  // the callers' copies keep it alive
  for (std::thread& caller : callers) caller.join();
}

TEST(Session, ManyCallersAtOnce) {
  CheckManyCallers(ResidualNet(-1), Threads(2));
  CheckManyCallers(UpsamplingNet(-1), Threads(2));
}

// Streams and memory objects of their own for every call that runs at the same time.
TEST(Session, ManyCallersAtOnceOfOneDnn) {
  const TuningFor tuning("onednn", 2);
  Options options = Threads(2);
  options.tuning_file = tuning.path();
  CheckManyCallers(UpsamplingNet(-1), options);
}

void CheckNoAllocation(const Graph& graph, const Shape& shape) {
  for (int threads : {1, 2}) {
    const auto impl = MakeImpl(graph, Threads(threads));
    const auto plan = impl->PlanFor(std::vector<Shape>{shape});
    ASSERT_TRUE(plan.ok());
    const Tensor x = Tensor::Allocate(DType::kFloat32, shape).value();
    Tensor y = Tensor::Allocate(DType::kFloat32, (*plan)->output_shapes[0]).value();
    const Input in[] = {{impl->inputs()[0].name, DType::kFloat32, shape, x.bytes()}};
    const Output out[] = {{impl->outputs()[0].name, DType::kFloat32, y.shape(), y.mutable_data<float>()}};
    ASSERT_TRUE(impl->Run(in, out).ok());
    ASSERT_TRUE(impl->Run(in, out).ok());
    const int64_t before = test::AllocationCount();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(impl->Run(in, out).ok());
    EXPECT_EQ(test::AllocationCount() - before, 0) << threads << " threads";
  }
}

TEST(Session, NoAllocationAfterTheFirstCallOfAShape) {
  CheckNoAllocation(ResidualNet(-1), {2, 3, 17, 15});
  CheckNoAllocation(UpsamplingNet(-1), {2, 16, 9, 7});
}

TEST(Session, BatchStatisticsRunOnTheirKernel) {
  Net net(3);
  const std::vector<ValueId> norm = net.TrainingNorm(net.Conv(net.Input("x", {4, 3, 9, 7}), 3, 20, 3), 20);
  net.Output(net.Conv(net.Op("Relu", {norm[0]}), 20, 5, 3));
  for (size_t i = 1; i < norm.size(); ++i) net.Output(norm[i]);
  const Graph graph = net.Build();
  for (const int threads : {1, 3}) {
    const auto impl = MakeImpl(graph, Threads(threads));
    ExpectMatchesInterpreter(graph, *impl, 5, 4, kBound);
    const auto plan = impl->PlanFor(std::vector<Shape>{{4, 3, 9, 7}});
    ASSERT_TRUE(plan.ok());
    int found = 0;
    for (const PlanStep& step : (*plan)->steps)
      found += step.op_type == "BatchNormalization" && step.kernel == "batch_norm";
    EXPECT_EQ(found, 1);
    const auto inputs = RandomInputs(graph, 5);
    const Tensor& x = inputs.at("x");
    std::vector<float> y(4 * 5 * 9 * 7);
    const Input in[] = {{"x", DType::kFloat32, x.shape(), x.bytes()}};
    const Output out[] = {{impl->outputs()[0].name, DType::kFloat32, {4, 5, 9, 7}, y.data()}};
    ASSERT_TRUE(impl->Run(in, out).ok());
    const int64_t before = test::AllocationCount();
    ASSERT_TRUE(impl->Run(in, out).ok());
    EXPECT_EQ(test::AllocationCount() - before, 0);
  }
}

TEST(Session, IndicesOfAMaxPool) {
  for (const int64_t order : {0, 1}) {
    Net net(4);
    const ValueId conv = net.Op("Relu", {net.Conv(net.Input("x", {2, 3, 9, 7}), 3, 5, 3)});
    const std::vector<ValueId> pooled =
        net.Outputs("MaxPool", {conv}, 2,
                    {MakeAttr("kernel_shape", std::vector<int64_t>{3, 2}),
                     MakeAttr("strides", std::vector<int64_t>{2, 2}), MakeAttr("storage_order", order)});
    net.Output(net.Conv(pooled[0], 5, 4, 1));
    net.Output(pooled[1]);
    const Graph graph = net.Build();
    ExpectMatchesInterpreter(graph, *MakeImpl(graph, Threads(2)), 5, 1, kBound);
  }
}

TEST(Session, WrongCallsAreErrorsThatNameTheTensor) {
  const Graph graph = ResidualNet(-1);
  const auto impl = MakeImpl(graph, Threads(1));
  std::vector<float> x(3 * 17 * 15 + 1), y(10);
  const std::string output = impl->outputs()[0].name;
  const auto run = [&](const Input& in, const Output& out) {
    const Result<void> result = impl->Run({&in, 1}, {&out, 1});
    return result.ok() ? std::string() : result.error().ToString();
  };
  const Input good_in{"x", DType::kFloat32, {1, 3, 17, 15}, x.data()};
  const Output good_out{output, DType::kFloat32, {1, 10}, y.data()};
  EXPECT_EQ(run(good_in, good_out), "");
  EXPECT_NE(run({"z", DType::kFloat32, {1, 3, 17, 15}, x.data()}, good_out).find("'x'"), std::string::npos);
  EXPECT_NE(run({"x", DType::kFloat32, {1, 4, 17, 15}, x.data()}, good_out).find("(-1, 3, 17, 15)"), std::string::npos);
  EXPECT_NE(run({"x", DType::kInt32, {1, 3, 17, 15}, x.data()}, good_out).find("float32"), std::string::npos);
  EXPECT_NE(run({"x", DType::kFloat32, {1, 3, 17, 15}, nullptr}, good_out).find("null"), std::string::npos);
  const auto* odd = reinterpret_cast<const std::byte*>(x.data()) + 1;
  EXPECT_NE(run({"x", DType::kFloat32, {1, 3, 17, 15}, odd}, good_out).find("aligned"), std::string::npos);
  EXPECT_NE(run(good_in, {"nothing", DType::kFloat32, {1, 10}, y.data()}).find("'nothing'"), std::string::npos);
  EXPECT_NE(run(good_in, {output, DType::kFloat32, {2, 10}, y.data()}).find("(1, 10)"), std::string::npos);
  const Input twice_in[] = {good_in, good_in};
  const Output twice_out[] = {good_out, good_out};
  EXPECT_EQ(impl->Run(twice_in, {&good_out, 1}).error().ToString(), "tensor 'x': given twice");
  EXPECT_EQ(impl->Run({&good_in, 1}, twice_out).error().ToString(), "tensor '" + output + "': given twice");
  EXPECT_EQ(run(good_in, good_out), "");           // and the session still works
  EXPECT_TRUE(impl->Run({&good_in, 1}, {}).ok());  // outputs may be left out
}

TEST(Session, ArenaLimit) {
  Options options = Threads(1);
  options.limits.max_arena_bytes = 1000;
  const auto impl = Session::Impl::Create(ResidualNet(1), options);
  ASSERT_FALSE(impl.ok());
  EXPECT_EQ(impl.error().code, ErrorCode::kLimitExceeded);
  EXPECT_NE(impl.error().message.find("1000"), std::string::npos);
}

TEST(Session, OutputsThatAreInputsConstantsOrTwiceTheSame) {
  Net net(3);
  const ValueId x = net.Input("x", {1, 4, 5, 6});
  const ValueId relu = net.Op("Relu", {net.Conv(x, 4, 8, 3)});
  const ValueId flat = net.Op("Flatten", {relu});
  net.Output(net.Op("Identity", {x}));
  net.Output(relu);
  net.Output(flat);
  net.Output(net.Op("Identity", {relu}));
  net.Output(net.Op("Sigmoid", {relu}));
  const Graph graph = net.Build();
  ExpectMatchesInterpreter(graph, *MakeImpl(graph, Threads(2)), 5, 1, kBound);
}

TEST(Session, ProfileCountsRuns) {
  const Graph graph = ResidualNet(1);
  Options options = Threads(1);
  options.profile = true;
  const auto impl = MakeImpl(graph, options);
  for (int i = 0; i < 3; ++i) RunImpl(*impl, RandomInputs(graph, 1));
  const std::vector<NodeProfile> profile = impl->Profile();
  ASSERT_FALSE(profile.empty());
  for (const NodeProfile& node : profile) EXPECT_EQ(node.runs, 3) << node.name;
}

}  // namespace
}  // namespace crease
