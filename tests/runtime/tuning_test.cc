// SPDX-License-Identifier: Apache-2.0
#include "runtime/tuning.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "runtime/lower.h"
#include "tests/runtime/runtime_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

namespace fs = std::filesystem;

class TuningFile : public testing::Test {
 protected:
  std::string Read() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }
  void Write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }

  test::TemporaryFolder folder_;
  std::string path_ = folder_ / "very/deep/tuning.txt";
};

Tuning One(const std::string& key, const std::string& kernel) {
  Tuning tuning;
  tuning.Set(key, kernel);
  return tuning;
}

TEST_F(TuningFile, KeepsWhatWasMeasuredBefore) {
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv a", "gemm")).ok());
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv b", "onednn")).ok());
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv a", "winograd_f2")).ok());
  const Tuning loaded = LoadTuning(path_, 2);
  EXPECT_EQ(loaded.size(), 2u);
  EXPECT_EQ(loaded.Find("Conv a"), "winograd_f2");
  EXPECT_EQ(loaded.Find("Conv b"), "onednn");
  EXPECT_EQ(loaded.Find("Conv c"), "");
}

TEST_F(TuningFile, OfOtherThreadsCountsAsEmpty) {
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv a", "gemm")).ok());
  std::string why;
  EXPECT_TRUE(LoadTuning(path_, 1, &why).empty());
  EXPECT_NE(why.find("thread"), std::string::npos) << why;
  EXPECT_NE(DefaultTuningFile(1), DefaultTuningFile(2));
}

TEST_F(TuningFile, DamagedCountsAsEmptyAndIsRebuilt) {
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv a", "gemm")).ok());
  const std::string whole = Read();
  for (size_t size = 0; size < whole.size(); ++size) {
    Write(whole.substr(0, size));
    ASSERT_TRUE(LoadTuning(path_, 2).empty()) << "cut to " << size << " bytes";
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    Write(damaged);
    ASSERT_TRUE(LoadTuning(path_, 2).empty()) << "byte " << at;
  }
  ASSERT_TRUE(UpdateTuning(path_, 2, One("Conv b", "onednn")).ok());
  EXPECT_EQ(LoadTuning(path_, 2).Find("Conv b"), "onednn");
}

TEST_F(TuningFile, ManyWritersLoseNothing) {
  constexpr int kWriters = 8;
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back(
        [&, i] { EXPECT_TRUE(UpdateTuning(path_, 2, One("Conv " + std::to_string(i), "gemm")).ok()); });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(LoadTuning(path_, 2).size(), static_cast<size_t>(kWriters));
}

TEST_F(TuningFile, UnwritablePlaceIsAnError) {
  fs::create_directories(fs::path(path_));  // a folder where the file should be
  const Result<void> result = UpdateTuning(path_, 2, One("Conv a", "gemm"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kIo) << result.error().ToString();
}

// Two equal convolutions, a strided one, and a fully connected layer.
Graph SmallNet() {
  test::Net net(3);
  ValueId v = net.Input("x", {1, 16, 14, 14});
  v = net.Op("Relu", {net.Conv(v, 16, 16, 3)});
  v = net.Op("Relu", {net.Conv(v, 16, 16, 3)});
  v = net.Op("Add", {net.Conv(v, 16, 24, 1), net.Conv(v, 16, 24, 3)});
  v = net.Op("Flatten", {net.Op("GlobalAveragePool", {v})});
  net.Output(net.Op("Gemm", {v, net.Weights({24, 10}, 0.2f), net.Weights({10}, 1)}));
  return net.Build();
}

std::shared_ptr<const Plan> PlanOf(const Session::Impl& impl) {
  const std::vector<Shape> shapes = {impl.inputs()[0].shape};
  Result<std::shared_ptr<const Plan>> plan = impl.PlanFor(shapes);
  EXPECT_TRUE(plan.ok());
  return *plan;
}

TEST_F(TuningFile, DecidesWhichKernelRuns) {
  const Graph graph = SmallNet();
  Options options;
  options.threads = 2;
  const auto untuned = test::MakeImpl(graph, options);
  std::map<std::string, std::string> kernels;
  for (const PlanStep& step : PlanOf(*untuned)->steps) {
    if (!step.tuning_key.empty()) kernels[step.tuning_key] = step.kernel;
  }
  ASSERT_EQ(kernels.size(), 4u) << "two equal convolutions share a key";

  for (const char* kernel : {"gemm", "winograd_f2", "winograd_f4"}) {
    Tuning everywhere;
    everywhere.SetDefault(kernel);
    fs::remove(path_);
    ASSERT_TRUE(UpdateTuning(path_, 2, everywhere).ok());
    options.tuning_file = path_;
    const auto tuned = test::MakeImpl(graph, options);
    int taken = 0;
    for (const PlanStep& step : PlanOf(*tuned)->steps) taken += step.kernel == kernel;
    EXPECT_GE(taken, 3) << kernel;
    test::ExpectMatchesInterpreter(graph, *tuned, 5, 1, 5e-5);
  }
}

TEST_F(TuningFile, AKernelThatRefusesLeavesTheStaticRule) {
  const Graph graph = SmallNet();
  Options options;
  options.threads = 2;
  const auto untuned = PlanOf(*test::MakeImpl(graph, options));
  Tuning everywhere;
  everywhere.SetDefault("no such kernel");
  ASSERT_TRUE(UpdateTuning(path_, 2, everywhere).ok());
  options.tuning_file = path_;
  const auto tuned = PlanOf(*test::MakeImpl(graph, options));
  ASSERT_EQ(tuned->steps.size(), untuned->steps.size());
  for (size_t i = 0; i < tuned->steps.size(); ++i) EXPECT_EQ(tuned->steps[i].kernel, untuned->steps[i].kernel);
}

}  // namespace
}  // namespace crease
