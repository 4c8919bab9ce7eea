// SPDX-License-Identifier: Apache-2.0
// Which values of a program are full of zeros.
#pragma once

#include <vector>

#include "runtime/program.h"

namespace crease {

// By value: whether it comes from an activation that makes zeros, a ReLU or what is clipped at zero, on ways that keep
// zeros where they are, move them, or need more of them for each of their own, as a MaxPool.
std::vector<bool> FindRectified(const Program& program);

}  // namespace crease
