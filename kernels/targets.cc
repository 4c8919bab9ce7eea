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

// What is compiled and runs here, under the cap.
int64_t usable_targets = 0;
// Of ForEachTarget; else 0.
int64_t target_of_test = 0;

}  // namespace

void InitTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    const char* cap = std::getenv("CREASE_TARGET");
    if (const int64_t above = cap == nullptr ? 0 : TargetsAbove(cap); above != 0) {
      hwy::DisableTargets(above);
      may_use_amx = false;
    }
    // Asked once: every call of Highway's (1.2) asks the CPU, which takes microseconds in a virtual machine, and
    // chooses among all targets on its way, also those that were disabled.
    usable_targets = hwy::SupportedTargets();
    hwy::GetChosenTarget().Update(usable_targets);
    usable_targets &= HWY_TARGETS;
  });
}

bool MayUseAmx() {
  InitTargets();
  return may_use_amx && (usable_targets & HWY_AVX3) != 0;
}

const char* TargetName() {
  if (GetAmxOps() != nullptr) return "AMX";
  InitTargets();
  const int64_t usable = target_of_test != 0 ? target_of_test : usable_targets;
  return usable == 0 ? "none" : hwy::TargetName(usable & -usable);
}

void ForEachTarget(const std::function<void(const char* name)>& f) {
  if (GetAmxOps() != nullptr) f("AMX");
  InitTargets();
  const bool amx = std::exchange(may_use_amx, false);
  for (int64_t left = usable_targets; left != 0; left &= left - 1) {
    target_of_test = left & -left;
    hwy::SetSupportedTargetsForTest(target_of_test);
    f(hwy::TargetName(target_of_test));
  }
  target_of_test = 0;
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(usable_targets);
  may_use_amx = amx;
}

}  // namespace crease
