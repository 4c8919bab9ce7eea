// SPDX-License-Identifier: Apache-2.0
// How many samples a network whose statistics are measured may take at once, and what a channel gets of them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tools/recalibrate_graph.h"

namespace crease::tools {

// Whether the network treats a batch of inputs of these shapes (in RequiredInputs' order) as so many samples: every
// value that the data makes and a batch-norm depends on has the batch as its first axis, for another number of samples
// too, and no operator computes along that axis. A file that fixes its batch may have it in its constants: a Reshape to
// (1, 8, -1) would join samples. Errors: the node where it is not so.
Result<void> CheckBatch(const StatisticsGraph& statistics, const std::vector<Shape>& inputs);

// Values a channel that every node gets for inputs of these shapes. Errors: the network does not take these shapes; a
// node gets fewer than kFewSamples, for which `advice` says what helps.
Result<std::vector<int64_t>> SamplesPerChannel(const StatisticsGraph& statistics, const std::vector<Shape>& inputs,
                                               std::string_view advice);

}  // namespace crease::tools
