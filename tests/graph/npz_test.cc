// SPDX-License-Identifier: Apache-2.0
#include "graph/npz.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

class Npz : public testing::Test {
 protected:
  // An array whose header says this.
  std::string WriteNpyWith(const std::string& name, std::string header, const std::string& data) const {
    header.resize(117, ' ');
    header += '\n';
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes += {static_cast<char>(header.size()), '\0'};
    return folder_.Write(name, bytes + header + data);
  }
  static std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  test::TemporaryFolder folder_;
};

void ExpectSame(const Tensor& got, const Tensor& want) {
  EXPECT_EQ(got.dtype(), want.dtype());
  EXPECT_EQ(got.shape(), want.shape());
  ASSERT_EQ(got.byte_size(), want.byte_size());
  EXPECT_EQ(std::memcmp(got.bytes(), want.bytes(), want.byte_size()), 0);
}

TEST_F(Npz, RoundTripsEveryShapeKind) {
  const NamedTensors written = {
      {"scalar", Tensor::Scalar(2.5f)},
      {"vector", Tensor::From<int64_t>({3}, {1, -2, 3})},
      {"matrix", Tensor::From<double>({2, 3}, {1, 2, 3, 4, 5, 6})},
      {"empty", Tensor::From<float>({0, 4}, {})},
      {"bytes", Tensor::From<uint8_t>({1, 5}, {0, 1, 127, 128, 255})},
  };
  const std::string path = folder_ / "round.npz";
  ASSERT_TRUE(WriteNpz(path, written).ok());
  const Result<NamedTensors> read = ReadNpz(path);
  ASSERT_TRUE(read.ok()) << read.error().ToString();
  ASSERT_EQ(read->size(), written.size());
  for (size_t i = 0; i < written.size(); ++i) {
    EXPECT_EQ((*read)[i].first, written[i].first);
    ExpectSame((*read)[i].second, written[i].second);
  }
}

TEST_F(Npz, NamesAreMarkedAsUtf8WhereTheyAreThat) {
  for (const std::string name : {"plain", "é", "漢字/x", "\xE9"}) {
    const std::string path = folder_ / "name.npz";
    ASSERT_TRUE(WriteNpz(path, {{name, Tensor::Scalar(1.0f)}}).ok());
    const Result<NamedTensors> read = ReadNpz(path);
    ASSERT_TRUE(read.ok()) << read.error().ToString();
    EXPECT_EQ((*read)[0].first, name);
    const std::string whole = Content(path);
    const size_t central = whole.rfind("PK\1\2");
    ASSERT_NE(central, std::string::npos);
    const bool utf8 = name != "\xE9";
    EXPECT_EQ((whole[7] & 8) != 0, utf8) << name;  // bit 11 of the flags
    EXPECT_EQ((whole[central + 9] & 8) != 0, utf8) << name;
  }
}

TEST_F(Npz, NpyRoundTripsAndHeaderIsAligned) {
  const std::string path = folder_ / "one.npy";
  const Tensor tensor = Tensor::From<float>({2, 2}, {1, 2, 3, 4});
  ASSERT_TRUE(WriteNpy(path, tensor).ok());
  EXPECT_EQ((std::filesystem::file_size(path) - 16) % 64, 0u);
  const Result<Tensor> read = ReadNpy(path);
  ASSERT_TRUE(read.ok());
  ExpectSame(*read, tensor);
}

TEST_F(Npz, ReadsFortranOrder) {
  std::string data;
  for (int32_t value : {1, 4, 2, 5, 3, 6}) data.append(reinterpret_cast<const char*>(&value), 4);
  const Result<Tensor> read =
      ReadNpy(WriteNpyWith("fortran.npy", "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }", data));
  ASSERT_TRUE(read.ok()) << read.error().ToString();
  ExpectSame(*read, Tensor::From<int32_t>({2, 3}, {1, 2, 3, 4, 5, 6}));
}

TEST_F(Npz, RefusesEveryTruncation) {
  const std::string path = folder_ / "whole.npy";
  ASSERT_TRUE(WriteNpy(path, Tensor::From<float>({3}, {1, 2, 3})).ok());
  const std::string whole = Content(path);
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::string cut = folder_.Write("cut.npy", whole.substr(0, length));
    EXPECT_FALSE(ReadNpy(cut).ok()) << length;
  }
}

TEST_F(Npz, RefusesHugeShapesBeforeAllocating) {
  const Result<Tensor> read = ReadNpy(
      WriteNpyWith("huge.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4096), }", ""));
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, ErrorCode::kLimitExceeded);
}

TEST_F(Npz, RefusesOtherDTypesByName) {
  for (const std::string dtype : {"'|O'", "'>f4'", "'<U3'", "[('a'"}) {
    const Result<Tensor> read =
        ReadNpy(WriteNpyWith("dtype.npy", "{'descr': " + dtype + ", 'fortran_order': False, 'shape': (0,), }", ""));
    ASSERT_FALSE(read.ok()) << dtype;
    EXPECT_EQ(read.error().message,
              "dtype " + dtype + " is not supported: use little-endian floats, integers or bools");
  }
}

TEST_F(Npz, ReadsWhatIsWanted) {
  const std::string path = folder_ / "some.npz";
  ASSERT_TRUE(
      WriteNpz(path, {{"a", Tensor::Scalar(1.0f)}, {"b", Tensor::Scalar(2.0f)}, {"c", Tensor::Scalar(3.0f)}}).ok());
  NpzOptions options;
  options.wanted = [](std::string_view name) { return name == "b"; };
  const Result<NamedTensors> read = ReadNpz(path, options);
  ASSERT_TRUE(read.ok()) << read.error().ToString();
  ASSERT_EQ(read->size(), 1u);
  EXPECT_EQ((*read)[0].first, "b");
  ExpectSame((*read)[0].second, Tensor::Scalar(2.0f));
}

TEST_F(Npz, NamesACompressionThatItHasNot) {
  const std::string path = folder_ / "whole.npz";
  ASSERT_TRUE(WriteNpz(path, {{"a", Tensor::Scalar(1.0f)}}).ok());
  std::string whole = Content(path);
  whole[8] = whole[whole.rfind("PK\1\2") + 10] = 12;  // bzip2
  const Result<NamedTensors> read = ReadNpz(folder_.Write("bzip2.npz", whole));
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().message, "compressed by method 12, expected stored (0) or deflated (8)");
  EXPECT_TRUE(read.error().where.ends_with("bzip2.npz: a")) << read.error().where;
}

TEST_F(Npz, NamesTheFileThatIsMissingOrNoArchive) {
  EXPECT_EQ(ReadNpz(folder_ / "absent.npz").error().code, ErrorCode::kIo);
  const std::string path = folder_.Write("text.npz", "hello");
  const Result<NamedTensors> read = ReadNpz(path);
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.error().ToString().find("text.npz"), std::string::npos);
}

}  // namespace
}  // namespace crease
