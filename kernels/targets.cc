// SPDX-License-Identifier: Apache-2.0
#include "kernels/targets.h"

#include <hwy/highway.h>

#include <cstdlib>
#include <mutex>
#include <string_view>
#include <utility>

#include "kernels/amx.h"

namespace crease {
namespace {

// By the cap, and by the target that a test has set.
bool may_use_amx = true;

// Bits below the cap's are better targets of x86; 0 for no cap.
int64_t TargetsAbove([[maybe_unused]] std::string_view cap) {
#if HWY_ARCH_X86
  if (cap == "avx3") return int64_t{HWY_AVX3} - 1;
  if (cap == "avx2") return int64_t{HWY_AVX2} - 1;
  if (cap == "sse2") return int64_t{HWY_SSE2} - 1;
#endif
  return 0;
}

// What is compiled and runs here. Highway's SupportedTargets chooses among all of them on its way (1.2), also among
// those that DisableTargets took.
int64_t UsableTargets() {
  const int64_t targets = hwy::SupportedTargets();
  hwy::GetChosenTarget().Update(targets);
  return targets & HWY_TARGETS;
}

}  // namespace

void InitTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    const char* cap = std::getenv("CREASE_TARGET");
    if (cap == nullptr) return;
    if (const int64_t above = TargetsAbove(cap); above != 0) {
      hwy::DisableTargets(above);
      may_use_amx = false;
    }
  });
}

bool MayUseAmx() {
  InitTargets();
  // Asked once: every call of Highway's asks the CPU, which takes microseconds in a virtual machine.
  static const bool avx3 = (UsableTargets() & HWY_AVX3) != 0;
  return may_use_amx && avx3;
}

const char* TargetName() {
  if (GetAmxOps() != nullptr) return "AMX";
  const int64_t usable = UsableTargets();
  return usable == 0 ? "none" : hwy::TargetName(usable & -usable);
}

void ForEachTarget(const std::function<void(const char* name)>& f) {
  if (GetAmxOps() != nullptr) f("AMX");
  const bool amx = std::exchange(may_use_amx, false);
  for (int64_t left = UsableTargets(); left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    hwy::SetSupportedTargetsForTest(target);
    f(hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  may_use_amx = amx;
}

}  // namespace crease
