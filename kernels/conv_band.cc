// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_band.h"

#include <algorithm>

namespace crease {

int64_t ConvBand::LinesWithin(int64_t limit) const {
  const int64_t rows = limit / std::max<int64_t>(row_floats(), 1);
  return std::clamp<int64_t>((rows - shape.span_h()) / shape.stride_h + 1, 1, shape.out_height);
}

int64_t ConvBand::SourceRow(int64_t begin, int64_t i) const {
  const int64_t y = begin % shape.out_height * shape.stride_h - shape.pad_top + i;
  return y < 0 || y >= shape.height ? -1 : begin / shape.out_height * shape.height + y;
}

void ConvBand::PackPlanes(const float* src, int64_t begin, int64_t end, float* band) const {
  const ConvShape& s = shape;
  const int64_t first = begin % s.out_height * s.stride_h - s.pad_top;
  const int64_t rows = (end - begin - 1) * s.stride_h + s.span_h();
  const int64_t left = std::min(s.pad_left, width());
  const int64_t inside = std::clamp<int64_t>(width() - left, 0, s.width);
  src += begin / s.out_height * s.channels * s.height * s.width;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t y = first + i;
    for (int64_t c = 0; c < s.channels; ++c, band += width()) {
      if (y < 0 || y >= s.height) {
        std::fill_n(band, width(), 0.0f);
        continue;
      }
      std::fill_n(band, left, 0.0f);
      std::copy_n(src + (c * s.height + y) * s.width, inside, band + left);
      std::fill(band + left + inside, band + width(), 0.0f);
    }
  }
}

void ConvBand::Pack(const GemmOps& ops, const ConvOperands& operands, const Prologue& prologue, int64_t begin,
                    int64_t end, float* band) const {
  const int64_t rows = Rows(begin, end);
  const int64_t right = width() - left() - inside();
  for (int64_t i = 0; i < rows; ++i) {
    float* to = band + i * row_floats();
    const int64_t y = SourceRow(begin, i);
    if (y < 0) {
      std::fill_n(to, row_floats(), 0.0f);
      continue;
    }
    std::fill_n(to, left() * pitch, 0.0f);
    to += left() * pitch;
    ops.pack(operands.src + y * shape.width * operands.src_pitch, operands.src_pitch, inside(), shape.channels, to,
             pitch, prologue);
    std::fill_n(to + inside() * pitch, right * pitch, 0.0f);
  }
}

}  // namespace crease
