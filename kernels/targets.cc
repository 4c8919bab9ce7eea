// SPDX-License-Identifier: Apache-2.0
#include "kernels/targets.h"

#include <hwy/highway.h>
#include <strings.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <string>
#include <utility>

#include "kernels/amx.h"

namespace crease {
namespace {

// By the cap, and by the target that a test has set.
bool may_use_amx = true;

struct Cap {
  const char* name;
  int64_t above;  // the targets that it leaves out: on x86 the better one is the lower bit. -1: none, not even AMX
};
constexpr Cap kCaps[] = {
    {"AMX", -1},
#if HWY_ARCH_X86
    {"AVX3", int64_t{HWY_AVX3} - 1},
    {"AVX2", int64_t{HWY_AVX2} - 1},
    {"SSE2", int64_t{HWY_SSE2} - 1},
#endif
};

const char* WantedCap() {
  const char* name = std::getenv("CREASE_TARGET");
  return name == nullptr || *name == '\0' ? "AMX" : name;
}

// Null for a name that is none.
const Cap* FindCap(const char* name) {
  const auto* const found =
      std::find_if(std::begin(kCaps), std::end(kCaps), [&](const Cap& cap) { return strcasecmp(cap.name, name) == 0; });
  return found == std::end(kCaps) ? nullptr : found;
}

// Null where nothing is capped.
const Cap* cap_in_use = nullptr;
// What is compiled and runs here, under the cap.
int64_t usable_targets = 0;
// Of ForEachTarget; else 0.
int64_t target_of_test = 0;

}  // namespace

void InitTargets() {
  static std::once_flag once;
  std::call_once(once, [] {
    const Cap* cap = FindCap(WantedCap());
    if (cap != nullptr && cap->above >= 0) {
      cap_in_use = cap;
      hwy::DisableTargets(cap->above);
      may_use_amx = false;
    }
    // Asked once: every call of Highway's (1.2) asks the CPU, which takes microseconds in a virtual machine, and
    // chooses among all targets on its way, also those that were disabled.
    usable_targets = hwy::SupportedTargets();
    hwy::GetChosenTarget().Update(usable_targets);
    usable_targets &= HWY_TARGETS;
  });
}

Result<void> CheckTargetCap() {
  const char* name = WantedCap();
  if (FindCap(name) != nullptr) return {};
  std::string message = "CREASE_TARGET is '" + std::string(name) + "', expected one of";
  for (const Cap& cap : kCaps) message += std::string(" ") + cap.name;
  return Error{ErrorCode::kInvalidArgument, std::move(message), ""};
}

const char* TargetCap() {
  InitTargets();
  return cap_in_use != nullptr ? cap_in_use->name : nullptr;
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
