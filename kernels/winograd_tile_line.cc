// SPDX-License-Identifier: Apache-2.0
// One row or one column of taps.
#include "kernels/winograd_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/winograd_tile_line.cc"
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
      MakeWinogradOps<SameAxis, ToomCook<F4x3Points>>(Kind::kF4),
      MakeWinogradOps<ToomCook<F4x3Points>, SameAxis>(Kind::kF4),
      MakeWinogradOps<SameAxis, ToomCook<F3x5Points>>(Kind::kF3),
      MakeWinogradOps<ToomCook<F3x5Points>, SameAxis>(Kind::kF3),
      MakeWinogradOps<SameAxis, ToomCook<F3x7Points>>(Kind::kF3),
      MakeWinogradOps<ToomCook<F3x7Points>, SameAxis>(Kind::kF3),
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

std::span<const WinogradOps> GetWinogradLineOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
