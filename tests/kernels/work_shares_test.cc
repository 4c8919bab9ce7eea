// SPDX-License-Identifier: Apache-2.0
#include "kernels/work_shares.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/thread_pool.h"

namespace crease {
namespace {

TEST(WorkShares, OneWorkerTakesEverythingOnceItsOwnShareFirst) {
  for (const int64_t count : {1, 2, 3, 7, 16, 17, 1000, 12345}) {
    for (const int workers : {1, 2, 3, 5, 64, 100}) {
      WorkShares shares(count, workers);
      std::vector<int> taken(static_cast<size_t>(count));
      const WorkShares::Range first = shares.Take(0);
      EXPECT_EQ(first.begin, 0);
      for (WorkShares::Range r = first; !r.empty(); r = shares.Take(0)) {
        ASSERT_LT(r.begin, r.end);
        for (int64_t i = r.begin; i < r.end; ++i) ++taken[static_cast<size_t>(i)];
      }
      EXPECT_EQ(taken, std::vector<int>(static_cast<size_t>(count), 1)) << count << " units, " << workers << " workers";
      EXPECT_TRUE(shares.Take(workers - 1).empty());
    }
  }
}

TEST(WorkShares, PiecesShrinkAndThievesTakeFromTheBack) {
  WorkShares shares(160, 2);
  const auto expect = [&shares](int worker, int64_t begin, int64_t end) {
    const WorkShares::Range r = shares.Take(worker);
    EXPECT_EQ(r.begin, begin);
    EXPECT_EQ(r.end, end);
  };
  expect(0, 0, 40);
  expect(0, 40, 60);
  expect(0, 60, 70);
  expect(0, 70, 80);
  expect(0, 120, 160);
  expect(1, 80, 100);
}

TEST(WorkShares, LargeCountsDoNotOverflow) {
  constexpr int64_t kCount = int64_t{1} << 62;
  WorkShares shares(kCount, 3);
  int64_t sum = 0;
  for (WorkShares::Range r = shares.Take(2); !r.empty(); r = shares.Take(2)) sum += r.end - r.begin;
  EXPECT_EQ(sum, kCount);
}

TEST(ParallelPieces, EveryUnitOnceOnThreads) {
  constexpr int kWorkers = 4;
  ThreadPool pool(kWorkers);
  for (const int64_t count : {0, 1, 5, 64, 10007}) {
    std::vector<std::atomic<int>> taken(static_cast<size_t>(count));
    std::atomic<bool> bad_worker{false};
    ParallelPieces(RunContext{pool}, count, [&](int worker, auto next) {
      if (worker < 0 || worker >= kWorkers) bad_worker = true;
      for (WorkShares::Range r = next(); !r.empty(); r = next()) {
        for (int64_t i = r.begin; i < r.end; ++i) ++taken[static_cast<size_t>(i)];
      }
    });
    EXPECT_FALSE(bad_worker);
    for (const auto& times : taken) EXPECT_EQ(times, 1);
  }
}

TEST(ParallelPieces, OneWorkerGetsOneRange) {
  SerialExecutor serial;
  int ranges = 0;
  ParallelPieces(RunContext{serial}, 100, [&](int worker, auto next) {
    EXPECT_EQ(worker, 0);
    for (WorkShares::Range r = next(); !r.empty(); r = next()) ranges += r.begin == 0 && r.end == 100 ? 1 : 10;
  });
  EXPECT_EQ(ranges, 1);
}

}  // namespace
}  // namespace crease
