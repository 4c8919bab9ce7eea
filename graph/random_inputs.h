// SPDX-License-Identifier: Apache-2.0
// Inputs of a network for which nobody gives any.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace crease {

using TensorMap = std::map<std::string, Tensor>;

struct RandomInputOptions {
  uint64_t seed = 1;
  int64_t batch = 0;  // first axes, of whatever size in the file; 0: the file's, or 1 where it leaves that open
  // Other axes that the file leaves open: the first of these sizes that shape inference takes.
  std::vector<int64_t> extents = {64, 128, 224, 256};
  // Where another network's input of that name has such an axis, its size is that. It must outlive the call.
  const Graph* other = nullptr;
  std::string_view advice = "give inputs by --input";  // ends the error where none of them is
};

// Values for every input that has no constant: standard normal floats, integers 0 or 1, random bools. Axes of one
// symbol have one size, the batch's if one of them is a first axis and no other axis of that input has it. The same
// seed gives the same values. Errors: an input of unknown rank or type; shapes that the network refuses at every one of
// the sizes.
Result<TensorMap> RandomInputs(const Graph& graph, const RandomInputOptions& options);

}  // namespace crease
