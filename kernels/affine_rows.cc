// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_rows.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/affine_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_maps-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

AffineRows GetRows(Activation activation, Residual residual) {
  AffineRows rows;
  VisitActivation(activation, [&](auto a) {
    VisitResidual(residual, [&](auto r) {
      if constexpr (IsCommon(decltype(a)::value) || decltype(r)::value == Residual::kNone) {
        rows = RowsWith<float, decltype(a)::value, decltype(r)::value, false>();
      }
    });
  });
  return rows;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetRows);
}  // namespace

Walk PreferredWalk() {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC
  static const bool amd = __builtin_cpu_is("amd") != 0;
  return amd ? Walk::kOrder : Walk::kPages;
#else
  return Walk::kOrder;
#endif
}

AffineRows FindAffineRows(Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetRows)(activation, residual);
}

}  // namespace crease
#endif  // HWY_ONCE
