// SPDX-License-Identifier: Apache-2.0
// Runs the network once with each kernel in the place of every layer that it can take: a layer's time
// is then one inside the network, with its caches and with the reorders and unfused parts that the
// kernel brings with it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "graph/verify.h"
#include "kernels/kernels.h"
#include "runtime/cpu_count.h"
#include "runtime/session_impl.h"
#include "runtime/tuning.h"
#include "tools/command.h"
#include "tools/feed.h"

namespace crease::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kSeed = 42;
constexpr int kFewestTurns = 5;
// A change of kernels must gain this much, so that noise does not decide.
constexpr double kLeastGain = 0.03;
// Of an output's standard deviation: what kernels may differ by.
constexpr double kTolerance = 1e-3;

struct Arguments {
  std::string model;
  SessionArguments session;
  int64_t batch = 0;
  double seconds = 0.5;
  bool json = false;
};

// A session and its buffers.
struct Candidate {
  std::unique_ptr<Session> session;
  std::vector<Tensor> inputs, outputs;

  Result<double> Run() {
    const Clock::time_point start = Clock::now();
    CREASE_RETURN_IF_ERROR(session->run(InputsOf(*session, inputs), OutputsOf(*session, outputs)));
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }
};

// A layer with one kernel: the best time, summed over all places in the network with this key.
struct LayerTime {
  std::string kernel;
  double ms = 0;
};
using LayerTimes = std::map<std::string, LayerTime>;

// A layer's best kernel so far beside the one of the static rule.
struct Row {
  std::string key, from, to;
  double ms = 0;     // with `from`
  double ratio = 1;  // of the time with `to` to that with `from`, both taken in turns

  double gain_ms() const { return ms * (1 - ratio); }
};

// A file of its own for trials, gone with the object.
class TrialFile {
 public:
  TrialFile()
      : path_((std::filesystem::temp_directory_path() / fmt::format("crease-tune-{}.txt", ::getpid())).string()) {}
  ~TrialFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
    std::filesystem::remove(path_ + ".lock", ignored);
  }
  TrialFile(const TrialFile&) = delete;
  TrialFile& operator=(const TrialFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Tuner {
 public:
  Tuner(const Arguments& arguments, int threads) : arguments_(arguments), threads_(threads) {}

  Result<void> Run() {
    CREASE_ASSIGN_OR_RETURN(Candidate first, Load(Tuning(), true));
    CREASE_ASSIGN_OR_RETURN(const LayerTimes layers, TimesOf(first));
    layers_ = layers.size();
    std::set<std::string> kernels;
    for (const auto& [key, layer] : layers) {
      for (const KernelEntry& entry : KernelsFor(key.substr(0, key.find(' ')))) kernels.insert(std::string(entry.name));
    }
    kernels.erase(std::string(kReferenceName));
    std::map<std::string, Row> best;
    {
      Progress progress("timing kernels", static_cast<int64_t>(kernels.size()));
      int64_t done = 0;
      for (const std::string& kernel : kernels) {
        progress.Update(done++, kernel);
        CREASE_RETURN_IF_ERROR(Try(kernel, best));
      }
    }
    for (const auto& [key, row] : best) {
      if (row.ratio > 1 - kLeastGain) continue;
      measured_.Set(key, row.to);
      rows_.push_back(row);
    }
    std::sort(rows_.begin(), rows_.end(), [](const Row& x, const Row& y) { return x.gain_ms() > y.gain_ms(); });
    return Compare();
  }

  const Tuning& measured() const { return measured_; }
  Json ToJson() const {
    Json json;
    json["model"] = arguments_.model;
    json["threads"] = threads_;
    json["layers"] = layers_;
    json["untuned_ms"] = untuned_ms_;
    json["tuned_ms"] = tuned_ms_;
    Json changes = Json::array();
    for (const Row& row : rows_) {
      changes.push_back(
          {{"layer", row.key}, {"from", row.from}, {"to", row.to}, {"from_ms", row.ms}, {"to_ms", row.ms * row.ratio}});
    }
    json["changes"] = std::move(changes);
    return json;
  }

 private:
  Result<Candidate> Load(const Tuning& tuning, bool profile) {
    Options options = arguments_.session.ToOptions();
    options.threads = threads_;
    options.profile = profile;
    options.tuning_file.clear();
    const TrialFile file;
    if (!tuning.empty()) {
      CREASE_RETURN_IF_ERROR(UpdateTuning(file.path(), threads_, tuning));
      options.tuning_file = file.path();
    }
    Candidate candidate;
    CREASE_ASSIGN_OR_RETURN(Session session, Session::load(arguments_.model, options));
    candidate.session = std::make_unique<Session>(std::move(session));
    CREASE_ASSIGN_OR_RETURN(candidate.inputs, RandomInputs(*candidate.session, arguments_.batch, kSeed));
    CREASE_ASSIGN_OR_RETURN(candidate.outputs, AllocateOutputs(*candidate.session, candidate.inputs));
    CREASE_RETURN_IF_ERROR(candidate.Run());
    return candidate;
  }

  // Runs the network with the kernel wherever it can be, and as it is, in turns: the machine's pace changes.
  Result<void> Try(const std::string& kernel, std::map<std::string, Row>& best) {
    Tuning everywhere;
    everywhere.SetDefault(kernel);
    CREASE_ASSIGN_OR_RETURN(Candidate usual, Load(Tuning(), true));
    CREASE_ASSIGN_OR_RETURN(Candidate trial, Load(everywhere, true));
    CREASE_RETURN_IF_ERROR(CheckOutputs(usual, trial, kernel));
    CREASE_RETURN_IF_ERROR(InTurns(usual, trial, nullptr, nullptr));
    CREASE_ASSIGN_OR_RETURN(const LayerTimes usual_times, TimesOf(usual));
    CREASE_ASSIGN_OR_RETURN(const LayerTimes trial_times, TimesOf(trial));
    for (const auto& [key, layer] : usual_times) {
      const auto found = trial_times.find(key);
      if (found == trial_times.end() || found->second.kernel != kernel || kernel == layer.kernel) continue;
      const double ratio = found->second.ms / layer.ms;
      Row& row = best.try_emplace(key, Row{key, layer.kernel, layer.kernel, layer.ms, 1}).first->second;
      if (ratio >= row.ratio) continue;
      row.to = kernel;
      row.ms = layer.ms;
      row.ratio = ratio;
    }
    return {};
  }

  Result<void> InTurns(Candidate& a, Candidate& b, std::vector<double>* a_ms, std::vector<double>* b_ms) const {
    const Clock::time_point start = Clock::now();
    const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
    for (int turn = 0; turn < kFewestTurns || elapsed() < arguments_.seconds; ++turn) {
      CREASE_ASSIGN_OR_RETURN(const double first, a.Run());
      CREASE_ASSIGN_OR_RETURN(const double second, b.Run());
      if (a_ms) a_ms->push_back(first);
      if (b_ms) b_ms->push_back(second);
    }
    return {};
  }

  static Result<LayerTimes> TimesOf(const Candidate& candidate) {
    std::vector<Shape> shapes;
    for (const Tensor& input : candidate.inputs) shapes.push_back(input.shape());
    CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, candidate.session->impl().PlanFor(shapes));
    const std::vector<NodeProfile> profile = candidate.session->profile();
    LayerTimes times;
    for (size_t i = 0; i < plan->steps.size(); ++i) {
      const PlanStep& step = plan->steps[i];
      if (step.tuning_key.empty()) continue;
      LayerTime& layer = times[step.tuning_key];
      layer.ms += profile[i].best_ms;
      // Parts that were taken off are elementwise or copies.
      if (step.tuning_key.starts_with(step.op_type + " ")) layer.kernel = step.kernel;
    }
    return times;
  }

  static Result<void> CheckOutputs(const Candidate& expected, const Candidate& found, const std::string& kernel) {
    for (size_t i = 0; i < expected.outputs.size(); ++i) {
      if (expected.outputs[i].dtype() != DType::kFloat32) continue;
      const double error = DifferenceInDeviations(expected.outputs[i], found.outputs[i]);
      if (error > kTolerance) {
        return Error{ErrorCode::kInternal,
                     fmt::format("with kernel '{}' output '{}' differs by {:.2g} of its standard deviation", kernel,
                                 Printable(expected.session->outputs()[i].name), error),
                     ""};
      }
    }
    return {};
  }

  // The whole network, untuned and tuned in turns; a choice that gains nothing there is dropped.
  Result<void> Compare() {
    CREASE_ASSIGN_OR_RETURN(Candidate untuned, Load(Tuning(), false));
    CREASE_ASSIGN_OR_RETURN(Candidate tuned, Load(measured_, false));
    std::vector<double> without, with;
    CREASE_RETURN_IF_ERROR(InTurns(untuned, tuned, &without, &with));
    untuned_ms_ = Median(without);
    tuned_ms_ = measured_.empty() ? untuned_ms_ : Median(with);
    if (measured_.empty() || tuned_ms_ < untuned_ms_) return {};
    measured_ = Tuning();
    rows_.clear();
    tuned_ms_ = untuned_ms_;
    return {};
  }

  static double Median(std::vector<double>& values) {
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
  }

  const Arguments& arguments_;
  int threads_;
  size_t layers_ = 0;
  Tuning measured_;
  std::vector<Row> rows_;
  double untuned_ms_ = 0, tuned_ms_ = 0;
};

void PrintText(const Json& json, const std::string& file) {
  for (const Json& row : json["changes"]) {
    fmt::print("{:>9.3f} -> {:.3f} ms  {} -> {}  {}\n", row["from_ms"].get<double>(), row["to_ms"].get<double>(),
               row["from"].get<std::string>(), row["to"].get<std::string>(), row["layer"].get<std::string>());
  }
  const size_t changes = json["changes"].size();
  fmt::print("{} of {} kinds of layers run faster on another kernel; the network: {:.3f} -> {:.3f} ms\n", changes,
             json["layers"].get<size_t>(), json["untuned_ms"].get<double>(), json["tuned_ms"].get<double>());
  if (changes > 0) fmt::print("kept in {}\n", file);
}

Result<void> Run(const Arguments& arguments) {
  const int threads = ThreadCount(arguments.session.threads);
  const std::string file = arguments.session.tuning.empty() ? DefaultTuningFile(threads) : arguments.session.tuning;
  if (file.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "no folder for the result: set HOME or CREASE_CACHE_DIR, or give --tuning", ""};
  }
  Tuner tuner(arguments, threads);
  CREASE_RETURN_IF_ERROR(tuner.Run());
  if (!tuner.measured().empty()) CREASE_RETURN_IF_ERROR(UpdateTuning(file, threads, tuner.measured()));
  Json json = tuner.ToJson();
  json["tuning"] = file;
  if (arguments.json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    PrintText(json, file);
  }
  return {};
}

}  // namespace

Action AddTune(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file")->required();
  arguments->session.AddTo(app);
  app.add_option("--batch", arguments->batch, "First axis of every input (default: the file's, or 1)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--seconds", arguments->seconds, "How long to time each kernel in the network")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  app.add_flag("--json", arguments->json, "Print JSON");
  AddQuiet(app);
  return [arguments] {
    const Result<void> result = Run(*arguments);
    return result.ok() ? static_cast<int>(kOk) : Fail(result.error());
  };
}

}  // namespace crease::tools
