// SPDX-License-Identifier: Apache-2.0
#include "kernels/peak.h"

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Ten accumulators cover two FMA ports with four or five cycles' latency. Returns the operations done;
// `sink` keeps the compiler from dropping them.
double FmaLoop(size_t rounds, float* HWY_RESTRICT sink) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f);
  // Different starts, so that the compiler keeps ten chains.
  auto a0 = hn::Set(d, 0.0f), a1 = hn::Set(d, 0.1f), a2 = hn::Set(d, 0.2f), a3 = hn::Set(d, 0.3f);
  auto a4 = hn::Set(d, 0.4f), a5 = hn::Set(d, 0.5f), a6 = hn::Set(d, 0.6f), a7 = hn::Set(d, 0.7f);
  auto a8 = hn::Set(d, 0.8f), a9 = hn::Set(d, 0.9f);
  for (size_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, factor, factor);
    a1 = hn::MulAdd(a1, factor, factor);
    a2 = hn::MulAdd(a2, factor, factor);
    a3 = hn::MulAdd(a3, factor, factor);
    a4 = hn::MulAdd(a4, factor, factor);
    a5 = hn::MulAdd(a5, factor, factor);
    a6 = hn::MulAdd(a6, factor, factor);
    a7 = hn::MulAdd(a7, factor, factor);
    a8 = hn::MulAdd(a8, factor, factor);
    a9 = hn::MulAdd(a9, factor, factor);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)),
                           hn::Add(hn::Add(hn::Add(a4, a5), hn::Add(a6, a7)), hn::Add(a8, a9)));
  *sink = hn::ReduceSum(d, sum);
  return static_cast<double>(rounds) * 20.0 * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(FmaLoop);

double PeakFlops(int attempts) {
  using Clock = std::chrono::steady_clock;
  InitTargets();
  double best = 0;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    float sink = 0;
    const Clock::time_point start = Clock::now();
    const double flops = HWY_DYNAMIC_DISPATCH(FmaLoop)(50'000, &sink);
    best = std::max(best, flops / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace crease
#endif
