// SPDX-License-Identifier: Apache-2.0
// Cache sizes that blockings follow.
#pragma once

#include <cstddef>

namespace crease {

struct CacheSizes {
  size_t l1 = 32 << 10;   // data, of one core
  size_t l2 = 512 << 10;  // of one core
};

// As the operating system tells, or the defaults above. Thread-safe.
const CacheSizes& GetCacheSizes();

}  // namespace crease
