// SPDX-License-Identifier: Apache-2.0
// Winograd's transforms along one axis, on vectors of channels. Per-target header.
//
// An axis is a struct with its sizes as in WinogradAxis, kFilter (the filter transform, by distinct weight and tap) and
//   Combine<g>(d, x, first, second)   the one or two points of group g over the patch x;
//   Output<reduced>(d, m, z)          output i, short of a factor OutputScale(i), from the products m of all points.
// Points come in groups, a pair of opposite ones in one because they share their terms. Reduced tiles lack the last
// groups; those alone read the patch's last `stride` sources.
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_WINOGRAD_AXIS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_WINOGRAD_AXIS_INL_H_
#undef CREASE_KERNELS_WINOGRAD_AXIS_INL_H_
#else
#define CREASE_KERNELS_WINOGRAD_AXIS_INL_H_
#endif

#include <hwy/highway.h>

#include <array>
#include <cstddef>
#include <iterator>

#include "kernels/winograd_tile.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr double SquareRoot(double x) {
  double root = x < 1 ? 1 : x;
  for (int i = 0; i < 64; ++i) root = (root + x / root) / 2;
  return root;
}

// Finite points, by their squares, and zero or not. Chosen for the least rounding error over random sources and
// filters, among squares with few bits; the error of a whole tile, rms over the outputs' rms, 48 to 64 channels:
// 3x3 F2 3e-7, F4 7e-7; 4x4 F4 9e-7 (12 channels); 5x5 F3 1.4e-6; 1x7 F3 1.1e-6; 3x3 at stride 2 F4 8e-7. Tiles of more
// outputs cost fewer products but three to four times F4's error (3x3 F6, 5x5 F4: 2.9e-6), too much for what follows
// them in a network.
struct F2x3Points {
  static constexpr int kTaps = 3, kOutputs = 2;
  static constexpr bool kZero = true;
  static constexpr double kSquares[] = {1};
};
struct F4x3Points {
  static constexpr int kTaps = 3, kOutputs = 4;
  static constexpr bool kZero = true;
  static constexpr double kSquares[] = {0.5, 2};
};
struct F4x4Points {
  static constexpr int kTaps = 4, kOutputs = 4;
  static constexpr bool kZero = false;
  static constexpr double kSquares[] = {0.0625, 0.75, 3};
};
struct F3x5Points {
  static constexpr int kTaps = 5, kOutputs = 3;
  static constexpr bool kZero = false;
  static constexpr double kSquares[] = {0.125, 0.75, 3};
};
struct F3x7Points {
  static constexpr int kTaps = 7, kOutputs = 3;
  static constexpr bool kZero = false;
  static constexpr double kSquares[] = {0.0625, 0.375, 1.25, 4};
};
struct F2x2Points {
  static constexpr int kTaps = 2, kOutputs = 2;
  static constexpr bool kZero = false;
  static constexpr double kSquares[] = {1};
};
struct F4x2Points {
  static constexpr int kTaps = 2, kOutputs = 4;
  static constexpr bool kZero = false;
  static constexpr double kSquares[] = {0.5, 2};
};

// Stride 1. Point p's input transform is M(x) / (x - p), M the product of (x - q) over all finite points q; for a pair
// +-a that is (x +- a) * x^z * R(x^2), z = 1 with a point at zero. Infinity's is M.
template <class P>
struct ToomCook {
  static constexpr int kPairs = static_cast<int>(std::size(P::kSquares));
  static constexpr int kZero = P::kZero ? 1 : 0;
  static constexpr int kTaps = P::kTaps, kStride = 1, kOutputs = P::kOutputs;
  static constexpr int kPoints = 2 * kPairs + kZero + 1, kReducedPoints = kPoints - 1;
  static constexpr int kGroups = kPairs + kZero + 1, kReducedGroups = kGroups - 1;
  static constexpr int kWeights = kPoints;
  static_assert(kPoints == kTaps + kOutputs - 1);

  static constexpr int WeightOf(int point) { return point; }
  static constexpr int FirstPoint(int group) { return group < kZero ? 0 : 2 * (group - kZero) + kZero; }
  static constexpr bool IsPair(int group) { return group >= kZero && group < kZero + kPairs; }

  static constexpr double Point(int pair) { return SquareRoot(P::kSquares[pair]); }

  // Coefficients of the product of (s - square) over all pairs but one (-1: over all), lowest first; the highest is 1.
  static constexpr std::array<double, kPairs + 1> Product(int without) {
    std::array<double, kPairs + 1> c{1};
    int degree = 0;
    for (int i = 0; i < kPairs; ++i) {
      if (i == without) continue;
      for (int k = ++degree; k >= 0; --k) {
        c[static_cast<size_t>(k)] =
            (k > 0 ? c[static_cast<size_t>(k - 1)] : 0) - P::kSquares[i] * c[static_cast<size_t>(k)];
      }
    }
    return c;
  }

  // Infinity's weights undo the factor that the last output gets.
  static constexpr std::array<std::array<double, kTaps>, kWeights> MakeFilter() {
    std::array<std::array<double, kTaps>, kWeights> filter{};
    const auto set = [&](int row, double point, double distances) {
      double power = 1;
      for (int t = 0; t < kTaps; ++t, power *= point)
        filter[static_cast<size_t>(row)][static_cast<size_t>(t)] = power / distances;
    };
    if (kZero == 1) set(0, 0, Product(-1)[0]);
    for (int i = 0; i < kPairs; ++i) {
      const double square = P::kSquares[i], point = Point(i);
      double distances = 2 * (kZero == 1 ? square : point);
      for (int j = 0; j < kPairs; ++j) distances *= j == i ? 1 : square - P::kSquares[j];
      set(kZero + 2 * i, point, distances);
      set(kZero + 2 * i + 1, -point, kZero == 1 ? distances : -distances);
    }
    filter[kPoints - 1][kTaps - 1] = 1 / OutputScale(kOutputs - 1);
    return filter;
  }
  static constexpr std::array<std::array<double, kTaps>, kWeights> kFilter = MakeFilter();

  static constexpr double OutputScale(int i) {
    double scale = 1;
    for (int k = 0; k < i; ++k) scale *= Point(0);
    return scale;
  }

  // x[2 k] weighted by the coefficients of Product(kWithout).
  template <int kWithout, class D, class V>
  static HWY_INLINE V Sum(D d, const V* x) {
    constexpr int kDegree = kPairs - (kWithout < 0 ? 0 : 1);
    if constexpr (kDegree == 0) {
      return x[0];
    } else {
      return AddTerms<kWithout, kDegree - 1>(d, x, x[2 * kDegree]);
    }
  }
  template <int kWithout, int kTerm, class D, class V>
  static HWY_INLINE V AddTerms(D d, const V* x, V sum) {
    constexpr double kFactor = Product(kWithout)[kTerm];
    if constexpr (kFactor == 1) {
      sum = hn::Add(sum, x[2 * kTerm]);
    } else if constexpr (kFactor == -1) {
      sum = hn::Sub(sum, x[2 * kTerm]);
    } else {
      sum = hn::MulAdd(hn::Set(d, static_cast<float>(kFactor)), x[2 * kTerm], sum);
    }
    if constexpr (kTerm > 0) sum = AddTerms<kWithout, kTerm - 1>(d, x, sum);
    return sum;
  }

  template <int kGroup, class D, class V>
  static HWY_INLINE void Combine(D d, const V* x, V& first, V& second) {
    if constexpr (IsPair(kGroup)) {
      constexpr int kPair = kGroup - kZero;
      const V odd = Sum<kPair>(d, x + kZero);
      const V even = Sum<kPair>(d, x + kZero + 1);
      if constexpr (P::kSquares[kPair] == 1) {
        first = hn::Add(even, odd);
        second = hn::Sub(even, odd);
      } else {
        const V point = hn::Set(d, static_cast<float>(Point(kPair)));
        first = hn::MulAdd(point, odd, even);
        second = hn::NegMulAdd(point, odd, even);
      }
    } else {
      first = Sum<-1>(d, kGroup < kZero ? x : x + kZero);
    }
  }

  // Of pair g: its point over the first pair's, to the power i.
  static constexpr double Ratio(int pair, int i) {
    double ratio = 1;
    for (int k = 0; k < i; ++k) ratio *= Point(pair) / Point(0);
    return ratio;
  }
  template <int kOutput, int kPair, class D, class V>
  static HWY_INLINE V AddPairs(D d, const V* terms, V sum) {
    if constexpr (kPair < kPairs) {
      if constexpr (kOutput == 0) {
        sum = hn::Add(sum, terms[2 * kPair]);
      } else {
        const V ratio = hn::Set(d, static_cast<float>(Ratio(kPair, kOutput)));
        sum = hn::MulAdd(ratio, terms[2 * kPair + kOutput % 2], sum);
      }
      return AddPairs<kOutput, kPair + 1>(d, terms, sum);
    } else {
      return sum;
    }
  }
  template <bool kReduced, int kOutput, class D, class V>
  static HWY_INLINE void OutputFrom(D d, const V* m, const V* terms, V* z) {
    if constexpr (kOutput < kOutputs - (kReduced ? 1 : 0)) {
      V sum = terms[kOutput % 2];
      if constexpr (kOutput == 0 && kZero == 1) sum = hn::Add(m[0], sum);
      sum = AddPairs<kOutput, 1>(d, terms, sum);
      if constexpr (kOutput == kOutputs - 1) sum = hn::Add(sum, m[kPoints - 1]);
      z[kOutput] = sum;
      OutputFrom<kReduced, kOutput + 1>(d, m, terms, z);
    }
  }
  template <bool kReduced, class D, class V>
  static HWY_INLINE void Output(D d, const V* m, V* z) {
    V terms[2 * kPairs];  // by pair: the sum of its products, their difference
    HWY_UNROLL(4)
    for (int i = 0; i < kPairs; ++i) {
      terms[2 * i] = hn::Add(m[kZero + 2 * i], m[kZero + 2 * i + 1]);
      terms[2 * i + 1] = hn::Sub(m[kZero + 2 * i], m[kZero + 2 * i + 1]);
    }
    OutputFrom<kReduced, 0>(d, m, terms, z);
  }
};

// Three taps at stride 2: Even's two over the even sources, the one between them over the odd ones. Points: Even's
// finite ones, the odd sources but the last, infinity, the last odd source.
template <class Even>
struct Stride2 {
  static constexpr int kTaps = 3, kStride = 2, kOutputs = Even::kOutputs;
  static constexpr int kFinite = Even::kPoints - 1;
  static constexpr int kPoints = Even::kPoints + kOutputs, kReducedPoints = kPoints - 2;
  static constexpr int kOdd = Even::kReducedGroups;  // the first group of an odd source
  static constexpr int kGroups = Even::kGroups + kOutputs, kReducedGroups = kGroups - 2;
  static constexpr int kWeights = Even::kWeights + 1;

  static constexpr bool IsOdd(int point) { return point != kPoints - 2 && point >= kFinite; }
  static constexpr int WeightOf(int point) { return point < kFinite ? point : IsOdd(point) ? kFinite : kFinite + 1; }
  static constexpr int FirstPoint(int group) { return group < kOdd ? Even::FirstPoint(group) : kFinite + group - kOdd; }
  static constexpr bool IsPair(int group) { return group < kOdd; }
  static constexpr double OutputScale(int) { return 1; }

  static constexpr std::array<std::array<double, kTaps>, kWeights> MakeFilter() {
    std::array<std::array<double, kTaps>, kWeights> filter{};
    for (size_t i = 0; i < Even::kWeights; ++i) {
      const size_t row = i < kFinite ? i : i + 1;
      filter[row][0] = Even::kFilter[i][0];
      filter[row][2] = Even::kFilter[i][1];
    }
    filter[kFinite][1] = 1;
    return filter;
  }
  static constexpr std::array<std::array<double, kTaps>, kWeights> kFilter = MakeFilter();

  template <int kGroup, class D, class V>
  static HWY_INLINE void Combine(D d, const V* x, V& first, V& second) {
    constexpr bool kInfinity = kGroup == kGroups - 2;
    if constexpr (kGroup < kOdd || kInfinity) {
      // A reduced tile's patch ends before the last even source, which only infinity reads.
      constexpr int kSources = Even::kPoints - (kInfinity ? 0 : 1);
      V even[Even::kPoints];
      HWY_UNROLL(kMaxWinogradPoints)
      for (int i = 0; i < kSources; ++i) even[i] = x[2 * i];
      Even::template Combine<kInfinity ? kOdd : kGroup>(d, even, first, second);
    } else {
      first = x[2 * (kGroup == kGroups - 1 ? kOutputs - 1 : kGroup - kOdd) + 1];
    }
  }

  template <bool kReduced, class D, class V>
  static HWY_INLINE void Output(D d, const V* m, V* z) {
    V even[Even::kPoints];
    HWY_UNROLL(kMaxWinogradPoints)
    for (int i = 0; i < kFinite; ++i) even[i] = m[i];
    if constexpr (!kReduced) even[kFinite] = m[kPoints - 2];
    Even::template Output<kReduced>(d, even, z);
    HWY_UNROLL(kMaxWinogradOutputs)
    for (int i = 0; i < kOutputs - (kReduced ? 1 : 0); ++i) {
      const V odd = m[i == kOutputs - 1 ? kPoints - 1 : kFinite + i];
      z[i] = hn::MulAdd(hn::Set(d, static_cast<float>(Even::OutputScale(i))), z[i], odd);
    }
  }
};

// One tap.
struct SameAxis {
  static constexpr int kTaps = 1, kStride = 1, kOutputs = 1;
  static constexpr int kPoints = 1, kReducedPoints = 1, kGroups = 1, kReducedGroups = 1, kWeights = 1;
  static constexpr std::array<std::array<double, 1>, 1> kFilter = {{{1}}};

  static constexpr int WeightOf(int) { return 0; }
  static constexpr int FirstPoint(int) { return 0; }
  static constexpr bool IsPair(int) { return false; }
  static constexpr double OutputScale(int) { return 1; }
  template <int kGroup, class D, class V>
  static HWY_INLINE void Combine(D, const V* x, V& first, V&) {
    first = x[0];
  }
  template <bool kReduced, class D, class V>
  static HWY_INLINE void Output(D, const V* m, V* z) {
    z[0] = m[0];
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
