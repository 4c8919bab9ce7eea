// SPDX-License-Identifier: Apache-2.0
// One function of find.h, CREASE_MAP_FIND, for elements of CREASE_MAP_TYPE, CREASE_MAP_RESIDUAL and the form with a
// pivot or without, by CREASE_MAP_EXACT: all that a file of this folder compiles, once for every target. Without an
// include guard, as such a file has none.
#include "kernels/affine_maps/find.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_maps/find-inl.h"
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
  using T = CREASE_MAP_TYPE;
  constexpr Residual kResidual = CREASE_MAP_RESIDUAL;
  AffineRows rows;
  VisitActivation(activation, [&](auto tag) {
    constexpr Activation kActivation = decltype(tag)::value;
    // Activations are approximated to single precision.
    constexpr bool kFits = !std::is_same_v<T, double> || kActivation == Activation::kNone;
    constexpr bool kWanted = IsCommon(kActivation) || (!CREASE_MAP_EXACT && kResidual == Residual::kNone);
    if constexpr (kFits && kWanted) rows = RowsWith<T, kActivation, kResidual, CREASE_MAP_EXACT>();
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

AffineRows CREASE_MAP_FIND(Activation activation) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Get)(activation);
}

}  // namespace crease
#endif  // HWY_ONCE
