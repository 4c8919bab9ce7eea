// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory.h"
#include "kernels/rounding.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace crease {

ArenaLayout PlaceInArena(std::span<const Lifetime> buffers) {
  ArenaLayout layout;
  layout.offsets.assign(buffers.size(), 0);
  std::vector<size_t> by_size(buffers.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<size_t> placed;  // sorted by offset
  for (const size_t i : by_size) {
    const Lifetime& buffer = buffers[i];
    const int64_t bytes = RoundUp(buffer.bytes, kArenaAlignment);
    if (bytes == 0) continue;
    int64_t end = 0;  // of what is placed and alive so far, from the left
    int64_t best = -1, best_gap = std::numeric_limits<int64_t>::max();
    for (const size_t other : placed) {
      if (buffers[other].last < buffer.first || buffer.last < buffers[other].first) continue;
      const int64_t gap = layout.offsets[other] - end;
      if (gap >= bytes && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
      const int64_t other_bytes = RoundUp(buffers[other].bytes, kArenaAlignment);
      end = std::max(end, layout.offsets[other] + other_bytes);
    }
    layout.offsets[i] = best >= 0 ? best : end;
    layout.bytes = std::max(layout.bytes, layout.offsets[i] + bytes);
    const auto position = std::upper_bound(placed.begin(), placed.end(), i,
                                           [&](size_t a, size_t b) { return layout.offsets[a] < layout.offsets[b]; });
    placed.insert(position, i);
  }
  return layout;
}

}  // namespace crease
