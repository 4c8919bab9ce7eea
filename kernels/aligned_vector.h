// SPDX-License-Identifier: Apache-2.0
// Vectors from where a line of memory begins: threads that share the elements out by lines write none that another
// one has, and what is read from it as vectors lies on a line each.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace crease {

// Throws std::bad_alloc, as std::allocator does.
template <typename T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) {}  // NOLINT: implicit, as allocators are

  T* allocate(size_t count) {
    if (count > static_cast<size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(::operator new(count * sizeof(T), kLine));
  }
  void deallocate(T* memory, size_t) { ::operator delete(memory, kLine); }
  bool operator==(const LineAllocator&) const = default;
};

template <typename T>
using AlignedVector = std::vector<T, LineAllocator<T>>;

}  // namespace crease
