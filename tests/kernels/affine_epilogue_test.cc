// SPDX-License-Identifier: Apache-2.0
// The map with an epilogue, told to write in every way, on every target, against double precision. Bound: the map's
// roundings, those of the activation and of the sum with the residual.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/affine_rows.h"
#include "kernels/rounding.h"
#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/reference/epilogue.h"

namespace crease::test {
namespace {

constexpr int64_t kPage = 4096;
constexpr float kUntouched = 77;

struct Way {
  const char* name;
  bool stream, fetch, past_l2;
  Walk walk;
};
constexpr Way kWays[] = {
    {"plain", false, false, false, Walk::kOrder},          {"past L2", false, true, true, Walk::kOrder},
    {"past the caches", true, true, true, Walk::kOrder},   {"plain in pages", false, false, false, Walk::kPages},
    {"fetched in pages", false, true, true, Walk::kPages}, {"past the caches in pages", true, true, true, Walk::kPages},
};

// Where the result goes.
enum class Place : uint8_t { kApart, kBehindSource, kBehindResidual, kSource, kResidual };

// `count` elements of source and residual, and parameters of `channels`.
class Case {
 public:
  Case(int64_t count, int64_t channels, bool exact)
      : count_(count),
        exact_(exact),
        x_(RandomTensor({count}, 1)),
        r_(RandomTensor({count}, 2)),
        scale_(RandomTensor({channels}, 3)),
        shift_(RandomTensor({channels}, 4)),
        pivot_(RandomTensor({channels}, 5)),
        memory_(static_cast<size_t>(3 * (count + 3 * kPage))) {}

  // map(rows, args): the map of all elements. channel(i): that of element i, or below 0 where nothing is written.
  template <typename Map, typename Channel>
  void Check(const Epilogue& epilogue, const std::string& what, const Map& map, const Channel& channel) {
    const AffineRows rows = exact_ ? FindExactRows(DType::kFloat32, epilogue.activation, epilogue.residual)
                                   : FindAffineRows(epilogue.activation, epilogue.residual);
    ASSERT_NE(rows.planes, nullptr) << what;
    std::vector<double> wanted, bounds;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t c = channel(i);
      const double y = c < 0 ? 0 : Linear(i, c);
      const double residual = epilogue.residual == Residual::kNone ? 0 : r_.AsDouble(i);
      wanted.push_back(Finish(epilogue, y, residual));
      bounds.push_back(1.5e-6 * (6 + std::fabs(y) + std::fabs(residual)));
    }
    for (const Place place :
         {Place::kApart, Place::kBehindSource, Place::kBehindResidual, Place::kSource, Place::kResidual}) {
      if (epilogue.residual == Residual::kNone && (place == Place::kBehindResidual || place == Place::kResidual)) {
        continue;
      }
      for (const Way& way : kWays) {
        const AffineArgs args = Arguments(epilogue, place, way);
        map(rows, args);
        const auto* y = static_cast<const float*>(args.dst);
        for (int64_t i = 0; i < count_; ++i) {
          if (channel(i) >= 0) {
            ASSERT_NEAR(y[i], wanted[static_cast<size_t>(i)], bounds[static_cast<size_t>(i)])
                << what << " " << way.name << " place " << static_cast<int>(place) << " at " << i;
          } else if (place != Place::kSource && place != Place::kResidual) {
            ASSERT_EQ(y[i], kUntouched) << what << " " << way.name << " at " << i;
          }
        }
      }
    }
  }

 private:
  double Linear(int64_t i, int64_t c) const {
    return scale_.AsDouble(c) * (x_.AsDouble(i) - (exact_ ? pivot_.AsDouble(c) : 0)) + shift_.AsDouble(c);
  }

  AffineArgs Arguments(const Epilogue& epilogue, Place place, const Way& way) {
    constexpr int64_t kApart = 512, kBehind = 16;  // elements, but for whole pages; results lie on lines
    const int64_t step = RoundUp(count_ + kApart, kPage);
    const auto start = (reinterpret_cast<uintptr_t>(memory_.data()) + kPage - 1) / kPage * kPage;
    auto* const dst = reinterpret_cast<float*>(start) + kApart;
    float* const src = place == Place::kSource ? dst : dst + step - (place == Place::kBehindSource ? kBehind : kApart);
    float* const residual =
        place == Place::kResidual ? dst : dst + 2 * step - (place == Place::kBehindResidual ? kBehind : kApart);
    std::fill_n(dst, count_, kUntouched);
    std::copy_n(x_.data<float>(), count_, src);
    std::copy_n(r_.data<float>(), count_, residual);
    AffineArgs args{src,
                    epilogue.residual == Residual::kNone ? nullptr : residual,
                    dst,
                    scale_.bytes(),
                    shift_.bytes(),
                    pivot_.bytes(),
                    epilogue.a,
                    epilogue.b};
    args.stream = way.stream;
    args.fetch = args.fetch_source = way.fetch;
    args.past_l2 = way.past_l2;
    args.walk = way.walk;
    return args;
  }

  int64_t count_;
  bool exact_;
  Tensor x_, r_, scale_, shift_, pivot_;
  std::vector<float> memory_;
};

// All that a residual is fused with.
constexpr Activation kActivations[] = {Activation::kNone,      Activation::kRelu,      Activation::kClip,
                                       Activation::kLeakyRelu, Activation::kHardSwish, Activation::kSilu};

template <typename F>
void ForEachEpilogue(const F& f) {
  for (const Activation activation : kActivations) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      for (const bool exact : {false, true}) {
        const Epilogue epilogue{activation, -0.5f, 0.75f, residual};
        ForEachTarget([&](const char* target) {
          if (testing::Test::HasFatalFailure()) return;
          f(epilogue, exact,
            std::string(target) + " " + Name(activation) + " residual " + std::to_string(static_cast<int>(residual)) +
                " exact " + std::to_string(exact));
        });
      }
    }
  }
}

// Rows [1, rows - 1): of few and many columns, alike in their pages, dense or not.
TEST(AffineEpilogue, Rows) {
  constexpr int64_t kRows = 11;
  for (const int64_t channels : {16, 67, 320, 512, 1100, 2048}) {
    for (const int64_t pitch : {channels, channels + 16}) {
      const int64_t count = kRows * pitch;
      ForEachEpilogue([&](const Epilogue& epilogue, bool exact, const std::string& what) {
        Case(count, channels, exact)
            .Check(
                epilogue, what + " rows of " + std::to_string(channels) + " pitch " + std::to_string(pitch),
                [&](const AffineRows& rows, const AffineArgs& args) {
                  rows.pixels(args, channels, {pitch, pitch, pitch}, 1, kRows - 1);
                },
                [&](int64_t i) {
                  const bool outside = i < pitch || i >= count - pitch || i % pitch >= channels;
                  return outside ? int64_t{-1} : i % pitch;
                });
      });
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Dense rows whose parameters repeat, with registers for them or not.
TEST(AffineEpilogue, ParametersThatRepeat) {
  constexpr int64_t kRows = 5;
  for (const int64_t cycle : {3, 16, 24, 64, 80, 112, 128, 144}) {
    const int64_t period = cycle * 16, count = kRows * period;
    ForEachEpilogue([&](const Epilogue& epilogue, bool exact, const std::string& what) {
      Case repeated(count, period, exact);
      repeated.Check(
          epilogue, what + " cycle " + std::to_string(cycle),
          [&](const AffineRows& rows, AffineArgs args) {
            // The parameters of `cycle` channels again and again.
            std::vector<float> values[3];
            const void** const of[] = {&args.scale, &args.shift, &args.pivot};
            for (int k = 0; k < 3; ++k) {
              const auto* from = static_cast<const float*>(*of[k]);
              for (int64_t i = 0; i < period; ++i) values[k].push_back(from[i % cycle]);
              *of[k] = values[k].data();
            }
            args.cycle = cycle;
            rows.pixels(args, period, {period, period, period}, 0, kRows);
          },
          [&](int64_t i) { return i % period % cycle; });
    });
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Elements [13, count - 7) of planes of less than a vector, of some, and of many.
TEST(AffineEpilogue, Planes) {
  constexpr int64_t kChannels = 3, kImages = 5, kBefore = 13, kAfter = 7;
  for (const int64_t plane : {9, 16, 49, 333, 1031}) {
    const int64_t count = kImages * kChannels * plane;
    ForEachEpilogue([&](const Epilogue& epilogue, bool exact, const std::string& what) {
      Case(count, kChannels, exact)
          .Check(
              epilogue, what + " planes of " + std::to_string(plane),
              [&](const AffineRows& rows, const AffineArgs& args) {
                rows.planes(args, kChannels, plane, kBefore, count - kAfter);
              },
              [&](int64_t i) { return i < kBefore || i >= count - kAfter ? int64_t{-1} : i / plane % kChannels; });
    });
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace crease::test
