// SPDX-License-Identifier: Apache-2.0
// 3x3 of stride 1.
#include "kernels/winograd_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/winograd_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/winograd_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

std::span<const WinogradOps> Ops() {
  using Kind = WinogradKind;
  static const WinogradOps ops[] = {
      MakeWinogradOps<ToomCook<F2x3Points>, ToomCook<F2x3Points>>(Kind::kF2),
      MakeWinogradOps<ToomCook<F4x3Points>, ToomCook<F4x3Points>>(Kind::kF4),
  };
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

std::span<const WinogradOps> GetWinogradSquareOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

const WinogradOps* FindWinogradOps(WinogradKind kind, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                                   int64_t stride_w) {
  const auto fits = [](const WinogradAxis& axis, int64_t kernel, int64_t stride) {
    return axis.taps == kernel && axis.stride == stride;
  };
  for (const auto get : {&GetWinogradSquareOps, &GetWinogradLineOps, &GetWinogradLargeOps}) {
    for (const WinogradOps& ops : get()) {
      if (ops.kind == kind && fits(ops.height, kernel_h, stride_h) && fits(ops.width, kernel_w, stride_w)) return &ops;
    }
  }
  return nullptr;
}

}  // namespace crease
#endif
