// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/winograd_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

constexpr int kMaxPoints = 6;
constexpr int kMaxOutputs = 4;

// Points come in groups: zero, each pair of opposite signs (which share their terms), infinity last. Combine<g> gives
// a group's one or two sums over x[0] to x[kPoints - 1] along one axis; only infinity reads the last x.
struct F4 {
  static constexpr WinogradKind kKind = WinogradKind::kF4;
  static constexpr int kPoints = 6, kOutputs = 4, kGroups = 4;
  static constexpr double kA = 0.70710678118654752440;  // 1 / sqrt(2); the other pair is its inverse

  static constexpr int FirstPoint(int group) { return group == 0 ? 0 : 2 * group - 1; }
  static constexpr bool IsPair(int group) { return group == 1 || group == 2; }

  // Row p of the filter transform: (1, p, p^2) / N(p), N(p) the product of p's distances from the other finite points.
  // Infinity's 1 / a^3 undoes the scale that the outputs get.
  static constexpr double kFilter[kPoints][3] = {{1, 0, 0},
                                                 {-2.0 / 3, -2.0 / 3 * kA, -1.0 / 3},
                                                 {-2.0 / 3, 2.0 / 3 * kA, -1.0 / 3},
                                                 {1.0 / 6, 1.0 / 6 / kA, 1.0 / 3},
                                                 {1.0 / 6, -1.0 / 6 / kA, 1.0 / 3},
                                                 {0, 0, 2 / kA}};

  template <int kGroup, class D, class V>
  static HWY_INLINE void Combine(D d, const V* x, V& first, V& second) {
    if constexpr (kGroup == 0) first = hn::NegMulAdd(hn::Set(d, 2.5f), x[2], hn::Add(x[0], x[4]));
    if constexpr (kGroup == 3) first = hn::NegMulAdd(hn::Set(d, 2.5f), x[3], hn::Add(x[1], x[5]));
    if constexpr (kGroup == 1 || kGroup == 2) {
      const V other = hn::Set(d, kGroup == 1 ? 2.0f : 0.5f);  // the other pair's square
      const V point = hn::Set(d, static_cast<float>(kGroup == 1 ? kA : 1 / kA));
      const V even = hn::NegMulAdd(other, x[2], x[4]);
      const V odd = hn::NegMulAdd(other, x[1], x[3]);
      first = hn::MulAdd(point, odd, even);
      second = hn::NegMulAdd(point, odd, even);
    }
  }

  // Outputs i, short of a factor a^i each.
  template <bool kReduced, class D, class V>
  static HWY_INLINE void Output(D d, const V* m, V* z) {
    const V near = hn::Add(m[1], m[2]), near_odd = hn::Sub(m[1], m[2]);
    const V far = hn::Add(m[3], m[4]), far_odd = hn::Sub(m[3], m[4]);
    z[0] = hn::Add(hn::Add(m[0], near), far);
    z[1] = hn::MulAdd(hn::Set(d, 2.0f), far_odd, near_odd);
    z[2] = hn::MulAdd(hn::Set(d, 4.0f), far, near);
    if constexpr (!kReduced) z[3] = hn::Add(hn::MulAdd(hn::Set(d, 8.0f), far_odd, near_odd), m[5]);
  }
  static constexpr float OutputScale(int i) {
    constexpr double kPowers[7] = {1, kA, 0.5, 0.5 * kA, 0.25, 0.25 * kA, 0.125};
    return static_cast<float>(kPowers[i]);
  }
};

struct F2 {
  static constexpr WinogradKind kKind = WinogradKind::kF2;
  static constexpr int kPoints = 4, kOutputs = 2, kGroups = 3;

  static constexpr int FirstPoint(int group) { return group == 0 ? 0 : 2 * group - 1; }
  static constexpr bool IsPair(int group) { return group == 1; }

  static constexpr double kFilter[kPoints][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

  template <int kGroup, class D, class V>
  static HWY_INLINE void Combine(D, const V* x, V& first, V& second) {
    if constexpr (kGroup == 0) first = hn::Sub(x[0], x[2]);
    if constexpr (kGroup == 1) {
      first = hn::Add(x[1], x[2]);
      second = hn::Sub(x[2], x[1]);
    }
    if constexpr (kGroup == 2) first = hn::Sub(x[3], x[1]);
  }

  template <bool kReduced, class D, class V>
  static HWY_INLINE void Output(D, const V* m, V* z) {
    z[0] = hn::Add(m[0], hn::Add(m[1], m[2]));
    if constexpr (!kReduced) z[1] = hn::Add(hn::Sub(m[1], m[2]), m[3]);
  }
  static constexpr float OutputScale(int) { return 1; }
};

// One row of points: all groups along the width.
template <class F, bool kReduced, int kGroup = 0, class D, class V>
HWY_INLINE void StoreRow(D d, const V* x, float* dst, int64_t stride) {
  if constexpr (kGroup < F::kGroups - (kReduced ? 1 : 0)) {
    V first, second;
    F::template Combine<kGroup>(d, x, first, second);
    hn::Store(first, d, dst + F::FirstPoint(kGroup) * stride);
    if constexpr (F::IsPair(kGroup)) hn::Store(second, d, dst + (F::FirstPoint(kGroup) + 1) * stride);
    StoreRow<F, kReduced, kGroup + 1>(d, x, dst, stride);
  }
}

// One group of points at a time along the height, so that few vectors live at once; the patch stays in L1.
template <class F, bool kReducedH, bool kReducedW, int kGroup = 0, class D>
HWY_INLINE void TransformPatch(D d, const float* src, int64_t row_pitch, int64_t pixel_pitch, float* dst,
                               int64_t stride) {
  if constexpr (kGroup < F::kGroups - (kReducedH ? 1 : 0)) {
    using V = hn::Vec<D>;
    constexpr int kColumns = F::kPoints - (kReducedW ? 1 : 0);
    constexpr int kRows = F::kPoints - (kReducedH ? 1 : 0);
    V first[kMaxPoints], second[kMaxPoints];
    HWY_UNROLL(kMaxPoints)
    for (int j = 0; j < kColumns; ++j) {
      V x[kMaxPoints];
      HWY_UNROLL(kMaxPoints)
      for (int i = 0; i < kRows; ++i) x[i] = hn::LoadU(d, src + i * row_pitch + j * pixel_pitch);
      F::template Combine<kGroup>(d, x, first[j], second[j]);
    }
    float* row = dst + F::FirstPoint(kGroup) * F::kPoints * stride;
    StoreRow<F, kReducedW>(d, first, row, stride);
    if constexpr (F::IsPair(kGroup)) StoreRow<F, kReducedW>(d, second, row + F::kPoints * stride, stride);
    TransformPatch<F, kReducedH, kReducedW, kGroup + 1>(d, src, row_pitch, pixel_pitch, dst, stride);
  }
}

// Copies what exists of the patch's channels [c, c + count), through the prologue, into a buffer of points x points
// vectors that is zero elsewhere.
template <class F, class D>
HWY_INLINE void CopyPatch(D d, const WinogradInput& t, int64_t c, size_t count, float* buffer) {
  constexpr int64_t kLanes = HWY_MAX_LANES_D(D);
  const Prologue& prologue = *t.prologue;
  auto scale = hn::Zero(d), shift = hn::Zero(d);
  const auto a = hn::Set(d, prologue.a), b = hn::Set(d, prologue.b);
  if (prologue.scale != nullptr) {
    scale = hn::LoadN(d, prologue.scale + c, count);
    shift = hn::LoadN(d, prologue.shift + c, count);
  }
  for (int i = t.first_row; i < t.end_row; ++i) {
    const float* row = t.src + t.offset + i * t.row_pitch + c;
    float* to = buffer + i * F::kPoints * kLanes;
    for (int j = t.first_column; j < t.end_column; ++j) {
      auto x = hn::LoadN(d, row + j * t.pixel_pitch, count);
      if (prologue.scale != nullptr) {
        x = hn::MulAdd(x, scale, shift);
        if (prologue.activation == Activation::kRelu) {
          x = hn::Max(hn::Zero(d), x);
        } else if (prologue.activation != Activation::kNone) {
          VisitActivation(prologue.activation,
                          [&](auto activation) HWY_ATTR { x = ApplyActivation<activation()>(d, x, a, b); });
        }
      }
      hn::Store(x, d, to + j * kLanes);
    }
  }
}

template <class F, bool kReducedH, bool kReducedW>
HWY_NOINLINE void RunInput(const WinogradInput& t) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr int kRows = F::kPoints - (kReducedH ? 1 : 0);
  constexpr int kColumns = F::kPoints - (kReducedW ? 1 : 0);
  const bool whole = t.first_row == 0 && t.end_row >= kRows && t.first_column == 0 && t.end_column >= kColumns;
  int64_t c = 0;
  if (whole && t.prologue->scale == nullptr) {
    for (; c + kLanes <= t.channels; c += kLanes) {
      TransformPatch<F, kReducedH, kReducedW>(d, t.src + t.offset + c, t.row_pitch, t.pixel_pitch, t.dst + c,
                                              t.point_stride);
    }
    if (c == t.channels) return;
  }
  HWY_ALIGN float buffer[F::kPoints * F::kPoints * kLanes];
  std::memset(buffer, 0, sizeof(buffer));
  for (; c < t.channels; c += kLanes) {
    CopyPatch<F>(d, t, c, static_cast<size_t>(std::min(kLanes, t.channels - c)), buffer);
    TransformPatch<F, kReducedH, kReducedW>(d, buffer, F::kPoints * kLanes, kLanes, t.dst + c, t.point_stride);
  }
}

template <class F, bool kReducedH, bool kReducedW, bool kMasked, class D>
HWY_INLINE void OutputVector(D d, const WinogradOutput& t, int64_t c, size_t count) {
  using V = hn::Vec<D>;
  constexpr int kRows = F::kOutputs - (kReducedH ? 1 : 0);
  constexpr int kPixels = F::kOutputs - (kReducedW ? 1 : 0);
  constexpr int kPointRows = F::kPoints - (kReducedH ? 1 : 0);
  constexpr int kPointColumns = F::kPoints - (kReducedW ? 1 : 0);
  V columns[kMaxOutputs][kMaxPoints];
  HWY_UNROLL(kMaxPoints)
  for (int q = 0; q < kPointColumns; ++q) {
    V m[kMaxPoints], z[kMaxOutputs];
    HWY_UNROLL(kMaxPoints)
    for (int p = 0; p < kPointRows; ++p) m[p] = hn::LoadU(d, t.src + (p * F::kPoints + q) * t.point_stride + c);
    F::template Output<kReducedH>(d, m, z);
    HWY_UNROLL(kMaxOutputs)
    for (int i = 0; i < kRows; ++i) columns[i][q] = z[i];
  }
  const V bias = hn::LoadU(d, t.bias + c);
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const bool has_residual = t.residual != nullptr, residual_last = t.residual_last;
  const int rows = t.rows, pixels = t.pixels;
  const int64_t pixel_pitch = t.pixel_pitch, residual_pixel_pitch = t.residual_pixel_pitch;
  float* dst = t.dst + c;
  const float* residual = has_residual ? t.residual + c : nullptr;
  HWY_UNROLL(kMaxOutputs)
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
    V z[kMaxOutputs];
    F::template Output<kReducedW>(d, columns[i], z);
    HWY_UNROLL(kMaxOutputs)
    for (int j = 0; j < kPixels; ++j) {
      if (j >= pixels) break;
      V y = hn::MulAdd(z[j], hn::Set(d, F::OutputScale(i + j)), bias);
      V extra = hn::Zero(d);
      if (has_residual) {
        const float* from = residual + j * residual_pixel_pitch;
        extra = kMasked ? hn::LoadN(d, from, count) : hn::LoadU(d, from);
        if (!residual_last) y = hn::Add(y, extra);
      }
      // Bounds first: they let NaN through.
      y = hn::Min(hi, hn::Max(lo, y));
      if (has_residual && residual_last) y = hn::Add(y, extra);
      if constexpr (kMasked) {
        hn::StoreN(y, d, dst + j * pixel_pitch, count);
      } else {
        hn::StoreU(y, d, dst + j * pixel_pitch);
      }
    }
    dst += t.row_pitch;
    if (has_residual) residual += t.residual_row_pitch;
  }
}

template <class F, bool kReducedH, bool kReducedW>
HWY_NOINLINE void RunOutput(const WinogradOutput& t) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  int64_t c = 0;
  for (; c + kLanes <= t.columns; c += kLanes) OutputVector<F, kReducedH, kReducedW, false>(d, t, c, kLanes);
  if (c < t.columns) {
    OutputVector<F, kReducedH, kReducedW, true>(d, t, c, static_cast<size_t>(t.columns - c));
  }
}

constexpr int64_t kMaxWidth = 48;  // columns of a panel

// Along one axis: from[k * stride] for 3 taps to kPoints values.
template <class F, class D>
HWY_INLINE void FilterAxis(D d, const double* from, int64_t stride, double* to, int64_t to_stride) {
  const auto g0 = hn::Load(d, from), g1 = hn::Load(d, from + stride), g2 = hn::Load(d, from + 2 * stride);
  HWY_UNROLL(kMaxPoints)
  for (int p = 0; p < F::kPoints; ++p) {
    auto y = hn::Mul(g0, hn::Set(d, F::kFilter[p][0]));
    y = hn::MulAdd(g1, hn::Set(d, F::kFilter[p][1]), y);
    y = hn::MulAdd(g2, hn::Set(d, F::kFilter[p][2]), y);
    hn::Store(y, d, to + p * to_stride);
  }
}

template <class F>
HWY_NOINLINE void RunWeights(const WinogradWeights& t) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kPoints = F::kPoints;
  HWY_ALIGN double taps[9 * kMaxWidth];
  HWY_ALIGN double half[kPoints * 3 * kMaxWidth];
  HWY_ALIGN double all[kPoints * kPoints * kMaxWidth];
  std::memset(taps, 0, sizeof(taps));
  const int64_t point_stride = (t.channels + 1) * t.width;
  for (int p = 0; p < kPoints * kPoints; ++p) std::fill_n(t.dst + p * point_stride, t.width, 0.0f);
  for (int64_t c = 0; c < t.channels; ++c) {
    for (int64_t j = 0; j < t.columns; ++j) {
      float values[9];
      std::memcpy(values, t.weights + static_cast<size_t>((j * t.channels + c) * 9) * sizeof(float), sizeof(values));
      for (int tap = 0; tap < 9; ++tap) taps[tap * t.width + j] = static_cast<double>(values[tap]);
    }
    for (int64_t j = 0; j < t.width; j += lanes) {
      for (int column = 0; column < 3; ++column) {
        FilterAxis<F>(d, taps + column * t.width + j, 3 * t.width, half + column * t.width + j, 3 * t.width);
      }
      for (int p = 0; p < kPoints; ++p) {
        FilterAxis<F>(d, half + p * 3 * t.width + j, t.width, all + p * kPoints * t.width + j, t.width);
      }
      float* to = t.dst + (1 + c) * t.width + j;
      for (int p = 0; p < kPoints * kPoints; ++p) {
        hn::StoreU(hn::DemoteTo(df, hn::Load(d, all + p * t.width + j)), df, to + p * point_stride);
      }
    }
  }
}

template <class F>
void FillOps(WinogradOps& ops) {
  constexpr int kKind = static_cast<int>(F::kKind);
  ops.input[kKind][0][0] = &RunInput<F, false, false>;
  ops.input[kKind][0][1] = &RunInput<F, false, true>;
  ops.input[kKind][1][0] = &RunInput<F, true, false>;
  ops.input[kKind][1][1] = &RunInput<F, true, true>;
  ops.output[kKind][0][0] = &RunOutput<F, false, false>;
  ops.output[kKind][0][1] = &RunOutput<F, false, true>;
  ops.output[kKind][1][0] = &RunOutput<F, true, false>;
  ops.output[kKind][1][1] = &RunOutput<F, true, true>;
  ops.weights[kKind] = &RunWeights<F>;
}

WinogradOps MakeOps() {
  WinogradOps ops;
  FillOps<F2>(ops);
  FillOps<F4>(ops);
  return ops;
}

const WinogradOps& Ops() {
  static const WinogradOps ops = MakeOps();
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const WinogradOps& GetWinogradOps() { return HWY_DYNAMIC_DISPATCH(Ops)(); }

}  // namespace crease
#endif
