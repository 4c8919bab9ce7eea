// SPDX-License-Identifier: Apache-2.0
#include "kernels/kernel.h"

#include <algorithm>

namespace crease {

PackCache::Packed PackCache::GetOrMake(const std::string& key, const std::function<Packed()>& make) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = entries_.find(key);
  if (found != entries_.end()) return found->second;
  Packed packed = make();
  if (packed != nullptr) entries_.emplace(key, packed);
  return packed;
}

size_t PackCache::unused() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<size_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) { return entry.second.use_count() == 1; }));
}

}  // namespace crease
