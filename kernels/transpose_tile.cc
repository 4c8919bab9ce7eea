// SPDX-License-Identifier: Apache-2.0
// Transposition of float tiles: 4 x 4 blocks in registers, interleaving where one side is 2 to 4 wide.
#include <algorithm>
#include <cstddef>

#include "kernels/strided_copy.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/transpose_tile.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void ScalarTile(const float* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows, int64_t columns) {
  for (int64_t t = 0; t < columns; ++t) {
    for (int64_t i = 0; i < rows; ++i) dst[t * dst_stride + i] = src[i * src_stride + t];
  }
}

// dst is dense with 2 to 4 rows: planes to pixels (an image's RGB).
template <int kRows>
int64_t InterleaveRows(const float* src, int64_t src_stride, float* dst, int64_t columns) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t t = 0;
  for (; t + lanes <= columns; t += lanes) {
    const auto r0 = hn::LoadU(d, src + t);
    const auto r1 = hn::LoadU(d, src + src_stride + t);
    if constexpr (kRows == 2) {
      hn::StoreInterleaved2(r0, r1, d, dst + 2 * t);
    } else {
      const auto r2 = hn::LoadU(d, src + 2 * src_stride + t);
      if constexpr (kRows == 3) {
        hn::StoreInterleaved3(r0, r1, r2, d, dst + 3 * t);
      } else {
        const auto r3 = hn::LoadU(d, src + 3 * src_stride + t);
        hn::StoreInterleaved4(r0, r1, r2, r3, d, dst + 4 * t);
      }
    }
  }
  return t;
}

// src is dense with 2 to 4 columns: pixels to planes.
template <int kColumns>
int64_t DeinterleaveColumns(const float* src, float* dst, int64_t dst_stride, int64_t rows) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= rows; i += lanes) {
    hn::Vec<decltype(d)> c0, c1, c2, c3;
    if constexpr (kColumns == 2) hn::LoadInterleaved2(d, src + 2 * i, c0, c1);
    if constexpr (kColumns == 3) hn::LoadInterleaved3(d, src + 3 * i, c0, c1, c2);
    if constexpr (kColumns == 4) hn::LoadInterleaved4(d, src + 4 * i, c0, c1, c2, c3);
    hn::StoreU(c0, d, dst + i);
    hn::StoreU(c1, d, dst + dst_stride + i);
    if constexpr (kColumns >= 3) hn::StoreU(c2, d, dst + 2 * dst_stride + i);
    if constexpr (kColumns == 4) hn::StoreU(c3, d, dst + 3 * dst_stride + i);
  }
  return i;
}

// rows and columns are multiples of 4.
void Blocks(const float* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows, int64_t columns) {
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> dw;
  for (int64_t t = 0; t < columns; t += 4) {
    for (int64_t i = 0; i < rows; i += 4) {
      const float* from = src + i * src_stride + t;
      const auto r0 = hn::LoadU(d, from);
      const auto r1 = hn::LoadU(d, from + src_stride);
      const auto r2 = hn::LoadU(d, from + 2 * src_stride);
      const auto r3 = hn::LoadU(d, from + 3 * src_stride);
      const auto lo01 = hn::BitCast(dw, hn::InterleaveLower(d, r0, r1));
      const auto lo23 = hn::BitCast(dw, hn::InterleaveLower(d, r2, r3));
      const auto hi01 = hn::BitCast(dw, hn::InterleaveUpper(d, r0, r1));
      const auto hi23 = hn::BitCast(dw, hn::InterleaveUpper(d, r2, r3));
      float* to = dst + t * dst_stride + i;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, lo01, lo23)), d, to);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, lo01, lo23)), d, to + dst_stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dw, hi01, hi23)), d, to + 2 * dst_stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dw, hi01, hi23)), d, to + 3 * dst_stride);
    }
  }
}

void Tile(const float* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows, int64_t columns) {
  if (rows >= 2 && rows <= 4 && dst_stride == rows) {
    const int64_t done = rows == 2   ? InterleaveRows<2>(src, src_stride, dst, columns)
                         : rows == 3 ? InterleaveRows<3>(src, src_stride, dst, columns)
                                     : InterleaveRows<4>(src, src_stride, dst, columns);
    return ScalarTile(src + done, src_stride, dst + done * dst_stride, dst_stride, rows, columns - done);
  }
  if (columns >= 2 && columns <= 4 && src_stride == columns) {
    const int64_t done = columns == 2   ? DeinterleaveColumns<2>(src, dst, dst_stride, rows)
                         : columns == 3 ? DeinterleaveColumns<3>(src, dst, dst_stride, rows)
                                        : DeinterleaveColumns<4>(src, dst, dst_stride, rows);
    return ScalarTile(src + done * src_stride, src_stride, dst + done, dst_stride, rows - done, columns);
  }
  // 32 x 32 floats of each side stay in L1 even where strides alias.
  constexpr int64_t kSide = 32;
  for (int64_t i = 0; i < rows; i += kSide) {
    for (int64_t t = 0; t < columns; t += kSide) {
      const int64_t n = std::min(kSide, rows - i);
      const int64_t m = std::min(kSide, columns - t);
      const int64_t n4 = n & ~int64_t{3};
      const int64_t m4 = m & ~int64_t{3};
      const float* from = src + i * src_stride + t;
      float* to = dst + t * dst_stride + i;
      Blocks(from, src_stride, to, dst_stride, n4, m4);
      ScalarTile(from + n4 * src_stride, src_stride, to + n4, dst_stride, n - n4, m4);
      ScalarTile(from + m4, src_stride, to + m4 * dst_stride, dst_stride, n, m - m4);
    }
  }
}

TransposeTile GetTile() { return Tile; }

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {
HWY_EXPORT(GetTile);
}

TransposeTile FindTransposeTile() {
  InitTargets();
  return HWY_DYNAMIC_DISPATCH(GetTile)();
}

}  // namespace crease
#endif  // HWY_ONCE
