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
void VectorRows(const RowsOf& first, const RowsOf& second, float* dst, int64_t dst_pitch, int64_t count, int64_t rows) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  // A broadcast operand is read from a buffer that does not advance.
  HWY_ALIGN float splat_a[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
  HWY_ALIGN float splat_b[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
  const size_t mask_a = first.step == 0 ? 0 : ~size_t{0};
  const size_t mask_b = second.step == 0 ? 0 : ~size_t{0};
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = first.data + r * first.pitch;
    const float* b = IsBinary(op) ? second.data + r * second.pitch : a;
    float* to = dst + r * dst_pitch;
    if (mask_a == 0) {
      hn::Store(hn::Set(d, *a), d, splat_a);
      a = splat_a;
    }
    if (IsBinary(op) && mask_b == 0) {
      hn::Store(hn::Set(d, *b), d, splat_b);
      b = splat_b;
    }
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const auto va = hn::LoadU(d, a + (i & mask_a));
      const auto vb = IsBinary(op) ? hn::LoadU(d, b + (i & mask_b)) : va;
      hn::StoreU(ApplyOp<op>(d, va, vb), d, to + i);
    }
    if (i < n) {
      const auto va = hn::LoadN(d, a + (i & mask_a), n - i);
      const auto vb = IsBinary(op) ? hn::LoadN(d, b + (i & mask_b), n - i) : va;
      hn::StoreN(ApplyOp<op>(d, va, vb), d, to + i, n - i);
    }
  }
}

ElementRows GetElementRows(ElementOp op) {
  switch (op) {
    case ElementOp::kIdentity:
      return VectorRows<ElementOp::kIdentity>;
    case ElementOp::kAbs:
      return VectorRows<ElementOp::kAbs>;
    case ElementOp::kNeg:
      return VectorRows<ElementOp::kNeg>;
    case ElementOp::kSqrt:
      return VectorRows<ElementOp::kSqrt>;
    case ElementOp::kSquare:
      return VectorRows<ElementOp::kSquare>;
    case ElementOp::kReciprocal:
      return VectorRows<ElementOp::kReciprocal>;
    case ElementOp::kExp:
      return VectorRows<ElementOp::kExp>;
    case ElementOp::kErf:
      return VectorRows<ElementOp::kErf>;
    case ElementOp::kFloor:
      return VectorRows<ElementOp::kFloor>;
    case ElementOp::kCeil:
      return VectorRows<ElementOp::kCeil>;
    case ElementOp::kRound:
      return VectorRows<ElementOp::kRound>;
    case ElementOp::kAdd:
      return VectorRows<ElementOp::kAdd>;
    case ElementOp::kSub:
      return VectorRows<ElementOp::kSub>;
    case ElementOp::kMul:
      return VectorRows<ElementOp::kMul>;
    case ElementOp::kDiv:
      return VectorRows<ElementOp::kDiv>;
    case ElementOp::kMax:
      return VectorRows<ElementOp::kMax>;
    case ElementOp::kMin:
      return VectorRows<ElementOp::kMin>;
    case ElementOp::kPRelu:
      return VectorRows<ElementOp::kPRelu>;
    case ElementOp::kSoftplus:
    case ElementOp::kLog:
    case ElementOp::kPow:
      break;  // scalar, below
  }
  return nullptr;
}

template <Activation A, Residual R>
void Finish(const RowsOf& src, const RowsOf& residual, float* dst, int64_t dst_pitch, int64_t count, int64_t rows,
            float a, float b) {
  FinishRows<A, R>({src.data, src.pitch, dst, dst_pitch, residual.data, residual.pitch, rows, count}, a, b);
}

EpilogueRows GetEpilogueRows(Activation activation, Residual residual) {
  EpilogueRows rows = nullptr;
  VisitActivation(activation, [&](auto a) {
    VisitResidual(residual, [&](auto r) { rows = Finish<decltype(a)::value, decltype(r)::value>; });
  });
  return rows;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {

HWY_EXPORT(GetElementRows);
HWY_EXPORT(GetEpilogueRows);

// Operators too rare in networks for vector code of their own.
template <float (*f)(float, float)>
void ScalarRows(const RowsOf& a, const RowsOf& b, float* dst, int64_t dst_pitch, int64_t n, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      dst[r * dst_pitch + i] = f(a.data[r * a.pitch + i * a.step], b.data[r * b.pitch + i * b.step]);
    }
  }
}

float Softplus(float x, float) { return std::fmax(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }
float Log(float x, float) { return std::log(x); }
float Pow(float x, float y) { return std::pow(x, y); }

}  // namespace

ElementRows FindElementRows(ElementOp op) {
  if (op == ElementOp::kSoftplus) return ScalarRows<Softplus>;
  if (op == ElementOp::kLog) return ScalarRows<Log>;
  if (op == ElementOp::kPow) return ScalarRows<Pow>;
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetElementRows)(op);
}

EpilogueRows FindEpilogueRows(Activation activation, Residual residual) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetEpilogueRows)(activation, residual);
}

}  // namespace crease
#endif  // HWY_ONCE
