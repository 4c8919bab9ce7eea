// SPDX-License-Identifier: Apache-2.0
#include "kernels/weight_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "tests/support/forks.h"

namespace crease {
namespace {

// Blocks of sizes around the limits of a line, a page and a chunk; each filled with its own byte.
TEST(AllocateWeights, BlocksAreAlignedAndDoNotOverlap) {
  const std::vector<size_t> sizes = {0, 1, 63, 64, 65, 4096, 100'000, 2 << 20, (2 << 20) - 1, 5'000'000, 1'900'000, 3};
  std::vector<std::shared_ptr<void>> blocks;
  for (size_t i = 0; i < 3 * sizes.size(); ++i) {
    const size_t bytes = sizes[i % sizes.size()];
    blocks.push_back(AllocateWeights(bytes));
    ASSERT_NE(blocks.back(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks.back().get()) % 64, 0u);
    std::memset(blocks.back().get(), static_cast<int>(i), bytes);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t bytes = sizes[i % sizes.size()];
    const auto* block = static_cast<const unsigned char*>(blocks[i].get());
    const auto expected = static_cast<unsigned char>(i);
    EXPECT_TRUE(std::all_of(block, block + bytes, [&](unsigned char byte) { return byte == expected; }))
        << "block " << i;
  }
}

TEST(AllocateWeights, ABlockOutlivesItsNeighbours) {
  std::vector<std::shared_ptr<void>> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(AllocateWeights(1 << 20));
  const std::shared_ptr<void> kept = blocks[7];
  std::memset(kept.get(), 42, 1 << 20);
  blocks.clear();
  const std::shared_ptr<void> other = AllocateWeights(1 << 20);
  std::memset(other.get(), 1, 1 << 20);
  EXPECT_EQ(static_cast<const unsigned char*>(kept.get())[(1 << 20) - 1], 42);
}

TEST(AllocateWeights, ThreadsGetDifferentBlocks) {
  constexpr size_t kBytes = 10'000;
  std::vector<std::thread> threads;
  std::vector<std::vector<std::shared_ptr<void>>> blocks(4);
  for (size_t t = 0; t < blocks.size(); ++t) {
    threads.emplace_back([&mine = blocks[t], t] {
      for (int i = 0; i < 200; ++i) {
        mine.push_back(AllocateWeights(kBytes));
        std::memset(mine.back().get(), static_cast<int>(t + 1), kBytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < blocks.size(); ++t) {
    for (const auto& block : blocks[t]) {
      const auto* bytes = static_cast<const unsigned char*>(block.get());
      EXPECT_EQ(bytes[0], t + 1);
      EXPECT_EQ(bytes[kBytes - 1], t + 1);
    }
  }
}

TEST(AllocateWeights, ForkedChildGetsBlocksWhateverOtherThreadsDid) {
  test::ExpectChildrenCan([] {
    const std::shared_ptr<void> chunk = AllocateWeights(64);  // holds it for the others
    for (int i = 0; i < 1000; ++i) static_cast<void>(AllocateWeights(64));
  });
}

}  // namespace
}  // namespace crease
