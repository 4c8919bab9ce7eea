// SPDX-License-Identifier: Apache-2.0
#define CREASE_EXACT_FIND FindExactF16After
#define CREASE_EXACT_TYPE hwy::float16_t
#define CREASE_EXACT_RESIDUAL Residual::kAfterActivation
#include "kernels/affine_exact/find-inl.h"
