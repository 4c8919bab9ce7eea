// SPDX-License-Identifier: Apache-2.0
// One self-contained page: the graph before and after, batch-norms by fate, the error of each layer.
#pragma once

#include <string>

#include "graph/graph.h"
#include "tools/fold_report.h"

namespace crease::tools {

// No script, no outside resource; written in one piece. Errors: kIo.
Result<void> WriteFoldHtml(const std::string& path, const Graph& before, const Graph& after, const FoldReport& report);

}  // namespace crease::tools
