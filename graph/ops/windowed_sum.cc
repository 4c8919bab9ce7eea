// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/windowed_sum.h"

#include <algorithm>

namespace crease::ops {
namespace {

constexpr int64_t kTile = 64;  // output pixels at a time; a constant, for the compiler to vectorize over

// accumulators[i][p] += sum over k of weights(i, k) * columns[k][p] for kRows rows.
template <int kRows>
void MultiplyTile(const WindowedSum& sum, const double* weights, const double* columns, int64_t depth_inputs,
                  double* accumulators) {
  double local[kRows][kTile];
  std::copy(accumulators, accumulators + kRows * kTile, &local[0][0]);
  for (int64_t c = 0; c < depth_inputs; ++c) {
    for (int64_t t = 0; t < sum.taps; ++t) {
      const double* column = columns + (c * sum.taps + t) * kTile;
      for (int row = 0; row < kRows; ++row) {
        const double weight = weights[row * sum.weight_output + c * sum.weight_input + t];
        for (int64_t p = 0; p < kTile; ++p) local[row][p] += weight * column[p];
      }
    }
  }
  std::copy(&local[0][0], &local[0][0] + kRows * kTile, accumulators);
}

// columns[c * taps + t][p] = the input that tap t of pixel p reads, or 0.
void GatherColumns(const WindowedSum& sum, const double* src, std::span<const int64_t> sources, int64_t width,
                   std::vector<double>& columns) {
  for (int64_t c = 0; c < sum.group_inputs; ++c) {
    const double* plane = src + c * sum.src_pixels;
    for (int64_t t = 0; t < sum.taps; ++t) {
      double* column = columns.data() + (c * sum.taps + t) * kTile;
      const int64_t* source = sources.data() + t * kTile;
      for (int64_t p = 0; p < width; ++p) column[p] = source[p] >= 0 ? plane[source[p]] : 0.0;
    }
  }
}

void ComputeGroupTile(const WindowedSum& sum, int64_t n, int64_t g, int64_t first, int64_t width,
                      const std::vector<double>& columns) {
  double accumulators[4 * kTile];
  const int64_t outputs = sum.group_outputs;
  for (int64_t m = 0; m < outputs;) {
    const int64_t rows = outputs - m >= 4 ? 4 : 1;
    for (int64_t row = 0; row < rows; ++row) {
      const double start = sum.bias ? sum.bias[g * outputs + m + row] : 0.0;
      std::fill_n(accumulators + row * kTile, kTile, start);
    }
    const double* weights = sum.weights + g * sum.weight_group + m * sum.weight_output;
    if (rows == 4) {
      MultiplyTile<4>(sum, weights, columns.data(), sum.group_inputs, accumulators);
    } else {
      MultiplyTile<1>(sum, weights, columns.data(), sum.group_inputs, accumulators);
    }
    for (int64_t row = 0; row < rows; ++row) {
      double* dst = sum.dst + ((n * sum.group + g) * outputs + m + row) * sum.dst_pixels + first;
      std::copy_n(accumulators + row * kTile, width, dst);
    }
    m += rows;
  }
}

}  // namespace

void ComputeWindowedSum(const WindowedSum& sum) {
  std::vector<double> columns(static_cast<size_t>(sum.group_inputs * sum.taps * kTile), 0.0);
  std::vector<int64_t> sources(static_cast<size_t>(sum.taps * kTile), -1);
  std::vector<int64_t> pixel(static_cast<size_t>(sum.taps));
  for (int64_t first = 0; first < sum.dst_pixels; first += kTile) {
    const int64_t width = std::min(kTile, sum.dst_pixels - first);
    for (int64_t p = 0; p < width; ++p) {
      sum.sources(first + p, pixel);
      for (int64_t t = 0; t < sum.taps; ++t)
        sources[static_cast<size_t>(t * kTile + p)] = pixel[static_cast<size_t>(t)];
    }
    for (int64_t n = 0; n < sum.batch; ++n) {
      for (int64_t g = 0; g < sum.group; ++g) {
        const double* src = sum.src + (n * sum.group + g) * sum.group_inputs * sum.src_pixels;
        GatherColumns(sum, src, sources, width, columns);
        ComputeGroupTile(sum, n, g, first, width, columns);
      }
    }
  }
}

}  // namespace crease::ops
