// SPDX-License-Identifier: Apache-2.0
#include "kernels/strassen_sums.h"

#include "kernels/gemm_tile.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/strassen_sums.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace {

// One vector, or the first n lanes of one, of each of the seven runs.
template <class Read, class Write>
HWY_INLINE void LeftFactors(const float* x, const float* y, const float* scale, int64_t half, float* to,
                            const Read& read, const Write& write) {
  const auto s1 = read(scale), s2 = read(scale + half);
  const auto x1 = hn::Mul(read(x), s1), x2 = hn::Mul(read(x + half), s2);
  const auto y1 = hn::Mul(read(y), s1), y2 = hn::Mul(read(y + half), s2);
  const auto both = hn::Add(y1, y2), rest = hn::Sub(both, x1);
  write(x1, to);
  write(x2, to + half);
  write(rest, to + 2 * half);
  write(both, to + 3 * half);
  write(hn::Sub(x2, rest), to + 4 * half);
  write(hn::Sub(x1, y1), to + 5 * half);
  write(y2, to + 6 * half);
}

void Left(const RowPair& rows, const float* scale, int64_t half, float* to, const RowPair& next) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const RowPair own = rows, later = next;
  int64_t k = 0;
  for (; k + lanes <= half; k += lanes) {
    if (k % kLineFloats == 0 && later.even != nullptr) {
      for (const float* row : {later.even, later.odd}) {
        hwy::Prefetch(row + k);
        hwy::Prefetch(row + half + k);
      }
    }
    LeftFactors(
        own.even + k, own.odd + k, scale + k, half, to + k,
        [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); },
        [&](auto v, float* at) HWY_ATTR { hn::StoreU(v, d, at); });
  }
  if (k == half) return;
  const auto rest = static_cast<size_t>(half - k);
  LeftFactors(
      own.even + k, own.odd + k, scale + k, half, to + k,
      [&](const float* from) HWY_ATTR { return hn::LoadN(d, from, rest); },
      [&](auto v, float* at) HWY_ATTR { hn::StoreN(v, d, at, rest); });
}

template <bool kMore, bool kResidual>
void StoreResult(const StrassenResult& t) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto lo = hn::Set(d, t.lo), hi = hn::Set(d, t.hi);
  const StrassenResult own = t;  // stores may alias its fields
  for (int64_t row = 0; row < own.out.rows; ++row) {
    const float* sums = own.sums + row * own.width;
    const float* more = kMore ? own.more + row * own.width : nullptr;
    const float* residual = kResidual ? own.out.residual + row * own.out.residual_stride : nullptr;
    float* dst = own.out.dst + row * own.out.dst_stride;
    const auto result = [&](int64_t j, const auto& load) HWY_ATTR {
      auto sum = load(sums + j);
      if constexpr (kMore) sum = hn::Add(sum, load(more + j));
      auto y = hn::MulAdd(sum, load(own.scale + j), load(own.bias + j));
      const auto extra = [&]() HWY_ATTR {
        if constexpr (kResidual) return load(residual + j);
        return hn::Zero(d);
      }();
      if (kResidual && !own.residual_last) y = hn::Add(y, extra);
      // Bounds first: they let NaN through.
      y = hn::Min(hi, hn::Max(lo, y));
      return kResidual && own.residual_last ? hn::Add(y, extra) : y;
    };
    int64_t j = 0;
    for (; j + lanes <= own.out.columns; j += lanes) {
      hn::StoreU(result(j, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); }), d, dst + j);
    }
    if (j == own.out.columns) continue;
    const auto rest = static_cast<size_t>(own.out.columns - j);
    hn::StoreN(result(j, [&](const float* from) HWY_ATTR { return hn::LoadN(d, from, rest); }), d, dst + j, rest);
  }
}

void Result(const StrassenResult& result) {
  const bool residual = result.out.residual != nullptr;
  if (result.more == nullptr) return residual ? StoreResult<false, true>(result) : StoreResult<false, false>(result);
  return residual ? StoreResult<true, true>(result) : StoreResult<true, false>(result);
}

const StrassenOps& Ops() {
  static constexpr StrassenOps ops = {&Left, &Result};
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const StrassenOps& GetStrassenOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

}  // namespace crease
#endif
