// SPDX-License-Identifier: Apache-2.0
#define CREASE_EXACT_FIND FindExactF32After
#define CREASE_EXACT_TYPE float
#define CREASE_EXACT_RESIDUAL Residual::kAfterActivation
#include "kernels/affine_exact/find-inl.h"
