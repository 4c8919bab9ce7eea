// SPDX-License-Identifier: Apache-2.0
// Deals out what a worker is to fetch (RunContext::fetch) to the loops that fetch it on their way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/kernel.h"
#include "kernels/rounding.h"

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

// Deals out what the tiles of one product fetch on their way: first the weights that are multiplied next, then what
// later steps read.
class TileFetch {
 public:
  // Floats that a tile fetches for later steps beside the products of one k: 32 bytes in 12 to 14 cycles, a quarter of
  // what a core can read.
  static constexpr int64_t kStep = 8;

  // Tiles that fetch beside `depth` of their products and are `width` columns wide; `later` may be null.
  TileFetch(int64_t depth, int64_t width, FetchCursor* later)
      : depth_(depth), width_(width), later_(later != nullptr && !later->empty() ? later : nullptr) {}

  // What is multiplied next, over all `tiles`, or over the first half where the others have something for later steps.
  void Begin(ConstBytes weights, int64_t tiles) {
    next_ = FetchCursor(weights);
    next_step_ = DivideUp(width_, later_ == nullptr ? tiles : DivideUp(tiles, int64_t{2}));
  }

  // For the next tiles, at most `tiles`, which becomes their number.
  Ahead Take(int64_t& tiles) {
    const Ahead ahead = next_.Take(depth_, width_, next_step_, tiles);
    if (ahead.first != nullptr || later_ == nullptr) return ahead;
    return later_->Take(depth_, width_, kStep, tiles);
  }

 private:
  int64_t depth_, width_;
  FetchCursor* later_;
  FetchCursor next_;
  int64_t next_step_ = 1;
};

}  // namespace crease
