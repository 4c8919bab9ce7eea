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

std::string PackKey(std::string_view kind, const Tensor& weights, const Tensor* bias,
                    std::initializer_list<int64_t> choices) {
  std::string key(kind);
  const auto add = [&key](auto value) { key += ' ' + std::to_string(value); };
  add(reinterpret_cast<uintptr_t>(weights.bytes()));
  add(bias == nullptr ? 0 : reinterpret_cast<uintptr_t>(bias->bytes()));
  for (const int64_t size : weights.shape()) add(size);
  for (const int64_t choice : choices) add(choice);
  return key;
}

size_t PackCache::unused() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<size_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const auto& entry) { return entry.second.use_count() == 1; }));
}

}  // namespace crease
