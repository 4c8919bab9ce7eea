// SPDX-License-Identifier: Apache-2.0
// Passes propose, the driver applies. A pass reads a const graph and returns a patch and log entries;
// the driver applies it, validates, and repeats to a fixed point.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/op.h"
#include "graph/patch.h"

namespace crease {

namespace fold {
class Unrounded;
}

// A rewrite or a refusal, with a stable reason code. `fold --explain`, `inspect` and `lint` print it.
struct LogEntry {
  std::string pass;         // "fold_batchnorm"
  std::string code;         // stable: "folded-into-conv", "training-mode", ...
  bool applied = false;     // a rewrite, or a refusal
  std::string node;         // name of the node that it is about (as in the file); empty names get "#index"
  std::string target;       // what it was folded into, or what stands in the way
  std::string message;      // one sentence with the figures
  std::string op_type;      // of the node
  int64_t macs_saved = 0;   // multiply-adds of one run at the file's shapes (an open batch is 1)
  int64_t bytes_saved = 0;  // of constants; below zero where shared weights had to be cloned
};

using PassLog = std::vector<LogEntry>;

struct PassContext {
  const InferredTypes& types;
  PassLog& log;
  fold::Unrounded& unrounded;  // of the constants that folds made in earlier rounds
};

struct Pass {
  std::string_view name;
  Result<Patch> (*run)(const Graph& graph, PassContext& context);
};

struct DriverOptions {
  int max_rounds = 1000;
  int max_steps = -1;  // stop after this many applied patches (for bisecting); < 0: no stop
  // Where to keep what folds made of which constants, for a caller who wants to know; null: nowhere.
  fold::Unrounded* unrounded = nullptr;
};

// Runs each pass until it has no edit, in order, and the whole again until none has one. The log keeps
// the rewrites of every round and the refusals of the last.
Result<PassLog> RunPasses(Graph& graph, std::span<const Pass> passes, const DriverOptions& options = {});

}  // namespace crease
