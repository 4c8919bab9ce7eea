// SPDX-License-Identifier: Apache-2.0
// Winograd's transforms of one tile, for any pair of axes of winograd_axis-inl.h. Per-target header.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_WINOGRAD_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_WINOGRAD_TILE_INL_H_
#undef CREASE_KERNELS_WINOGRAD_TILE_INL_H_
#else
#define CREASE_KERNELS_WINOGRAD_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "kernels/activation-inl.h"
#include "kernels/gemm_tile.h"
#include "kernels/winograd_axis-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Consecutive sources of a tile along one axis, groups of its points, its outputs.
template <class A, bool kReduced>
constexpr int kPatch = (A::kOutputs - 1 - (kReduced ? 1 : 0)) * A::kStride + A::kTaps;
template <class A, bool kReduced>
constexpr int kGroups = kReduced ? A::kReducedGroups : A::kGroups;
template <class A, bool kReduced>
constexpr int kOutputs = A::kOutputs - (kReduced ? 1 : 0);

// One row of points: all groups along the width.
template <class W, bool kReduced, int kGroup = 0, class D, class V>
HWY_INLINE void StoreRow(D d, const V* x, float* dst, int64_t stride) {
  if constexpr (kGroup < kGroups<W, kReduced>) {
    V first, second;
    W::template Combine<kGroup>(d, x, first, second);
    hn::Store(first, d, dst + W::FirstPoint(kGroup) * stride);
    if constexpr (W::IsPair(kGroup)) hn::Store(second, d, dst + (W::FirstPoint(kGroup) + 1) * stride);
    StoreRow<W, kReduced, kGroup + 1>(d, x, dst, stride);
  }
}

// Where a patch's vectors are: rows and pixels at a pitch,
struct DensePatch {
  const float* src;
  int64_t row_pitch, pixel_pitch;

  template <int kColumns>
  HWY_INLINE const float* At(int i, int j) const {
    return src + i * row_pitch + j * pixel_pitch;
  }
};
// or each at a place of its own, the same distance behind it.
struct ScatteredPatch {
  const float* const* at;
  int64_t offset;

  template <int kColumns>
  HWY_INLINE const float* At(int i, int j) const {
    return at[i * kColumns + j] + offset;
  }
};

// The marks of the vector that begins at channel c: which are not zero, as NaN is not.
template <class D>
HWY_INLINE void StoreMarks(D d, hn::Vec<D> any, int64_t c, uint8_t* marks) {
  constexpr int64_t kLanes = HWY_MAX_LANES_D(D);
  uint8_t bits[8];  // as many as StoreMaskBits may write
  hn::StoreMaskBits(d, hn::Not(hn::Eq(any, hn::Zero(d))), bits);
  if constexpr (kLanes >= 8) {
    std::memcpy(marks + c / 8, bits, kLanes / 8);
  } else {
    marks[c / 8] = static_cast<uint8_t>((c % 8 == 0 ? 0 : marks[c / 8]) | bits[0] << c % 8);
  }
}

// One group of points at a time along the height, so that few vectors live at once; the patch stays in L1. With kMark,
// the bits that any of the patch has go to `any`, on the way of the first group.
template <class H, class W, bool kReducedH, bool kReducedW, bool kMark, int kGroup = 0, class D, class Patch>
HWY_INLINE void TransformPatch(D d, const Patch& patch, float* dst, int64_t stride, hn::Vec<D>& any) {
  if constexpr (kGroup < kGroups<H, kReducedH>) {
    using V = hn::Vec<D>;
    constexpr int kRows = kPatch<H, kReducedH>, kColumns = kPatch<W, kReducedW>;
    V first[kColumns], second[kColumns];
    HWY_UNROLL(kMaxWinogradPoints)
    for (int j = 0; j < kColumns; ++j) {
      V x[kRows];
      HWY_UNROLL(kMaxWinogradPoints)
      for (int i = 0; i < kRows; ++i) x[i] = hn::LoadU(d, patch.template At<kColumns>(i, j));
      if constexpr (kMark && kGroup == 0) {
        for (int i = 0; i < kRows; ++i) any = hn::Or(any, x[i]);
      }
      H::template Combine<kGroup>(d, x, first[j], second[j]);
    }
    float* row = dst + H::FirstPoint(kGroup) * W::kPoints * stride;
    StoreRow<W, kReducedW>(d, first, row, stride);
    if constexpr (H::IsPair(kGroup)) StoreRow<W, kReducedW>(d, second, row + W::kPoints * stride, stride);
    TransformPatch<H, W, kReducedH, kReducedW, kMark, kGroup + 1>(d, patch, dst, stride, any);
  }
}

// Copies what exists of the patch's channels [c, c + count), through the prologue, into a buffer of rows of kColumns
// vectors that is zero elsewhere. Without kMasked, count is a vector's: AVX2's masked loads take 9 cycles on Zen 1.
template <int kColumns, bool kMasked, class D>
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
    float* to = buffer + i * kColumns * kLanes;
    for (int j = t.first_column; j < t.end_column; ++j) {
      const float* from = row + j * t.pixel_pitch;
      auto x = kMasked ? hn::LoadN(d, from, count) : hn::LoadU(d, from);
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

template <class H, class W, bool kReducedH, bool kReducedW, bool kMark>
HWY_NOINLINE void Transform(const WinogradInput& t) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr int kRows = kPatch<H, kReducedH>, kColumns = kPatch<W, kReducedW>;
  const bool whole = t.first_row == 0 && t.end_row >= kRows && t.first_column == 0 && t.end_column >= kColumns;
  const bool plain = t.prologue->scale == nullptr;
  const auto transform = [&](const auto& patch, int64_t c) HWY_ATTR {
    auto any = hn::Zero(d);
    TransformPatch<H, W, kReducedH, kReducedW, kMark>(d, patch, t.dst + c, t.point_stride, any);
    if constexpr (kMark) StoreMarks(d, any, c, t.marks);
  };
  int64_t c = 0;
  if (whole && plain) {
    for (; c + kLanes <= t.channels; c += kLanes) {
      transform(DensePatch{t.src + t.offset + c, t.row_pitch, t.pixel_pitch}, c);
    }
    if (c == t.channels) return;
  }
  const float* at[kRows * kColumns];
  if (!whole && plain) {
    // What does not exist is read from zeros.
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kColumns; ++j) {
        const bool exists = i >= t.first_row && i < t.end_row && j >= t.first_column && j < t.end_column;
        at[i * kColumns + j] = exists ? t.src + t.offset + i * t.row_pitch + j * t.pixel_pitch : kWinogradZeros;
      }
    }
    for (; c + kLanes <= std::min(t.channels, kMaxZeroChannels); c += kLanes) {
      transform(ScatteredPatch{at, c}, c);
    }
    if (c == t.channels) return;
  }
  HWY_ALIGN float buffer[kRows * kColumns * kLanes];
  std::memset(buffer, 0, sizeof(buffer));
  for (int i = 0; i < kRows * kColumns; ++i) at[i] = buffer + i * kLanes;
  for (; c < t.channels; c += kLanes) {
    if (c + kLanes <= t.channels) {
      CopyPatch<kColumns, false>(d, t, c, kLanes, buffer);
    } else {
      CopyPatch<kColumns, true>(d, t, c, static_cast<size_t>(t.channels - c), buffer);
    }
    transform(ScatteredPatch{at, 0}, c);
  }
}

template <class H, class W, bool kReducedH, bool kReducedW>
void RunInput(const WinogradInput& t) {
  if (t.marks == nullptr) {
    Transform<H, W, kReducedH, kReducedW, false>(t);
  } else {
    Transform<H, W, kReducedH, kReducedW, true>(t);
  }
}

template <class H, class W, bool kReducedH, bool kReducedW, bool kMasked, class D>
HWY_INLINE void OutputVector(D d, const WinogradOutput& t, int64_t c, size_t count) {
  using V = hn::Vec<D>;
  constexpr int kRows = kOutputs<H, kReducedH>, kPixels = kOutputs<W, kReducedW>;
  constexpr int kPointRows = kReducedH ? H::kReducedPoints : H::kPoints;
  constexpr int kPointColumns = kReducedW ? W::kReducedPoints : W::kPoints;
  V columns[kRows][kPointColumns];
  HWY_UNROLL(kMaxWinogradPoints)
  for (int q = 0; q < kPointColumns; ++q) {
    V m[kPointRows], z[kRows];
    HWY_UNROLL(kMaxWinogradPoints)
    for (int p = 0; p < kPointRows; ++p) m[p] = hn::LoadU(d, t.src + (p * W::kPoints + q) * t.point_stride + c);
    H::template Output<kReducedH>(d, m, z);
    HWY_UNROLL(kMaxWinogradOutputs)
    for (int i = 0; i < kRows; ++i) columns[i][q] = z[i];
  }
  const V bias = hn::LoadU(d, t.bias + c);
  const V lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const bool has_residual = t.residual != nullptr, residual_last = t.residual_last;
  const int rows = t.rows, pixels = t.pixels;
  const int64_t pixel_pitch = t.pixel_pitch, residual_pixel_pitch = t.residual_pixel_pitch;
  float* dst = t.dst + c;
  const float* residual = has_residual ? t.residual + c : nullptr;
  HWY_UNROLL(kMaxWinogradOutputs)
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
    V z[kPixels];
    W::template Output<kReducedW>(d, columns[i], z);
    HWY_UNROLL(kMaxWinogradOutputs)
    for (int j = 0; j < kPixels; ++j) {
      if (j >= pixels) break;
      V y = hn::MulAdd(z[j], hn::Set(d, static_cast<float>(H::OutputScale(i) * W::OutputScale(j))), bias);
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

template <class H, class W, bool kReducedH, bool kReducedW>
HWY_NOINLINE void RunOutput(const WinogradOutput& t) {
  const hn::ScalableTag<float> d;
  constexpr int64_t kLanes = HWY_MAX_LANES_D(decltype(d));
  int64_t c = 0;
  for (; c + kLanes <= t.columns; c += kLanes) OutputVector<H, W, kReducedH, kReducedW, false>(d, t, c, kLanes);
  if (c < t.columns) {
    OutputVector<H, W, kReducedH, kReducedW, true>(d, t, c, static_cast<size_t>(t.columns - c));
  }
}

constexpr int64_t kMaxWidth = kMaxTileVectors * kMaxLanes;  // columns of a panel

// Along one axis: from[k * stride] for its taps to its distinct weights.
template <class A, class D>
HWY_INLINE void FilterAxis(D d, const double* from, int64_t stride, double* to, int64_t to_stride) {
  for (size_t p = 0; p < A::kWeights; ++p) {
    auto y = hn::Mul(hn::Load(d, from), hn::Set(d, A::kFilter[p][0]));
    for (size_t i = 1; i < A::kTaps; ++i) {
      y = hn::MulAdd(hn::Load(d, from + static_cast<int64_t>(i) * stride), hn::Set(d, A::kFilter[p][i]), y);
    }
    hn::Store(y, d, to + static_cast<int64_t>(p) * to_stride);
  }
}

template <class H, class W>
HWY_NOINLINE void RunWeights(const WinogradWeights& t) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kTaps = H::kTaps * W::kTaps, kWeights = H::kWeights * W::kWeights;
  HWY_ALIGN double taps[kTaps * kMaxWidth];
  HWY_ALIGN double half[H::kWeights * W::kTaps * kMaxWidth];
  HWY_ALIGN double all[kWeights * kMaxWidth];
  std::memset(taps, 0, sizeof(taps));
  const int64_t weight_stride = (t.channels + 1) * t.width;
  for (int p = 0; t.first == 0 && p < kWeights; ++p) std::fill_n(t.dst + p * weight_stride, t.width, 0.0f);
  for (int64_t c = t.first; c < t.end; ++c) {
    for (int64_t j = 0; j < t.columns; ++j) {
      float values[kTaps];
      std::memcpy(values, t.weights + static_cast<size_t>((j * t.channels + c) * kTaps) * sizeof(float),
                  sizeof(values));
      for (int tap = 0; tap < kTaps; ++tap) taps[tap * t.width + j] = static_cast<double>(values[tap]);
    }
    for (int64_t j = 0; j < t.width; j += lanes) {
      for (int i = 0; i < W::kTaps; ++i) {
        FilterAxis<H>(d, taps + i * t.width + j, W::kTaps * t.width, half + i * t.width + j, W::kTaps * t.width);
      }
      for (int p = 0; p < H::kWeights; ++p) {
        FilterAxis<W>(d, half + p * W::kTaps * t.width + j, t.width, all + p * W::kWeights * t.width + j, t.width);
      }
      float* to = t.dst + (1 + c) * t.width + j;
      for (int p = 0; p < kWeights; ++p) {
        hn::StoreU(hn::DemoteTo(df, hn::Load(d, all + p * t.width + j)), df, to + p * weight_stride);
      }
    }
  }
}

template <class A>
WinogradAxis DescribeAxis() {
  WinogradAxis axis;
  axis.taps = A::kTaps;
  axis.stride = A::kStride;
  axis.outputs = A::kOutputs;
  axis.points = A::kPoints;
  axis.reduced_points = A::kReducedPoints;
  axis.weights = A::kWeights;
  for (int p = 0; p < A::kPoints; ++p) axis.weight_of[static_cast<size_t>(p)] = static_cast<int8_t>(A::WeightOf(p));
  return axis;
}

// An axis with one tap has no reduced tiles.
template <class H, class W>
WinogradOps MakeWinogradOps(WinogradKind kind) {
  constexpr bool kH = H::kOutputs > 1, kW = W::kOutputs > 1;
  WinogradOps ops;
  ops.kind = kind;
  ops.height = DescribeAxis<H>();
  ops.width = DescribeAxis<W>();
  ops.input[0][0] = &RunInput<H, W, false, false>;
  ops.output[0][0] = &RunOutput<H, W, false, false>;
  if constexpr (kW) {
    ops.input[0][1] = &RunInput<H, W, false, true>;
    ops.output[0][1] = &RunOutput<H, W, false, true>;
  }
  if constexpr (kH) {
    ops.input[1][0] = &RunInput<H, W, true, false>;
    ops.output[1][0] = &RunOutput<H, W, true, false>;
  }
  if constexpr (kH && kW) {
    ops.input[1][1] = &RunInput<H, W, true, true>;
    ops.output[1][1] = &RunOutput<H, W, true, true>;
  }
  ops.weights = &RunWeights<H, W>;
  return ops;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
