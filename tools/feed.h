// SPDX-License-Identifier: Apache-2.0
// Inputs and outputs of a session for the subcommands that run one.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "crease/session.h"
#include "graph/npz.h"

namespace crease::tools {

// Options that every running subcommand has: --threads, --precision, --no-fold, --exact, --tuning, --no-tuning.
struct SessionArguments {
  int threads = 0;
  std::string precision = "f32";
  bool no_fold = false;
  bool exact = false;
  std::string tuning;  // file; empty: the machine's own
  bool no_tuning = false;

  void AddTo(CLI::App& app);
  Options ToOptions() const;
};

// The arrays for the session's inputs, in its order: found by name, converted between float types or
// between integer types where the dtypes differ. Arrays under other names are ignored. Errors name the
// input, what was expected and what was given.
Result<std::vector<Tensor>> MatchInputs(const Session& session, const NamedTensors& arrays);

// Random values (graph/random_inputs.h) in the session's order; sizes that the file leaves open are 224 if that fits.
// A first axis that the file fixes is kept unless batch > 0.
Result<std::vector<Tensor>> RandomInputs(const Session& session, int64_t batch, uint64_t seed);

// Runs once; outputs are freshly allocated, keyed by name.
Result<NamedTensors> RunOnce(const Session& session, const std::vector<Tensor>& inputs);

// As RunOnce; where the file fixes a batch and the inputs hold a multiple of it, runs them piece by
// piece and joins the outputs along the first axis. `on_piece(done, total)` may show progress.
Result<NamedTensors> RunInPieces(const Session& session, const std::vector<Tensor>& inputs,
                                 const std::function<void(int64_t, int64_t)>& on_piece);

// What run() takes, over tensors that must outlive it.
std::vector<Input> InputsOf(const Session& session, const std::vector<Tensor>& tensors);
std::vector<Output> OutputsOf(const Session& session, std::vector<Tensor>& tensors);
Result<std::vector<Tensor>> AllocateOutputs(const Session& session, const std::vector<Tensor>& inputs);

}  // namespace crease::tools
