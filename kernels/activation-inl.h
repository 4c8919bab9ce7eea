// SPDX-License-Identifier: Apache-2.0
// Activations on f32 vectors of any width, for the epilogues of every kernel. Per-target header.
//
// NaN in, NaN out, for every activation, as in ONNX Runtime: on x86 Max and Min return their second
// argument if either is NaN, so a bound always comes first: Max(bound, x).
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_ACTIVATION_INL_H_
#undef CREASE_KERNELS_ACTIVATION_INL_H_
#else
#define CREASE_KERNELS_ACTIVATION_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

#include "kernels/epilogue.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// exp(x) = 2^n * (1 + p): n = round(x * log2 e), p = exp(r) - 1 with |r| <= ln(2) / 2. Polynomial of
// degree 6, own minimax fit, 3e-9 relative. Adding 1.5 * 2^23 rounds to an integer that then stands
// in the low mantissa bits. x must be in [-87.3, 89] or NaN; past 88.4 the scale is infinite.
template <class D, class V = hn::Vec<D>>
struct ExpParts {
  V scale, p;
};

template <class D, class V>
HWY_INLINE ExpParts<D, V> ReduceExp(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, 12582912.0f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504089f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V q = hn::Set(d, 0.00138131424f);
  q = hn::MulAdd(q, r, hn::Set(d, 0.00836941879f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.041668456f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.166665152f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.49999994f));
  const V p = hn::MulAdd(hn::Mul(r, r), q, r);
  const auto bits = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const V scale = hn::BitCast(d, hn::Add(bits, hn::Set(di, 127 << 23)));
  return {scale, p};
}

// Relative error below 1.8e-7 for x in [-87.3, 88.3]; infinite above, 1.2e-38 below.
template <class D, class V>
HWY_INLINE V ExpSaturated(D d, V x) {
  x = hn::Min(hn::Set(d, 89.0f), hn::Max(hn::Set(d, -87.3f), x));
  const auto parts = ReduceExp(d, x);
  // Not scale * p + scale: p < 0 with an infinite scale would make a NaN.
  return hn::Mul(parts.scale, hn::Add(hn::Set(d, 1.0f), parts.p));
}

// 1 + exp(-x) for x >= kLeastExponent or NaN, the divisor of sigmoids: relative error below 3.2e-7.
constexpr float kLeastExponent = -88.0f;
#if HWY_TARGET <= HWY_AVX2
// 2^(j / kExpSteps) less j << (23 - log2 kExpSteps) of its bits, so that adding the bits of n = kExpSteps * m + j,
// shifted as far, gives 2^(n / kExpSteps). As many steps as a lookup takes. ExpOfRest: exp(r) for |r| <= ln(2) / (2 *
// kExpSteps).
#if HWY_TARGET <= HWY_AVX3
constexpr int kExpBits = 5;
alignas(64) constexpr uint32_t kExpTable[32] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};

// The lookup reads the low 5 bits.
template <class DU, class VU>
HWY_INLINE VU LookUpExp(DU du, VU bits) {
  const hn::Indices512<uint32_t> index{bits.raw};
  return hn::TwoTablesLookupLanes(hn::Load(du, kExpTable), hn::Load(du, kExpTable + 16), index);
}

// Own minimax fit, 5.4e-8 relative.
template <class D, class V>
HWY_INLINE V ExpOfRest(D d, V r) {
  return hn::MulAdd(hn::MulAdd(r, hn::Set(d, 0.5f), hn::Set(d, 1.0000147f)), r, hn::Set(d, 1.0f));
}
#else
constexpr int kExpBits = 3;
alignas(32) constexpr uint32_t kExpTable[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                               0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

// The lookup reads the low 3 bits.
template <class DU, class VU>
HWY_INLINE VU LookUpExp(DU du, VU bits) {
  const hn::Indices256<uint32_t> index{bits.raw};
  return hn::TableLookupLanes(hn::Load(du, kExpTable), index);
}

// Own minimax fit, 2.7e-8 relative.
template <class D, class V>
HWY_INLINE V ExpOfRest(D d, V r) {
  const V one = hn::Set(d, 1.0f);
  const V q = hn::MulAdd(r, hn::Set(d, 0.166642964f), hn::Set(d, 0.50006485f));
  return hn::MulAdd(hn::MulAdd(q, r, one), r, one);
}
#endif
constexpr float kExpSteps = 1 << kExpBits;

// exp(-x) = 2^(n / kExpSteps) * exp(r) with n = round(-x * kExpSteps * log2 e). One constant reduces x: ln(2) as a
// float is 2.7e-9 off, relative.
template <class D, class V>
HWY_INLINE V OnePlusExpNeg(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 12582912.0f);
  x = hn::Min(hn::Set(d, 87.3f), x);
  const V shifted = hn::MulAdd(x, hn::Set(d, -1.44269504089f * kExpSteps), magic);
  const V n = hn::Sub(shifted, magic);
  const V r = hn::NegMulSub(n, hn::Set(d, 0.693147182f / kExpSteps), x);
  const auto bits = hn::BitCast(du, shifted);
  const V scale = hn::BitCast(d, hn::Add(hn::ShiftLeft<23 - kExpBits>(bits), LookUpExp(du, bits)));
  return hn::MulAdd(scale, ExpOfRest(d, r), hn::Set(d, 1.0f));
}
#else
// Polynomial of degree 5, own minimax fit, 1.05e-7 relative, by pairs of terms: as a chain it would wait for itself.
template <class D, class V>
HWY_INLINE V OnePlusExpNeg(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V one = hn::Set(d, 1.0f);
  const V magic = hn::Set(d, 12582912.0f);
  x = hn::Min(hn::Set(d, 87.3f), x);
  const V shifted = hn::MulAdd(x, hn::Set(d, -1.44269504089f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::NegMulSub(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  const V r2 = hn::Mul(r, r);
  const V high = hn::MulAdd(hn::Set(d, 0.00831250101f), r, hn::Set(d, 0.0418903306f));
  const V middle = hn::MulAdd(hn::Set(d, 0.166671157f), r, hn::Set(d, 0.499992311f));
  const V p = hn::MulAdd(hn::MulAdd(high, r2, middle), r2, hn::Add(r, one));
  const auto bits = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const V scale = hn::BitCast(d, hn::Add(bits, hn::Set(di, 127 << 23)));
  return hn::MulAdd(scale, p, one);
}
#endif

// exp(x): relative error below 1.2e-7; 0 below 2^-125 (x < -86.64), infinite past the largest float.
template <class D, class V>
HWY_INLINE V Exp(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V low = hn::Set(d, -86.6433976f);
  const auto parts = ReduceExp(d, hn::Min(hn::Set(d, 89.0f), hn::Max(low, x)));
  // 2^(n-1), so that n = 128 has a finite scale.
  const V half = hn::BitCast(d, hn::Sub(hn::BitCast(di, parts.scale), hn::Set(di, 1 << 23)));
  const V y = hn::MulAdd(half, parts.p, half);
  return hn::IfThenZeroElse(hn::Lt(x, low), hn::Add(y, y));
}

// exp(x) - 1 for x <= 88: relative error below 3e-7.
template <class D, class V>
HWY_INLINE V Expm1(D d, V x) {
  x = hn::Min(hn::Set(d, 88.0f), hn::Max(hn::Set(d, -87.3f), x));
  const auto parts = ReduceExp(d, x);
  return hn::MulAdd(parts.scale, parts.p, hn::Sub(parts.scale, hn::Set(d, 1.0f)));
}

// 1 / (1 + exp(-x)): relative error below 5e-7; 0 below x = -88, and not a denormal number, which would slow down
// whatever it is multiplied with: an absolute error of 6e-39.
template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  const V least = hn::Set(d, kLeastExponent);
  return hn::IfThenZeroElse(hn::Lt(x, least), hn::Div(hn::Set(d, 1.0f), OnePlusExpNeg(d, hn::Max(least, x))));
}

// x / (1 + exp(-x)): relative error below 5e-7; below x = -80, -infinity included, what it is there: an absolute error
// of 1.5e-33. Not nearer to 0, since denormal products of it would slow down what follows.
template <class D, class V>
HWY_INLINE V Silu(D d, V x) {
  x = hn::Max(hn::Set(d, -80.0f), x);
  return hn::Div(x, OnePlusExpNeg(d, x));
}

// tanh |x| = -t / (t + 2), t = exp(-2 |x|) - 1: no cancellation, no overflow; relative 5e-7.
template <class D, class V>
HWY_INLINE V Tanh(D d, V x) {
  const V t = Expm1(d, hn::Mul(hn::Set(d, -2.0f), hn::Abs(x)));
  return hn::CopySign(hn::Div(t, hn::Add(t, hn::Set(d, 2.0f))), x);
}

// erf |x| = 1 - exp(-|x| P(|x|)): P is smooth, so one polynomial serves [0, 4] (own minimax fit of
// -log(erfc(x)) / x, 4e-9); beyond 4 the result rounds to 1. Relative error below 6e-7.
template <class D, class V>
HWY_INLINE V Erf(D d, V x) {
  const V u = hn::Min(hn::Set(d, 4.0f), hn::Abs(x));
  V p = hn::Set(d, -9.2691871e-06f);
  p = hn::MulAdd(p, u, hn::Set(d, 0.000117761534f));
  p = hn::MulAdd(p, u, hn::Set(d, -0.000633285788f));
  p = hn::MulAdd(p, u, hn::Set(d, 0.00166789268f));
  p = hn::MulAdd(p, u, hn::Set(d, -0.000161318807f));
  p = hn::MulAdd(p, u, hn::Set(d, -0.0191525221f));
  p = hn::MulAdd(p, u, hn::Set(d, 0.102777667f));
  p = hn::MulAdd(p, u, hn::Set(d, 0.636619389f));
  p = hn::MulAdd(p, u, hn::Set(d, 1.12837923f));
  return hn::CopySign(Expm1(d, hn::Neg(hn::Mul(u, p))), x);
}

// x * tanh(log(1 + e)) = x * n / (n + 2) with e = exp(x), n = e * (e + 2); 1 beyond x = 20.
template <class D, class V>
HWY_INLINE V Mish(D d, V x) {
  const V two = hn::Set(d, 2.0f);
  const V e = ExpSaturated(d, hn::Min(hn::Set(d, 20.0f), x));
  const V n = hn::Mul(e, hn::Add(e, two));
  return hn::Mul(x, hn::Div(n, hn::Add(n, two)));
}

// Activation A of epilogue.h; a and b hold the epilogue's parameters in every lane.
template <Activation A, class D, class V>
HWY_INLINE V ApplyActivation(D d, V x, V a, V b) {
  (void)a;
  (void)b;
  const V zero = hn::Zero(d);
  const V one = hn::Set(d, 1.0f);
  if constexpr (A == Activation::kRelu) return hn::Max(zero, x);
  if constexpr (A == Activation::kClip) return hn::Min(b, hn::Max(a, x));
  if constexpr (A == Activation::kLeakyRelu) {
    return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(a, x), x);
  }
  if constexpr (A == Activation::kHardSwish) {
    const V gate = hn::MulAdd(x, hn::Set(d, 1.0f / 6), hn::Set(d, 0.5f));
    return hn::Mul(x, hn::Min(one, hn::Max(zero, gate)));
  }
  if constexpr (A == Activation::kHardSigmoid) {
    return hn::Min(one, hn::Max(zero, hn::MulAdd(a, x, b)));
  }
  if constexpr (A == Activation::kSigmoid) return Sigmoid(d, x);
  if constexpr (A == Activation::kSilu) return Silu(d, x);
  if constexpr (A == Activation::kTanh) return Tanh(d, x);
  if constexpr (A == Activation::kElu) {
    return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(a, Expm1(d, hn::Min(zero, x))), x);
  }
  if constexpr (A == Activation::kGelu) {
    const V half = hn::Mul(x, hn::Set(d, 0.5f));
    return hn::MulAdd(half, Erf(d, hn::Mul(x, hn::Set(d, 0.707106781f))), half);
  }
  if constexpr (A == Activation::kMish) return Mish(d, x);
  return x;  // kNone
}

// Activation and residual of an epilogue on the result y; r is the residual, ignored without one.
template <Activation A, Residual R, class D, class V>
HWY_INLINE V ApplyEpilogue(D d, V y, V r, V a, V b) {
  if constexpr (R == Residual::kBeforeActivation) y = hn::Add(y, r);
  y = ApplyActivation<A>(d, y, a, b);
  if constexpr (R == Residual::kAfterActivation) y = hn::Add(y, r);
  return y;
}

template <Activation A>
using ActivationTag = std::integral_constant<Activation, A>;
template <Residual R>
using ResidualTag = std::integral_constant<Residual, R>;

// Calls f(ActivationTag<A>()) for the run-time activation: one instantiation each. A lambda needs
// HWY_ATTR: [&](auto tag) HWY_ATTR { ... ApplyActivation<tag()>(d, v, a, b) ... }
template <class F>
HWY_INLINE void VisitActivation(Activation activation, F&& f) {
  using A = Activation;
  switch (activation) {
    case A::kNone:
      return f(ActivationTag<A::kNone>());
    case A::kRelu:
      return f(ActivationTag<A::kRelu>());
    case A::kClip:
      return f(ActivationTag<A::kClip>());
    case A::kLeakyRelu:
      return f(ActivationTag<A::kLeakyRelu>());
    case A::kHardSwish:
      return f(ActivationTag<A::kHardSwish>());
    case A::kHardSigmoid:
      return f(ActivationTag<A::kHardSigmoid>());
    case A::kSigmoid:
      return f(ActivationTag<A::kSigmoid>());
    case A::kSilu:
      return f(ActivationTag<A::kSilu>());
    case A::kTanh:
      return f(ActivationTag<A::kTanh>());
    case A::kElu:
      return f(ActivationTag<A::kElu>());
    case A::kGelu:
      return f(ActivationTag<A::kGelu>());
    case A::kMish:
      return f(ActivationTag<A::kMish>());
  }
}

// Calls f(ResidualTag<R>()).
template <class F>
HWY_INLINE void VisitResidual(Residual residual, F&& f) {
  switch (residual) {
    case Residual::kNone:
      return f(ResidualTag<Residual::kNone>());
    case Residual::kBeforeActivation:
      return f(ResidualTag<Residual::kBeforeActivation>());
    case Residual::kAfterActivation:
      return f(ResidualTag<Residual::kAfterActivation>());
  }
}

// The epilogue with activation A, residual R and the parameters a and b, by rows; see FinishTile.
template <Activation A, Residual R>
HWY_NOINLINE void FinishRows(const FinishTile& t, float a, float b) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto va = hn::Set(d, a);
  const auto vb = hn::Set(d, b);
  const auto columns = static_cast<size_t>(t.columns);
  const FinishTile own = t;  // stores may alias its fields
  for (int64_t row = 0; row < own.rows; ++row) {
    const float* from = own.src + row * own.src_stride;
    const float* added = R == Residual::kNone ? from : own.residual + row * own.residual_stride;
    float* to = own.dst + row * own.dst_stride;
    size_t i = 0;
    for (; i + lanes <= columns; i += lanes) {
      const auto y = hn::LoadU(d, from + i);
      const auto r = R == Residual::kNone ? y : hn::LoadU(d, added + i);
      hn::StoreU(ApplyEpilogue<A, R>(d, y, r, va, vb), d, to + i);
    }
    if (i < columns) {
      const auto y = hn::LoadN(d, from + i, columns - i);
      const auto r = R == Residual::kNone ? y : hn::LoadN(d, added + i, columns - i);
      hn::StoreN(ApplyEpilogue<A, R>(d, y, r, va, vb), d, to + i, columns - i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
