// SPDX-License-Identifier: Apache-2.0
// Bounds on what an untrusted model may make the library do.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace crease {

// What a model may cost to load and run; beyond them loading fails with kLimitExceeded.
struct Limits {
  int64_t max_file_bytes = int64_t{2} << 30;    // the ONNX file itself
  int64_t max_tensor_bytes = int64_t{8} << 30;  // one tensor, external data included
  int64_t max_nodes = 1'000'000;
  int max_nesting = 32;                         // subgraphs inside subgraphs
  int64_t max_arena_bytes = int64_t{16} << 30;  // activations of one plan
};

}  // namespace crease
#pragma GCC visibility pop
