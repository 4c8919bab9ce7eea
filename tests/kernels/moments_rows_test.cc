// SPDX-License-Identifier: Apache-2.0
#include "kernels/moments_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/reference/batch_norm.h"

namespace crease::test {
namespace {

TEST(ColumnMoments, OfCachesAndOfMemory) {
  constexpr int64_t kPitch = 261, kMostRows = 512;
  const Tensor x = RandomTensor({kMostRows * kPitch}, 1, 3, 5);
  ForEachTarget([&](const char* target) {
    const ColumnMoments moments = FindColumnMoments(DType::kFloat32);
    for (const ReadFrom from : {ReadFrom::kCaches, ReadFrom::kMemory, ReadFrom::kFetched}) {
      for (const int64_t rows : {int64_t{1}, int64_t{5}, int64_t{33}, int64_t{131}, kMostRows}) {
        for (const int64_t columns : {1, 16, 17, 64, 130, 256}) {
          std::vector<double> mean(static_cast<size_t>(columns)), m2(mean.size());
          moments(x.bytes(), kPitch, rows, columns, from, 1, mean.data(), m2.data());
          for (int64_t c = 0; c < columns; ++c) {
            const ChannelMoments exact = MomentsOf(rows, [&](int64_t i) { return x.AsDouble(i * kPitch + c); });
            const auto k = static_cast<size_t>(c);
            // Of values in [3, 5] in single precision, about a pivot that is up to two deviations off the mean.
            const std::string what = std::string(target) + " rows " + std::to_string(rows) + " column " +
                                     std::to_string(c) + " of " + std::to_string(columns);
            ASSERT_NEAR(mean[k], exact.mean, 3e-7) << what;
            ASSERT_NEAR(m2[k], exact.squares, 1e-6 * exact.squares + 1e-12) << what;
          }
        }
      }
    }
  });
}

// A first pivot that is as far off as one may be without the block being read again, in blocks as long as they come.
TEST(ColumnMoments, FirstRowsOfTheirOwn) {
  constexpr int64_t kRows = 512, kColumns = 160;
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 1);
  Tensor x = Tensor::Allocate(DType::kFloat32, {kRows * kColumns}).value();
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t c = 0; c < kColumns; ++c) {
      const float shift = i < 16 ? 0.02f * static_cast<float>(c) : 0;  // up to 3.2 deviations
      x.mutable_data<float>()[i * kColumns + c] = normal(random) + shift;
    }
  }
  ForEachTarget([&](const char* target) {
    for (const ReadFrom from : {ReadFrom::kCaches, ReadFrom::kMemory, ReadFrom::kFetched}) {
      std::vector<double> mean(kColumns), m2(kColumns);
      FindColumnMoments(DType::kFloat32)(x.bytes(), kColumns, kRows, kColumns, from, 1, mean.data(), m2.data());
      for (int64_t c = 0; c < kColumns; ++c) {
        const ChannelMoments exact = MomentsOf(kRows, [&](int64_t i) { return x.AsDouble(i * kColumns + c); });
        const auto k = static_cast<size_t>(c);
        ASSERT_NEAR(mean[k], exact.mean, 3e-7) << target << " column " << c;
        ASSERT_NEAR(m2[k], exact.squares, 1e-6 * exact.squares) << target << " column " << c;
      }
    }
  });
}

}  // namespace
}  // namespace crease::test
