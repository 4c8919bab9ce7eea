// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/conv.h"

namespace crease::test {

std::vector<double> Convolve(const ConvShape& s, const ConvSource& source, const float* weights, const float* bias) {
  // One output; `w` is its filter.
  const auto sum = [&](int64_t n, int64_t out_y, int64_t out_x, int64_t first_channel, const float* w) {
    double total = 0;
    for (int64_t c = 0; c < s.group_channels(); ++c) {
      for (int64_t i = 0; i < s.kernel_h; ++i) {
        for (int64_t j = 0; j < s.kernel_w; ++j, ++w) {
          const int64_t y = out_y * s.stride_h + i * s.dilation_h - s.pad_top;
          const int64_t x = out_x * s.stride_w + j * s.dilation_w - s.pad_left;
          if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;  // padding is 0
          total += source(n, y, x, first_channel + c) * static_cast<double>(*w);
        }
      }
    }
    return total;
  };
  const int64_t filter = s.group_channels() * s.kernel_h * s.kernel_w;
  std::vector<double> outputs;
  outputs.reserve(static_cast<size_t>(s.out_pixels() * s.filters));
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t y = 0; y < s.out_height; ++y) {
      for (int64_t x = 0; x < s.out_width; ++x) {
        for (int64_t k = 0; k < s.filters; ++k) {
          const int64_t first_channel = k / s.group_filters() * s.group_channels();
          const double start = bias != nullptr ? static_cast<double>(bias[k]) : 0;
          outputs.push_back(start + sum(n, y, x, first_channel, weights + k * filter));
        }
      }
    }
  }
  return outputs;
}

}  // namespace crease::test
