// SPDX-License-Identifier: Apache-2.0
#define CREASE_EXACT_FIND FindExactBf16Before
#define CREASE_EXACT_TYPE hwy::bfloat16_t
#define CREASE_EXACT_RESIDUAL Residual::kBeforeActivation
#include "kernels/affine_exact/find-inl.h"
