// SPDX-License-Identifier: Apache-2.0
#include "runtime/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <new>
#include <system_error>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "kernels/across_forks.h"

namespace crease {
namespace {

// Within a request. Longer than the serial work between two loops of a network and than the time
// that waking a thread takes on a virtual machine (100 microseconds seen): with less, caller and
// worker put each other to sleep in turns.
constexpr std::chrono::microseconds kSpin{2000};
// After a request. A caller that comes back sooner finds its workers awake (calls of 6 microseconds: 1.11 times as many
// a second). Not while other threads ask for them, nor a while after, in which they may be waiting for a core: two
// threads on two cores lose 7 % with lingering always, 5 % with lingering after 16 requests that nobody else had asked
// in.
constexpr std::chrono::microseconds kLinger{20};
constexpr std::chrono::milliseconds kCalm{50};
// Pauses between two looks at the clock: a pause is 40 to 140 cycles.
constexpr int kPausesPerLook = 32;

std::atomic<uint64_t> fork_generation{0};
[[maybe_unused]] const bool forks_are_counted =
    pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1, std::memory_order_relaxed); }) == 0;

// The pools of Shared().
struct Registry {
  std::map<int, std::weak_ptr<ThreadPool>> pools;
  uint64_t generation = 0;
};
constinit std::mutex registry_mutex;
[[maybe_unused]] const bool registry_is_held = HoldAcrossForks<registry_mutex>();
// Never destroyed: sessions with static storage duration may outlive it otherwise.
Registry* registry = nullptr;

// What the current thread is doing, for nested loops and for requests.
thread_local bool in_loop = false;
thread_local const ThreadPool* open_request = nullptr;

class InLoop {
 public:
  InLoop() { in_loop = true; }
  ~InLoop() { in_loop = false; }
};

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or the time is up; returns done().
template <typename Done>
bool Spin(std::chrono::microseconds time, const Done& done) {
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  fork_generation_ = fork_generation.load(std::memory_order_relaxed);
  claims_ = std::make_unique<Claim[]>(static_cast<size_t>(std::max(threads, 1)));
  // Workers read only the members above threads_, and their own number, so they may start while it
  // grows; workers() is first asked for after construction.
  // A thread that has started must find its place: without one it could be neither kept nor joined.
  threads_.reserve(static_cast<size_t>(std::max(threads - 1, 0)));
  for (int worker = 1; worker < threads; ++worker) {
    try {
      threads_.push_back(std::make_unique<std::thread>([this, worker] { WorkerMain(worker); }));
    } catch (const std::system_error&) {
      break;  // the system's limit: run with those we have
    } catch (const std::bad_alloc&) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  if (fork_generation_ != fork_generation.load(std::memory_order_relaxed)) {
    // A forked child: the threads do not exist here, so their handles can be neither joined nor freed.
    for (auto& thread : threads_) static_cast<void>(thread.release());
    return;
  }
  shared_.stop.store(true, std::memory_order_seq_cst);
  wake_.fetch_add(1, std::memory_order_seq_cst);
  wake_.notify_all();
  for (auto& thread : threads_) thread->join();
}

std::shared_ptr<ThreadPool> ThreadPool::Shared(int threads) {
  const std::lock_guard<std::mutex> lock(registry_mutex);
  if (registry == nullptr) registry = new Registry;
  const uint64_t generation = fork_generation.load(std::memory_order_relaxed);
  if (generation != registry->generation) {  // a forked child starts pools of its own
    registry->pools.clear();
    registry->generation = generation;
  }
  std::weak_ptr<ThreadPool>& slot = registry->pools[threads];
  std::shared_ptr<ThreadPool> pool = slot.lock();
  if (!pool) slot = pool = std::make_shared<ThreadPool>(threads);
  return pool;
}

bool ThreadPool::WaitForJob(uint32_t seen) const {
  const auto ready = [&] {
    return shared_.job.load(std::memory_order_acquire) != seen || shared_.stop.load(std::memory_order_relaxed);
  };
  const auto ready_or_idle = [&] { return ready() || !shared_.active.load(std::memory_order_relaxed); };
  const auto ready_or_active = [&] { return ready() || shared_.active.load(std::memory_order_relaxed); };
  while (Spin(kSpin, ready_or_idle) && !ready()) {  // a request has ended; the next one may be near
    if (!shared_.linger.load(std::memory_order_relaxed) || !Spin(kLinger, ready_or_active)) break;
  }
  return ready();
}

void ThreadPool::WorkerMain(int worker) {
  in_loop = true;  // all that a worker ever runs is a part of a loop
  uint32_t seen = 0;
  for (;;) {
    const uint32_t wake = wake_.load(std::memory_order_seq_cst);
    if (!WaitForJob(seen)) {
      // Announce, look again, sleep: the caller publishes, then looks for sleepers. With sequential
      // consistency one of the two sees the other.
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      if (shared_.job.load(std::memory_order_seq_cst) == seen && !shared_.stop.load(std::memory_order_seq_cst)) {
        wake_.wait(wake, std::memory_order_seq_cst);
      }
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      continue;
    }
    if (shared_.job.load(std::memory_order_acquire) == seen) return;  // stop
    seen = shared_.job.load(std::memory_order_acquire);
    TryPart(seen, worker);
  }
}

void ThreadPool::TryPart(uint32_t job, int part) {
  uint64_t free_state = uint64_t{job} * 2;
  if (!claims_[static_cast<size_t>(part)].state.compare_exchange_strong(
          free_state, free_state + 1, std::memory_order_acq_rel, std::memory_order_relaxed)) {
    return;
  }
  // count / parts and the rest, not count * part / parts: no overflow at any count.
  const int64_t each = shared_.count / shared_.parts, rest = shared_.count % shared_.parts;
  const int64_t begin = part * each + std::min<int64_t>(part, rest);
  shared_.function(begin, begin + each + (part < rest ? 1 : 0), part);
  // What the function refers to may be gone right after this, and shared_ tell of another loop.
  if (remaining_.fetch_sub(1, std::memory_order_acq_rel) == 1) remaining_.notify_one();
}

void ThreadPool::WakeSleepers() {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  wake_.fetch_add(1, std::memory_order_seq_cst);
  wake_.notify_all();
}

void ThreadPool::RunLoop(int64_t count, RangeFunction f) {
  const int parts = static_cast<int>(std::min<int64_t>(count, workers()));
  const uint32_t job = shared_.job.load(std::memory_order_relaxed) + 1;
  shared_.count = count;
  shared_.parts = parts;
  shared_.function = f;
  remaining_.store(parts, std::memory_order_relaxed);
  for (int part = 0; part < parts; ++part) {
    claims_[static_cast<size_t>(part)].state.store(uint64_t{job} * 2, std::memory_order_release);
  }
  shared_.job.store(job, std::memory_order_seq_cst);
  WakeSleepers();
  {
    const InLoop guard;
    for (int part = 0; part < parts; ++part) TryPart(job, part);
  }
  const auto done = [&] { return remaining_.load(std::memory_order_acquire) == 0; };
  if (Spin(kSpin, done)) return;
  for (;;) {
    const int32_t left = remaining_.load(std::memory_order_acquire);
    if (left == 0) return;
    remaining_.wait(left, std::memory_order_acquire);
  }
}

void ThreadPool::ParallelFor(int64_t count, RangeFunction f) {
  if (count <= 0) return;
  const bool serial =
      count == 1 || in_loop || threads_.empty() || fork_generation_ != fork_generation.load(std::memory_order_relaxed);
  const bool mine = open_request == this;
  if (serial || (!mine && !Take())) {
    const bool outer = in_loop;
    in_loop = true;
    f(0, count, 0);
    in_loop = outer;
    return;
  }
  RunLoop(count, f);
  if (!mine) taken_.store(false, std::memory_order_release);
}

bool ThreadPool::Take() {
  if (!taken_.exchange(true, std::memory_order_acquire)) return true;
  crowded_.store(true, std::memory_order_relaxed);
  return false;
}

bool ThreadPool::BeginRequest() {
  if (threads_.empty() || in_loop || open_request != nullptr ||
      fork_generation_ != fork_generation.load(std::memory_order_relaxed) || !Take()) {
    return false;
  }
  open_request = this;
  // In no order with what WakeSleepers reads: whoever falls asleep meanwhile is woken by the first loop.
  shared_.active.store(true, std::memory_order_relaxed);
  WakeSleepers();
  return true;
}

void ThreadPool::EndRequest() {
  const bool crowded = crowded_.load(std::memory_order_relaxed);
  if (crowded || !shared_.linger.load(std::memory_order_relaxed)) {
    const auto now = std::chrono::steady_clock::now();
    if (crowded) {
      crowded_.store(false, std::memory_order_relaxed);
      crowded_at_ = now;
    }
    shared_.linger.store(now - crowded_at_ > kCalm, std::memory_order_relaxed);
  }
  shared_.active.store(false, std::memory_order_relaxed);
  open_request = nullptr;
  taken_.store(false, std::memory_order_release);
}

void HostExecutorAdapter::ParallelFor(int64_t count, RangeFunction f) {
  if (count <= 0) return;
  const int parts = static_cast<int>(std::min<int64_t>(count, workers()));
  if (parts == 1 || in_loop) {
    f(0, count, 0);
    return;
  }
  const struct {
    int64_t each, rest;
    RangeFunction f;
  } loop{count / parts, count % parts, f};
  // Captures one pointer, which std::function holds without an allocation.
  host_.parallel_for(parts, [&loop](int part) {
    const int64_t begin = part * loop.each + std::min<int64_t>(part, loop.rest);
    const bool outer = in_loop;
    in_loop = true;
    loop.f(begin, begin + loop.each + (part < loop.rest ? 1 : 0), part);
    in_loop = outer;
  });
}

}  // namespace crease
