// SPDX-License-Identifier: Apache-2.0
#define CREASE_EXACT_FIND FindExactF32Before
#define CREASE_EXACT_TYPE float
#define CREASE_EXACT_RESIDUAL Residual::kBeforeActivation
#include "kernels/affine_exact/find-inl.h"
