// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace crease {

// a / b rounded up; value as a multiple of unit, rounded up or down. For a, value >= 0 and b, unit > 0.
constexpr int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t value, int64_t unit) { return DivideUp(value, unit) * unit; }
constexpr int64_t RoundDown(int64_t value, int64_t unit) { return value / unit * unit; }

}  // namespace crease
