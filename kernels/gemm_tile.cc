// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_tile.h"

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include "kernels/activation-inl.h"
#include "kernels/registers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

// 32 registers hold 14 x 2 sums, two vectors of b and one of a. Three vectors serve tiles of few rows: every load of a
// feeds three multiply-adds. Four are as wide as sparse tiles, for when these have nothing to leave out.
// 16 registers hold 12 sums: 3 x 4 of them need the fewest loads that are repeated over a vector (one thread of Zen 1,
// GFLOP/s of 40, 3 x 4 and 6 x 2: 1x1 116-116@14 35, 30; 64-256@56 37.1, 36.3; 3x3 s2 128-128@56 41, 38; 512-128@28
// 37.3, 38.0).
constexpr int kWide = k32Registers ? 2 : 4;
constexpr int MaxRows(int vectors) {
  if (k32Registers) return vectors == 4 ? 6 : vectors == 3 ? 9 : 14;
  return vectors == 4 ? 3 : vectors == 3 ? 4 : 6;
}

// Rows of a are addressed from one pointer for every three: base, base + stride, base + 2 * stride.
constexpr int kRowsPerPointer = 3;

template <int kRows>
struct RowPointers {
  static constexpr int kHalf = (kRows + 1) / 2;
  static constexpr int kFirst = (kHalf + kRowsPerPointer - 1) / kRowsPerPointer;
  static constexpr int kCount = kFirst + (kRows - kHalf + kRowsPerPointer - 1) / kRowsPerPointer;

  HWY_INLINE RowPointers(const GemmTile& t, const float* a) {
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) {
      p[i] = a + (i < kFirst ? i * kRowsPerPointer * t.row_stride
                             : t.half_offset + (i - kFirst) * kRowsPerPointer * t.row_stride);
    }
    Pin();
  }
  HWY_INLINE void Advance(ptrdiff_t by) {
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) p[i] += by;
    Pin();
  }
  // Without it GCC derives every pointer from the first one inside the loop.
  HWY_INLINE void Pin() {
    HWY_UNROLL(8)
    for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(p[i]));
  }
  HWY_INLINE float At(int row, ptrdiff_t stride, ptrdiff_t k) const {
    const int i = row < kHalf ? row / kRowsPerPointer : kFirst + (row - kHalf) / kRowsPerPointer;
    const int rest = (row < kHalf ? row : row - kHalf) % kRowsPerPointer;
    return p[i][rest * stride + k];
  }

  const float* p[kCount];
};

// Rows that are kStride floats apart, all reached from one pointer.
template <int kStride>
struct CloseRows {
  HWY_INLINE float At(int row, ptrdiff_t, ptrdiff_t k) const { return p[row * kStride + k]; }

  const float* p;
};

template <int kRows, int kVectors, class D, class Rows, class V>
HWY_INLINE void Step(D d, const Rows& a, ptrdiff_t stride, ptrdiff_t k, const float* b, V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  // One vector of b at a time: where sums leave room for the fewer of the two, and for few rows of two vectors, whose
  // multiply-adds else wait for their sums (Zen 1, cycles a step: 4 x 2 10 -> 8, 3 x 2 7 -> 6.5; 5 x 2 the same).
  if constexpr (kRows < kVectors || (!k32Registers && kVectors == 2 && kRows <= 4)) {
    V x[kRows];
    HWY_UNROLL(kMaxTileRows)
    for (int r = 0; r < kRows; ++r) x[r] = hn::Set(d, a.At(r, stride, k));
    HWY_UNROLL(kMaxTileVectors)
    for (int v = 0; v < kVectors; ++v) {
      V column = hn::Load(d, b + v * kLanes);
      KeepInRegister(column);
      HWY_UNROLL(kMaxTileRows)
      for (int r = 0; r < kRows; ++r) sum[r][v] = hn::MulAdd(x[r], column, sum[r][v]);
    }
    return;
  }
  V column[kVectors];
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    column[v] = hn::Load(d, b + v * kLanes);
    KeepInRegister(column[v]);
  }
  HWY_UNROLL(kMaxTileRows)
  for (int r = 0; r < kRows; ++r) {
    const V x = hn::Set(d, a.At(r, stride, k));
    HWY_UNROLL(kMaxTileVectors)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, column[v], sum[r][v]);
  }
}

template <int kRows, int kVectors, class D, class V>
HWY_INLINE void StartSums(D d, const GemmTile& t, V (&sum)[kRows][kVectors]) {
  HWY_UNROLL(kMaxTileVectors)
  for (int v = 0; v < kVectors; ++v) {
    const V bias = t.biased ? hn::Load(d, t.b + v * HWY_MAX_LANES_D(D)) : hn::Zero(d);
    HWY_UNROLL(kMaxTileRows)
    for (int r = 0; r < kRows; ++r) sum[r][v] = bias;
  }
}

// Where a tile's results go.
struct Destination {
  float* dst;
  const float* residual;
};

// Loads and stores of the tile's last vector touch `last` lanes only.
template <int kRows, int kVectors, bool kMasked, bool kResidual, class D, class V>
HWY_INLINE void StoreTile(D d, const GemmTile& t, const Destination& to, V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  const V lo = hn::Set(d, t.lo);
  const V hi = hn::Set(d, t.hi);
  const size_t last = static_cast<size_t>(t.last);
  // Locals: the stores may alias the tile's fields.
  const bool residual_last = t.residual_last;
  const int64_t residual_stride = t.residual_stride;
  const int64_t dst_stride = t.dst_stride;
  const float* residual = to.residual;
  float* dst = to.dst;
  HWY_UNROLL(kMaxTileRows)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(kMaxTileVectors)
    for (int v = 0; v < kVectors; ++v) {
      const bool masked = kMasked && v == kVectors - 1;
      V y = sum[r][v];
      V extra = hn::Zero(d);
      if constexpr (kResidual) {
        extra = masked ? hn::LoadN(d, residual + v * kLanes, last) : hn::LoadU(d, residual + v * kLanes);
        if (!residual_last) y = hn::Add(y, extra);
      }
      // Bounds first: they let NaN through.
      y = hn::Min(hi, hn::Max(lo, y));
      if (kResidual && residual_last) y = hn::Add(y, extra);
      if (masked) {
        hn::StoreN(y, d, dst + v * kLanes, last);
      } else {
        hn::StoreU(y, d, dst + v * kLanes);
      }
    }
    dst += dst_stride;
    if constexpr (kResidual) residual += residual_stride;
  }
}

template <int kRows, int kVectors, class D, class V>
HWY_INLINE void Store(D d, const GemmTile& t, const Destination& to, V (&sum)[kRows][kVectors]) {
  constexpr int kLanes = HWY_MAX_LANES_D(D);
  if (t.last == kLanes) {
    if (to.residual == nullptr) {
      StoreTile<kRows, kVectors, false, false>(d, t, to, sum);
    } else {
      StoreTile<kRows, kVectors, false, true>(d, t, to, sum);
    }
  } else if (to.residual == nullptr) {
    StoreTile<kRows, kVectors, true, false>(d, t, to, sum);
  } else {
    StoreTile<kRows, kVectors, true, true>(d, t, to, sum);
  }
}

// run(a, to) for each tile, what it will store to on its way.
template <int kRows, int kVectors, int kLanes, class Run>
HWY_INLINE void ForEachTile(const GemmTile& t, const Run& run) {
  const float* a = t.a;
  Destination to{t.dst, t.residual};
  for (int64_t i = t.count; i > 0; --i) {
    if (t.far) {
      const int64_t columns = (kVectors - 1) * kLanes + t.last;
      PrefetchRows<1>(to.dst, t.dst_stride, kRows, columns);
      if (to.residual != nullptr) PrefetchRows<0>(to.residual, t.residual_stride, kRows, columns);
    }
    run(a, to);
    a += kRows * t.row_stride;
    to.dst += kRows * t.dst_stride;
    if (to.residual != nullptr) to.residual += kRows * t.residual_stride;
  }
}

constexpr ptrdiff_t kUnroll = kTileUnroll;

template <int kRows, int kVectors>
HWY_NOINLINE void RunTile(const GemmTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr ptrdiff_t kWidth = kVectors * kLanes;
  constexpr ptrdiff_t kLine = 64 / sizeof(float);

  const bool fetch = t.ahead != nullptr;
  const ptrdiff_t ahead_step = fetch ? static_cast<ptrdiff_t>(t.ahead_step) : kWidth;
  const ptrdiff_t stride = t.row_stride;
  const float* next_ahead = t.ahead;
  ForEachTile<kRows, kVectors, kLanes>(t, [&](const float* first, const Destination& to) HWY_ATTR {
    V sum[kRows][kVectors];
    StartSums<kRows, kVectors>(d, t, sum);
    const float* b = t.b + kWidth;
    // Without, what is read anyhow: a prefetch from an unmapped page waits for the page table.
    const float* ahead = fetch ? next_ahead : b;
    for (int64_t s = 0; s < t.segment_count; ++s) {
      RowPointers<kRows> a(t, first + t.segments[s]);
      ptrdiff_t left = t.segment_length;
      for (; left >= kUnroll; left -= kUnroll) {
        HWY_UNROLL(kUnroll)
        for (ptrdiff_t k = 0; k < kUnroll; ++k) {
          HWY_UNROLL(kMaxTileVectors)
          for (ptrdiff_t i = 0; i < kWidth; i += kLine) PrefetchL2(ahead + i);
          ahead += ahead_step;
          Step(d, a, stride, k, b + k * kWidth, sum);
        }
        b += kUnroll * kWidth;
        a.Advance(kUnroll);
      }
      for (; left > 0; --left) {
        Step(d, a, stride, 0, b, sum);
        b += kWidth;
        a.Advance(1);
      }
    }
    next_ahead += fetch ? t.ahead_tile : 0;
    Store<kRows, kVectors>(d, t, to, sum);
  });
}

// The same for rows that are kStride floats apart: one pointer reaches all of them, so that short segments cost little.
template <int kRows, int kVectors, int kStride>
HWY_NOINLINE void RunClose(const GemmTile& t) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int kLanes = HWY_MAX_LANES_D(decltype(d));
  constexpr ptrdiff_t kWidth = kVectors * kLanes;
  ForEachTile<kRows, kVectors, kLanes>(t, [&](const float* first, const Destination& to) HWY_ATTR {
    V sum[kRows][kVectors];
    StartSums<kRows, kVectors>(d, t, sum);
    const float* b = t.b;
    for (int64_t s = 0; s < t.segment_count; ++s) {
      const float* a = first + t.segments[s];
      for (const float* end = a + t.segment_length; a < end; ++a) {
        b += kWidth;
        Step(d, CloseRows<kStride>{a}, kStride, 0, b, sum);
      }
    }
    Store<kRows, kVectors>(d, t, to, sum);
  });
}

void Finish(const FinishTile& t, const Epilogue& epilogue) {
  VisitActivation(epilogue.activation, [&](auto activation) HWY_ATTR {
    VisitResidual(t.residual == nullptr ? Residual::kNone : epilogue.residual, [&](auto residual) HWY_ATTR {
      FinishRows<decltype(activation)::value, decltype(residual)::value>(t, epilogue.a, epilogue.b);
    });
  });
}

void CopyPixels(const float* src, int64_t src_stride, int64_t count, int64_t channels, float* dst, int64_t dst_stride) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  if (src_stride == channels && dst_stride == channels) {
    channels *= count;
    count = 1;
  }
  for (int64_t i = 0; i < count; ++i, src += src_stride, dst += dst_stride) {
    int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) hn::StoreU(hn::LoadU(d, src + c), d, dst + c);
    if (c < channels) {
      const size_t rest = static_cast<size_t>(channels - c);
      hn::StoreN(hn::LoadN(d, src + c, rest), d, dst + c, rest);
    }
  }
}

void Pack(const float* src, int64_t src_stride, int64_t count, int64_t channels, float* dst, int64_t dst_stride,
          const Prologue& prologue) {
  if (prologue.scale == nullptr) return CopyPixels(src, src_stride, count, channels, dst, dst_stride);
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto a = hn::Set(d, prologue.a);
  const auto b = hn::Set(d, prologue.b);
  VisitActivation(prologue.activation, [&](auto activation) HWY_ATTR {
    for (int64_t i = 0; i < count; ++i, src += src_stride, dst += dst_stride) {
      int64_t c = 0;
      for (; c + lanes <= channels; c += lanes) {
        const auto scale = hn::LoadU(d, prologue.scale + c), shift = hn::LoadU(d, prologue.shift + c);
        const auto y = hn::MulAdd(hn::LoadU(d, src + c), scale, shift);
        hn::StoreU(ApplyActivation<activation()>(d, y, a, b), d, dst + c);
      }
      if (c < channels) {
        const size_t rest = static_cast<size_t>(channels - c);
        const auto scale = hn::LoadN(d, prologue.scale + c, rest), shift = hn::LoadN(d, prologue.shift + c, rest);
        const auto y = hn::MulAdd(hn::LoadN(d, src + c, rest), scale, shift);
        hn::StoreN(ApplyActivation<activation()>(d, y, a, b), d, dst + c, rest);
      }
    }
  });
}

void Transpose(const float* src, int64_t src_stride, int64_t src_step, int64_t rows, int64_t columns, int64_t width,
               float* dst, int64_t dst_stride) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto index = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(src_stride)));
  for (int64_t j = 0; j < width; j += lanes) {
    const size_t count = static_cast<size_t>(std::clamp<int64_t>(columns - j, 0, lanes));
    const auto mask = hn::FirstN(d, count);
    for (int64_t i = 0; i < rows; ++i) {
      const auto x = hn::MaskedGatherIndex(mask, d, src + j * src_stride + i * src_step, index);
      hn::StoreU(x, d, dst + i * dst_stride + j);
    }
  }
}

template <int kVectors, int... kRowsLessOne>
void FillClose([[maybe_unused]] GemmOps& ops, std::integer_sequence<int, kRowsLessOne...>) {
  const auto fill = [&ops](auto rows) {
    // With 32 registers tiles of few rows, or of two vectors, gain nothing.
    if constexpr (!k32Registers || (kVectors == 1 && rows >= 8)) {
      ops.close[kVectors][1][rows] = &RunClose<rows, kVectors, 1>;
      ops.close[kVectors][2][rows] = &RunClose<rows, kVectors, 2>;
    }
  };
  (fill(std::integral_constant<int, kRowsLessOne + 1>()), ...);
}

template <int kVectors, int... kRowsLessOne>
void FillTiles(GemmOps& ops, std::integer_sequence<int, kRowsLessOne...>) {
  ((ops.tile[kVectors][kRowsLessOne + 1] = &RunTile<kRowsLessOne + 1, kVectors>), ...);
  ops.max_rows[kVectors] = static_cast<int>(sizeof...(kRowsLessOne));
  FillClose<kVectors>(ops, std::integer_sequence<int, kRowsLessOne...>());
}

GemmOps MakeOps() {
  GemmOps ops;
  ops.lanes = static_cast<int>(hn::Lanes(hn::ScalableTag<float>()));
  ops.wide = kWide;
  FillTiles<1>(ops, std::make_integer_sequence<int, MaxRows(1)>());
  FillTiles<2>(ops, std::make_integer_sequence<int, MaxRows(2)>());
  FillTiles<3>(ops, std::make_integer_sequence<int, MaxRows(3)>());
  FillTiles<4>(ops, std::make_integer_sequence<int, MaxRows(4)>());
  ops.finish = &Finish;
  ops.pack = &Pack;
  ops.transpose = &Transpose;
  return ops;
}

const GemmOps& Ops() {
  static const GemmOps ops = MakeOps();
  return ops;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Ops);

const GemmOps& GetGemmOps() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(Ops)();
}

bool BoundsOf(const Epilogue& epilogue, float& lo, float& hi) {
  lo = -std::numeric_limits<float>::infinity();
  hi = std::numeric_limits<float>::infinity();
  if (epilogue.activation == Activation::kRelu) lo = 0;
  if (epilogue.activation == Activation::kClip) {
    lo = epilogue.a;
    hi = epilogue.b;
  }
  return epilogue.activation == Activation::kNone || epilogue.activation == Activation::kRelu ||
         epilogue.activation == Activation::kClip;
}

}  // namespace crease
#endif
