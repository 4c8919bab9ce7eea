// SPDX-License-Identifier: Apache-2.0
#include "graph/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace crease {
namespace {

TEST(ElementCount, MultipliesChecksAndKeepsZero) {
  EXPECT_EQ(*ElementCount(Shape{}), 1);
  EXPECT_EQ(*ElementCount(Shape{2, 3, 5}), 30);
  EXPECT_EQ(*ElementCount(Shape{2, 0, 5}), 0);
  EXPECT_EQ(*ElementCount(Shape{int64_t{1} << 40, 0, int64_t{1} << 40}), 0);
  EXPECT_EQ(ElementCount(Shape{2, -1}).error().code, ErrorCode::kInvalidModel);
  EXPECT_EQ(ElementCount(Shape{int64_t{1} << 40, int64_t{1} << 40}).error().code, ErrorCode::kLimitExceeded);
}

TEST(Tensor, ViewChecksItsLength) {
  const std::vector<std::byte> bytes(12);
  EXPECT_TRUE(Tensor::View(DType::kFloat32, {3}, bytes, nullptr).ok());
  EXPECT_FALSE(Tensor::View(DType::kFloat32, {2}, bytes, nullptr).ok());
  EXPECT_FALSE(Tensor::View(DType::kFloat32, {4}, bytes, nullptr).ok());
  EXPECT_FALSE(Tensor::View(DType::kFloat64, {1}, bytes, nullptr).ok());
}

TEST(Tensor, ReadsUnalignedElementsAndAlignsOnRequest) {
  alignas(8) std::byte storage[16] = {};
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(storage + 1, values, sizeof(values));
  const auto view = Tensor::View(DType::kFloat32, {2}, std::span(storage + 1, 8), nullptr);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->elements<float>()[0], 1.5f);
  EXPECT_EQ(view->elements<float>()[1], -2.0f);
  const auto aligned = view->Aligned();
  ASSERT_TRUE(aligned.ok());
  EXPECT_NE(aligned->bytes(), view->bytes());
  EXPECT_EQ(aligned->data<float>()[1], -2.0f);
}

TEST(Tensor, AllocateIsZeroedAndRefusesTheImpossible) {
  const auto tensor = Tensor::Allocate(DType::kInt64, {3});
  ASSERT_TRUE(tensor.ok());
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(tensor->AsInt64(i), 0);
  EXPECT_FALSE(Tensor::Allocate(DType::kFloat32, {int64_t{1} << 62}).ok());
  EXPECT_FALSE(Tensor::Allocate(DType::kFloat32, {int64_t{1} << 50}).ok());
}

TEST(Tensor, ConvertsWithSaturation) {
  const Tensor source = Tensor::From<float>({5}, {1.9f, -1.9f, 1e20f, -1e20f, std::nanf("")});
  const Tensor ints = *source.ConvertedTo(DType::kInt32);
  EXPECT_EQ(ints.AsInt64(0), 1);
  EXPECT_EQ(ints.AsInt64(1), -1);
  EXPECT_EQ(ints.AsInt64(2), std::numeric_limits<int32_t>::max());
  EXPECT_EQ(ints.AsInt64(3), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(ints.AsInt64(4), 0);
  const Tensor bools = *source.ConvertedTo(DType::kBool);
  EXPECT_EQ(bools.AsInt64(0), 1);
}

TEST(Half, RoundTripsEveryBitPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      EXPECT_EQ(FloatToHalf(value), half) << bits;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3C00);             // a tie, to even: down
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), 0x3C02);         // a tie, to even: up
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);  // past the tie
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7BFF);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7C00);  // to infinity
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);  // half of the smallest denormal, to even
  EXPECT_EQ(FloatToHalf(-0x1.8p-25f), 0x8001);
}

TEST(BFloat16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(FloatToBFloat16(1.0f), 0x3F80);
  EXPECT_EQ(FloatToBFloat16(1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(FloatToBFloat16(1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::nanf("")))));
  EXPECT_EQ(BFloat16ToFloat(FloatToBFloat16(std::numeric_limits<float>::max())), INFINITY);
}

}  // namespace
}  // namespace crease
