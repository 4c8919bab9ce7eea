// SPDX-License-Identifier: Apache-2.0
// Memory for packed weights, which every run of a network reads from end to end.
#pragma once

#include <cstddef>
#include <memory>

namespace crease {

// At least `bytes`, 64-byte aligned, uninitialised; null if it is not to be had. Small blocks share chunks of large
// pages in the order in which they were asked for, and a chunk lives as long as one of its blocks: a layer's weights
// are a few hundred small pages, each of them a page walk and the end of a hardware prefetcher's stream. Thread-safe.
std::shared_ptr<void> AllocateWeights(size_t bytes);

}  // namespace crease
