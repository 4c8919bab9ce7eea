// SPDX-License-Identifier: Apache-2.0
// Batch normalization with known statistics as a per-channel map, and the map over a tensor.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/affine.h"
#include "kernels/batch_norm.h"
#include "kernels/batch_norm_rows.h"
#include "kernels/rounding.h"

namespace crease {

// y = scale * (x - pivot) + shift with the mean as pivot. T: float, or double for float64 tensors. Each
// array has `period` entries, PatternPeriod(channels), at least `channels`: the channels' values again and again.
template <typename T>
struct NormMapView {
  int64_t channels = 0, period = 0;
  T* scale = nullptr;
  T* shift = nullptr;
  T* pivot = nullptr;

  // In Room(period) elements of memory, from where a line begins; so do the arrays (2048 channels last in L3, Zen 4, 80
  // us where each vector of them lies on two lines, 75). Apart by more than the period, so that the three of a channel
  // do not lie alike in their pages: 100 us and 76.
  static constexpr int64_t Room(int64_t period) { return 3 * Step(period); }
  static NormMapView In(T* memory, int64_t channels, int64_t period) {
    return {channels, period, memory, memory + Step(period), memory + 2 * Step(period)};
  }

  void Set(const NormParameters& p, std::span<const double> mean, std::span<const double> var) const {
    SetSome(p, mean, var, 0, channels);
    Repeat();
  }

  // Of channels [first, first + count) alone; Repeat() must follow once all are set.
  void SetSome(const NormParameters& p, std::span<const double> mean, std::span<const double> var, int64_t first,
               int64_t count) const {
    const auto args = MapArgs<T>::From(first, p, mean.data(), var.data(), scale + first, shift + first, pivot + first);
    if constexpr (std::is_same_v<T, double>) {
      FindSetDoubleMap()(args, count);
    } else {
      FindSetFloatMap()(args, count);
    }
  }

  // Fills up to the period.
  void Repeat() const {
    for (int64_t i = channels; i < period; ++i) {
      scale[i] = scale[i - channels];
      shift[i] = shift[i - channels];
      pivot[i] = pivot[i - channels];
    }
  }

 private:
  static constexpr int64_t Step(int64_t period) {
    constexpr int64_t kLine = 64 / sizeof(T), kApart = 32;
    return RoundUp(period, kLine) + kApart;
  }
};

// Whether the values of a channel lie in runs of their own: (batch, channels, plane) with plane > 1.
// Without a plane a plain tensor is one of channels-last rows.
inline bool HasPlanes(const NormTensor& t) { return t.layout == Layout::kPlain && t.plane > 1; }

// Of the rows of a tensor without planes, in elements.
inline int64_t RowPitch(const NormTensor& t) { return t.layout == Layout::kPlain ? t.channels : t.src_pitch; }
inline int64_t DstPitch(const NormTensor& t) { return t.layout == Layout::kPlain ? t.channels : t.dst_pitch; }

// Rows of a tensor without planes.
inline bool IsDense(const NormTensor& t) {
  return t.layout == Layout::kPlain || (t.src_pitch == t.channels && t.dst_pitch == t.channels &&
                                        (t.residual == nullptr || t.residual_pitch == t.channels));
}

template <typename T>
void ApplyMap(const RunContext& context, const NormTensor& t, const NormMapView<T>& map, const Epilogue& epilogue) {
  AffineArgs args;
  args.src = t.src;
  args.residual = t.residual;
  args.dst = t.dst;
  args.scale = map.scale;
  args.shift = map.shift;
  args.pivot = map.pivot;
  args.a = epilogue.a;
  args.b = epilogue.b;
  const AffineRows rows = FindExactRows(t.dtype, epilogue.activation, epilogue.residual);
  if (HasPlanes(t)) {
    RunAffinePlain(context, rows.planes, args, t.dtype, t.batch, t.channels, t.plane);
  } else if (IsDense(t)) {
    const int64_t count = t.batch * t.plane * t.channels;
    RunAffineDense(context, rows.pixels, args, t.dtype, t.channels, map.period, count);
  } else {
    RunAffinePitched(context, rows.pixels, args, t.dtype, t.channels, {t.src_pitch, t.residual_pitch, t.dst_pitch},
                     t.batch * t.plane);
  }
}

}  // namespace crease
