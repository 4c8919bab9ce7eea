// SPDX-License-Identifier: Apache-2.0
#include "kernels/fetch_cursor.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace crease {
namespace {

constexpr int64_t kLine = 64;

// Lines that tiles fetch until nothing is left, as GemmTile says it: `width` floats at every step.
std::set<const std::byte*> FetchAll(FetchCursor& cursor, int64_t depth, int64_t width, int64_t step, int64_t at_once) {
  std::set<const std::byte*> lines;
  for (int calls = 0; !cursor.empty() && calls < 10000; ++calls) {
    int64_t tiles = at_once;
    const Ahead ahead = cursor.Take(depth, width, step, tiles);
    if (ahead.first == nullptr) break;
    EXPECT_GE(tiles, 1);
    EXPECT_LE(tiles, at_once);
    EXPECT_GE(ahead.step, 1);
    EXPECT_LE(ahead.step, step);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t i = 0; i < width; i += kLine / 4) {
          const auto* at = reinterpret_cast<const std::byte*>(ahead.first + tile * ahead.tile + k * ahead.step + i);
          lines.insert(at - reinterpret_cast<uintptr_t>(at) % kLine);
        }
      }
    }
  }
  EXPECT_TRUE(cursor.empty());
  return lines;
}

TEST(FetchCursor, LinesOfTheRangesAllButTheirTailsAndNoOther) {
  std::vector<std::byte> memory(300000);
  for (const int64_t depth : {1, 9, 64, 960}) {
    for (const int64_t width : {8, 32}) {
      for (const int64_t at_once : {1, 3, 1000}) {
        const std::vector<ConstBytes> ranges = {ConstBytes(memory).subspan(3, 100001),
                                                ConstBytes(memory).subspan(110000, 60), ConstBytes(),
                                                ConstBytes(memory).subspan(120001, 150000)};
        FetchCursor cursor(ranges);
        const std::set<const std::byte*> lines = FetchAll(cursor, depth, width, 8, at_once);
        int64_t whole = 0;
        for (const ConstBytes& range : ranges) {
          const std::byte* end = range.data() + range.size();
          for (const std::byte* line : lines) whole += range.data() <= line && line + kLine <= end;
          // All but what does not suffice for a tile's steps of one float each.
          const int64_t all = static_cast<int64_t>(range.size()) / kLine - 1;
          const int64_t tail = (depth + width) * 4 / kLine + 2;
          int64_t own = 0;
          for (const std::byte* line : lines) own += range.data() <= line && line < end;
          EXPECT_GE(own, all - tail) << depth << " deep, " << width << " wide";
        }
        EXPECT_GE(whole + static_cast<int64_t>(ranges.size()), static_cast<int64_t>(lines.size()))
            << "lines outside the ranges, " << depth << " deep, " << width << " wide";
      }
    }
  }
}

TEST(FetchCursor, NothingToFetch) {
  FetchCursor cursor{std::span<const ConstBytes>()};
  EXPECT_TRUE(cursor.empty());
  int64_t tiles = 5;
  EXPECT_EQ(cursor.Take(100, 32, 8, tiles).first, nullptr);
  EXPECT_EQ(tiles, 5);
}

}  // namespace
}  // namespace crease
