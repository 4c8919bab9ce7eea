// SPDX-License-Identifier: Apache-2.0
// Places in one arena for buffers with known lifetimes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace crease {

struct Lifetime {
  int64_t bytes = 0;
  int first = 0, last = 0;  // steps, both included
};

struct ArenaLayout {
  std::vector<int64_t> offsets;  // by buffer, multiples of kArenaAlignment
  int64_t bytes = 0;
};

inline constexpr int64_t kArenaAlignment = 64;

// Buffers whose lifetimes meet do not overlap. Greedy by size: the largest first, each at the start of
// the smallest gap that holds it among those already placed and alive with it.
ArenaLayout PlaceInArena(std::span<const Lifetime> buffers);

}  // namespace crease
