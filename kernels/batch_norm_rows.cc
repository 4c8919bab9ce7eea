// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_rows.h"

#include <algorithm>
#include <cstddef>

#include <hwy/cache_control.h>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batch_norm_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/affine_plane-inl.h"
#include "kernels/moments-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// A channel beyond this is worth being fetched while the one before it is written.
constexpr size_t kFetchAhead = 32 << 10;
constexpr size_t kGroupBytes = 16 << 10;  // channels that are done together stay in L1
constexpr size_t kMaxGroup = 64;

// The pivot is the mean rounded to T; the shift has what rounding took from it.
template <typename T>
void SetMap(const MapArgs<T>& a, int64_t channels) {
  const hn::ScalableTag<double> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d), count = static_cast<size_t>(channels);
  const auto round = [&](V v) HWY_ATTR {
    if constexpr (std::is_same_v<T, double>) {
      return v;
    } else {
      return hn::PromoteTo(d, hn::DemoteTo(hn::Rebind<float, decltype(d)>(), v));
    }
  };
  const auto store = [&](V v, T* to, size_t n) HWY_ATTR {
    if constexpr (std::is_same_v<T, double>) {
      hn::StoreN(v, d, to, n);
    } else {
      const hn::Rebind<float, decltype(d)> df;
      hn::StoreN(hn::DemoteTo(df, v), df, to, n);
    }
  };
  for (size_t c = 0; c < count; c += lanes) {
    const size_t n = std::min(lanes, count - c);
    const V mean = hn::LoadN(d, a.mean + c, n);
    const V weight = a.weight != nullptr ? hn::LoadN(d, a.weight + c, n) : hn::Set(d, 1.0);
    const V bias = a.bias != nullptr ? hn::LoadN(d, a.bias + c, n) : hn::Zero(d);
    const V scale = hn::Div(weight, hn::Sqrt(hn::Add(hn::LoadN(d, a.var + c, n), hn::Set(d, a.eps))));
    store(scale, a.scale + c, n);
    store(mean, a.pivot + c, n);
    store(hn::NegMulAdd(hn::Sub(mean, round(mean)), scale, bias), a.shift + c, n);
  }
}

// Statistics, map and result of a few channels at a time, so that the divisions and roots of many small
// ones run as vectors and their results are written in whole lines.
template <typename T>
void NormalizeChannels(const NormTensor& t, const NormParameters& parameters, bool stream, int64_t begin, int64_t end,
                       double* mean, double* var) {
  const auto* src = static_cast<const T*>(t.src);
  auto* dst = static_cast<T*>(t.dst);
  const auto plane = static_cast<size_t>(t.plane);
  const auto stride = static_cast<size_t>(t.channels * t.plane);
  const int64_t images = std::max<int64_t>(1, kMomentsBlock / t.plane);
  const size_t channel_bytes = plane * static_cast<size_t>(t.batch) * sizeof(T);
  const auto group = static_cast<int64_t>(std::clamp<size_t>(kGroupBytes / channel_bytes, 1, kMaxGroup));
  Wide<T> scale[kMaxGroup], shift[kMaxGroup], pivot[kMaxGroup];
  AffineArgs args;
  args.scale = scale;
  args.shift = shift;
  args.pivot = pivot;
  args.stream = stream;
  for (int64_t first = begin; first < end; first += group) {
    const int64_t count = std::min(group, end - first);
    for (int64_t c = first; c < first + count; ++c) {
      Moments moments;
      for (int64_t n = 0; n < t.batch; n += images) {
        AddRuns(src + static_cast<size_t>(n) * stride + static_cast<size_t>(c) * plane, plane,
                static_cast<size_t>(std::min(images, t.batch - n)), stride, moments);
      }
      mean[c] = moments.mean;
      var[c] = moments.m2 / moments.count;
    }
    const auto of = [first](std::span<const double> values) {
      return values.empty() ? nullptr : values.data() + first;
    };
    SetMap<Wide<T>>(
        {of(parameters.weight), of(parameters.bias), mean + first, var + first, parameters.eps, scale, shift, pivot},
        count);
    // Backwards: what was read last is nearest.
    for (int64_t n = t.batch; n-- > 0;) {
      const size_t at = static_cast<size_t>(n) * stride + static_cast<size_t>(first) * plane;
      args.src = src + at;
      args.dst = dst + at;
      MapPlanes<T, Activation::kNone, Residual::kNone, true>(args, count, t.plane, 0, count * t.plane);
    }
  }
  if (stream) hwy::FlushStream();
}

SetFloatMap GetSetFloatMap() { return SetMap<float>; }
SetDoubleMap GetSetDoubleMap() { return SetMap<double>; }

ChannelNorm GetChannelNorm(DType dtype) {
  if (dtype == DType::kFloat32) return NormalizeChannels<float>;
  if (dtype == DType::kFloat64) return NormalizeChannels<double>;
  if (dtype == DType::kFloat16) return NormalizeChannels<hwy::float16_t>;
  if (dtype == DType::kBFloat16) return NormalizeChannels<hwy::bfloat16_t>;
  return nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetSetFloatMap);
HWY_EXPORT(GetSetDoubleMap);
HWY_EXPORT(GetChannelNorm);
}  // namespace

SetFloatMap FindSetFloatMap() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetSetFloatMap)();
}

SetDoubleMap FindSetDoubleMap() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetSetDoubleMap)();
}

ChannelNorm FindChannelNorm(DType dtype) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetChannelNorm)(dtype);
}

}  // namespace crease
#endif  // HWY_ONCE
