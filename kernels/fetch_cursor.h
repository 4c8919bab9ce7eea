// SPDX-License-Identifier: Apache-2.0
// Deals out what a worker is to fetch (RunContext::fetch) to the loops that fetch it on their way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/kernel.h"

namespace crease {

// Memory that tiles bring into L2 while they compute.
struct Ahead {
  const float* first = nullptr;  // null: none
  int64_t step = 0, tile = 0;    // floats for each k; for each tile
};

class FetchCursor {
 public:
  FetchCursor() = default;
  explicit FetchCursor(std::span<const ConstBytes> ranges) : ranges_(ranges) { Next(); }
  explicit FetchCursor(ConstBytes range) { Open(range); }
  bool empty() const { return left_ == 0; }

  // For tiles of `depth` steps, each of which fetches `width` floats from where it is and goes on by `step`: the next
  // floats of a range for as many tiles as they suffice for, at most `tiles`, which becomes that number. Nothing is
  // fetched that does not lie in a range.
  Ahead Take(int64_t depth, int64_t width, int64_t step, int64_t& tiles) {
    if (depth == 0) return {};
    while (!empty() && left_ < width + depth) Next();
    if (empty()) return {};
    step = std::min(step, (left_ - width) / depth);
    tiles = std::min(tiles, (left_ - width) / (depth * step));
    const Ahead ahead{at_, step, depth * step};
    at_ += tiles * ahead.tile;
    left_ -= tiles * ahead.tile;
    return ahead;
  }

 private:
  static constexpr uintptr_t kLineBytes = 64;

  void Next() {
    left_ = 0;
    for (; !ranges_.empty() && left_ == 0; ranges_ = ranges_.subspan(1)) Open(ranges_[0]);
  }
  // Whole lines: the weights of a file may lie at any address.
  void Open(ConstBytes range) {
    const std::byte* end = range.data() + range.size();
    const std::byte* begin = range.data();
    begin += (kLineBytes - reinterpret_cast<uintptr_t>(begin) % kLineBytes) % kLineBytes;
    if (begin >= end) return;
    at_ = reinterpret_cast<const float*>(begin);
    left_ = (end - begin) / static_cast<int64_t>(sizeof(float));
  }

  std::span<const ConstBytes> ranges_;  // after the current one
  const float* at_ = nullptr;
  int64_t left_ = 0;  // floats of the current range
};

}  // namespace crease
