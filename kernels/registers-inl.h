// SPDX-License-Identifier: Apache-2.0
// What kernels do for vectors to stay in registers. Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_REGISTERS_INL_H_
#undef CREASE_KERNELS_REGISTERS_INL_H_
#else
#define CREASE_KERNELS_REGISTERS_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

constexpr bool k32Registers = HWY_TARGET <= HWY_AVX3;

// Keeps GCC from folding a load into each of its multiply-adds, which then wait for the load ports, and from moving it
// so far ahead that sums are spilled.
template <class V>
HWY_INLINE void KeepInRegister([[maybe_unused]] V& x) {
#if HWY_ARCH_X86
  asm volatile("" : "+v"(x.raw));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
