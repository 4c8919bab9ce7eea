// SPDX-License-Identifier: Apache-2.0
#include "graph/memory_block.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace crease {
namespace {

constexpr size_t kAlignment = 64, kHugePage = size_t{2} << 20;

}  // namespace

void DropPages(std::span<const std::byte> part) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data()), end = begin + part.size();
  const uintptr_t from = (begin + page - 1) / page * page, to = end / page * page;
  if (from < to) static_cast<void>(::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED));
}

std::shared_ptr<std::byte> AllocateBlock(size_t bytes) {
  const bool large = bytes >= 2 * kHugePage;
  const size_t alignment = large ? kHugePage : kAlignment;
  const size_t rounded = (std::max(bytes, size_t{1}) + alignment - 1) / alignment * alignment;
  if (rounded < bytes) return nullptr;
  auto* data = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (data == nullptr) return nullptr;
#if defined(MADV_HUGEPAGE)
  // The last, partly used page stays small.
  if (large) static_cast<void>(::madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE));
#endif
  return std::shared_ptr<std::byte>(data, [](std::byte* p) { std::free(p); });
}

}  // namespace crease
