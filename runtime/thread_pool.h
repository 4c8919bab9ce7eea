// SPDX-License-Identifier: Apache-2.0
// The threads that loops run on: Crease's own, or the host's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "crease/session.h"
#include "kernels/kernel.h"

namespace crease {

// A pool with a static partition; the calling thread is worker 0. A loop costs about a microsecond
// beside its work while a request is open: workers spin between the loops of a request, and for some
// microseconds after it where one thread alone calls, and sleep otherwise. Waking a worker takes some 100
// microseconds on a virtual machine, more than a small network: a part whose worker has not come yet is run by the
// caller, so that nobody waits for a sleeper. Who runs a part changes no bit of the result.
//
// Any number of threads may call; one at a time has the workers. A call that finds them taken, and a
// loop inside a loop, run all of [0, count) on the calling thread as worker 0: concurrent requests
// never wait for each other, and since kernels give the same bits at any number of workers, nobody
// sees a difference. After fork() the child has no workers and every loop runs serially there.
class ThreadPool final : public Executor {
 public:
  // `threads` counts the caller: threads - 1 are started. Fewer run if the system refuses one.
  explicit ThreadPool(int threads);
  // Joins the workers. No loop may be running.
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // One pool for a thread count, shared by all sessions that ask for it, alive as long as one does. A forked child has
  // pools of its own, and need not fear that another thread was in here.
  static std::shared_ptr<ThreadPool> Shared(int threads);

  int workers() const override { return static_cast<int>(threads_.size()) + 1; }
  void ParallelFor(int64_t count, RangeFunction f) override;

  // Takes the workers for a whole request and wakes them, so that its loops start at once. False if
  // another thread has them: then the request runs serially (SerialExecutor). Not while this thread
  // has a request open on this pool already.
  bool BeginRequest();
  void EndRequest();  // only after BeginRequest() returned true, on the same thread

 private:
  void WorkerMain(int worker);
  void WakeSleepers();
  bool Take();  // the workers, for one caller; false if another has them
  void RunLoop(int64_t count, RangeFunction f);
  // Runs part `part` of loop `job` unless somebody else has taken it, or the loop is over.
  void TryPart(uint32_t job, int part);
  bool WaitForJob(uint32_t seen) const;  // true: there is one (or the end); false: time to sleep

  struct alignas(64) Shares {         // written by the caller, read by spinning workers
    std::atomic<uint32_t> job{0};     // number of the current loop
    std::atomic<bool> active{false};  // a request is open: spin a while before sleeping
    std::atomic<bool> linger{false};  // spin a little after a request, too
    std::atomic<bool> stop{false};
    int64_t count = 0;
    int64_t parts = 0;
    RangeFunction function;
  };
  // By part: 2 * job where the part of that loop is free, 2 * job + 1 once it is taken. Whoever takes a
  // part keeps the loop from ending, so count and function are valid for them and for nobody else.
  struct alignas(64) Claim {
    std::atomic<uint64_t> state{0};
  };
  Shares shared_;
  std::unique_ptr<Claim[]> claims_;
  alignas(64) std::atomic<int32_t> remaining_{0};  // parts of the current loop that have not ended
  alignas(64) std::atomic<uint32_t> wake_{0};      // what sleeping workers wait on
  std::atomic<int32_t> sleepers_{0};
  alignas(64) std::atomic<bool> taken_{false};          // workers never look at it
  std::atomic<bool> crowded_{false};                    // somebody has found the workers taken since a request ended
  std::chrono::steady_clock::time_point crowded_at_{};  // when one ended in which somebody had
  uint64_t fork_generation_ = 0;
  std::vector<std::unique_ptr<std::thread>> threads_;
};

// Holds a pool for a request where it can; executor() is the pool or, if it is taken, a serial one.
class PoolRequest {
 public:
  explicit PoolRequest(ThreadPool* pool) : pool_(pool && pool->BeginRequest() ? pool : nullptr) {}
  ~PoolRequest() {
    if (pool_) pool_->EndRequest();
  }
  PoolRequest(const PoolRequest&) = delete;
  PoolRequest& operator=(const PoolRequest&) = delete;

  Executor& executor() { return pool_ ? static_cast<Executor&>(*pool_) : serial_; }

 private:
  ThreadPool* pool_;
  SerialExecutor serial_;
};

// The host's threads as an Executor. A loop inside a loop runs on the calling worker alone.
class HostExecutorAdapter final : public Executor {
 public:
  explicit HostExecutorAdapter(HostExecutor host) : host_(std::move(host)) {}
  int workers() const override { return host_.workers > 1 ? host_.workers : 1; }
  void ParallelFor(int64_t count, RangeFunction f) override;

 private:
  HostExecutor host_;
};

}  // namespace crease
