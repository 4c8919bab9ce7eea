// SPDX-License-Identifier: Apache-2.0
// Folded weights are given back once they are packed, and nobody can tell from the results.
#include "runtime/folded_weights.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "crease/session.h"
#include "graph/memory_block.h"
#include "graph/onnx/exporter.h"
#include "graph/passes/passes.h"
#include "graph/passes/weights.h"
#include "tests/runtime/runtime_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

using test::Net;
using test::RandomInputs;
using test::RunImpl;

// A network as a file.
class ModelFile {
 public:
  explicit ModelFile(const Graph& graph)
      : bytes_(ExportOnnx(graph).value()),
        path_(folder_.Write("net.onnx", {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()})) {}

  Session Mapped(const Options& options = {}) const { return Session::load(path_, options).value(); }
  Session InMemory(const Options& options = {}) const { return Session::load(bytes_, options).value(); }

 private:
  test::TemporaryFolder folder_;
  std::vector<std::byte> bytes_;
  std::string path_;
};

void ExpectSameBits(const Session& a, const Session& b, const Graph& graph, uint32_t seed, int64_t batch) {
  const auto inputs = RandomInputs(graph, seed, batch);
  const std::vector<Tensor> left = RunImpl(a.impl(), inputs), right = RunImpl(b.impl(), inputs);
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(0, std::memcmp(left[i].bytes(), right[i].bytes(), left[i].byte_size())) << "batch " << batch;
  }
}

// Kinds of convolution, each behind a batch-norm: Winograd, 1x1, a stride, groups, a transposed one, and a matrix that
// is packed for many rows but read where it lies for one.
Graph ManyKinds(bool fixed) {
  Net net(7);
  ValueId x = net.Input("x", {fixed ? 1 : -1, 24, 12, 12});
  x = net.Op("Relu", {net.BatchNorm(net.Conv(x, 24, 72, 3), 72)});
  x = net.Op("Relu", {net.BatchNorm(net.Conv(x, 72, 96, 1), 96)});
  x = net.BatchNorm(net.Conv(x, 96, 96, 3, 2), 96);
  x = net.BatchNorm(net.Conv(x, 96, 96, 5, 1, 12), 96);
  const ValueId w = net.Weights({96, 80, 2, 2}, 0.1f);
  x = net.BatchNorm(net.Op("ConvTranspose", {x, w}, {MakeAttr("strides", std::vector<int64_t>{2, 2})}), 80);
  x = net.Op("Flatten", {net.Op("GlobalAveragePool", {x})});
  x = net.Op("Gemm", {x, net.Weights({200, 80}, 0.1f), net.Weights({200}, 1)}, {MakeAttr("transB", int64_t{1})});
  net.Output(net.BatchNorm(x, 200));
  return net.Build();
}

TEST(FoldedWeights, AreGivenBackAndMadeAgainForAnotherShape) {
  const Graph graph = ManyKinds(false);
  const ModelFile file(graph);
  for (const int threads : {1, 2}) {
    Options options;
    options.threads = threads;
    const Session mapped = file.Mapped(options), memory = file.InMemory(options);
    ExpectSameBits(mapped, memory, graph, 1, 1);
    EXPECT_GT(mapped.impl().released_bytes(), size_t{300} << 10);
    EXPECT_EQ(memory.impl().released_bytes(), 0u);
    ExpectSameBits(mapped, memory, graph, 2, 1);  // the plan that gave them back
    ExpectSameBits(mapped, memory, graph, 3, 3);
    EXPECT_EQ(mapped.impl().released_bytes(), 0u);
    ExpectSameBits(mapped, memory, graph, 4, 2);
    ExpectSameBits(mapped, memory, graph, 5, 1);
  }
}

TEST(FoldedWeights, OfAFixedShapeAreGivenBackAtLoad) {
  const Graph graph = ManyKinds(true);
  const ModelFile file(graph);
  const Session mapped = file.Mapped();
  EXPECT_GT(mapped.impl().released_bytes(), size_t{300} << 10);
  ExpectSameBits(mapped, file.InMemory(), graph, 1, 1);
  EXPECT_GT(mapped.impl().released_bytes(), 0u);
  Options unmapped;
  unmapped.map_files = false;
  EXPECT_EQ(file.Mapped(unmapped).impl().released_bytes(), 0u);
}

TEST(FoldedWeights, StayWhereSomebodyReadsThem) {
  const auto released = [](const std::function<void(Net&)>& build) {
    Net net(3);
    build(net);
    const Graph graph = net.Build();
    const ModelFile file(graph);
    const Session mapped = file.Mapped();
    ExpectSameBits(mapped, file.InMemory(), graph, 1, 1);
    return mapped.impl().released_bytes();
  };
  const auto one_conv = [](Net& net, int64_t height) {
    net.Output(net.BatchNorm(net.Conv(net.Input("x", {1, 64, height, height}), 64, 96, 1), 96));
  };
  EXPECT_EQ(released([&](Net& net) { one_conv(net, 9); }), size_t{64 * 96 * 4});
  // One pixel: a product with a vector, which reads the matrix where it lies.
  EXPECT_EQ(released([&](Net& net) { one_conv(net, 1); }), 0u);
}

TEST(FoldedWeights, OneKernelsShareGoesWithTheLastReader) {
  // Two convolutions of the same weights, folded into the same constants or into two.
  Net net(5);
  const ValueId x = net.Input("x", {1, 64, 9, 9}), w = net.Weights({96, 64, 1, 1}, 0.1f);
  const ValueId first = net.BatchNorm(net.Op("Conv", {x, w}), 96);
  const ValueId second = net.BatchNorm(net.Op("Conv", {net.Op("Relu", {x}), w}), 96);
  net.Output(net.Op("Add", {first, second}));
  const Graph graph = net.Build();
  const ModelFile file(graph);
  const Session mapped = file.Mapped();
  ExpectSameBits(mapped, file.InMemory(), graph, 1, 1);
  EXPECT_GT(mapped.impl().released_bytes(), 0u);
}

TEST(FoldedWeights, ManyThreadsWithShapesOfTheirOwn) {
  const Graph graph = ManyKinds(false);
  const ModelFile file(graph);
  Options options;
  options.threads = 1;
  const Session mapped = file.Mapped(options), memory = file.InMemory(options);
  std::vector<std::thread> threads;
  for (int64_t batch = 1; batch <= 4; ++batch) {
    threads.emplace_back([&, batch] {
      for (uint32_t seed = 1; seed <= 3; ++seed) ExpectSameBits(mapped, memory, graph, seed, batch);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(DropPages, AreZeroAfterwardsAndThoseAtTheEdgesStay) {
  constexpr size_t kBytes = size_t{1} << 20, kOffset = 100, kDropped = kBytes - 300;
  const std::shared_ptr<std::byte> block = AllocateBlock(kBytes);
  std::memset(block.get(), 7, kBytes);
  DropPages({block.get() + kOffset, kDropped});
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const std::byte seven{7};
  EXPECT_EQ(block.get()[0], seven);
  EXPECT_EQ(block.get()[kOffset - 1], seven);
  EXPECT_EQ(block.get()[kOffset + kDropped], seven);
  EXPECT_EQ(block.get()[kBytes / 2 / page * page], std::byte{0});
  DropPages({});
  DropPages({block.get() + 1, 1});
  EXPECT_EQ(block.get()[1], seven);
}

TEST(RoundAgain, GivesTheBitsOfTheFold) {
  // Also where a product falls below the normal range, and after two folds into the same weights.
  Net net(11);
  ValueId x = net.Input("x", {1, 8, 5, 5});
  std::vector<float> weights(48 * 8, 1.0f);
  std::normal_distribution<float> normal;
  for (float& w : weights) w = normal(net.random());
  weights[5] = 1.2e-38f;
  weights[17] = -2e-38f;
  const ValueId w = net.Constant(Tensor::From<float>({48, 8, 1, 1}, std::span<const float>(weights)));
  x = net.BatchNorm(net.Op("Conv", {x, w}), 48);
  x = net.Op("Mul", {x, net.Weights({48, 1, 1}, 1e-3f)});
  net.Output(x);
  Graph graph = net.Build();
  fold::Unrounded made;
  DriverOptions options;
  options.unrounded = &made;
  ASSERT_TRUE(RunPasses(graph, FoldingPasses(), options).ok());
  int seen = 0;
  for (const auto& [id, exact] : made.all()) {
    const Tensor* tensor = graph.constant(id);
    if (tensor == nullptr || exact.factors.empty() || graph.use_count(id) == 0) continue;
    const fold::Outcome<Tensor> again = fold::RoundAgain(exact);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(0, std::memcmp((*again).bytes(), tensor->bytes(), tensor->byte_size()));
    ++seen;
  }
  EXPECT_GE(seen, 1);
}

}  // namespace
}  // namespace crease
