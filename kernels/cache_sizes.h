// SPDX-License-Identifier: Apache-2.0
// Cache sizes that blockings and ways of writing follow.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace crease {

// In bytes, as the first core has them.
struct CacheSizes {
  size_t l1 = 32 << 10;  // data
  size_t l2 = 512 << 10;
  size_t l3 = 32 << 20;  // the one that this core has a part of, not all of a package's
};

// By Linux's own account, else by sysconf's, else the defaults above. Thread-safe.
const CacheSizes& GetCacheSizes();

// What a folder like /sys/devices/system/cpu/cpu0/cache says; of caches that it does not tell, what `otherwise` says.
CacheSizes ReadCacheSizes(const std::string& folder, const CacheSizes& otherwise);

// Bytes of a size as Linux writes it: "8192K", "32M", "1G", "512". 0 for any other text, and where a size_t is too
// small.
size_t ParseCacheSize(std::string_view text);

}  // namespace crease
