// SPDX-License-Identifier: Apache-2.0
#include "kernels/cache_sizes.h"

#include <unistd.h>

#include <charconv>
#include <fstream>
#include <limits>
#include <system_error>

namespace crease {
namespace {

[[maybe_unused]] size_t Ask(int name, size_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? static_cast<size_t>(bytes) : otherwise;
}

CacheSizes AskSysconf() {
  CacheSizes sizes;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
  sizes.l1 = Ask(_SC_LEVEL1_DCACHE_SIZE, sizes.l1);
  sizes.l2 = Ask(_SC_LEVEL2_CACHE_SIZE, sizes.l2);
  sizes.l3 = Ask(_SC_LEVEL3_CACHE_SIZE, sizes.l3);
#endif
  return sizes;
}

// The first word of a file; empty where there is none.
std::string WordOf(const std::string& path) {
  std::string word;
  std::ifstream(path) >> word;
  return word;
}

}  // namespace

size_t ParseCacheSize(std::string_view text) {
  size_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [unit, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc()) return 0;
  if (unit == end) return count;
  const size_t power = std::string_view("KMG").find(*unit);
  if (unit + 1 != end || power == std::string_view::npos) return 0;
  const size_t shift = 10 * (power + 1);
  return count <= std::numeric_limits<size_t>::max() >> shift ? count << shift : 0;
}

CacheSizes ReadCacheSizes(const std::string& folder, const CacheSizes& otherwise) {
  CacheSizes sizes = otherwise;
  for (int i = 0;; ++i) {
    const std::string cache = folder + "/index" + std::to_string(i);
    const std::string level = WordOf(cache + "/level");
    if (level.empty()) return sizes;
    const size_t bytes = ParseCacheSize(WordOf(cache + "/size"));
    if (bytes == 0 || WordOf(cache + "/type") == "Instruction") continue;
    if (level == "1") sizes.l1 = bytes;
    if (level == "2") sizes.l2 = bytes;
    if (level == "3") sizes.l3 = bytes;
  }
}

const CacheSizes& GetCacheSizes() {
  // AMD's CPUs tell sysconf (of glibc up to 2.36 at least) about the whole package: 64 MiB for a Zen 1 whose cores
  // share 8 MiB by fours, as Linux knows.
  static const CacheSizes sizes = ReadCacheSizes("/sys/devices/system/cpu/cpu0/cache", AskSysconf());
  return sizes;
}

}  // namespace crease
