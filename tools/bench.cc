// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <memory>
#include <numeric>
#include <thread>

#include "kernels/targets.h"
#include "runtime/session_impl.h"
#include "tools/command.h"
#include "tools/feed.h"
#include "tools/profile_report.h"

namespace crease::tools {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model;
  SessionArguments session;
  int64_t batch = 0;
  int streams = 1;
  double seconds = 1;
  bool json = false;
  bool profile = false;
  std::string trace;
};

constexpr int kFewestRuns = 5;
constexpr uint64_t kSeed = 42;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double PeakRssMib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;  // Linux counts in KiB
}

// One caller's buffers; run() from several of them at once is what --streams measures.
struct Stream {
  std::vector<Tensor> inputs, outputs;
  std::vector<Input> input_views;
  std::vector<Output> output_views;
  std::vector<double> milliseconds;
  Result<void> result;
};

Result<Stream> MakeStream(const Session& session, int64_t batch, uint64_t seed) {
  Stream stream;
  CREASE_ASSIGN_OR_RETURN(stream.inputs, RandomInputs(session, batch, seed));
  CREASE_ASSIGN_OR_RETURN(stream.outputs, AllocateOutputs(session, stream.inputs));
  stream.input_views = InputsOf(session, stream.inputs);
  stream.output_views = OutputsOf(session, stream.outputs);
  return stream;
}

void RunFor(const Session& session, Stream& stream, double seconds) {
  const Clock::time_point start = Clock::now();
  while (MillisecondsSince(start) < seconds * 1e3 || stream.milliseconds.size() < kFewestRuns) {
    const Clock::time_point before = Clock::now();
    stream.result = session.run(stream.input_views, stream.output_views);
    if (!stream.result.ok()) return;
    stream.milliseconds.push_back(MillisecondsSince(before));
  }
}

// Linear interpolation between the closest ranks; `sorted` is not empty.
double Quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

struct Measured {
  std::vector<double> sorted_ms;
  double wall_ms = 0, load_ms = 0, first_run_ms = 0;
  int64_t batch = 1;
  double flops = 0;
};

Result<Measured> Measure(const Session& session, const Arguments& arguments, double load_ms) {
  Measured measured;
  measured.load_ms = load_ms;
  std::vector<Stream> streams;
  for (int i = 0; i < arguments.streams; ++i) {
    CREASE_ASSIGN_OR_RETURN(Stream stream, MakeStream(session, arguments.batch, kSeed + static_cast<uint64_t>(i)));
    streams.push_back(std::move(stream));
  }
  if (!streams[0].inputs.empty() && streams[0].inputs[0].rank() > 0) {
    measured.batch = streams[0].inputs[0].dim(0);
  }
  const Clock::time_point first = Clock::now();
  CREASE_RETURN_IF_ERROR(session.run(streams[0].input_views, streams[0].output_views));
  measured.first_run_ms = MillisecondsSince(first);
  CREASE_RETURN_IF_ERROR(session.run(streams[0].input_views, streams[0].output_views));

  const Clock::time_point start = Clock::now();
  std::vector<std::thread> callers;
  for (size_t i = 1; i < streams.size(); ++i) {
    callers.emplace_back([&, i] { RunFor(session, streams[i], arguments.seconds); });
  }
  RunFor(session, streams[0], arguments.seconds);
  for (std::thread& caller : callers) caller.join();
  measured.wall_ms = MillisecondsSince(start);
  for (const Stream& stream : streams) {
    CREASE_RETURN_IF_ERROR(stream.result);
    measured.sorted_ms.insert(measured.sorted_ms.end(), stream.milliseconds.begin(), stream.milliseconds.end());
  }
  std::sort(measured.sorted_ms.begin(), measured.sorted_ms.end());
  measured.flops = FlopsOf(session, streams[0].inputs);
  return measured;
}

Json ToJson(const Measured& m, const Arguments& arguments, int threads) {
  const double median = Quantile(m.sorted_ms, 0.5);
  const auto runs = static_cast<double>(m.sorted_ms.size());
  Json json;
  json["model"] = arguments.model;
  json["threads"] = threads;
  json["batch"] = m.batch;
  json["streams"] = arguments.streams;
  json["precision"] = arguments.session.precision;
  json["target"] = TargetName();
  json["runs"] = m.sorted_ms.size();
  json["median_ms"] = median;
  json["p90_ms"] = Quantile(m.sorted_ms, 0.9);
  json["p99_ms"] = Quantile(m.sorted_ms, 0.99);
  json["min_ms"] = m.sorted_ms.front();
  json["inferences_per_s"] = runs * static_cast<double>(m.batch) / m.wall_ms * 1e3;
  json["load_ms"] = m.load_ms;
  json["first_run_ms"] = m.first_run_ms;
  json["peak_rss_mib"] = PeakRssMib();
  json["gflops"] = m.flops / median / 1e6;
  return json;
}

void PrintText(const Json& json) {
  fmt::print("median {:.3f} ms   p90 {:.3f}   p99 {:.3f}   min {:.3f}   ({} runs, batch {}, streams {})\n",
             json["median_ms"].get<double>(), json["p90_ms"].get<double>(), json["p99_ms"].get<double>(),
             json["min_ms"].get<double>(), json["runs"].get<size_t>(), json["batch"].get<int64_t>(),
             json["streams"].get<int>());
  fmt::print("{:.1f} inferences/s   {:.1f} GFLOP/s   load {:.1f} ms   first run {:.1f} ms   peak {:.1f} MiB\n",
             json["inferences_per_s"].get<double>(), json["gflops"].get<double>(), json["load_ms"].get<double>(),
             json["first_run_ms"].get<double>(), json["peak_rss_mib"].get<double>());
}

Result<void> Run(const Arguments& arguments) {
  SessionArguments session_arguments = arguments.session;
  if (arguments.streams > 1 && session_arguments.threads == 0) session_arguments.threads = 1;
  Options options = session_arguments.ToOptions();
  options.profile = arguments.profile || !arguments.trace.empty();
  const Clock::time_point start = Clock::now();
  CREASE_ASSIGN_OR_RETURN(const Session session, Session::load(arguments.model, options));
  const double load_ms = MillisecondsSince(start);
  CREASE_ASSIGN_OR_RETURN(const Measured measured, Measure(session, arguments, load_ms));
  Json json = ToJson(measured, arguments, session.impl().workers());
  if (arguments.profile) json["profile"] = ProfileJson(session);
  if (arguments.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    PrintText(json);
    if (arguments.profile) fmt::print("{}", ProfileTable(session, session.impl().workers()));
  }
  if (!arguments.trace.empty()) return WriteTrace(session, arguments.trace);
  return {};
}

}  // namespace

Action AddBench(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file")->required();
  arguments->session.AddTo(app);
  app.add_option("--batch", arguments->batch, "First axis of every input (default: the file's, or 1)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--streams", arguments->streams, "Callers that run at once, each with --threads (default 1) threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--seconds", arguments->seconds, "How long to measure")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_flag("--json", arguments->json, "Print JSON");
  app.add_flag("--profile", arguments->profile, "Print a table of the time of each node");
  app.add_option("--trace", arguments->trace, "Write a Chrome trace (chrome://tracing, Perfetto) of one run");
  AddQuiet(app);
  return [arguments] {
    const Result<void> result = Run(*arguments);
    return result.ok() ? static_cast<int>(kOk) : Fail(result.error());
  };
}

}  // namespace crease::tools
