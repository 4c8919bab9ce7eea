// SPDX-License-Identifier: Apache-2.0
// Children of a process whose other threads are busy.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace crease::test {

// Forks while another thread does `work` over and over; every child must get it done, too.
template <typename Work>
void ExpectChildrenCan(const Work& work) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's allocator may be locked in the child";
#endif
  constexpr int kChildren = 200;
  constexpr unsigned kSeconds = 20;  // that a child has before a signal ends it
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) work();
  });
  for (int i = 0; i < kChildren && !testing::Test::HasFailure(); ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kSeconds);
      work();
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "child " << i << ": status " << status;
  }
  stop = true;
  busy.join();
}

}  // namespace crease::test
