// SPDX-License-Identifier: Apache-2.0
#include "kernels/window_rows.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/window_rows.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A NaN in the running value stays, one in the new value wins (x86: the second of Max's arguments).
template <ReduceOp op, class V>
HWY_INLINE V Combine(V sum, V x) {
  if constexpr (op == ReduceOp::kSum) return hn::Add(sum, x);
  if constexpr (op == ReduceOp::kMax) return hn::IfThenElse(hn::IsNaN(sum), sum, hn::Max(sum, x));
  if constexpr (op == ReduceOp::kMin) return hn::IfThenElse(hn::IsNaN(sum), sum, hn::Min(sum, x));
}

// kVectors vectors of one pixel's channels: every tap of them before the next channels, so that the
// sums stay in registers.
template <ReduceOp op, size_t kVectors, class D>
HWY_INLINE void PoolChannels(D d, const float* src, const int64_t* offsets, int64_t taps, float factor, float* dst) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V sum[kVectors];
  for (size_t v = 0; v < kVectors; ++v) sum[v] = hn::LoadU(d, src + offsets[0] + v * lanes);
  for (int64_t t = 1; t < taps; ++t) {
    const float* from = src + offsets[t];
    for (size_t v = 0; v < kVectors; ++v) sum[v] = Combine<op>(sum[v], hn::LoadU(d, from + v * lanes));
  }
  const V f = hn::Set(d, factor);
  for (size_t v = 0; v < kVectors; ++v) {
    hn::StoreU(op == ReduceOp::kSum ? hn::Mul(sum[v], f) : sum[v], d, dst + v * lanes);
  }
}

template <ReduceOp op>
void Pool(const float* src, const int64_t* offsets, int64_t taps, int64_t channels, float factor, float* dst) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(channels);
  size_t c = 0;
  for (; c + 4 * lanes <= n; c += 4 * lanes) PoolChannels<op, 4>(d, src + c, offsets, taps, factor, dst + c);
  for (; c + lanes <= n; c += lanes) PoolChannels<op, 1>(d, src + c, offsets, taps, factor, dst + c);
  if (c == n) return;
  const size_t left = n - c;
  auto sum = hn::LoadN(d, src + offsets[0] + c, left);
  for (int64_t t = 1; t < taps; ++t) sum = Combine<op>(sum, hn::LoadN(d, src + offsets[t] + c, left));
  if (op == ReduceOp::kSum) sum = hn::Mul(sum, hn::Set(d, factor));
  hn::StoreN(sum, d, dst + c, left);
}

// One vector of channels; kMasked: of `left` lanes.
template <bool kMasked, Activation kActivation, class D>
HWY_INLINE void PoolMappedVector(D d, const float* src, const int64_t* offsets, int64_t taps, size_t left, float factor,
                                 const Prologue& prologue, size_t c, float* dst) {
  using V = hn::Vec<D>;
  const auto load = [&](const float* from)
                        HWY_ATTR { return kMasked ? hn::LoadN(d, from + c, left) : hn::LoadU(d, from + c); };
  const V scale = load(prologue.scale), shift = load(prologue.shift);
  const V a = hn::Set(d, prologue.a), b = hn::Set(d, prologue.b);
  V sum = hn::Zero(d);
  for (int64_t t = 0; t < taps; ++t) {
    sum = hn::Add(sum, ApplyActivation<kActivation>(d, hn::MulAdd(load(src + offsets[t]), scale, shift), a, b));
  }
  sum = hn::Mul(sum, hn::Set(d, factor));
  if (kMasked) {
    hn::StoreN(sum, d, dst + c, left);
  } else {
    hn::StoreU(sum, d, dst + c);
  }
}

void PoolMapped(const float* src, const int64_t* offsets, int64_t taps, int64_t channels, float factor,
                const Prologue& prologue, float* dst) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(channels);
  VisitActivation(prologue.activation, [&](auto activation) HWY_ATTR {
    constexpr Activation kActivation = decltype(activation)::value;
    size_t c = 0;
    for (; c + lanes <= n; c += lanes) {
      PoolMappedVector<false, kActivation>(d, src, offsets, taps, lanes, factor, prologue, c, dst);
    }
    if (c < n) PoolMappedVector<true, kActivation>(d, src, offsets, taps, n - c, factor, prologue, c, dst);
  });
}

// Rows of one partial sum.
constexpr int64_t kChunk = 64;

// kVectors neighbouring vectors, which hide each other's wait for an addition; the last one has `left` lanes.
template <ReduceOp op, int kVectors, bool kMasked>
HWY_INLINE void ReduceVectors(const float* src, int64_t stride, int64_t rows, size_t left, float factor, float* dst) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto load = [&](const float* from) HWY_ATTR { return kMasked ? hn::LoadN(d, from, left) : hn::LoadU(d, from); };
  V total[kVectors];
  for (int64_t first = 0; first < rows; first += kChunk) {
    const int64_t last = std::min(rows, first + kChunk);
    const float* from = src + first * stride;
    V part[kVectors];
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) part[v] = load(from + static_cast<size_t>(v) * lanes);
    for (int64_t r = first + 1; r < last; ++r) {
      from += stride;
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) part[v] = Combine<op>(part[v], load(from + static_cast<size_t>(v) * lanes));
    }
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) total[v] = first == 0 ? part[v] : Combine<op>(total[v], part[v]);
  }
  HWY_UNROLL(4)
  for (int v = 0; v < kVectors; ++v) {
    if (op == ReduceOp::kSum) total[v] = hn::Mul(total[v], hn::Set(d, factor));
    float* to = dst + static_cast<size_t>(v) * lanes;
    if (kMasked) {
      hn::StoreN(total[v], d, to, left);
    } else {
      hn::StoreU(total[v], d, to);
    }
  }
}

template <ReduceOp op>
void Rows(const float* src, int64_t stride, int64_t rows, int64_t count, float factor, float* dst) {
  constexpr int kVectors = 4;
  const size_t lanes = hn::Lanes(hn::ScalableTag<float>());
  const auto n = static_cast<size_t>(count);
  size_t i = 0;
  for (; i + kVectors * lanes <= n; i += kVectors * lanes) {
    ReduceVectors<op, kVectors, false>(src + i, stride, rows, lanes, factor, dst + i);
  }
  for (; i + 2 * lanes <= n; i += 2 * lanes) ReduceVectors<op, 2, false>(src + i, stride, rows, lanes, factor, dst + i);
  for (; i + lanes <= n; i += lanes) ReduceVectors<op, 1, false>(src + i, stride, rows, lanes, factor, dst + i);
  if (i < n) ReduceVectors<op, 1, true>(src + i, stride, rows, n - i, factor, dst + i);
}

template <ReduceOp op>
float Scalar(float a, float b) {
  if (op == ReduceOp::kSum) return a + b;
  if (std::isnan(a) || std::isnan(b)) return a + b;
  return op == ReduceOp::kMax ? std::max(a, b) : std::min(a, b);
}

template <ReduceOp op>
float Reduce(const float* src, int64_t count, float factor) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  size_t i = 0;
  float result = src[0];
  if (n >= 4 * lanes) {
    // Partial sums of up to kChunk terms a lane, four chains to cover the latency of an addition.
    V total = hn::Zero(d);
    bool started = false;
    while (i + 4 * lanes <= n) {
      V s0 = hn::LoadU(d, src + i), s1 = hn::LoadU(d, src + i + lanes);
      V s2 = hn::LoadU(d, src + i + 2 * lanes), s3 = hn::LoadU(d, src + i + 3 * lanes);
      i += 4 * lanes;
      for (int64_t k = 1; k < kChunk && i + 4 * lanes <= n; ++k, i += 4 * lanes) {
        s0 = Combine<op>(s0, hn::LoadU(d, src + i));
        s1 = Combine<op>(s1, hn::LoadU(d, src + i + lanes));
        s2 = Combine<op>(s2, hn::LoadU(d, src + i + 2 * lanes));
        s3 = Combine<op>(s3, hn::LoadU(d, src + i + 3 * lanes));
      }
      const V sum = Combine<op>(Combine<op>(s0, s1), Combine<op>(s2, s3));
      total = started ? Combine<op>(total, sum) : sum;
      started = true;
    }
    HWY_ALIGN float parts[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
    hn::Store(total, d, parts);
    for (size_t half = lanes / 2; half > 0; half /= 2) {
      for (size_t k = 0; k < half; ++k) parts[k] = Scalar<op>(parts[k], parts[k + half]);
    }
    result = parts[0];
  } else {
    i = 1;
  }
  for (; i < n; ++i) result = Scalar<op>(result, src[i]);
  return op == ReduceOp::kSum ? result * factor : result;
}

PoolPixel GetPool(ReduceOp op) {
  return op == ReduceOp::kSum   ? Pool<ReduceOp::kSum>
         : op == ReduceOp::kMax ? Pool<ReduceOp::kMax>
                                : Pool<ReduceOp::kMin>;
}
PoolMappedPixel GetPoolMapped() { return PoolMapped; }
ReduceRows GetRows(ReduceOp op) {
  return op == ReduceOp::kSum   ? Rows<ReduceOp::kSum>
         : op == ReduceOp::kMax ? Rows<ReduceOp::kMax>
                                : Rows<ReduceOp::kMin>;
}
ReduceRun GetRun(ReduceOp op) {
  return op == ReduceOp::kSum   ? Reduce<ReduceOp::kSum>
         : op == ReduceOp::kMax ? Reduce<ReduceOp::kMax>
                                : Reduce<ReduceOp::kMin>;
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetPool);
HWY_EXPORT(GetPoolMapped);
HWY_EXPORT(GetRows);
HWY_EXPORT(GetRun);
}  // namespace

PoolPixel FindPoolPixel(ReduceOp op) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetPool)(op);
}
PoolMappedPixel FindPoolMappedPixel() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetPoolMapped)();
}
ReduceRows FindReduceRows(ReduceOp op) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetRows)(op);
}
ReduceRun FindReduceRun(ReduceOp op) {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetRun)(op);
}

}  // namespace crease
#endif  // HWY_ONCE
