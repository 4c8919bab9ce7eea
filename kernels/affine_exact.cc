// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_rows.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_exact.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_maps-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

template <typename T>
AffineRows GetExactOf(Activation activation, Residual residual) {
  AffineRows rows;
  VisitActivation(activation, [&](auto a) {
    VisitResidual(residual, [&](auto r) {
      if constexpr (IsCommon(decltype(a)::value)) rows = RowsWith<T, decltype(a)::value, decltype(r)::value, true>();
    });
  });
  return rows;
}

AffineRows GetExact(DType dtype, Activation activation, Residual residual) {
  if (dtype == DType::kFloat32) return GetExactOf<float>(activation, residual);
  if (dtype == DType::kFloat16) return GetExactOf<hwy::float16_t>(activation, residual);
  if (dtype == DType::kBFloat16) return GetExactOf<hwy::bfloat16_t>(activation, residual);
  // Activations are approximated to single precision.
  if (dtype != DType::kFloat64 || activation != Activation::kNone || residual != Residual::kNone) return {};
  return RowsWith<double, Activation::kNone, Residual::kNone, true>();
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetExact);
}  // namespace

AffineRows FindExactRows(DType dtype, Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetExact)(dtype, activation, residual);
}

}  // namespace crease
#endif  // HWY_ONCE
