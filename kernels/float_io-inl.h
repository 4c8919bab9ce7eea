// SPDX-License-Identifier: Apache-2.0
// Loads and stores of float16, bfloat16, float32 and float64 elements as vectors of the type that
// arithmetic is done in: float, or double for float64. Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_FLOAT_IO_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_FLOAT_IO_INL_H_
#undef CREASE_KERNELS_FLOAT_IO_INL_H_
#else
#define CREASE_KERNELS_FLOAT_IO_INL_H_
#endif

#include <hwy/highway.h>

#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
inline constexpr bool kIsWide = std::is_same_v<T, Wide<T>>;

// D: the tag of Wide<T>.
template <class D, typename T>
HWY_INLINE hn::Vec<D> LoadWide(D d, const T* src) {
  if constexpr (kIsWide<T>) {
    return hn::LoadU(d, src);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, D>(), src));
  }
}

// The first n < Lanes(d) elements; zero in the other lanes.
template <class D, typename T>
HWY_INLINE hn::Vec<D> LoadWideN(D d, const T* src, size_t n) {
  if constexpr (kIsWide<T>) {
    return hn::LoadN(d, src, n);
  } else {
    return hn::PromoteTo(d, hn::LoadN(hn::Rebind<T, D>(), src, n));
  }
}

template <class D, typename T>
HWY_INLINE void StoreWide(hn::Vec<D> v, D d, T* dst) {
  if constexpr (kIsWide<T>) {
    hn::StoreU(v, d, dst);
  } else {
    const hn::Rebind<T, D> dt;
    hn::StoreU(hn::DemoteTo(dt, v), dt, dst);
  }
}

template <class D, typename T>
HWY_INLINE void StoreWideN(hn::Vec<D> v, D d, T* dst, size_t n) {
  if constexpr (kIsWide<T>) {
    hn::StoreN(v, d, dst, n);
  } else {
    const hn::Rebind<T, D> dt;
    hn::StoreN(hn::DemoteTo(dt, v), dt, dst, n);
  }
}

// Past the caches where T is wide and dst is aligned to a vector.
template <class D, typename T>
HWY_INLINE void StreamWide(hn::Vec<D> v, D d, T* dst) {
  if constexpr (kIsWide<T>) {
    hn::Stream(v, d, dst);
  } else {
    StoreWide(v, d, dst);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
