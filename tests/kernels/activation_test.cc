// SPDX-License-Identifier: Apache-2.0
// Every activation, on every target, against its definition in double precision.
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/activation_test.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <vector>

#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// count must be a multiple of 16.
void Activate(Activation activation, float a, float b, const float* src, float* dst, size_t count) {
  const hn::ScalableTag<float> d;
  VisitActivation(activation, [&](auto tag) HWY_ATTR {
    for (size_t i = 0; i < count; i += hn::Lanes(d)) {
      const auto y = ApplyActivation<tag()>(d, hn::LoadU(d, src + i), hn::Set(d, a), hn::Set(d, b));
      hn::StoreU(y, d, dst + i);
    }
  });
}

void ExpAndErf(const float* src, float* exp_dst, float* erf_dst, size_t count) {
  const hn::ScalableTag<float> d;
  for (size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, src + i);
    hn::StoreU(Exp(d, x), d, exp_dst + i);
    hn::StoreU(Erf(d, x), d, erf_dst + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/reference/epilogue.h"

namespace crease {
namespace {

HWY_EXPORT(Activate);
HWY_EXPORT(ExpAndErf);

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// relative: of the result; absolute: of |x|, for what rounds before a cancellation.
struct Case {
  Activation activation;
  float a, b;
  double relative, absolute;
};

const Case kCases[] = {
    {Activation::kNone, 0, 0, 0, 0},
    {Activation::kRelu, 0, 0, 0, 0},
    {Activation::kClip, 0, 6, 0, 0},
    {Activation::kClip, -1.5f, kInf, 0, 0},
    {Activation::kClip, -kInf, 0.25f, 0, 0},
    {Activation::kLeakyRelu, 0.1f, 0, 6e-8, 0},
    {Activation::kHardSwish, 0, 0, 1.2e-7, 1.2e-7},
    {Activation::kHardSigmoid, 0.2f, 0.5f, 1.2e-7, 1.2e-7},
    {Activation::kSigmoid, 0, 0, 5e-7, 0},
    {Activation::kSilu, 0, 0, 5e-7, 0},
    {Activation::kTanh, 0, 0, 5e-7, 0},
    {Activation::kElu, 0.7f, 0, 4e-7, 0},
    {Activation::kGelu, 0, 0, 4e-7, 4e-7},
    {Activation::kMish, 0, 0, 7e-7, 0},
};

// Where exp saturates, 0.4 short of the end of float's range: what is left of x / (1 + exp(-x)) there.
constexpr double kSmallest = 2e-36;
// The same where SiLU saturates.
constexpr double kSmallestSilu = 1.5e-33;

std::vector<float> Samples() {
  std::vector<float> x;
  // +-92: past the ends of what exp can represent.
  for (int i = -9200; i < 9200; ++i) x.push_back(static_cast<float>(i) * 0.01f);
  for (int i = -8000; i < 8000; ++i) x.push_back(static_cast<float>(i) * 1e-4f);
  for (float tiny = 1e-30f; tiny < 1; tiny *= 1.7f) {
    x.push_back(tiny);
    x.push_back(-tiny);
  }
  x.resize((x.size() + 15) / 16 * 16);
  return x;
}

TEST(Activation, MatchesDefinition) {
  const std::vector<float> x = Samples();
  ForEachTarget([&](const char* target) {
    for (const Case& c : kCases) {
      std::vector<float> y(x.size());
      HWY_DYNAMIC_DISPATCH(Activate)(c.activation, c.a, c.b, x.data(), y.data(), x.size());
      double worst = 0;
      float worst_x = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = test::Activate(c.activation, c.a, c.b, x[i]);
        const double smallest = c.activation == Activation::kSilu ? kSmallestSilu : kSmallest;
        const double bound = c.relative * std::fabs(want) + c.absolute * std::fmin(1.0, std::fabs(x[i])) + smallest;
        const double error = std::fabs(y[i] - want) / bound;
        if (!(error <= worst)) {
          worst = error;
          worst_x = x[i];
        }
      }
      EXPECT_LE(worst, 1) << Name(c.activation) << " at x = " << worst_x << " on " << target;
    }
  });
}

TEST(Activation, NanPropagates) {
  const std::vector<float> x(16, kNan);
  ForEachTarget([&](const char* target) {
    for (const Case& c : kCases) {
      std::vector<float> y(16, 0.0f);
      HWY_DYNAMIC_DISPATCH(Activate)(c.activation, c.a, c.b, x.data(), y.data(), 16);
      for (float v : y) EXPECT_TRUE(std::isnan(v)) << Name(c.activation) << " on " << target;
    }
  });
}

// Zero, or far from any denormal number, far below, where networks close their gates: a denormal gate makes every
// product after it slow (mnasnet_a1: 1.4 times the time).
TEST(Activation, SigmoidAndSiluOfInfinity) {
  std::vector<float> x(16, kInf), y(16);
  x[1] = -kInf;
  x[2] = -89;
  ForEachTarget([&](const char* target) {
    HWY_DYNAMIC_DISPATCH(Activate)(Activation::kSilu, 0, 0, x.data(), y.data(), 16);
    EXPECT_EQ(y[0], kInf) << target;
    for (const float far : {y[1], y[2]}) {
      EXPECT_LT(far, -1e-34f) << target;
      EXPECT_GT(far, -1.5e-33f) << target;
    }
    HWY_DYNAMIC_DISPATCH(Activate)(Activation::kSigmoid, 0, 0, x.data(), y.data(), 16);
    EXPECT_EQ(y[0], 1) << target;
    EXPECT_EQ(y[1], 0) << target;
    EXPECT_EQ(y[2], 0) << target;
  });
}

TEST(Activation, LargeMagnitudesSaturate) {
  ForEachTarget([&](const char* target) {
    for (const Case& c : kCases) {
      for (const float magnitude : {90.0f, 1000.0f, 1e30f}) {
        std::vector<float> x(16, magnitude), y(16);
        x[1] = -magnitude;
        HWY_DYNAMIC_DISPATCH(Activate)(c.activation, c.a, c.b, x.data(), y.data(), 16);
        for (size_t i = 0; i < 2; ++i) {
          const double want = test::Activate(c.activation, c.a, c.b, x[i]);
          EXPECT_NEAR(y[i], want, 1e-6 * std::fabs(want) + 1e-7)
              << Name(c.activation) << " of " << x[i] << " on " << target;
        }
      }
    }
  });
}

TEST(Activation, ExpAndErf) {
  const std::vector<float> x = Samples();
  ForEachTarget([&](const char* target) {
    std::vector<float> e(x.size()), f(x.size());
    HWY_DYNAMIC_DISPATCH(ExpAndErf)(x.data(), e.data(), f.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      if (want > std::numeric_limits<float>::max()) {
        ASSERT_EQ(e[i], kInf) << x[i] << " on " << target;
      } else {
        ASSERT_NEAR(e[i], want, 1.3e-7 * want + 2 * std::numeric_limits<float>::min()) << x[i] << " on " << target;
      }
      const double erf = std::erf(static_cast<double>(x[i]));
      ASSERT_NEAR(f[i], erf, 6e-7 * std::fabs(erf)) << x[i] << " on " << target;
    }
    const std::vector<float> ends = {kNan, -kInf, kInf, -87, -1000, 88.7f, 88.8f, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    std::vector<float> y(16), z(16);
    HWY_DYNAMIC_DISPATCH(ExpAndErf)(ends.data(), y.data(), z.data(), 16);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(z[0]));
    EXPECT_EQ(y[1], 0);
    EXPECT_EQ(y[2], kInf);
    EXPECT_EQ(y[3], 0);
    EXPECT_EQ(y[4], 0);
    EXPECT_NEAR(y[5], std::exp(88.7), 1e-5 * std::exp(88.7));
    EXPECT_EQ(y[6], kInf);
    EXPECT_EQ(y[7], 1);
    EXPECT_EQ(z[1], -1);
    EXPECT_EQ(z[2], 1);
  });
}

}  // namespace
}  // namespace crease
#endif  // HWY_ONCE
