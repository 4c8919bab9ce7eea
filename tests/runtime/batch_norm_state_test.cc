// SPDX-License-Identifier: Apache-2.0
// What a BatchNorm keeps between calls: rounding, counts, files that hold other things as well, children of fork().
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "crease/batch_norm.h"
#include "graph/npz.h"
#include "graph/safetensors.h"
#include "tests/support/forks.h"
#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

constexpr int64_t kChannels = 3;
const Shape kShape = {2, kChannels, 5, 7};
constexpr const char* kNames[] = {"weight", "bias", "running_mean", "running_var"};

BatchNormOptions Of(DType dtype) {
  BatchNormOptions options;
  options.num_features = kChannels;
  options.dtype = dtype;
  options.threads = 2;
  return options;
}

// Of kShape and the norm's dtype.
Result<Tensor> Forward(BatchNorm& norm) {
  Tensor wide = Tensor::Allocate(DType::kFloat64, kShape).value();
  for (int64_t i = 0; i < wide.size(); ++i) wide.mutable_data<double>()[i] = std::sin(0.7 * static_cast<double>(i));
  const DType dtype = norm.options().dtype;
  const Tensor x = wide.ConvertedTo(dtype).value();
  Tensor y = Tensor::Allocate(dtype, kShape).value();
  CREASE_RETURN_IF_ERROR(
      norm.forward({x.bytes(), dtype, kShape, {}}, {y.mutable_data<std::byte>(), dtype, kShape, {}}));
  return y;
}

std::string Message(const Result<void>& result) { return result.ok() ? "" : result.error().message; }

TEST(BatchNormState, ValuesAreRoundedAsTheyAreSaved) {
  const test::TemporaryFolder folder;
  const std::vector<double> third(kChannels, 1.0 / 3), rounded(kChannels, static_cast<double>(1.0f / 3));
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
    const std::vector<double>& kept = dtype == DType::kFloat64 ? third : rounded;
    auto norm = BatchNorm2d::create(Of(dtype)).value();
    NamedTensors doubles;
    for (const char* name : kNames) {
      ASSERT_TRUE(norm.set_state(name, third).ok());
      EXPECT_EQ(*norm.state(name), kept) << Name(dtype) << " " << name;
      doubles.emplace_back(name, Tensor::From<double>({kChannels}, third));
    }
    norm.eval();
    const Tensor want = Forward(norm).value();
    for (const char* suffix : {".npz", ".safetensors"}) {
      const std::string saved = folder / (std::string("saved") + suffix),
                        given = folder / (std::string("f64") + suffix);
      ASSERT_TRUE(norm.save(saved).ok());
      ASSERT_TRUE((suffix == std::string(".npz") ? WriteNpz(given, doubles) : WriteSafetensors(given, doubles)).ok());
      for (const std::string& path : {saved, given}) {
        auto other = BatchNorm2d::create(Of(dtype)).value();
        ASSERT_TRUE(other.load(path).ok());
        for (const char* name : kNames)
          EXPECT_EQ(*other.state(name), kept) << Name(dtype) << " " << path << " " << name;
        other.eval();
        const Tensor got = Forward(other).value();
        EXPECT_EQ(std::memcmp(got.bytes(), want.bytes(), want.byte_size()), 0) << Name(dtype) << " " << path;
      }
    }
  }
}

TEST(BatchNormState, CountsOfBatchesStayInRange) {
  BatchNormOptions options = Of(DType::kFloat32);
  options.momentum = std::nullopt;
  auto norm = BatchNorm2d::create(options).value();
  EXPECT_EQ(Message(norm.set_num_batches_tracked(-1)), "num_batches_tracked: expected an integer >= 0, got -1");
  EXPECT_EQ(norm.num_batches_tracked(), 0);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const int64_t count : {kMost - 1, kMost}) {
    ASSERT_TRUE(norm.set_num_batches_tracked(count).ok());
    ASSERT_TRUE(Forward(norm).ok());
    EXPECT_EQ(norm.num_batches_tracked(), kMost);
    const std::vector<double> means = norm.state("running_mean").value();
    for (const double mean : means) EXPECT_LT(std::fabs(mean), 1e-6);
  }
}

TEST(BatchNormState, BatchStatisticsNeedEps) {
  constexpr const char* kMessage = "batch statistics: expected eps > 0, got 0";
  BatchNormOptions options = Of(DType::kFloat32);
  options.eps = 0;
  auto norm = BatchNorm2d::create(options).value();
  const auto trained = Forward(norm);
  ASSERT_FALSE(trained.ok());
  EXPECT_EQ(trained.error().message, kMessage);
  EXPECT_EQ(norm.num_batches_tracked(), 0);
  norm.eval();
  EXPECT_TRUE(Forward(norm).ok());
  options.track_running_stats = false;
  auto untracked = BatchNorm2d::create(options).value();
  untracked.eval();
  const auto evaluated = Forward(untracked);
  ASSERT_FALSE(evaluated.ok());
  EXPECT_EQ(evaluated.error().message, kMessage);
}

TEST(BatchNormState, DataMayBeNullWhereThereIsNone) {
  std::vector<float> data(2 * kChannels);
  const Shape shape = {2, kChannels, 1, 1}, none = {0, kChannels, 1, 1};
  for (const bool training : {true, false}) {
    auto norm = BatchNorm2d::create(Of(DType::kFloat32)).value();
    if (!training) norm.eval();
    const auto message = [&](const void* x, void* y, const Shape& of) {
      return Message(norm.forward({x, DType::kFloat32, of, {}}, {y, DType::kFloat32, of, {}}));
    };
    EXPECT_EQ(message(data.data(), data.data(), shape), "");
    EXPECT_EQ(message(nullptr, data.data(), shape), "x: data is null");
    EXPECT_EQ(message(data.data(), nullptr, shape), "y: data is null");
    EXPECT_EQ(message(nullptr, nullptr, none),
              training ? "batch statistics: expected more than one value a channel, got 0" : "");
  }
}

// The file with every `from` in it as `to`, of the same length.
void Replace(const std::string& path, const std::string& from, const std::string& to) {
  std::ifstream file(path, std::ios::binary);
  std::string whole((std::istreambuf_iterator<char>(file)), {});
  ASSERT_NE(whole.find(from), std::string::npos);
  for (size_t at = 0; (at = whole.find(from, at)) != std::string::npos;) whole.replace(at, from.size(), to);
  std::ofstream(path, std::ios::binary) << whole;
}

TEST(BatchNormState, OtherArraysOfAFileMayBeAnything) {
  const test::TemporaryFolder folder;
  const Tensor floats = Tensor::From<float>({kChannels}, {1, 2, 3}), odd = Tensor::From<int16_t>({1}, {7});
  for (const bool npz : {true, false}) {
    const std::string path = folder / (npz ? "state.npz" : "state.safetensors");
    // Its int16 arrays become some of a dtype that Crease has not.
    const auto write = [&](const NamedTensors& tensors) {
      ASSERT_TRUE((npz ? WriteNpz(path, tensors) : WriteSafetensors(path, tensors)).ok());
      Replace(path, npz ? "'<i2'" : "\"I16\"", npz ? "'>i2'" : "\"F8X\"");
    };
    NamedTensors tensors = {{"other", odd}, {"weight", odd}, {"bn.num_batches_tracked", odd}};
    for (const char* name : kNames) tensors.emplace_back("bn." + std::string(name), floats);
    write(tensors);

    BatchNormOptions options = Of(DType::kFloat32);
    auto norm = BatchNorm2d::create(options).value();
    const std::string dtype = npz ? "dtype '>i2' is not supported" : "dtype 'F8X' is not supported";
    for (const char* prefix : {"bn.", ""}) {
      const Result<void> refused = norm.load(path, prefix);
      ASSERT_FALSE(refused.ok());
      const std::string message = refused.error().ToString();
      const std::string name = *prefix != '\0' ? "bn.num_batches_tracked" : "weight";
      EXPECT_NE(message.find(name + ": " + dtype), std::string::npos) << message;
    }
    EXPECT_EQ((*norm.state("weight"))[1], 1);
    options.track_running_stats = false;
    auto untracked = BatchNorm2d::create(options).value();
    EXPECT_EQ(Message(untracked.load(path, "bn.")), "");

    tensors[2].second = Tensor::Scalar<int32_t>(7);
    write(tensors);
    EXPECT_EQ(Message(norm.load(path, "bn.")), "");
    EXPECT_EQ(norm.num_batches_tracked(), 7);
    EXPECT_EQ((*norm.state("weight"))[1], 2);
  }
}

TEST(BatchNormState, AForkedChildMakesItsOwn) {
  test::ExpectChildrenCan([] {
    auto norm = BatchNorm2d::create(Of(DType::kFloat32)).value();
    static_cast<void>(Forward(norm));
  });
}

}  // namespace
}  // namespace crease
