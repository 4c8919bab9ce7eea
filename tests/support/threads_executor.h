// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/kernel.h"

namespace crease::test {

// Every range on a thread of its own, as a pool would deal them out: slow, and enough for a test.
class ThreadsExecutor final : public Executor {
 public:
  explicit ThreadsExecutor(int workers) : workers_(workers) {}
  int workers() const override { return workers_; }
  void ParallelFor(int64_t count, RangeFunction f) override {
    std::vector<std::thread> threads;
    for (int i = 0; i < workers_; ++i) {
      const int64_t begin = count * i / workers_, end = count * (i + 1) / workers_;
      if (begin < end) threads.emplace_back([=] { f(begin, end, i); });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  int workers_;
};

}  // namespace crease::test
