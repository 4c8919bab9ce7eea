// SPDX-License-Identifier: Apache-2.0
#define CREASE_MAP_FIND FindFoldedF32After
#define CREASE_MAP_TYPE float
#define CREASE_MAP_RESIDUAL Residual::kAfterActivation
#define CREASE_MAP_EXACT false
#include "kernels/affine_maps/find-inl.h"
