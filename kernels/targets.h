// SPDX-License-Identifier: Apache-2.0
// Which instruction sets are compiled and used. Include it before any header of Highway: every file
// must agree on the compiled targets.
#pragma once

#include <cstdint>
#include <functional>

#include "crease/status.h"

// On x86 three generations: SSE2 (the baseline), AVX2 with FMA, AVX-512 (Skylake's subset; the later
// subsets add nothing that f32 kernels use). Every further target costs compile time and size.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#endif

namespace crease {

// Reads the environment variable CREASE_TARGET once: AVX3, AVX2 or SSE2, in any case, caps the instruction set that
// kernels use, none of which has AMX; what CheckTargetCap refuses changes nothing. Thread-safe. Kernels of one process
// use one target: call it before making the first one.
void InitTargets();

// An error (kInvalidArgument) where CREASE_TARGET is set to what is no target of this architecture. Thread-safe.
Result<void> CheckTargetCap();

// What CREASE_TARGET caps it at: "AVX3", "AVX2" or "SSE2"; null where it caps nothing.
const char* TargetCap();

// Whether kernels may use AMX, if the machine has it, beside AVX-512.
bool MayUseAmx();

// The instruction set in use: "AMX", "AVX3", "AVX2", "SSE2", or Highway's name of another.
const char* TargetName();

// For tests: calls f under each target that is compiled and runs here, best first. Kernels must be
// made inside f. Not thread-safe.
void ForEachTarget(const std::function<void(const char* name)>& f);

}  // namespace crease
