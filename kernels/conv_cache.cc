// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_cache.h"

#include <unistd.h>

namespace crease {
namespace {

size_t Ask([[maybe_unused]] int name, size_t fallback) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<size_t>(bytes) : fallback;
}

CacheSizes AskAll() {
  CacheSizes sizes;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
  sizes.l1 = Ask(_SC_LEVEL1_DCACHE_SIZE, sizes.l1);
  sizes.l2 = Ask(_SC_LEVEL2_CACHE_SIZE, sizes.l2);
#endif
  return sizes;
}

}  // namespace

const CacheSizes& GetCacheSizes() {
  static const CacheSizes sizes = AskAll();
  return sizes;
}

}  // namespace crease
