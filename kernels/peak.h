// SPDX-License-Identifier: Apache-2.0
// What this core can do at most: the yardstick of profiles and benchmarks.
#pragma once

namespace crease {

// float32 operations a second of one thread, 2 for a multiply-add: the best of `attempts` short loops of
// independent fused multiply-adds on full vectors of the best target. Takes some 0.5 ms for each.
double PeakFlops(int attempts = 20);

}  // namespace crease
