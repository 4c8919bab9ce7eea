// SPDX-License-Identifier: Apache-2.0
// A loop's work in pieces that workers take as they come. A core may lose half of its speed to a neighbour for
// milliseconds at a time (hyper-threads, other virtual machines): with one fixed range for each worker every loop
// then waits for the slower one.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "kernels/kernel.h"

namespace crease {

// [0, count) in one contiguous share for each worker, as ParallelFor would split it, so that a worker finds in its
// caches what it wrote in the loop before. It takes pieces from the front of its share, each half of what is left;
// once that is done, from the back of the others'. At most kBlocks boundaries a share: pieces are no smaller.
class WorkShares {
 public:
  struct Range {
    int64_t begin = 0, end = 0;
    bool empty() const { return begin == end; }
  };

  WorkShares(int64_t count, int workers)
      : count_(count),
        shares_(static_cast<int>(std::min({int64_t{std::max(workers, 1)}, int64_t{kMaxShares}, count}))),
        blocks_(static_cast<uint32_t>(std::min(count, int64_t{shares_} * kBlocks))) {
    for (int i = 0; i < shares_; ++i) left_[static_cast<size_t>(i)].state.store(Pack(Split(i), Split(i + 1)));
  }

  // The next piece for `worker`, empty when nothing is left. Thread-safe; each unit is handed out once.
  Range Take(int worker) {
    for (int i = 0; i < shares_; ++i) {
      const bool own = i == 0;
      std::atomic<uint64_t>& state = left_[static_cast<size_t>((worker + i) % shares_)].state;
      uint64_t seen = state.load(std::memory_order_relaxed);
      for (;;) {
        const uint32_t begin = static_cast<uint32_t>(seen >> 32), end = static_cast<uint32_t>(seen);
        if (begin == end) break;
        const uint32_t take = (end - begin + 1) / 2;
        const uint64_t left = own ? Pack(begin + take, end) : Pack(begin, end - take);
        if (!state.compare_exchange_weak(seen, left, std::memory_order_relaxed)) continue;
        return own ? Range{Unit(begin), Unit(begin + take)} : Range{Unit(end - take), Unit(end)};
      }
    }
    return {};
  }

 private:
  static constexpr int kBlocks = 8;
  static constexpr int kMaxShares = 64;  // more workers share a share
  struct alignas(64) Left {
    std::atomic<uint64_t> state;  // first block << 32 | end
  };

  static uint64_t Pack(uint32_t begin, uint32_t end) { return uint64_t{begin} << 32 | end; }
  uint32_t Split(int share) const {
    return static_cast<uint32_t>(uint64_t{blocks_} * static_cast<uint64_t>(share) / static_cast<uint64_t>(shares_));
  }
  // The first unit of a block. No overflow at any count.
  int64_t Unit(uint32_t block) const {
    const int64_t each = count_ / blocks_, rest = count_ % blocks_;
    return block * each + std::min<int64_t>(block, rest);
  }

  int64_t count_;
  int shares_;
  uint32_t blocks_;
  std::array<Left, kMaxShares> left_;
};

// Runs body(worker, next) on the workers, where next() gives WorkShares::Range by Range of [0, count) until an empty
// one. A body may find nothing left from the start. Returns when all is done.
template <typename Body>
void ParallelPieces(const RunContext& context, int64_t count, const Body& body) {
  if (count <= 0) return;
  if (context.workers() == 1 || count == 1) {
    bool done = false;
    body(0, [&] {
      const WorkShares::Range range{0, done ? 0 : count};
      done = true;
      return range;
    });
    return;
  }
  WorkShares shares(count, context.workers());
  context.ParallelFor(context.workers(),
                      [&](int64_t, int64_t, int worker) { body(worker, [&] { return shares.Take(worker); }); });
}

}  // namespace crease
