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

// Whether bfloat16 is converted by the functions here. With AVX-512 Highway's take more shifts and lookups, of which a
// core does one a cycle (Zen 4, a map of 1.6 MB in L3, one thread: 101 us, 76 so; sums and map 147, and 115).
template <typename T>
inline constexpr bool kOwnConversion = std::is_same_v<T, hwy::bfloat16_t>&& HWY_TARGET <= HWY_AVX3;

// The elements as the upper halves of floats.
template <class D>
HWY_INLINE hn::Vec<D> FromUpperHalves(D d, hn::Vec<hn::Rebind<hwy::bfloat16_t, D>> v) {
  const hn::Repartition<uint16_t, D> du16;
  const auto halves = hn::ZeroExtendVector(du16, hn::BitCast(hn::Half<decltype(du16)>(), v));
  const auto twice = hn::IndicesFromVec(du16, hn::ShiftRight<1>(hn::Iota(du16, 0)));
  const auto upper = hn::MaskFromVec(hn::BitCast(du16, hn::Set(hn::RebindToUnsigned<D>(), 0xFFFF0000u)));
  return hn::BitCast(d, hn::IfThenElseZero(upper, hn::TableLookupLanes(halves, twice)));
}

// Rounded to the nearest, of two to the even one. What is not a number keeps its upper half: a result, thus quiet, it
// has a bit there.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<hwy::bfloat16_t, D>> ToUpperHalves(D d, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du32;
  const hn::Repartition<uint16_t, D> du16;
  const auto bits = hn::BitCast(du32, v);
  const auto number = hn::RebindMask(du32, hn::Eq(v, v));
  const auto odd = hn::And(number, hn::TestBit(bits, hn::Set(du32, uint32_t{1} << 16)));
  const auto below = hn::MaskedAddOr(bits, number, bits, hn::Set(du32, uint32_t{0x7FFF}));
  const auto rounded = hn::BitCast(du16, hn::MaskedAddOr(below, odd, below, hn::Set(du32, uint32_t{1})));
  const auto uppers = hn::IndicesFromVec(du16, hn::Or(hn::ShiftLeft<1>(hn::Iota(du16, 0)), hn::Set(du16, uint16_t{1})));
  const hn::Rebind<hwy::bfloat16_t, D> to;
  return hn::BitCast(to, hn::LowerHalf(hn::TableLookupLanes(rounded, uppers)));
}

// D: the tag of Wide<T>, T: a narrower type.
template <class D, typename T>
HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<hn::Rebind<T, D>> v) {
  if constexpr (kOwnConversion<T>) {
    return FromUpperHalves(d, v);
  } else if constexpr (std::is_same_v<T, hwy::float16_t> && HWY_TARGET > HWY_AVX2) {
    // Where Highway 1.2 has no instruction for it, it makes numbers past 65504 of infinity and NaN.
    const auto wide = hn::PromoteTo(d, v);
    const auto exponent = hn::BitCast(d, hn::Set(hn::RebindToUnsigned<D>(), 0x7F800000u));
    return hn::IfThenElse(hn::Ge(hn::Abs(wide), hn::Set(d, 65536.0f)), hn::Or(wide, exponent), wide);
  } else {
    return hn::PromoteTo(d, v);
  }
}

// D: the tag of Wide<T>.
template <class D, typename T>
HWY_INLINE hn::Vec<D> LoadWide(D d, const T* src) {
  if constexpr (kIsWide<T>) {
    return hn::LoadU(d, src);
  } else {
    return Widen<D, T>(d, hn::LoadU(hn::Rebind<T, D>(), src));
  }
}

// The first n < Lanes(d) elements; zero in the other lanes.
template <class D, typename T>
HWY_INLINE hn::Vec<D> LoadWideN(D d, const T* src, size_t n) {
  if constexpr (kIsWide<T>) {
    return hn::LoadN(d, src, n);
  } else {
    return Widen<D, T>(d, hn::LoadN(hn::Rebind<T, D>(), src, n));
  }
}

template <class D, typename T>
HWY_INLINE void StoreWide(hn::Vec<D> v, D d, T* dst) {
  if constexpr (kIsWide<T>) {
    hn::StoreU(v, d, dst);
  } else {
    const hn::Rebind<T, D> dt;
    if constexpr (kOwnConversion<T>) {
      hn::StoreU(ToUpperHalves(d, v), dt, dst);
    } else {
      hn::StoreU(hn::DemoteTo(dt, v), dt, dst);
    }
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
