// SPDX-License-Identifier: Apache-2.0
#include "tests/support/allocations.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

namespace crease::test {
namespace {

// No dynamic initialization: the first call comes before any constructor.
constinit std::atomic<int64_t> allocations{0}, bytes{0}, live{0};
// The allocation that shall fail is the one that counts this down to 0.
constinit std::atomic<int64_t> until_failure{0};

// Says whether an allocation goes ahead.
bool Begin(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed);
  return until_failure.load(std::memory_order_relaxed) <= 0 ||
         until_failure.fetch_sub(1, std::memory_order_relaxed) != 1;
}

template <typename Allocate>
void* Counted(size_t size, const Allocate& allocate) {
  void* const memory = Begin(size) ? allocate() : nullptr;
  if (memory != nullptr) {
    live.fetch_add(1, std::memory_order_relaxed);
  } else {
    errno = ENOMEM;
  }
  return memory;
}

void CountFree(const void* memory) {
  if (memory != nullptr) live.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace

int64_t AllocationCount() { return allocations.load(std::memory_order_relaxed); }
int64_t AllocatedBytes() { return bytes.load(std::memory_order_relaxed); }
int64_t LiveBlocks() { return live.load(std::memory_order_relaxed); }

FailingAllocation::FailingAllocation(int64_t nth) { until_failure.store(nth, std::memory_order_relaxed); }
FailingAllocation::~FailingAllocation() { until_failure.store(0, std::memory_order_relaxed); }
bool FailingAllocation::happened() const { return until_failure.load(std::memory_order_relaxed) <= 0; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define CREASE_COUNTS_MALLOC 0
#else
#define CREASE_COUNTS_MALLOC 1
#endif

bool CountsMalloc() { return CREASE_COUNTS_MALLOC; }

}  // namespace crease::test

using crease::test::Counted;
using crease::test::CountFree;

#if CREASE_COUNTS_MALLOC

// glibc's own, under the names that it gives to those who replace the public ones.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

void* malloc(size_t size) {
  return Counted(size, [=] { return __libc_malloc(size); });
}
void* calloc(size_t count, size_t size) {
  return Counted(count * size, [=] { return __libc_calloc(count, size); });
}
void* realloc(void* memory, size_t size) {
  void* const moved = Counted(size, [=] { return __libc_realloc(memory, size); });
  if (moved != nullptr) CountFree(memory);
  return moved;
}
void* memalign(size_t alignment, size_t size) {
  return Counted(size, [=] { return __libc_memalign(alignment, size); });
}
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void** memory, size_t alignment, size_t size) {
  const int before = errno;
  *memory = memalign(alignment, size);
  errno = before;
  return *memory == nullptr ? ENOMEM : 0;
}
void free(void* memory) {
  CountFree(memory);
  __libc_free(memory);
}
}

#else

// gcc 12 inlines one of the pair below and takes it for a mismatch with the other.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return Counted(size, [=] { return std::malloc(size > 0 ? size : 1); });
}
void* operator new(size_t size) {
  if (void* const memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  CountFree(memory);
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

#endif
