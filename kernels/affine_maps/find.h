// SPDX-License-Identifier: Apache-2.0
// What FindAffineRows and FindExactRows choose from, by element type and by residual: none, before the activation,
// after it. Each is in a file of its own: with the sanitizers one takes up to two minutes to compile.
#pragma once

#include "kernels/affine_rows.h"

namespace crease {

AffineRows FindFoldedF32(Activation activation);
AffineRows FindFoldedF32Before(Activation activation);
AffineRows FindFoldedF32After(Activation activation);

AffineRows FindExactF32(Activation activation);
AffineRows FindExactF32Before(Activation activation);
AffineRows FindExactF32After(Activation activation);
AffineRows FindExactF16(Activation activation);
AffineRows FindExactF16Before(Activation activation);
AffineRows FindExactF16After(Activation activation);
AffineRows FindExactBf16(Activation activation);
AffineRows FindExactBf16Before(Activation activation);
AffineRows FindExactBf16After(Activation activation);
AffineRows FindExactF64(Activation activation);

}  // namespace crease
