// SPDX-License-Identifier: Apache-2.0
// 4x4, 5x5, and 3x3 of stride 2.
#include "kernels/winograd_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/winograd_tile_large.cc"
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
      MakeWinogradOps<ToomCook<F4x4Points>, ToomCook<F4x4Points>>(Kind::kF4),
      MakeWinogradOps<ToomCook<F3x5Points>, ToomCook<F3x5Points>>(Kind::kF3),
      MakeWinogradOps<Stride2<ToomCook<F2x2Points>>, Stride2<ToomCook<F2x2Points>>>(Kind::kF2),
      MakeWinogradOps<Stride2<ToomCook<F4x2Points>>, Stride2<ToomCook<F4x2Points>>>(Kind::kF4),
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

std::span<const WinogradOps> GetWinogradLargeOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
