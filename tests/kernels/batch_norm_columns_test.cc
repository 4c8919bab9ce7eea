// SPDX-License-Identifier: Apache-2.0
#include "kernels/batch_norm_columns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/reference/batch_norm.h"

namespace crease::test {
namespace {

// Rows of 3 elements more than there are channels, in memory of kPadding: it may neither be read as values nor written.
constexpr int64_t kExtra = 3;
constexpr double kPadding = -3e4;

// In place or not, dealt out to one worker, to two, or one unit a call: the same bits, as double precision has them.
// `far`: the rows whose mean is the first pivot are so far from the rest, in every third channel. `drift`: rows are so
// far from those 49 before them. `of_var`: how far off a variance may be.
void CheckColumns(DType dtype, int64_t rows, int64_t channels, float far = 0, float drift = 0, double of_var = 1e-6) {
  const int64_t pitch = channels + kExtra, count = rows * pitch;
  constexpr int64_t kSampled = 8;
  Tensor values = RandomTensor({count}, 1);
  for (int64_t i = 0; i < count; ++i) {
    float& value = values.mutable_data<float>()[i];
    const int64_t channel = i % pitch;
    value = channel < channels ? 2 * value + 1 : static_cast<float>(kPadding);
    if (channel >= channels) continue;
    if (i / pitch >= kSampled && channel % 3 == 1) value += far;
    value += drift * static_cast<float>(i / pitch / 49);
  }
  const Tensor x = values.ConvertedTo(dtype).value();
  std::vector<ChannelMoments> wanted;
  for (int64_t c = 0; c < channels; ++c) {
    wanted.push_back(MomentsOf(rows, [&](int64_t row) { return x.AsDouble(row * pitch + c); }));
  }
  std::vector<double> weight, bias;
  for (int64_t c = 0; c < channels; ++c) {
    weight.push_back(0.5 + 0.125 * static_cast<double>(c % 9));
    bias.push_back(static_cast<double>(c % 7) - 3);
  }
  const double rounding = dtype == DType::kFloat16 ? 0x1p-11 : dtype == DType::kBFloat16 ? 0x1p-8 : 0;
  ForEachTarget([&](const char* target) {
    const std::string what = std::string(target) + " " + Name(dtype) + " rows " + std::to_string(rows) + " channels " +
                             std::to_string(channels);
    const ColumnNorm norm = FindColumnNorm(dtype);
    ASSERT_GE(norm.most_rows, rows) << what;
    Tensor first;
    std::vector<double> first_mean, first_var;
    for (const bool in_place : {false, true}) {
      for (const int64_t share : {channels, (channels / 2 / norm.unit + 1) * norm.unit, norm.unit}) {
        Tensor y = Tensor::Allocate(dtype, {count}).value();
        std::memcpy(y.mutable_data<std::byte>(), x.bytes(), x.byte_size());
        NormTensor t;
        t.src = in_place ? y.bytes() : x.bytes();
        t.dst = y.mutable_data<std::byte>();
        t.dtype = dtype;
        t.layout = Layout::kChannelsLast;
        t.batch = rows;
        t.channels = channels;
        std::vector<double> mean(weight.size(), -1), var(weight.size(), -1);
        for (int64_t c = 0; c < channels; c += share) {
          norm.run(t, pitch, pitch, {weight, bias, 1e-5}, c, std::min(channels, c + share), mean.data(), var.data());
        }
        if (first.size() == 0) {
          for (int64_t i = 0; i < count; ++i) {
            const int64_t c = i % pitch;
            if (c >= channels) {
              ASSERT_EQ(y.AsDouble(i), x.AsDouble(i)) << what << " between rows";
              continue;
            }
            const auto k = static_cast<size_t>(c);
            const ChannelMoments& exact = wanted[k];
            ASSERT_NEAR(mean[k], exact.mean, 1e-6 * std::sqrt(exact.var)) << what;
            ASSERT_NEAR(var[k], exact.var, of_var * exact.var) << what;
            const double want = ChannelMap{exact.mean, exact.var, weight[k], bias[k]}(x.AsDouble(i));
            ASSERT_NEAR(y.AsDouble(i), want, (1.5e-6 + rounding) * (1 + std::fabs(want))) << what << " at " << i;
          }
          first = std::move(y);
          first_mean = mean;
          first_var = var;
          continue;
        }
        ASSERT_EQ(std::memcmp(y.bytes(), first.bytes(), y.byte_size()), 0) << what << " share " << share;
        ASSERT_EQ(mean, first_mean) << what << " share " << share;
        ASSERT_EQ(var, first_var) << what << " share " << share;
      }
    }
  });
}

TEST(BatchNormColumns, AwkwardSizes) {
  for (const int64_t rows : {1, 2, 7, 8, 9, 32, 33, 49, 128, 129, 196}) {
    for (const int64_t channels : {1, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 147}) {
      CheckColumns(DType::kFloat32, rows, channels);
    }
  }
  CheckColumns(DType::kFloat32, 512, 259);
}

TEST(BatchNormColumns, EveryType) {
  for (const DType dtype : {DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    for (const int64_t channels : {1, 33, 64, 147}) {
      CheckColumns(dtype, 2, channels);
      CheckColumns(dtype, 49, channels);
    }
    CheckColumns(dtype, 512, 130);
  }
}

TEST(BatchNormColumns, RowsAreReadAgainWherePivotsWereFarOff) {
  for (const int64_t rows : {200, 512}) {
    CheckColumns(DType::kFloat32, rows, 70, 1000);
    CheckColumns(DType::kFloat64, rows, 70, 1000);
  }
}

// About the means of the first rows, which are not good enough for so many, it would be 8e-7.
TEST(BatchNormColumns, MeansThatDriftFromImageToImage) { CheckColumns(DType::kFloat32, 392, 300, 0, 10, 6e-7); }

TEST(BatchNormColumns, UnitsAreWholeLines) {
  ForEachTarget([&](const char* target) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
      EXPECT_EQ(FindColumnNorm(dtype).unit * static_cast<int64_t>(ByteSize(dtype)) % 128, 0) << target << Name(dtype);
    }
    EXPECT_EQ(FindColumnNorm(DType::kInt32).run, nullptr) << target;
  });
}

}  // namespace
}  // namespace crease::test
