// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_transpose_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_transpose_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <cstddef>
#include <utility>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <int kTerms, bool kOnto>
HWY_INLINE void SumPixels(const SumTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const SumTile own = t;  // stores may alias its fields
  const size_t last = static_cast<size_t>(own.columns % lanes);
  const int64_t whole = own.columns - static_cast<int64_t>(last);
  float* dst = own.dst;
  int64_t at = 0;
  const auto sum = [&](V y, int64_t k) HWY_ATTR {
    HWY_UNROLL(kMaxSumTerms)
    for (int i = 0; i < kTerms; ++i) y = hn::Add(y, hn::LoadU(d, own.terms[i] + at + k));
    // In this order they let NaN through.
    return hn::Min(hi, hn::Max(lo, y));
  };
  for (int64_t p = 0; p < own.pixels; ++p, at += own.term_stride, dst += own.dst_stride) {
    for (int64_t k = 0; k < whole; k += lanes) {
      hn::StoreU(sum(hn::LoadU(d, (kOnto ? dst : own.bias) + k), k), d, dst + k);
    }
    if (last == 0) continue;
    const V start = kOnto ? hn::LoadN(d, dst + whole, last) : hn::LoadU(d, own.bias + whole);
    hn::StoreN(sum(start, whole), d, dst + whole, last);
  }
}

// Fewer columns than it takes for a masked vector to be cheaper.
constexpr int64_t kMostSingles = 2;

template <int kTerms, bool kOnto>
HWY_INLINE void SumSingles(const SumTile& t) {
  const SumTile own = t;
  float* dst = own.dst;
  int64_t at = 0;
  for (int64_t p = 0; p < own.pixels; ++p, at += own.term_stride, dst += own.dst_stride) {
    for (int64_t k = 0; k < own.columns; ++k) {
      float y = (kOnto ? dst : own.bias)[k];
      HWY_UNROLL(kMaxSumTerms)
      for (int i = 0; i < kTerms; ++i) y += own.terms[i][at + k];
      y = y < own.lo ? own.lo : y;
      dst[k] = y > own.hi ? own.hi : y;
    }
  }
}

template <int kTerms>
void Sum(const SumTile& t) {
  if (t.columns <= kMostSingles) {
    return t.bias == nullptr ? SumSingles<kTerms, true>(t) : SumSingles<kTerms, false>(t);
  }
  if (t.bias == nullptr) return SumPixels<kTerms, true>(t);
  SumPixels<kTerms, false>(t);
}

template <int... kTerms>
SumOps MakeOps(std::integer_sequence<int, kTerms...>) {
  return {{&Sum<kTerms>...}};
}

const SumOps& Ops() {
  static const SumOps ops = MakeOps(std::make_integer_sequence<int, kMaxSumTerms + 1>());
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const SumOps& GetSumOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
