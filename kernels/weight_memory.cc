// SPDX-License-Identifier: Apache-2.0
#include "kernels/weight_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "kernels/across_forks.h"

namespace crease {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kChunk = 4 * kHugePage;

size_t RoundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

std::shared_ptr<std::byte> Allocate(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* data = std::aligned_alloc(alignment, RoundUp(bytes, alignment));
  if (data == nullptr) return nullptr;
#if defined(MADV_HUGEPAGE)
  // The rest of the last page stays small: it may be mostly empty.
  if (bytes >= kHugePage) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return {static_cast<std::byte*>(data), [](std::byte* memory) { std::free(memory); }};
}

// The chunk that small blocks come from now. It holds no chunk alive that nobody uses.
struct OpenChunk {
  std::weak_ptr<std::byte> memory;
  size_t used = 0;
};
constinit std::mutex open_mutex;
[[maybe_unused]] const bool open_is_held = HoldAcrossForks<open_mutex>();
// Never destroyed: sessions with static storage duration may outlive it otherwise.
OpenChunk* open_chunk = nullptr;

}  // namespace

std::shared_ptr<void> AllocateWeights(size_t bytes) {
  bytes = RoundUp(std::max<size_t>(bytes, 1), kAlignment);
#if defined(__SANITIZE_ADDRESS__)
  return Allocate(bytes);  // blocks of their own, so that reads past the end are seen
#endif
  if (bytes >= kHugePage) return Allocate(bytes);
  const std::lock_guard<std::mutex> lock(open_mutex);
  if (open_chunk == nullptr) open_chunk = new OpenChunk;
  std::shared_ptr<std::byte> chunk = open_chunk->memory.lock();
  if (chunk == nullptr || kChunk - open_chunk->used < bytes) {
    chunk = Allocate(kChunk);
    if (chunk == nullptr) return nullptr;
    open_chunk->memory = chunk;
    open_chunk->used = 0;
  }
  std::byte* block = chunk.get() + open_chunk->used;
  open_chunk->used += bytes;
  return {std::move(chunk), block};
}

}  // namespace crease
