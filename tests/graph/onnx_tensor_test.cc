// SPDX-License-Identifier: Apache-2.0
// What the loader makes of tensors, good ones and each kind of bad one.
#include <gtest/gtest.h>

#include "tests/graph/onnx_test_util.h"

namespace crease::test {
namespace {

constexpr uint32_t kFloatData = 4, kInt32Data = 5, kInt64Data = 7, kDoubleData = 10, kUint64Data = 11;

// The tensor that loading the initializer gives.
Tensor LoadTensor(const Proto& initializer, const ImportOptions& options = {}) {
  Result<Graph> graph = Load(ModelWith(initializer), options);
  EXPECT_TRUE(graph.ok()) << graph.error().ToString();
  return graph.ok() ? *graph->constant(graph->FindValue("w")) : Tensor();
}

void ExpectRejectedTensor(const Proto& initializer, ErrorCode code, const std::string& part,
                          const ImportOptions& options = {}) {
  ExpectRejected(ModelWith(initializer), code, {"'w'", part}, options);
}

template <typename T>
std::vector<T> ValuesOf(const Tensor& tensor) {
  std::vector<T> values;
  const auto elements = tensor.elements<T>();
  for (int64_t i = 0; i < elements.size(); ++i) values.push_back(elements[i]);
  return values;
}

TEST(OnnxTensor, RawDataIsViewedInPlace) {
  const SharedBytes bytes(ModelWith(FloatTensor("w", {1, 4}, {1, 2, 3, 4})).Bytes());
  Result<Graph> graph = ImportOnnx(bytes.bytes, bytes.owner);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const Tensor& w = *graph->constant(graph->FindValue("w"));
  EXPECT_EQ(ValuesOf<float>(w), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_GE(w.bytes(), bytes.bytes.data());
  EXPECT_LE(w.bytes() + w.byte_size(), bytes.bytes.data() + bytes.bytes.size());
  EXPECT_EQ(w.owner(), bytes.owner);
}

TEST(OnnxTensor, PackedFloatsAreViewedInPlaceToo) {
  const Proto packed = TensorHeader("w", {2}, kOnnxFloat).PackedFixed<float>(kFloatData, {5, 6});
  const SharedBytes bytes(ModelWith(packed).Bytes());
  Result<Graph> graph = ImportOnnx(bytes.bytes, bytes.owner);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  const Tensor& w = *graph->constant(graph->FindValue("w"));
  EXPECT_EQ(ValuesOf<float>(w), (std::vector<float>{5, 6}));
  EXPECT_EQ(w.owner(), bytes.owner);
}

TEST(OnnxTensor, WithoutOwnerTheBytesAreCopied) {
  std::string text = ModelWith(FloatTensor("w", {1, 4}, {1, 2, 3, 4})).Bytes();
  Result<Graph> graph = ImportOnnx(std::as_bytes(std::span(text)), nullptr);
  ASSERT_TRUE(graph.ok());
  std::fill(text.begin(), text.end(), '\0');
  EXPECT_EQ(ValuesOf<float>(*graph->constant(graph->FindValue("w"))), (std::vector<float>{1, 2, 3, 4}));
}

TEST(OnnxTensor, TypedDataInManyPiecesIsDecoded) {
  Proto mixed = TensorHeader("w", {5}, kOnnxFloat);
  mixed.Float(kFloatData, 1).PackedFixed<float>(kFloatData, {2, 3}).PackedFixed<float>(kFloatData, {4});
  mixed.Float(kFloatData, 5);
  EXPECT_EQ(ValuesOf<float>(LoadTensor(mixed)), (std::vector<float>{1, 2, 3, 4, 5}));

  const Proto doubles = TensorHeader("w", {2}, kOnnxDouble).PackedFixed<double>(kDoubleData, {0.1, -2});
  EXPECT_EQ(ValuesOf<double>(LoadTensor(doubles)), (std::vector<double>{0.1, -2}));

  const std::vector<int64_t> large = {std::numeric_limits<int64_t>::min(), -1, std::numeric_limits<int64_t>::max()};
  const Proto ints = TensorHeader("w", {3}, kOnnxInt64).PackedInts(kInt64Data, large);
  EXPECT_EQ(ValuesOf<int64_t>(LoadTensor(ints)), large);
}

TEST(OnnxTensor, SmallTypesLieInWideVarints) {
  const auto load = [](int64_t data_type, uint32_t number, const std::vector<int64_t>& values) {
    return LoadTensor(TensorHeader("w", {static_cast<int64_t>(values.size())}, data_type).PackedInts(number, values));
  };
  EXPECT_EQ(ValuesOf<int8_t>(load(3, kInt32Data, {-128, 127})), (std::vector<int8_t>{-128, 127}));
  EXPECT_EQ(ValuesOf<uint8_t>(load(2, kInt32Data, {0, 255})), (std::vector<uint8_t>{0, 255}));
  EXPECT_EQ(ValuesOf<int16_t>(load(5, kInt32Data, {-32768, 7})), (std::vector<int16_t>{-32768, 7}));
  EXPECT_EQ(ValuesOf<uint16_t>(load(4, kInt32Data, {65535})), (std::vector<uint16_t>{65535}));
  EXPECT_EQ(ValuesOf<int32_t>(load(6, kInt32Data, {-1, 2})), (std::vector<int32_t>{-1, 2}));
  EXPECT_EQ(ValuesOf<uint32_t>(load(12, kUint64Data, {4294967295})), (std::vector<uint32_t>{4294967295}));
  EXPECT_EQ(ValuesOf<uint64_t>(load(13, kUint64Data, {-1})), (std::vector<uint64_t>{~uint64_t{0}}));
  EXPECT_EQ(ValuesOf<bool>(load(9, kInt32Data, {0, 1, 7})), (std::vector<bool>{false, true, true}));
  const Tensor half = load(kOnnxFloat16, kInt32Data, {0x3C00, 0xC000});  // 1 and -2
  EXPECT_EQ(half.AsDouble(0), 1);
  EXPECT_EQ(half.AsDouble(1), -2);
}

TEST(OnnxTensor, ValuesThatTheTypeCannotHoldAreRejected) {
  const auto reject = [](int64_t data_type, uint32_t number, int64_t value) {
    ExpectRejectedTensor(TensorHeader("w", {1}, data_type).PackedInts(number, {value}), ErrorCode::kInvalidModel,
                         "cannot hold");
  };
  reject(3, kInt32Data, 128);
  reject(2, kInt32Data, -1);
  reject(5, kInt32Data, 32768);
  reject(4, kInt32Data, 65536);
  reject(6, kInt32Data, int64_t{1} << 31);
  reject(12, kUint64Data, int64_t{1} << 32);
  reject(kOnnxFloat16, kInt32Data, 65536);
}

TEST(OnnxTensor, BoolBytesBecomeZeroAndOne) {
  EXPECT_EQ(ValuesOf<bool>(LoadTensor(RawTensor("w", {3}, kOnnxBool, std::string("\x00\x01\xff", 3)))),
            (std::vector<bool>{false, true, true}));
}

TEST(OnnxTensor, ZeroSizeDimensionIsValid) {
  const Tensor raw = LoadTensor(RawTensor("w", {3, 0}, kOnnxFloat, ""));
  EXPECT_EQ(raw.size(), 0);
  EXPECT_EQ(raw.shape(), (Shape{3, 0}));
  EXPECT_EQ(LoadTensor(TensorHeader("w", {0}, kOnnxInt64)).size(), 0);
  EXPECT_EQ(LoadTensor(FloatTensor("w", {}, {2})).rank(), 0);
}

TEST(OnnxTensor, FewerOrMoreBytesThanTheShape) {
  const auto invalid = ErrorCode::kInvalidModel;
  ExpectRejectedTensor(FloatTensor("w", {2, 2}, {1, 2, 3}), invalid,
                       "it has 12 bytes, shape (2, 2) of float32 needs 16");
  ExpectRejectedTensor(FloatTensor("w", {2}, {1, 2, 3}), invalid, "needs 8");
  ExpectRejectedTensor(RawTensor("w", {1}, kOnnxFloat, "abc"), invalid, "it has 3 bytes");
  ExpectRejectedTensor(TensorHeader("w", {4}, kOnnxFloat), invalid, "it has 0 elements");
  ExpectRejectedTensor(TensorHeader("w", {1}, kOnnxFloat).PackedFixed<float>(kFloatData, {1, 2}), invalid,
                       "it has 2 elements");
  ExpectRejectedTensor(TensorHeader("w", {3}, kOnnxInt64).PackedInts(kInt64Data, {1, 2}), invalid, "needs 3");
}

TEST(OnnxTensor, BadShapes) {
  ExpectRejectedTensor(RawTensor("w", {2, -1}, kOnnxFloat, ""), ErrorCode::kInvalidModel, "negative dimension");
  const int64_t huge = int64_t{1} << 40;
  ExpectRejectedTensor(RawTensor("w", {huge, huge}, kOnnxFloat, "abcd"), ErrorCode::kLimitExceeded, "");
  ExpectRejectedTensor(RawTensor("w", {int64_t{1} << 62, 2}, kOnnxFloat, "abcd"), ErrorCode::kLimitExceeded, "");
  ExpectRejectedTensor(RawTensor("w", {1, 1, 1, 1, 1, 1, 1, 1, 1}, kOnnxFloat, "abcd"), ErrorCode::kLimitExceeded,
                       "rank is over the limit of 8");
  EXPECT_EQ(LoadTensor(RawTensor("w", {1, 1, 1, 1, 1, 1, 1, 1}, kOnnxFloat, "abcd")).rank(), 8);
}

// Nothing may be allocated from a shape before the data is known to be there.
TEST(OnnxTensor, HugeShapeWithLittleData) {
  const int64_t large = int64_t{7} << 30;
  ExpectRejectedTensor(RawTensor("w", {large}, kOnnxUint8, "abcd"), ErrorCode::kInvalidModel, "it has 4 bytes");
  ExpectRejectedTensor(TensorHeader("w", {large / 8}, kOnnxInt64).PackedInts(kInt64Data, {1}), ErrorCode::kInvalidModel,
                       "it has 1 elements");
}

TEST(OnnxTensor, LimitOnTensorBytes) {
  ImportOptions options;
  options.limits.max_tensor_bytes = 15;
  ExpectRejectedTensor(FloatTensor("w", {4}, {1, 2, 3, 4}), ErrorCode::kLimitExceeded, "max_tensor_bytes, 15", options);
  options.limits.max_tensor_bytes = 16;
  EXPECT_EQ(LoadTensor(FloatTensor("w", {4}, {1, 2, 3, 4}), options).size(), 4);
}

TEST(OnnxTensor, DataTypes) {
  for (const int64_t data_type : {int64_t{0}, int64_t{99}, int64_t{-1}, (int64_t{1} << 32) + 1}) {
    ExpectRejectedTensor(RawTensor("w", {1}, data_type, "abcd"), ErrorCode::kInvalidModel, "ONNX does not define");
  }
  ExpectRejectedTensor(TensorHeader("w", {1}, kOnnxString).String(6, "text"), ErrorCode::kUnsupported, "STRING (8)");
}

TEST(OnnxTensor, DataInTwoPlaces) {
  const auto invalid = ErrorCode::kInvalidModel;
  ExpectRejectedTensor(FloatTensor("w", {1}, {1}).PackedFixed<float>(kFloatData, {1}), invalid, "there twice");
  Proto mixed = TensorHeader("w", {1}, kOnnxFloat);
  mixed.PackedFixed<float>(kFloatData, {1}).PackedInts(kInt64Data, {1});
  ExpectRejectedTensor(mixed, invalid, "there twice");
  ExpectRejectedTensor(FloatTensor("w", {1}, {1}).Int(14, 1), invalid, "there twice");
}

TEST(OnnxTensor, DataInAFieldOfAnotherType) {
  ExpectRejectedTensor(TensorHeader("w", {1}, kOnnxInt64).PackedFixed<float>(kFloatData, {1}), ErrorCode::kInvalidModel,
                       "does not hold int64");
  // The right field, with another wire type.
  ExpectRejectedTensor(TensorHeader("w", {1}, kOnnxFloat).Int(kFloatData, 1), ErrorCode::kInvalidModel, "damaged");
  ExpectRejectedTensor(TensorHeader("w", {1}, kOnnxInt64).Float(kInt64Data, 1), ErrorCode::kInvalidModel, "damaged");
}

TEST(OnnxTensor, SegmentsAndSparseOnesAreUnsupported) {
  ExpectRejectedTensor(FloatTensor("w", {1}, {1}).Message(3, Proto().Int(1, 0).Int(2, 1)), ErrorCode::kUnsupported,
                       "segments");
  OnnxModel model = ModelWith(FloatTensor("w", {1, 4}, {1, 2, 3, 4}));
  model.GraphField(15, Proto().Message(1, FloatTensor("s", {1}, {1})));
  ExpectRejected(model, ErrorCode::kUnsupported, {"sparse", "'s'"});
}

TEST(OnnxTensor, NamesOfInitializers) {
  OnnxModel twice = ModelWith(FloatTensor("w", {1}, {1}));
  twice.Initializer(FloatTensor("w", {1}, {2}));
  ExpectRejected(twice, ErrorCode::kInvalidModel, {"'w'", "initializer twice"});
  ExpectRejected(ModelWith(FloatTensor("", {1}, {1}), ""), ErrorCode::kInvalidModel, {"no name"});
}

}  // namespace
}  // namespace crease::test
