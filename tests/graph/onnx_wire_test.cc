// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/wire.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/onnx_builder.h"

namespace crease::onnx {
namespace {

using test::Proto;

WireReader ReaderOf(const std::string& bytes) {
  const ByteSpan span = std::as_bytes(std::span(bytes));
  return WireReader(span, span.data());
}

// The problem that reading all fields ends with, "" if none.
std::string ProblemOf(const std::string& bytes) {
  WireReader reader = ReaderOf(bytes);
  for (Field field; reader.Next(&field);) {
  }
  return reader.failed() ? reader.error("M").message : "";
}

TEST(Wire, ReadsEveryWireType) {
  Proto message;
  message.Int(1, -5).Float(2, 1.5f).String(3, "abc").Tag(4, 1).Raw("12345678");
  WireReader reader = ReaderOf(message.bytes());
  Field field;
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(reader.Int(field), -5);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(reader.Float(field), 1.5f);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(reader.String(field), "abc");
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.type, WireType::kFixed64);
  EXPECT_EQ(field.scalar, 0x3837363534333231u);
  EXPECT_EQ(field.raw.size(), 9u);
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_FALSE(reader.failed());
}

TEST(Wire, KeepsAll64BitsOfVarints) {
  for (const int64_t value : {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), int64_t{-1},
                              int64_t{1} << 32, int64_t{0}}) {
    const std::string bytes = Proto().Int(7, value).bytes();
    WireReader reader = ReaderOf(bytes);
    Field field;
    ASSERT_TRUE(reader.Next(&field));
    EXPECT_EQ(reader.Int(field), value);
  }
}

TEST(Wire, RejectsWhatIsNoMessage) {
  EXPECT_EQ(ProblemOf(""), "");
  EXPECT_NE(ProblemOf(std::string(1, '\0')).find("number 0"), std::string::npos);
  EXPECT_NE(ProblemOf(std::string(40, '\xff')).find("longer than 10 bytes"), std::string::npos);
  EXPECT_NE(ProblemOf("\x08").find("ends inside"), std::string::npos);  // no value
  EXPECT_NE(ProblemOf("\x08\x80\x80").find("ends inside"), std::string::npos);
  EXPECT_NE(ProblemOf("\x0d\x01\x02").find("past the end"), std::string::npos);  // half a fixed32
  EXPECT_NE(ProblemOf("\x09\x01\x02").find("past the end"), std::string::npos);  // half a fixed64
  EXPECT_NE(ProblemOf("\x0a\x05hi").find("past the end"), std::string::npos);
  EXPECT_NE(ProblemOf("\x0b").find("unknown wire type"), std::string::npos);  // a group
  EXPECT_NE(ProblemOf("\x0f").find("unknown wire type"), std::string::npos);
}

// A length that is right only if it is cut to 32 bits must not pass.
TEST(Wire, ChecksLengthsAt64Bits) {
  for (const uint64_t length : {(uint64_t{1} << 32) + 2, ~uint64_t{0}, uint64_t{1} << 63}) {
    const std::string bytes = Proto().Tag(1, 2).Number(length).Raw("hi").bytes();
    EXPECT_NE(ProblemOf(bytes).find("past the end"), std::string::npos) << length;
  }
}

TEST(Wire, OverlongVarintFails) {
  // Eleven bytes, near the end of the data and far from it: protozero decodes these in two ways.
  std::string overlong(10, '\x80');
  overlong += '\x01';
  EXPECT_NE(ProblemOf("\x08" + overlong), "");
  EXPECT_NE(ProblemOf("\x08" + overlong + std::string(64, 'x')), "");
}

TEST(Wire, ReportsAWrongWireTypeAndItsPlace) {
  const std::string bytes = Proto().Int(1, 3).Int(2, 4).bytes();
  WireReader reader = ReaderOf(bytes);
  Field field;
  ASSERT_TRUE(reader.Next(&field) && reader.Next(&field));
  EXPECT_TRUE(reader.String(field).empty());
  EXPECT_TRUE(reader.failed());
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_EQ(reader.error("NodeProto").message,
            "damaged NodeProto at byte 2 of the file: a string or message field has another wire type");
}

TEST(Wire, ReadsRepeatedNumbersPackedAndNot) {
  const std::string bytes = Proto().PackedInts(1, {1, -2, int64_t{1} << 40}).Int(1, 9).bytes();
  WireReader reader = ReaderOf(bytes);
  std::vector<int64_t> values;
  for (Field field; reader.Next(&field);) reader.AppendInts(field, 10, &values);
  EXPECT_FALSE(reader.failed());
  EXPECT_EQ(values, (std::vector<int64_t>{1, -2, int64_t{1} << 40, 9}));

  const std::string floats = Proto().PackedFixed<float>(2, {0.5f, -1}).Float(2, 3).bytes();
  WireReader float_reader = ReaderOf(floats);
  std::vector<float> numbers;
  for (Field field; float_reader.Next(&field);) float_reader.AppendFloats(field, &numbers);
  EXPECT_EQ(numbers, (std::vector<float>{0.5f, -1, 3}));
}

TEST(Wire, RepeatedNumbersMeetTheirLimitsAndDamage) {
  const auto problem_of = [](const std::string& bytes, size_t limit) {
    WireReader reader = ReaderOf(bytes);
    std::vector<int64_t> values;
    for (Field field; reader.Next(&field);) reader.AppendInts(field, limit, &values);
    EXPECT_LE(values.size(), limit);
    return reader.failed() ? reader.error("M").message : "";
  };
  EXPECT_NE(problem_of(Proto().PackedInts(1, {1, 2, 3}).bytes(), 2).find("too long"), std::string::npos);
  EXPECT_NE(problem_of(Proto().Int(1, 1).Int(1, 2).bytes(), 1).find("too long"), std::string::npos);
  EXPECT_NE(problem_of(Proto().String(1, "\x80").bytes(), 9).find("damaged"), std::string::npos);

  const std::string odd = Proto().String(2, "12345").bytes();
  WireReader reader = ReaderOf(odd);
  std::vector<float> numbers;
  for (Field field; reader.Next(&field);) reader.AppendFloats(field, &numbers);
  EXPECT_TRUE(reader.failed());
}

}  // namespace
}  // namespace crease::onnx
