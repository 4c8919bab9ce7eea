// SPDX-License-Identifier: Apache-2.0
// Where the time goes, node by node, of a session with Options::profile.
#pragma once

#include <string>
#include <vector>

#include "crease/session.h"
#include "graph/tensor.h"
#include "tools/command.h"

namespace crease::tools {

// A table for people: a row a node in the order of execution, then sums by kernel. "% of peak" is of
// what all threads together reach in a loop of fused multiply-adds, measured when this is called.
std::string ProfileTable(const Session& session, int threads);

// An array of objects, one a node.
Json ProfileJson(const Session& session);

// Chrome's trace event format: the mean time of each node, one after the other.
Result<void> WriteTrace(const Session& session, const std::string& path);

// Floating-point operations of one run at the inputs' shapes; 0 if they can't be planned.
double FlopsOf(const Session& session, const std::vector<Tensor>& inputs);

}  // namespace crease::tools
