// SPDX-License-Identifier: Apache-2.0
#define CREASE_MAP_FIND FindExactBf16Before
#define CREASE_MAP_TYPE hwy::bfloat16_t
#define CREASE_MAP_RESIDUAL Residual::kBeforeActivation
#define CREASE_MAP_EXACT true
#include "kernels/affine_maps/find-inl.h"
