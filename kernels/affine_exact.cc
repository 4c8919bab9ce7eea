// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_exact.h"

namespace crease {
namespace {

// Null where none is compiled.
using Find = AffineRows (*)(Activation activation);
struct FindOfType {
  DType dtype;
  Find without, before, after;  // by Residual
};

constexpr FindOfType kTypes[] = {
    {DType::kFloat32, FindExactF32, FindExactF32Before, FindExactF32After},
    {DType::kFloat16, FindExactF16, FindExactF16Before, FindExactF16After},
    {DType::kBFloat16, FindExactBf16, FindExactBf16Before, FindExactBf16After},
    {DType::kFloat64, FindExactF64, nullptr, nullptr},
};

Find Choose(const FindOfType& of, Residual residual) {
  switch (residual) {
    case Residual::kNone:
      return of.without;
    case Residual::kBeforeActivation:
      return of.before;
    case Residual::kAfterActivation:
      return of.after;
  }
  return nullptr;
}

}  // namespace

AffineRows FindExactRows(DType dtype, Activation activation, Residual residual) {
  for (const FindOfType& of : kTypes) {
    if (of.dtype != dtype) continue;
    const Find find = Choose(of, residual);
    return find != nullptr ? find(activation) : AffineRows();
  }
  return {};
}

}  // namespace crease
