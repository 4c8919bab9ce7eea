// SPDX-License-Identifier: Apache-2.0
// What run() allocates once a shape has been seen, and what happens when an allocation fails.
#include "tests/support/allocations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "crease/session.h"
#include "graph/onnx/exporter.h"
#include "kernels/targets.h"
#include "tests/runtime/runtime_test_util.h"
#include "tests/support/paths.h"

namespace crease {
namespace {

using test::Net;
using test::TuningFor;

// At the shapes that the network names.
int StepsOn(const Session& session, std::string_view kernel) {
  const auto plan = session.impl().PlanFor(std::vector<Shape>{session.inputs()[0].shape});
  return static_cast<int>(std::count_if((*plan)->steps.begin(), (*plan)->steps.end(),
                                        [&](const PlanStep& step) { return step.kernel == kernel; }));
}

// A network with one input of a known shape, called with outputs of its own.
class Caller {
 public:
  Caller(const Graph& graph, const Options& options) : session_(Load(graph, options)) {
    std::mt19937 random(7);
    x_ = test::RandomTensor(random, session_.inputs()[0].shape);
    for (const TensorSpec& spec : session_.outputs()) y_.push_back(Tensor::Allocate(spec.dtype, spec.shape).value());
    in_.push_back({session_.inputs()[0].name, DType::kFloat32, x_.shape(), x_.bytes()});
    for (size_t i = 0; i < y_.size(); ++i) {
      out_.push_back({session_.outputs()[i].name, y_[i].dtype(), y_[i].shape(), y_[i].mutable_data<float>()});
    }
  }
  // The outputs are all ones before.
  Result<void> Run() {
    for (Tensor& y : y_) std::memset(y.mutable_data<float>(), 0xFF, y.byte_size());
    return session_.run(in_, out_);
  }
  std::string Bits() const { return {reinterpret_cast<const char*>(y_[0].bytes()), y_[0].byte_size()}; }
  const Session& session() const { return session_; }

 private:
  static Session Load(const Graph& graph, const Options& options) {
    return Session::load(ExportOnnx(graph).value(), options).value();
  }

  Session session_;
  Tensor x_;
  std::vector<Tensor> y_;
  std::vector<Input> in_;
  std::vector<Output> out_;
};

// The shipped network on two images; nothing but the library allocates in LoadAndRun.
class Digits {
 public:
  const std::vector<float>& logits() const { return logits_; }
  Result<void> LoadAndRun(const Options& options) {
    CREASE_ASSIGN_OR_RETURN(const Session session, Session::load(path_, options));
    return session.run({&in_, 1}, {&out_, 1});
  }

 private:
  std::string path_ = (test::SourceDir() / "examples/digits/digits.onnx").string();
  std::vector<float> images_ = std::vector<float>(2 * 64, 0.25f), logits_ = std::vector<float>(2 * 10);
  Input in_{"image", DType::kFloat32, {2, 1, 8, 8}, images_.data()};
  Output out_{"logits", DType::kFloat32, {2, 10}, logits_.data()};
};

// As another kernel rounds: where there is no memory for one kernel's weights, the next one may have enough.
bool Near(const std::vector<float>& actual, const std::vector<float>& expected) {
  return std::equal(actual.begin(), actual.end(), expected.begin(), expected.end(),
                    [](float a, float b) { return std::abs(a - b) <= 1e-4f * (1 + std::abs(b)); });
}

int64_t OpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

TEST(Allocations, AnyOfALoadAndARunMayFail) {
  Digits digits;
  const int64_t open_files = OpenFiles();
  // What is made once in a process: tables, and what the first exception of all takes.
  for (const int64_t nth : {0, 1}) {
    const test::FailingAllocation failing(nth);
    EXPECT_EQ(digits.LoadAndRun(Options{}).ok(), nth == 0);
  }
  const std::vector<float> expected = digits.logits();
  for (const bool map_files : {true, false}) {
    for (const int threads : {1, 2}) {
      Options options;
      options.threads = threads;
      options.map_files = map_files;
      std::vector<std::string> wrong;
      int failures = 0;
      bool happened = true;
      for (int64_t nth = 1; happened && wrong.size() < 20; nth += 1 + nth / 50) {
        const int64_t live = test::LiveBlocks();
        std::array<char, 200> text{};
        std::optional<ErrorCode> code;
        {
          const test::FailingAllocation failing(nth);
          const Result<void> result = digits.LoadAndRun(options);
          happened = failing.happened();
          if (!result.ok()) {
            code = result.error().code;
            result.error().message.copy(text.data(), text.size() - 1);
          }
        }
        const int64_t lost = test::LiveBlocks() - live;
        failures += code ? 1 : 0;
        const bool good = code ? *code == ErrorCode::kOutOfMemory : Near(digits.logits(), expected);
        if (lost > 0 || !good) {
          wrong.push_back("allocation " + std::to_string(nth) + ": " + std::to_string(lost) + " blocks lost, " +
                          text.data());
        }
      }
      EXPECT_EQ(wrong, std::vector<std::string>{}) << threads << " threads" << (map_files ? ", mapped" : "");
      EXPECT_GT(failures, 50);
      EXPECT_EQ(OpenFiles(), open_files);
    }
  }
}

#if CREASE_HAS_ONEDNN

Graph ConvTransposeNet(int64_t channels, int64_t groups, int64_t kernel, int64_t stride) {
  Net net(1);
  const ValueId x = net.Input("x", {1, channels, 9, 7});
  net.Output(net.Op("ConvTranspose", {x, net.Weights({channels, 24 / groups, kernel, kernel}, 0.1f)},
                    {MakeAttr("strides", std::vector<int64_t>{stride, stride}), MakeAttr("group", groups)}));
  return net.Build();
}

Graph ConvNet(int64_t kernel, int64_t stride, int64_t groups) {
  Net net(1);
  const ValueId x = net.Input("x", {2, 16, 9, 7});
  net.Output(net.Op("Relu", {net.Conv(x, 16, 32, kernel, stride, groups)}));
  return net.Build();
}

Graph MatMulNet(int64_t rows) {
  Net net(1);
  net.Output(net.Op("MatMul", {net.Input("x", {rows, 96}), net.Weights({96, 40}, 0.1f)}));
  return net.Build();
}

// oneDNN has no interface that would run a primitive without its own small blocks (kernels/onednn/primitive.h).
TEST(Allocations, LayersOnOneDnnTakeAFewSmallBlocksAndGiveThemBack) {
  constexpr int64_t kMostBlocks = 32, kMostBytes = 4096;
  // Without AVX-512 these run on its products, which take packing buffers from the heap: 43 blocks, 48 KB on two
  // threads.
  const std::string target = TargetName();
  const bool wide = target == "AVX3" || target == "AMX";
  const auto packs = [&](const std::string& name) {
    return !wide && (name == "MatMul" || name == "ConvTranspose, groups and strides");
  };
  const std::vector<std::pair<std::string, Graph>> cases = {
      {"ConvTranspose", ConvTransposeNet(16, 1, 3, 1)},
      {"ConvTranspose, strides", ConvTransposeNet(16, 1, 2, 2)},
      {"ConvTranspose, strides and padding lanes", ConvTransposeNet(19, 1, 4, 3)},
      {"ConvTranspose, groups", ConvTransposeNet(16, 4, 3, 1)},
      {"ConvTranspose, groups and strides", ConvTransposeNet(16, 4, 4, 2)},
      {"Conv 3x3", ConvNet(3, 1, 1)},
      {"Conv 3x3, stride", ConvNet(3, 2, 1)},
      {"Conv 1x1", ConvNet(1, 1, 1)},
      {"Conv, groups", ConvNet(3, 1, 4)},
      {"MatMul, one row", MatMulNet(1)},
      {"MatMul", MatMulNet(37)},
  };
  for (const int threads : {1, 2}) {
    const TuningFor tuning("onednn", threads);
    Options options;
    options.threads = threads;
    options.tuning_file = tuning.path();
    for (const auto& [name, graph] : cases) {
      const int64_t most_blocks = packs(name) ? 64 : kMostBlocks, most_bytes = packs(name) ? 65536 : kMostBytes;
      Caller caller(graph, options);
      ASSERT_EQ(StepsOn(caller.session(), "onednn"), 1) << name;
      ASSERT_TRUE(caller.Run().ok()) << name;
      for (int i = 0; i < 5; ++i) {
        const int64_t blocks = test::AllocationCount(), bytes = test::AllocatedBytes(), live = test::LiveBlocks();
        const Result<void> run = caller.Run();
        const int64_t live_after = test::LiveBlocks();
        EXPECT_LE(test::AllocationCount() - blocks, most_blocks) << name << ", " << threads << " threads";
        EXPECT_LE(test::AllocatedBytes() - bytes, most_bytes) << name << ", " << threads << " threads";
        EXPECT_EQ(live_after - live, 0) << name << ", " << threads << " threads";
        ASSERT_TRUE(run.ok()) << name;
      }
    }
  }
}

// Not with oneDNN's deconvolutions: they use the memory objects that they could not make.
TEST(Allocations, AFailureInsideOneDnnIsAnErrorAndTheSessionStaysGood) {
  const TuningFor tuning("onednn", 2);
  Options options;
  options.threads = 2;
  options.tuning_file = tuning.path();
  for (const Graph& graph : {ConvNet(3, 1, 1), ConvNet(1, 1, 1), MatMulNet(37)}) {
    Caller caller(graph, options);
    ASSERT_TRUE(caller.Run().ok());
    const std::string expected = caller.Bits();
    bool happened = true;
    int failures = 0, silent = 0;
    for (int64_t nth = 1; happened; ++nth) {
      const int64_t live = test::LiveBlocks();
      const std::optional<ErrorCode> failure = [&]() -> std::optional<ErrorCode> {
        const test::FailingAllocation failing(nth);
        const Result<void> run = caller.Run();
        happened = failing.happened();
        return run.ok() ? std::nullopt : std::optional<ErrorCode>(run.error().code);
      }();
      // A call that failed may have dropped its streams and buffers; nothing may have been added.
      EXPECT_LE(test::LiveBlocks() - live, 0) << "allocation " << nth;
      if (failure) {
        ++failures;
        EXPECT_EQ(*failure, ErrorCode::kOutOfMemory);
      } else {
        silent += caller.Bits() == expected ? 0 : 1;
      }
      ASSERT_TRUE(caller.Run().ok()) << "after allocation " << nth;
      EXPECT_EQ(caller.Bits(), expected) << "after allocation " << nth;
    }
    EXPECT_GT(failures, 0);
    EXPECT_EQ(silent, 0) << "calls that failed and did not say so";
  }
}

// Two convolutions on a map that is worth a chain, which packs weights before any other kernel does.
Graph ChainNet() {
  Net net(5);
  const ValueId wide = net.Op("Relu", {net.Conv(net.Input("x", {1, 16, 96, 80}), 16, 256, 1)});
  net.Output(net.Conv(wide, 256, 256, 3, 1, 256));
  return net.Build();
}

TEST(Allocations, LayersThatFallOutOfAChainRunOnTheirTunedKernels) {
  if (!test::CountsMalloc()) GTEST_SKIP() << "packed weights can't be made to fail here";
  const TuningFor tuning("onednn", 1);
  Options options;
  options.threads = 1;
  options.tuning_file = tuning.path();
  const std::vector<std::byte> bytes = ExportOnnx(ChainNet()).value();
  int fell_out = 0;
  bool happened = true;
  for (int64_t nth = 1; happened; ++nth) {
    const std::optional<Session> session = [&]() -> std::optional<Session> {
      const test::FailingAllocation failing(nth);
      Result<Session> loaded = Session::load(bytes, options);
      happened = failing.happened();
      return loaded.ok() ? std::optional<Session>(std::move(loaded).value()) : std::nullopt;
    }();
    if (!session || StepsOn(*session, "chain") > 0) continue;
    ++fell_out;
    EXPECT_EQ(StepsOn(*session, "onednn"), 2) << "allocation " << nth;
  }
  EXPECT_GT(fell_out, 0);
}

#endif  // CREASE_HAS_ONEDNN

}  // namespace
}  // namespace crease
