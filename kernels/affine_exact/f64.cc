// SPDX-License-Identifier: Apache-2.0
#define CREASE_EXACT_FIND FindExactF64
#define CREASE_EXACT_TYPE double
#define CREASE_EXACT_RESIDUAL Residual::kNone
#include "kernels/affine_exact/find-inl.h"
