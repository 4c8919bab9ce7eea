// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "graph/passes/pass.h"
#include "graph/passes/unrounded.h"

namespace crease {
namespace {

struct Run {
  Graph& graph;
  const DriverOptions& options;
  PassLog log;
  int steps = 0;
  fold::Unrounded& unrounded;
  std::optional<InferredTypes> types;  // of the graph as it is; none after an edit

  bool stopped() const { return options.max_steps >= 0 && steps >= options.max_steps; }

  // One pass to its own fixed point; true if it changed the graph. Its refusals of the last time stay.
  Result<bool> Repeat(const Pass& pass, PassLog& refusals) {
    for (int round = 0; round < options.max_rounds && !stopped(); ++round) {
      if (!types.has_value()) {
        CREASE_ASSIGN_OR_RETURN(types, InferTypes(graph, {}, false));
      }
      PassLog entries;
      PassContext context{*types, entries, unrounded};
      CREASE_ASSIGN_OR_RETURN(Patch patch, pass.run(graph, context));
      for (LogEntry& entry : entries) {
        entry.pass = pass.name;
        if (entry.applied == patch.empty()) continue;  // refusals of this time are outdated by its edits
        (entry.applied ? log : refusals).push_back(std::move(entry));
      }
      if (patch.empty()) return round > 0;
      types.reset();
      Result<void> applied = std::move(patch).ApplyTo(graph);
      if (!applied.ok()) {
        Error error = std::move(applied).error();
        error.message = "pass " + std::string(pass.name) + ": " + error.message;
        return error;
      }
      ++steps;
    }
    return true;
  }
};

}  // namespace

Result<PassLog> RunPasses(Graph& graph, std::span<const Pass> passes, const DriverOptions& options) {
  fold::Unrounded own;
  Run run{graph, options, {}, 0, options.unrounded != nullptr ? *options.unrounded : own, {}};
  PassLog refusals;
  bool changed = true;
  for (int round = 0; changed && round < options.max_rounds && !run.stopped(); ++round) {
    changed = false;
    refusals.clear();
    for (const Pass& pass : passes) {
      CREASE_ASSIGN_OR_RETURN(const bool edited, run.Repeat(pass, refusals));
      changed = changed || edited;
    }
  }
  std::move(refusals.begin(), refusals.end(), std::back_inserter(run.log));
  return std::move(run.log);
}

}  // namespace crease
