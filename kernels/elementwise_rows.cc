// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise_rows.h"

#include <cmath>
#include <cstddef>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

template <ElementOp op, class D, class V>
HWY_INLINE V ApplyOp(D d, V a, V b) {
  (void)b;
  if constexpr (op == ElementOp::kAbs) return hn::Abs(a);
  if constexpr (op == ElementOp::kNeg) return hn::Neg(a);
  if constexpr (op == ElementOp::kSqrt) return hn::Sqrt(a);
  if constexpr (op == ElementOp::kSquare) return hn::Mul(a, a);
  if constexpr (op == ElementOp::kReciprocal) return hn::Div(hn::Set(d, 1.0f), a);
  if constexpr (op == ElementOp::kExp) return Exp(d, a);
  if constexpr (op == ElementOp::kErf) return Erf(d, a);
  if constexpr (op == ElementOp::kFloor) return hn::Floor(a);
  if constexpr (op == ElementOp::kCeil) return hn::Ceil(a);
  if constexpr (op == ElementOp::kRound) return hn::Round(a);
  if constexpr (op == ElementOp::kAdd) return hn::Add(a, b);
  if constexpr (op == ElementOp::kSub) return hn::Sub(a, b);
  if constexpr (op == ElementOp::kMul) return hn::Mul(a, b);
  if constexpr (op == ElementOp::kDiv) return hn::Div(a, b);
  // Of a NaN and a number x86 returns the second; so only a NaN in `a` needs care.
  if constexpr (op == ElementOp::kMax) return hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b));
  if constexpr (op == ElementOp::kMin) return hn::IfThenElse(hn::IsNaN(a), a, hn::Min(a, b));
  if constexpr (op == ElementOp::kPRelu) {
    return hn::IfThenElse(hn::Lt(a, hn::Zero(d)), hn::Mul(a, b), a);
  }
  return a;
}

template <ElementOp op>
void VectorRow(const float* a, int64_t step_a, const float* b, int64_t step_b,
               float* dst, int64_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  // A broadcast operand is read from a buffer that does not advance.
  HWY_ALIGN float splat_a[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
  HWY_ALIGN float splat_b[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
  const size_t mask_a = step_a == 0 ? 0 : ~size_t{0};
  const size_t mask_b = step_b == 0 ? 0 : ~size_t{0};
  if (mask_a == 0) {
    hn::Store(hn::Set(d, *a), d, splat_a);
    a = splat_a;
  }
  if (!IsBinary(op)) {
    b = a;
  } else if (mask_b == 0) {
    hn::Store(hn::Set(d, *b), d, splat_b);
    b = splat_b;
  }
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto va = hn::LoadU(d, a + (i & mask_a));
    const auto vb = IsBinary(op) ? hn::LoadU(d, b + (i & mask_b)) : va;
    hn::StoreU(ApplyOp<op>(d, va, vb), d, dst + i);
  }
  if (i < n) {
    const auto va = hn::LoadN(d, a + (i & mask_a), n - i);
    const auto vb = IsBinary(op) ? hn::LoadN(d, b + (i & mask_b), n - i) : va;
    hn::StoreN(ApplyOp<op>(d, va, vb), d, dst + i, n - i);
  }
}

ElementRow GetElementRow(ElementOp op) {
  switch (op) {
    case ElementOp::kIdentity: return VectorRow<ElementOp::kIdentity>;
    case ElementOp::kAbs: return VectorRow<ElementOp::kAbs>;
    case ElementOp::kNeg: return VectorRow<ElementOp::kNeg>;
    case ElementOp::kSqrt: return VectorRow<ElementOp::kSqrt>;
    case ElementOp::kSquare: return VectorRow<ElementOp::kSquare>;
    case ElementOp::kReciprocal: return VectorRow<ElementOp::kReciprocal>;
    case ElementOp::kExp: return VectorRow<ElementOp::kExp>;
    case ElementOp::kErf: return VectorRow<ElementOp::kErf>;
    case ElementOp::kFloor: return VectorRow<ElementOp::kFloor>;
    case ElementOp::kCeil: return VectorRow<ElementOp::kCeil>;
    case ElementOp::kRound: return VectorRow<ElementOp::kRound>;
    case ElementOp::kAdd: return VectorRow<ElementOp::kAdd>;
    case ElementOp::kSub: return VectorRow<ElementOp::kSub>;
    case ElementOp::kMul: return VectorRow<ElementOp::kMul>;
    case ElementOp::kDiv: return VectorRow<ElementOp::kDiv>;
    case ElementOp::kMax: return VectorRow<ElementOp::kMax>;
    case ElementOp::kMin: return VectorRow<ElementOp::kMin>;
    case ElementOp::kPRelu: return VectorRow<ElementOp::kPRelu>;
    case ElementOp::kSoftplus:
    case ElementOp::kLog:
    case ElementOp::kPow: break;  // scalar, below
  }
  return nullptr;
}

template <Activation A, Residual R>
void FinishRow(const float* src, const float* residual, float* dst, int64_t count, float a, float b) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  const auto va = hn::Set(d, a);
  const auto vb = hn::Set(d, b);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto y = hn::LoadU(d, src + i);
    const auto r = R == Residual::kNone ? y : hn::LoadU(d, residual + i);
    hn::StoreU(ApplyEpilogue<A, R>(d, y, r, va, vb), d, dst + i);
  }
  if (i < n) {
    const auto y = hn::LoadN(d, src + i, n - i);
    const auto r = R == Residual::kNone ? y : hn::LoadN(d, residual + i, n - i);
    hn::StoreN(ApplyEpilogue<A, R>(d, y, r, va, vb), d, dst + i, n - i);
  }
}

EpilogueRow GetEpilogueRow(Activation activation, Residual residual) {
  EpilogueRow row = nullptr;
  VisitActivation(activation, [&](auto a) {
    VisitResidual(residual, [&](auto r) { row = FinishRow<decltype(a)::value, decltype(r)::value>; });
  });
  return row;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {

HWY_EXPORT(GetElementRow);
HWY_EXPORT(GetEpilogueRow);

// Operators too rare in networks for vector code of their own.
template <typename F>
void ScalarRow(const float* a, int64_t step_a, const float* b, int64_t step_b, float* dst, int64_t n, F f) {
  for (int64_t i = 0; i < n; ++i) dst[i] = f(a[i * step_a], b == nullptr ? 0.0f : b[i * step_b]);
}

void SoftplusRow(const float* a, int64_t step_a, const float*, int64_t, float* dst, int64_t n) {
  ScalarRow(a, step_a, nullptr, 0, dst, n,
            [](float x, float) { return std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); });
}

void LogRow(const float* a, int64_t step_a, const float*, int64_t, float* dst, int64_t n) {
  ScalarRow(a, step_a, nullptr, 0, dst, n, [](float x, float) { return std::log(x); });
}

void PowRow(const float* a, int64_t step_a, const float* b, int64_t step_b, float* dst, int64_t n) {
  ScalarRow(a, step_a, b, step_b, dst, n, [](float x, float y) { return std::pow(x, y); });
}

}  // namespace

ElementRow FindElementRow(ElementOp op) {
  if (op == ElementOp::kSoftplus) return SoftplusRow;
  if (op == ElementOp::kLog) return LogRow;
  if (op == ElementOp::kPow) return PowRow;
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetElementRow)(op);
}

EpilogueRow FindEpilogueRow(Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetEpilogueRow)(activation, residual);
}

}  // namespace crease
#endif  // HWY_ONCE
