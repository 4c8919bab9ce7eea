// SPDX-License-Identifier: Apache-2.0
// Mean and sum of squared deviations in vector code, for batch statistics. Compiled for every target.
#pragma once

#include <cstdint>

#include "kernels/view.h"

namespace crease {

// Of `count` values: their mean and the sum of squared deviations from it.
struct Moments {
  double count = 0, mean = 0, m2 = 0;

  // Chan, Golub, LeVeque 1979: moments of both sets together.
  void Merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double n = count + other.count;
    const double delta = other.mean - mean;
    mean += delta * (other.count / n);
    m2 += other.m2 + delta * delta * (count * other.count / n);
    count = n;
  }
};

// float32, float64, float16, bfloat16.

// Of `runs` runs of n adjacent elements, `stride` elements apart; runs * n at most kMomentsBlock unless
// there is one run.
inline constexpr int64_t kMomentsBlock = 4096;
using RunMoments = Moments (*)(const void* src, int64_t n, int64_t runs, int64_t stride);
RunMoments FindRunMoments(DType dtype);

// Of every one of `columns` adjacent columns, at most kMaxColumns, of `rows` >= 1 rows that are `pitch`
// elements apart. `from`: where most of the tensor is read from, which changes the order of sums; kFetched: from
// memory, as kMemory, and what is due next is asked for. m2 comes times `factor`.
inline constexpr int64_t kMaxColumns = 256;
enum class ReadFrom : uint8_t { kMemory, kFetched, kCaches };
using ColumnMoments = void (*)(const void* src, int64_t pitch, int64_t rows, int64_t columns, ReadFrom from,
                               double factor, double* mean, double* m2);
ColumnMoments FindColumnMoments(DType dtype);

}  // namespace crease
