// SPDX-License-Identifier: Apache-2.0
// From the moments of channels to what maps them. Per-target header.
#include "kernels/batch_norm_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_NORM_FACTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_NORM_FACTORS_INL_H_
#undef CREASE_KERNELS_NORM_FACTORS_INL_H_
#else
#define CREASE_KERNELS_NORM_FACTORS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <type_traits>

#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// 1 / sqrt(v) for a factor of type T: exact to double where that is double, else to 2^-40.
template <typename T, class D, class V>
HWY_INLINE V InverseRoot(D d, V v) {
  const V one = hn::Set(d, 1.0);
#if HWY_TARGET <= HWY_AVX3
  // Divider and root together take 40 cycles a vector. One step of third order from 14 good bits; 0 and infinity have
  // no finite error, and their estimate is exact.
  if constexpr (!std::is_same_v<T, double>) {
    const V estimate = hn::ApproximateReciprocalSqrt(v);
    const V error = hn::NegMulAdd(hn::Mul(v, estimate), estimate, one);
    const V step = hn::Mul(error, hn::MulAdd(error, hn::Set(d, 0.375), hn::Set(d, 0.5)));
    return hn::IfThenElse(hn::IsFinite(error), hn::MulAdd(estimate, step, estimate), estimate);
  }
#endif
  return hn::Div(one, hn::Sqrt(v));
}

// Scale, shift and pivot of channels [c, c + n), n at most a vector. The pivot is the mean rounded to T; the shift has
// what rounding took from it.
template <typename T, class D, class V>
HWY_INLINE void SetFactors(D d, const MapArgs<T>& a, size_t c, size_t n, V mean, V var) {
  const V weight = a.weight != nullptr ? LoadUpTo(d, a.weight + c, n) : hn::Set(d, 1.0);
  const V bias = a.bias != nullptr ? LoadUpTo(d, a.bias + c, n) : hn::Zero(d);
  const V scale = hn::Mul(weight, InverseRoot<T>(d, hn::Add(var, hn::Set(d, a.eps))));
  if constexpr (std::is_same_v<T, double>) {
    StoreUpTo(scale, d, a.scale + c, n);
    StoreUpTo(mean, d, a.pivot + c, n);
    StoreUpTo(bias, d, a.shift + c, n);
  } else {
    const hn::Rebind<float, D> df;
    const auto pivot = hn::DemoteTo(df, mean);
    const V rest = hn::Sub(mean, hn::PromoteTo(d, pivot));
    StoreUpTo(hn::DemoteTo(df, scale), df, a.scale + c, n);
    StoreUpTo(pivot, df, a.pivot + c, n);
    StoreUpTo(hn::DemoteTo(df, hn::NegMulAdd(rest, scale, bias)), df, a.shift + c, n);
  }
}

// The same, and mean and var themselves: to mean[c] and var[c] and after.
template <typename T, class D, class V>
HWY_INLINE void SetChannels(D d, const MapArgs<T>& a, double* mean, double* var, size_t c, size_t n, V mean_of,
                            V var_of) {
  StoreUpTo(mean_of, d, mean + c, n);
  StoreUpTo(var_of, d, var + c, n);
  SetFactors(d, a, c, n, mean_of, var_of);
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
