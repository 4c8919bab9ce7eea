// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine_rows.h"

#include <hwy/base.h>

#include "kernels/affine_maps/find.h"

namespace crease {
namespace {

// Null where none is compiled.
using Find = AffineRows (*)(Activation activation);
struct ByResidual {
  Find without, before, after;

  AffineRows Rows(Activation activation, Residual residual) const {
    const Find find = Choose(residual);
    return find != nullptr ? find(activation) : AffineRows();
  }

 private:
  Find Choose(Residual residual) const {
    switch (residual) {
      case Residual::kNone:
        return without;
      case Residual::kBeforeActivation:
        return before;
      case Residual::kAfterActivation:
        return after;
    }
    return nullptr;
  }
};

constexpr ByResidual kFolded = {FindFoldedF32, FindFoldedF32Before, FindFoldedF32After};

struct OfType {
  DType dtype;
  ByResidual find;
};
constexpr OfType kExact[] = {
    {DType::kFloat32, {FindExactF32, FindExactF32Before, FindExactF32After}},
    {DType::kFloat16, {FindExactF16, FindExactF16Before, FindExactF16After}},
    {DType::kBFloat16, {FindExactBf16, FindExactBf16Before, FindExactBf16After}},
    {DType::kFloat64, {FindExactF64, nullptr, nullptr}},
};

}  // namespace

Walk PreferredWalk() {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC
  static const bool amd = __builtin_cpu_is("amd") != 0;
  return amd ? Walk::kOrder : Walk::kPages;
#else
  return Walk::kOrder;
#endif
}

AffineRows FindAffineRows(Activation activation, Residual residual) { return kFolded.Rows(activation, residual); }

AffineRows FindExactRows(DType dtype, Activation activation, Residual residual) {
  for (const OfType& of : kExact) {
    if (of.dtype == dtype) return of.find.Rows(activation, residual);
  }
  return {};
}

}  // namespace crease
