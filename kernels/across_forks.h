// SPDX-License-Identifier: Apache-2.0
// Mutexes of the whole process, in a process that forks.
#pragma once

#include <pthread.h>

#include <mutex>

namespace crease {

// From now on fork() waits for whoever holds `kMutex`, so that the child finds it free and what it guards whole: the
// thread that held it would not exist there to let go of it. Call it while the program is loaded, once a mutex, by
// initialising a variable beside it: what the first caller initialises has a lock of its own. Nobody may hold two such
// mutexes at once, nor fork or call pthread_atfork() with one. False: no memory.
template <std::mutex& kMutex>
bool HoldAcrossForks() {
  const auto unlock = [] { kMutex.unlock(); };
  return pthread_atfork([] { kMutex.lock(); }, unlock, unlock) == 0;
}

}  // namespace crease
