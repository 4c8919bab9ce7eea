// SPDX-License-Identifier: Apache-2.0
#include "runtime/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <numeric>

#include "runtime/cpu_count.h"
#include "tests/support/forks.h"
#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

// Every index once, ranges in order of the workers and contiguous.
void ExpectPartition(Executor& executor, int64_t count) {
  std::vector<int> hits(static_cast<size_t>(count), 0);
  std::mutex mutex;
  std::vector<std::pair<int, std::pair<int64_t, int64_t>>> ranges;
  executor.ParallelFor(count, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
    const std::lock_guard<std::mutex> lock(mutex);
    ranges.push_back({worker, {begin, end}});
  });
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(hits[static_cast<size_t>(i)], 1) << i << " of " << count;
  std::sort(ranges.begin(), ranges.end());
  int64_t next = 0;
  for (const auto& [worker, range] : ranges) {
    EXPECT_LT(worker, executor.workers());
    EXPECT_EQ(range.first, next);
    next = range.second;
  }
  EXPECT_EQ(next, count);
}

TEST(ThreadPool, PartitionsEveryCount) {
  for (int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.workers(), threads);
    for (int64_t count : {0, 1, 2, 3, 4, 5, 6, 7, 100, 1001}) ExpectPartition(pool, count);
  }
}

TEST(ThreadPool, ManyLoopsInsideAndOutsideOfRequests) {
  ThreadPool pool(3);
  int64_t total = 0;
  std::vector<int64_t> sums(3);
  for (int round = 0; round < 200; ++round) {
    const PoolRequest request(round % 2 ? &pool : nullptr);
    for (int loop = 0; loop < 20; ++loop) {
      pool.ParallelFor(
          10, [&](int64_t begin, int64_t end, int worker) { sums[static_cast<size_t>(worker)] += end - begin; });
      total += 10;
    }
  }
  EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), int64_t{0}), total);
}

TEST(ThreadPool, WorkersThatFellAsleepInARequestWakeForTheNextLoop) {
  ThreadPool pool(2);
  PoolRequest request(&pool);
  for (int i = 0; i < 20; ++i) {
    usleep(5000);  // longer than workers spin
    ExpectPartition(request.executor(), 8);
  }
}

TEST(ThreadPool, WorkersComeAfterEveryPauseBetweenRequests) {
  ThreadPool pool(3);
  for (const unsigned pause : {0u, 5u, 15u, 25u, 200u}) {  // they sleep after 20 microseconds
    for (int i = 0; i < 50; ++i) {
      if (pause > 0) usleep(pause);
      PoolRequest request(&pool);
      ExpectPartition(request.executor(), 8);
    }
  }
}

TEST(ThreadPool, NestedLoopsRunOnTheCallingWorker) {
  ThreadPool pool(4);
  std::atomic<int> inner_ranges{0}, inner_total{0};
  pool.ParallelFor(8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const std::thread::id self = std::this_thread::get_id();
      pool.ParallelFor(5, [&](int64_t b, int64_t e, int worker) {
        EXPECT_EQ(std::this_thread::get_id(), self);
        EXPECT_EQ(worker, 0);
        ++inner_ranges;
        inner_total += static_cast<int>(e - b);
      });
    }
  });
  EXPECT_EQ(inner_ranges, 8);
  EXPECT_EQ(inner_total, 40);
  ExpectPartition(pool, 100);  // and the pool still works
}

TEST(ThreadPool, ManyCallersAtOnce) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int64_t> total{0};
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 300; ++i) {
        PoolRequest request(caller % 2 ? &pool : nullptr);
        Executor& executor = caller % 2 ? request.executor() : pool;
        std::vector<int64_t> sums(static_cast<size_t>(executor.workers()));
        executor.ParallelFor(
            7, [&](int64_t begin, int64_t end, int worker) { sums[static_cast<size_t>(worker)] += end - begin; });
        total += std::accumulate(sums.begin(), sums.end(), int64_t{0});
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 6 * 300 * 7);
}

TEST(ThreadPool, OneRequestAtATime) {
  ThreadPool pool(2);
  ASSERT_TRUE(pool.BeginRequest());
  std::thread other([&] {
    EXPECT_FALSE(pool.BeginRequest());
    PoolRequest request(&pool);
    EXPECT_EQ(request.executor().workers(), 1);
    ExpectPartition(request.executor(), 9);
  });
  other.join();
  EXPECT_FALSE(pool.BeginRequest());  // not twice on one thread either
  pool.EndRequest();
  EXPECT_TRUE(pool.BeginRequest());
  pool.EndRequest();
}

TEST(ThreadPool, SharedByThreadCount) {
  const auto a = ThreadPool::Shared(2), b = ThreadPool::Shared(2), c = ThreadPool::Shared(3);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(ThreadPool, ForkedChildRunsSerially) {
  ThreadPool pool(3);
  ExpectPartition(pool, 10);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool serial = true;
    int64_t sum = 0;
    const std::thread::id self = std::this_thread::get_id();
    pool.ParallelFor(10, [&](int64_t begin, int64_t end, int) {
      serial = serial && std::this_thread::get_id() == self;
      sum += end - begin;
    });
    const bool taken = pool.BeginRequest();
    pool.~ThreadPool();  // must not wait for threads that the child does not have
    _exit(serial && sum == 10 && !taken ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ExpectPartition(pool, 10);
}

TEST(ThreadPool, ForkedChildMakesPoolsWhateverOtherThreadsDid) {
  test::ExpectChildrenCan([] { static_cast<void>(ThreadPool::Shared(2)); });
}

TEST(HostExecutorAdapter, PartitionsOnTheHostsThreads) {
  HostExecutor host;
  host.workers = 3;
  host.parallel_for = [](int count, const std::function<void(int)>& task) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([&task, i] { task(i); });
    for (std::thread& thread : threads) thread.join();
  };
  HostExecutorAdapter executor(host);
  for (int64_t count : {0, 1, 2, 3, 10}) ExpectPartition(executor, count);
  std::atomic<int> nested{0};
  executor.ParallelFor(3, [&](int64_t, int64_t, int) {
    executor.ParallelFor(4, [&](int64_t begin, int64_t end, int) { nested += static_cast<int>(end - begin); });
  });
  EXPECT_EQ(nested, 12);
}

class CgroupTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& text) { return root_.Write(name, text); }
  test::TemporaryFolder root_;
};

TEST_F(CgroupTest, Version2TakesTheTightestOfTheAncestors) {
  const std::string file = Write("self", "0::/pod/app\n");
  Write("mount/pod/cpu.max", "150000 100000\n");
  Write("mount/pod/app/cpu.max", "max 100000\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(file, root_ / "mount"), 1.5);
}

TEST_F(CgroupTest, Version1) {
  const std::string file = Write("self", "3:cpuset:/x\n2:cpu,cpuacct:/docker/abc\n");
  Write("mount/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n");
  Write("mount/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(file, root_ / "mount"), 0.5);
  Write("mount/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(CgroupCpuQuota(file, root_ / "mount"), 0);
}

TEST_F(CgroupTest, PathOfTheHostThatIsNotMounted) {
  const std::string file = Write("self", "0::/kubepods/pod1\n");
  Write("mount/cpu.max", "200000 100000\n");
  EXPECT_DOUBLE_EQ(CgroupCpuQuota(file, root_ / "mount"), 2);
}

TEST_F(CgroupTest, MissingAndStrangeFilesAreNoLimit) {
  EXPECT_EQ(CgroupCpuQuota(root_ / "none", root_.path()), 0);
  const std::string file = Write("self", "garbage\n::\n1:\n0::/a\n");
  Write("mount/a/cpu.max", "often\n");
  EXPECT_EQ(CgroupCpuQuota(file, root_ / "mount"), 0);
}

TEST(DefaultThreadCount, IsPositive) { EXPECT_GE(DefaultThreadCount(), 1); }

}  // namespace
}  // namespace crease
