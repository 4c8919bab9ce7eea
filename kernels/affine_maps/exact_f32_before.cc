// SPDX-License-Identifier: Apache-2.0
#define CREASE_MAP_FIND FindExactF32Before
#define CREASE_MAP_TYPE float
#define CREASE_MAP_RESIDUAL Residual::kBeforeActivation
#define CREASE_MAP_EXACT true
#include "kernels/affine_maps/find-inl.h"
