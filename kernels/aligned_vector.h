// SPDX-License-Identifier: Apache-2.0
// Vectors from where a line of memory begins: threads that share the elements out by lines write none that another
// one has.
#pragma once

#include <hwy/aligned_allocator.h>

namespace crease {

template <typename T>
using AlignedVector = hwy::AlignedVector<T>;

}  // namespace crease
