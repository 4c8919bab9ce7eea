// SPDX-License-Identifier: Apache-2.0
// Rows of a source with their padding, copied so that every tap of every pixel exists.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/gemm_tile.h"

namespace crease {

// The band under dst rows [begin, end) of one image: (end - begin - 1) * stride_h + span_h rows of `width` pixels,
// `pitch` floats apart. Tap (i, j) of dst pixel (y, x) of the band is at
// y * line_stride() + i * dilation_h * row_floats() + (x * stride_w + j * dilation_w) * pitch.
//
// `planar`: the source is plain, (N, C, H, W); pitch is 1, and a row of the band holds the source row's channels after
// each other: channel c is c * width() further.
struct ConvBand {
  ConvShape shape;
  int64_t pitch = 0;
  bool planar = false;

  int64_t width() const { return (shape.out_width - 1) * shape.stride_w + shape.span_w(); }
  int64_t row_floats() const { return width() * (planar ? shape.channels : pitch); }
  int64_t line_stride() const { return shape.stride_h * row_floats(); }
  int64_t floats(int64_t lines) const { return Rows(0, lines) * row_floats(); }
  // The most dst rows whose band stays within `limit` floats; 1 at the least, one image's at the most.
  int64_t LinesWithin(int64_t limit) const;
  // Rows of the band under dst rows [begin, end), and which row of all images' lies in the i-th; -1 for padding.
  int64_t Rows(int64_t begin, int64_t end) const { return (end - begin - 1) * shape.stride_h + shape.span_h(); }
  int64_t SourceRow(int64_t begin, int64_t i) const;
  // Pixels of a row that are padding before the source's, and the source's.
  int64_t left() const { return std::min(shape.pad_left, width()); }
  int64_t inside() const { return std::clamp<int64_t>(width() - left(), 0, shape.width); }

  // Fills the band under dst rows [begin, end), counted over all images but of one. Padding is zero after the prologue.
  void Pack(const GemmOps& ops, const ConvOperands& operands, const Prologue& prologue, int64_t begin, int64_t end,
            float* band) const;
  // The same for a planar band.
  void PackPlanes(const float* src, int64_t begin, int64_t end, float* band) const;
};

}  // namespace crease
