// SPDX-License-Identifier: Apache-2.0
// One function of affine_exact.h, CREASE_EXACT_FIND, for elements of CREASE_EXACT_TYPE and CREASE_EXACT_RESIDUAL: all
// that a file of this folder compiles, once for every target. Without an include guard, as such a file has none.
#include "kernels/affine_exact.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_exact/find-inl.h"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <type_traits>

#include "kernels/affine_maps-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

AffineRows Get(Activation activation) {
  using T = CREASE_EXACT_TYPE;
  AffineRows rows;
  VisitActivation(activation, [&](auto tag) {
    constexpr Activation kActivation = decltype(tag)::value;
    // Activations are approximated to single precision.
    if constexpr (std::is_same_v<T, double> ? kActivation == Activation::kNone : IsCommon(kActivation)) {
      rows = RowsWith<T, kActivation, CREASE_EXACT_RESIDUAL, true>();
    }
  });
  return rows;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(Get);
}  // namespace

AffineRows CREASE_EXACT_FIND(Activation activation) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Get)(activation);
}

}  // namespace crease
#endif  // HWY_ONCE
