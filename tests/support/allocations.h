// SPDX-License-Identifier: Apache-2.0
// Counts the allocations of a test program, and lets one fail. A program that calls any of this has its malloc and
// its kin replaced, whoever calls them; under the sanitizers, which replace these themselves, only operator new.
#pragma once

#include <cstdint>

namespace crease::test {

// By all threads since the program started.
int64_t AllocationCount();
int64_t AllocatedBytes();
// Blocks that were allocated and are not freed yet.
int64_t LiveBlocks();
// Whether malloc is counted, too, or only operator new.
bool CountsMalloc();

// While it lives, the nth allocation from now (1: the next) fails once, on whichever thread.
class FailingAllocation {
 public:
  explicit FailingAllocation(int64_t nth);
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  // Whether so many allocations were made at all.
  bool happened() const;
};

}  // namespace crease::test
