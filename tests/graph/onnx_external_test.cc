// SPDX-License-Identifier: Apache-2.0
// External data: the names that are refused, the bytes that are read.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/graph/onnx_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

// Both ways of reading have the same rules.
class OnnxExternal : public testing::TestWithParam<bool> {
 protected:
  // The result of loading model.onnx, whose tensor w (1, 4) has these entries, from the folder.
  Result<Graph> LoadWith(const Entries& entries) {
    ImportOptions options;
    options.map_external_data = GetParam();
    return ImportOnnxFile(folder_.Write("model.onnx", ModelWith(ExternalTensor("w", {1, 4}, entries)).Bytes()),
                          options);
  }

  void ExpectRefused(const Entries& entries, const std::string& part) {
    Result<Graph> graph = LoadWith(entries);
    ASSERT_FALSE(graph.ok()) << "external data was read that must be refused";
    const std::string text = graph.error().ToString();
    EXPECT_NE(text.find("'w'"), std::string::npos) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  std::string Floats(const std::vector<float>& values) { return BytesOf(values); }

  TemporaryFolder folder_;
};

TEST_P(OnnxExternal, IsRead) {
  folder_.Write("w.bin", "padding!" + Floats({1, 2, 3, 4}) + "tail");
  std::filesystem::create_directories(folder_ / "sub/folder");
  folder_.Write("sub/folder/w.bin", Floats({5, 6, 7, 8}));
  const auto last_of = [&](const Entries& entries) {
    Result<Graph> graph = LoadWith(entries);
    EXPECT_TRUE(graph.ok()) << graph.error().ToString();
    return graph.ok() ? graph->constant(graph->FindValue("w"))->AsDouble(3) : 0;
  };
  EXPECT_EQ(last_of({{"location", "w.bin"}, {"offset", "8"}, {"length", "16"}}), 4);
  EXPECT_EQ(last_of({{"location", "w.bin"}, {"offset", "8"}}), 4);
  EXPECT_EQ(last_of({{"location", "./sub//folder/w.bin"}, {"checksum", "whatever"}}), 8);
}

TEST_P(OnnxExternal, LastsAsLongAsTheGraph) {
  folder_.Write("w.bin", Floats({1, 2, 3, 4}));
  Result<Graph> graph = LoadWith({{"location", "w.bin"}});
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  std::filesystem::remove(folder_ / "w.bin");
  EXPECT_EQ(graph->constant(graph->FindValue("w"))->AsDouble(2), 3);
}

TEST_P(OnnxExternal, EmptyTensorsNeedNoBytes) {
  folder_.Write("w.bin", "");
  const std::string path =
      folder_.Write("model.onnx", ModelWith(ExternalTensor("w", {0, 4}, {{"location", "w.bin"}})).Bytes());
  ImportOptions options;
  options.map_external_data = GetParam();
  EXPECT_TRUE(ImportOnnxFile(path, options).ok());
}

TEST_P(OnnxExternal, NamesOutsideTheFolder) {
  const TemporaryFolder elsewhere;
  const std::string secret = elsewhere.Write("secret", Floats({1, 2, 3, 4}));
  ExpectRefused({{"location", secret}}, "absolute");
  std::filesystem::create_directory(folder_ / "sub");
  folder_.Write("w.bin", Floats({1, 2, 3, 4}));
  ExpectRefused({{"location", "../" + std::filesystem::path(elsewhere.path()).filename().string() + "/secret"}},
                "'..'");
  ExpectRefused({{"location", "sub/../w.bin"}}, "'..'");
  ExpectRefused({{"location", ".."}}, "'..'");
  ExpectRefused({{"location", ""}}, "without a location");
  ExpectRefused({}, "without a location");
  ExpectRefused({{"location", "."}}, "names no file");
  ExpectRefused({{"location", "w.bin/"}}, "names no file");
  ExpectRefused({{"location", std::string("w.bin\0.txt", 10)}}, "NUL");
  ExpectRefused({{"location", std::string(5000, 'x')}}, "longer");
}

TEST_P(OnnxExternal, Links) {
  const TemporaryFolder elsewhere;
  const std::string secret = elsewhere.Write("secret", Floats({1, 2, 3, 4}));
  std::filesystem::create_symlink(secret, folder_ / "link");
  ExpectRefused({{"location", "link"}}, "symbolic link");
  std::filesystem::create_directory_symlink(elsewhere.path(), folder_ / "folder");
  ExpectRefused({{"location", "folder/secret"}}, "symbolic link");
  folder_.Write("inside", Floats({1, 2, 3, 4}));
  std::filesystem::create_symlink("inside", folder_ / "near");
  ExpectRefused({{"location", "near"}}, "symbolic link");
  std::filesystem::create_hard_link(folder_ / "inside", folder_ / "hard");
  ExpectRefused({{"location", "hard"}}, "hard link");
}

TEST_P(OnnxExternal, WhatIsNoRegularFile) {
  std::filesystem::create_directory(folder_ / "sub");
  ExpectRefused({{"location", "sub"}}, "a folder");
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  ExpectRefused({{"location", "fifo"}}, "a FIFO");
  ExpectRefused({{"location", "missing"}}, "does not exist");
  ExpectRefused({{"location", "missing/w.bin"}}, "does not exist");
  folder_.Write("file", "x");
  ExpectRefused({{"location", "file/w.bin"}}, "cannot open");
}

TEST_P(OnnxExternal, OffsetsAndLengths) {
  folder_.Write("w.bin", Floats({1, 2, 3, 4}));
  const auto with = [](const std::string& offset, const std::string& length) {
    return Entries{{"location", "w.bin"}, {"offset", offset}, {"length", length}};
  };
  ExpectRefused(with("4", "16"), "has 16 bytes");
  ExpectRefused(with("16", "16"), "at offset 16");
  ExpectRefused(with("9223372036854775807", "16"), "at offset 9223372036854775807");
  ExpectRefused(with("9223372036854775808", "16"), "offset '9223372036854775808'");
  ExpectRefused(with("-1", "16"), "offset '-1'");
  ExpectRefused(with("0x0", "16"), "offset '0x0'");
  ExpectRefused(with("", "16"), "offset ''");
  ExpectRefused(with(" 0", "16"), "offset ' 0'");
  ExpectRefused(with("0", "16abc"), "length '16abc'");
  ExpectRefused(with("0", "-16"), "length '-16'");
  ExpectRefused(with("0", "15"), "15 bytes, shape (1, 4) of float32 needs 16");
  ExpectRefused(with("0", "17"), "needs 16");
  folder_.Write("short.bin", "abc");
  ExpectRefused({{"location", "short.bin"}}, "has 3 bytes");
}

TEST_P(OnnxExternal, ConstantNodesToo) {
  folder_.Write("c.bin", Floats({9}));
  OnnxModel model;
  model.Node("Constant", {}, {"y"}, "c", {TensorAttr("value", ExternalTensor("", {1}, {{"location", "c.bin"}}))});
  model.Output("y", {1});
  ImportOptions options;
  options.map_external_data = GetParam();
  Result<Graph> graph = ImportOnnxFile(folder_.Write("model.onnx", model.Bytes()), options);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  EXPECT_EQ(graph->constant(graph->FindValue("y"))->AsDouble(0), 9);
}

TEST_P(OnnxExternal, AModelFromMemoryNeedsAFolder) {
  folder_.Write("w.bin", Floats({1, 2, 3, 4}));
  const OnnxModel model = ModelWith(ExternalTensor("w", {1, 4}, {{"location", "w.bin"}}));
  ImportOptions options;
  options.map_external_data = GetParam();
  ExpectRejected(model, ErrorCode::kInvalidModel, {"'w'", "from memory"}, options);
  options.external_data_folder = folder_.path();
  EXPECT_TRUE(Load(model, options).ok());
}

INSTANTIATE_TEST_SUITE_P(MappedAndRead, OnnxExternal, testing::Bool(),
                         [](const auto& mode) { return mode.param ? "Mapped" : "Read"; });

}  // namespace
}  // namespace crease::test
