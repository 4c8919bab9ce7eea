// SPDX-License-Identifier: Apache-2.0
// Batch normalization has the same bits wherever results lie: walks and directions follow from it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "kernels/batch_norm.h"
#include "kernels/cache_sizes.h"
#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

constexpr int64_t kInPlace = -1;

// Room for `count` floats from where a page begins, and for as many results.
class Places {
 public:
  explicit Places(size_t count)
      : bytes_((count * sizeof(float) + kPage - 1) / kPage * kPage), memory_(2 * (bytes_ + kPage)) {}

  float* src() { return reinterpret_cast<float*>(page()); }
  // So many bytes further on in its page than the source, less than a page; or in its place.
  float* dst(int64_t ahead) {
    return ahead == kInPlace ? src() : reinterpret_cast<float*>(page() + bytes_ + static_cast<size_t>(ahead));
  }

 private:
  static constexpr size_t kPage = 4096;
  std::byte* page() { return memory_.data() + kPage - reinterpret_cast<uintptr_t>(memory_.data()) % kPage; }

  size_t bytes_;
  std::vector<std::byte> memory_;
};

TEST(BatchNormPlaces, SmallPlanesSideBySide) {
  constexpr int64_t kBatch = 5, kChannels = 144, kPlane = 49, kCount = kBatch * kChannels * kPlane;
  const Tensor x = RandomTensor({kBatch, kChannels, kPlane}, 1);
  Places places(kCount);
  ForEachTarget([&](const char* target) {
    std::vector<float> want;
    for (const int64_t ahead : std::initializer_list<int64_t>{kInPlace, 0, 4, 64, 2044, 2048, 4032}) {
      std::copy_n(x.data<float>(), kCount, places.src());
      SerialExecutor executor;
      std::vector<double> mean(kChannels), var(kChannels);
      const NormTensor t{places.src(),   nullptr, places.dst(ahead), DType::kFloat32,
                         Layout::kPlain, kBatch,  kChannels,         kPlane};
      std::vector<std::byte> scratch(NormScratchBytes(t));
      NormalizeByBatch({executor, scratch.data()}, t, {}, mean, var);
      const float* y = places.dst(ahead);
      if (want.empty()) want.assign(y, y + kCount);
      EXPECT_EQ(std::memcmp(y, want.data(), kCount * sizeof(float)), 0) << target << ' ' << ahead;
    }
  });
}

// Rows that lie alike in their pages, by how many share them.
TEST(BatchNormPlaces, WideRows) {
  constexpr int64_t kRows = 70, kChannels = 2048, kCount = kRows * kChannels;
  const Tensor x = RandomTensor({kRows, kChannels}, 1);
  Places places(kCount);
  ForEachTarget([&](const char* target) {
    for (const int64_t rows : {int64_t{49}, kRows}) {
      std::vector<float> want;
      std::vector<double> want_mean, want_var;
      for (const int workers : {1, 2, 3, 4}) {
        for (const int64_t ahead : std::initializer_list<int64_t>{kInPlace, 0, 64, 256, 2048}) {
          std::copy_n(x.data<float>(), kCount, places.src());
          ThreadsExecutor executor(workers);
          std::vector<double> mean(kChannels), var(kChannels);
          const NormTensor t{places.src(),   nullptr, places.dst(ahead), DType::kFloat32,
                             Layout::kPlain, rows,    kChannels,         1};
          std::vector<std::byte> scratch(NormScratchBytes(t));
          NormalizeByBatch({executor, scratch.data()}, t, {}, mean, var);
          const float* y = places.dst(ahead);
          if (want.empty()) {
            want.assign(y, y + rows * kChannels);
            want_mean = mean;
            want_var = var;
          }
          ASSERT_EQ(std::memcmp(y, want.data(), want.size() * sizeof(float)), 0)
              << target << " rows " << rows << " workers " << workers << " ahead " << ahead;
          ASSERT_EQ(mean, want_mean);
          ASSERT_EQ(var, want_var);
        }
      }
    }
  });
}

// Rows of more than L2 holds, by how wide they are: the bits of a few rows at a time, which L2 holds.
TEST(BatchNormPlaces, RowsPastL2) {
  constexpr int kWorkers = 2;
  const auto floats = static_cast<int64_t>(2 * kWorkers * GetCacheSizes().l2 / sizeof(float));
  const Tensor x = RandomTensor({floats}, 1);
  Places places(static_cast<size_t>(floats));
  for (const int64_t channels : {136, 512, 960, 1000, 1280, 1536, 2048}) {
    const int64_t rows = (floats / channels - 1) | 1, count = rows * channels;
    std::vector<double> mean, var;
    for (int64_t c = 0; c < channels; ++c) {
      mean.push_back(0.25 * static_cast<double>(c % 11) - 1);
      var.push_back(1 + 0.5 * static_cast<double>(c % 3));
    }
    const NormMap map(DType::kFloat32, {}, mean, var);
    std::vector<float> want(static_cast<size_t>(count));
    ForEachTarget([&](const char* target) {
      SerialExecutor alone;
      for (int64_t row = 0; row < rows; row += 5) {
        const int64_t at = row * channels, part = std::min<int64_t>(5, rows - row);
        map.Apply({alone}, {x.data<float>() + at, nullptr, &want[static_cast<size_t>(at)], DType::kFloat32,
                            Layout::kPlain, part, channels, 1});
      }
      for (const int workers : {1, kWorkers}) {
        for (const int64_t ahead : std::initializer_list<int64_t>{kInPlace, 0, 64, 192, 320, 2048, 4032}) {
          std::copy_n(x.data<float>(), count, places.src());
          ThreadsExecutor executor(workers);
          map.Apply({executor},
                    {places.src(), nullptr, places.dst(ahead), DType::kFloat32, Layout::kPlain, rows, channels, 1});
          ASSERT_EQ(std::memcmp(places.dst(ahead), want.data(), want.size() * sizeof(float)), 0)
              << target << " channels " << channels << " workers " << workers << " ahead " << ahead;
        }
      }
    });
  }
}

}  // namespace
}  // namespace crease::test
