// SPDX-License-Identifier: Apache-2.0
// What the subcommands of `crease` share. A subcommand is one file with one Add function, listed in
// the table of crease.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/npz.h"
#include "graph/status.h"

namespace crease::tools {

// What the process returns. Scripts rely on it.
enum ExitCode : int {
  kOk = 0,
  kFinding = 1,   // a finding, or a check that failed
  kUsage = 2,     // the command line
  kBadInput = 3,  // the model or the data
  kFault = 4,     // a bug in Crease, or no memory
};

// Keys stay in the order in which they were set.
using Json = nlohmann::ordered_json;

// Adds options to the subcommand's `app` and returns what runs after parsing.
using Action = std::function<int()>;
struct Command {
  std::string_view name;
  std::string_view summary;
  std::string_view example;  // one line for --help
  Action (*add)(CLI::App& app);
};

Action AddFold(CLI::App& app);         // fold.cc
Action AddRun(CLI::App& app);          // run.cc
Action AddBench(CLI::App& app);        // bench.cc
Action AddTune(CLI::App& app);         // tune.cc
Action AddInspect(CLI::App& app);      // inspect.cc
Action AddLint(CLI::App& app);         // lint.cc
Action AddDiff(CLI::App& app);         // diff.cc
Action AddRecalibrate(CLI::App& app);  // recalibrate.cc

// "crease: error: node 'x': ..." to stderr; returns the exit code that the error's kind has.
int Fail(const Error& error);

// An error of the command line, for conditions that CLI11 does not check.
int FailUsage(const std::string& message);

// What an option that wants a number above 0 says of another text; empty if nothing.
std::string CheckPositive(const std::string& text);

// Tensors of `--input` arguments: "FILE.npz" (every array), or "NAME=FILE.npy". Later ones win. Errors: a NAME
// that is no input; data for an input that has an initializer, which is a constant here.
Result<NamedTensors> ReadTensorArguments(const Graph& graph, const std::vector<std::string>& arguments);
// An error where one of them is a constant of the network.
Result<void> CheckConstants(const Graph& graph, const NamedTensors& tensors);
// The file that such an argument names.
std::string FileOfTensorArgument(const std::string& argument);

// Whether what is made of `model`, read from `path`, may be written to `output`. Errors: that is a file which holds the
// model's external data, or one of `inputs`, which the command reads; it would be gone. (The model's own may be
// replaced.)
Result<void> CheckOutput(const std::string& output, const Graph& model, const std::string& path,
                         const std::vector<std::string>& inputs = {});

// One line on stderr, rewritten in place: only on a terminal, and not after SetQuiet(true). For work
// of more than a second; the line goes when the object does.
class Progress {
 public:
  explicit Progress(std::string_view what, int64_t total = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void Update(int64_t done, std::string_view detail = {});

  static void SetQuiet(bool quiet);

 private:
  std::string what_;
  int64_t total_;
  std::chrono::steady_clock::time_point start_, shown_;
  bool visible_ = false;
};

// Adds --quiet.
void AddQuiet(CLI::App& app);

}  // namespace crease::tools
