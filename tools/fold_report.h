// SPDX-License-Identifier: Apache-2.0
// What `crease fold` tells: text, JSON and the data of the HTML page.
#pragma once

#include <string>
#include <vector>

#include "graph/passes/pass.h"
#include "tools/command.h"
#include "tools/verification.h"

namespace crease::tools {

struct GraphSize {
  int64_t nodes = 0, constant_bytes = 0;
  int64_t batchnorms = 0;  // those of subgraphs and local functions included
};
GraphSize SizeOf(const Graph& graph);

// Entries for the batch-norms that no pass sees.
void LogInnerBatchNorms(const Graph& graph, PassLog& log);

// Initializers that are graph inputs, too: from IR 4 on a caller may give them another value.
struct InputDefaults {
  int64_t count = 0;
  int64_t gone = 0;  // inputs that the folded file no longer has
};
InputDefaults DefaultsOf(const Graph& before, const Graph& after);

struct FoldReport {
  std::string input, output;
  GraphSize before, after;
  InputDefaults defaults;
  PassLog log;
  double seconds = 0;  // reading, folding and writing
  std::vector<Verification> verifications;

  // Entries about batch-norms and other maps: their fate, one each. The rest is housekeeping.
  std::vector<const LogEntry*> Fates() const;
  int64_t Folded() const;  // batch-norms that are gone
  int64_t MacsSaved() const;
  int64_t BytesSaved() const;
};

// Summary and what is kept; every line with `explain`.
std::string FoldText(const FoldReport& report, bool explain);
Json FoldJson(const FoldReport& report);

}  // namespace crease::tools
