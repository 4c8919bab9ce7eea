// SPDX-License-Identifier: Apache-2.0
#include "runtime/memory.h"

#include <gtest/gtest.h>

#include <random>

namespace crease {
namespace {

int64_t RoundUp(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// The most bytes alive at one step: no arrangement needs less.
int64_t LowerBound(const std::vector<Lifetime>& buffers, int steps) {
  int64_t most = 0;
  for (int step = 0; step < steps; ++step) {
    int64_t alive = 0;
    for (const Lifetime& b : buffers) alive += b.first <= step && step <= b.last ? RoundUp(b.bytes) : 0;
    most = std::max(most, alive);
  }
  return most;
}

void ExpectDisjoint(const std::vector<Lifetime>& buffers, const ArenaLayout& layout) {
  ASSERT_EQ(layout.offsets.size(), buffers.size());
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_EQ(layout.offsets[i] % kArenaAlignment, 0);
    EXPECT_LE(layout.offsets[i] + buffers[i].bytes, layout.bytes);
    for (size_t k = 0; k < i; ++k) {
      if (buffers[i].last < buffers[k].first || buffers[k].last < buffers[i].first) continue;
      const bool apart = layout.offsets[i] + buffers[i].bytes <= layout.offsets[k] ||
                         layout.offsets[k] + buffers[k].bytes <= layout.offsets[i];
      EXPECT_TRUE(apart || buffers[i].bytes == 0 || buffers[k].bytes == 0) << i << " and " << k;
    }
  }
}

TEST(PlaceInArena, Nothing) { EXPECT_EQ(PlaceInArena({}).bytes, 0); }

TEST(PlaceInArena, AChainNeedsTwoNeighbours) {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 10; ++i) chain.push_back({1024, i, i + 1});
  const ArenaLayout layout = PlaceInArena(chain);
  ExpectDisjoint(chain, layout);
  EXPECT_EQ(layout.bytes, 2048);
}

TEST(PlaceInArena, RandomLifetimesNeverOverlap) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int count = static_cast<int>(random() % 60), steps = 1 + static_cast<int>(random() % 40);
    std::vector<Lifetime> buffers;
    for (int i = 0; i < count; ++i) {
      const int first = static_cast<int>(random()) % steps, begin = std::abs(first);
      buffers.push_back(
          {static_cast<int64_t>(random() % 5000), begin, std::min(steps - 1, begin + static_cast<int>(random() % 6))});
    }
    const ArenaLayout layout = PlaceInArena(buffers);
    ExpectDisjoint(buffers, layout);
    EXPECT_LE(layout.bytes, 2 * LowerBound(buffers, steps) + 64) << "round " << round;
  }
}

}  // namespace
}  // namespace crease
