// SPDX-License-Identifier: Apache-2.0
// Damaged files by the thousand, and the real networks there and back.
#include <gtest/gtest.h>

#include <random>

#include "tests/graph/onnx_test_util.h"
#include "tests/support/paths.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

// Some of everything that the loader reads, in less than 1 KiB.
std::string SmallModel() {
  Proto branch;
  branch.Message(1, NodeProto("Relu", {"x"}, {"t"})).Message(5, FloatTensor("local", {1}, {1}));
  branch.Message(12, ValueInfo("t", {1}));
  OnnxModel model;
  model.Node("Mul", {"x", "w"}, {"m"}, "mul", {IntsAttr("ints", {1, -2}), FloatsAttr("floats", {1, 2})});
  model.Node("Constant", {}, {"c"}, "", {TensorAttr("value", Int64Tensor("", {2}, {3, 4}))});
  model.Node("If", {"c"}, {"i"}, "if", {GraphAttr("then_branch", branch)});
  model.Node(NodeProto("Odd", {"m", "", "i"}, {"y"}, "odd", {StringAttr("s", "text")}, "some.domain"));
  model.Initializer(FloatTensor("w", {2, 2}, {1, 2, 3, 4}));
  model.Initializer(TensorHeader("typed", {3}, kOnnxInt64).PackedInts(7, {1, -1, 300}));
  model.Initializer(ExternalTensor("ext", {1}, {{"location", "f"}, {"offset", "0"}, {"length", "4"}}));
  model.Input("x", {-1, 2}).Output("y", {-1, 2}).GraphField(13, ValueInfo("m", {2, 2}));
  model.ModelField(14, Proto().String(1, "k").String(2, "v")).ModelField(25, Proto().String(1, "F").String(10, "d"));
  return model.Opset("some.domain", 1).Bytes();
}

class OnnxDamage : public testing::Test {
 protected:
  OnnxDamage() {
    folder_.Write("f", "1234");
    options_.external_data_folder = folder_.path();
    options_.allow_unknown_ops = true;
  }

  // What loads must also export; what does not must say why.
  void Try(std::string_view bytes) {
    Result<Graph> graph = Load(bytes, options_);
    if (graph.ok()) {
      ++loaded_;
      EXPECT_TRUE(ExportOnnx(*graph).ok());
    } else {
      ++refused_;
      EXPECT_FALSE(graph.error().message.empty());
    }
  }

  TemporaryFolder folder_;
  ImportOptions options_;
  int loaded_ = 0, refused_ = 0;
};

TEST_F(OnnxDamage, TruncationAtEveryByte) {
  const std::string whole = SmallModel();
  ASSERT_TRUE(Load(whole, options_).ok()) << Load(whole, options_).error().ToString();
  for (size_t size = 0; size < whole.size(); ++size) Try(std::string_view(whole).substr(0, size));
  // Cuts between two fields behind the graph leave a model.
  EXPECT_LE(loaded_, 5);
  EXPECT_GT(refused_, 450);
}

TEST_F(OnnxDamage, EveryBitFlipped) {
  const std::string whole = SmallModel();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      Try(damaged);
    }
  }
  EXPECT_GT(loaded_, 100);
  EXPECT_GT(refused_, 1000);
}

TEST_F(OnnxDamage, RandomBytesAndSplices) {
  const std::string whole = SmallModel();
  std::mt19937 random(20240607);
  const auto below = [&](size_t bound) { return static_cast<size_t>(random()) % bound; };
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = whole;
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(damaged.size());
      switch (below(4)) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged.erase(at, 1 + below(8));
          break;
        case 2:
          damaged.insert(at, damaged.substr(below(damaged.size()), below(40)));
          break;
        default:
          damaged.replace(at, 1, 9, '\xff');  // the start of an enormous varint
          break;
      }
      if (damaged.empty()) damaged = whole;
    }
    Try(damaged);
  }
  EXPECT_GT(refused_, 1000);
}

class OnnxNetworks : public testing::Test {
 protected:
  static std::vector<std::filesystem::path> Files() {
    std::vector<std::filesystem::path> files;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(SharedDir() / "models", none)) {
      if (entry.path().extension() == ".onnx") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }
};

TEST_F(OnnxNetworks, ThereAndBack) {
  const std::vector<std::filesystem::path> files = Files();
  if (files.empty())
    GTEST_SKIP() << "SKIPPED: no networks in " << SharedDir() / "models"
                 << "; set CREASE_SHARED";
  const TemporaryFolder folder;
  for (const auto& file : files) {
    SCOPED_TRACE(file.filename().string());
    Result<Graph> graph = ImportOnnxFile(file.string());
    ASSERT_TRUE(graph.ok()) << graph.error().ToString();
    ASSERT_TRUE(WriteOnnxFile(*graph, folder / "out.onnx").ok());
    EXPECT_TRUE(ReadBack(folder / "out.onnx") == ReadBack(file.string())) << "other bytes came back";
  }
}

TEST_F(OnnxNetworks, TheShippedNetworkThereAndBack) {
  const std::string path = (SourceDir() / "examples/digits/digits.onnx").string();
  Result<Graph> graph = ImportOnnxFile(path);
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  Result<std::vector<std::byte>> bytes = ExportOnnx(*graph);
  ASSERT_TRUE(bytes.ok());
  EXPECT_TRUE(ToText(*bytes) == ReadBack(path)) << "other bytes came back";
}

// A cut or a flip in a real network, where lengths are long and most bytes are weights.
TEST_F(OnnxNetworks, DamageIsRefusedOrHarmless) {
  const std::string whole = ReadBack((SourceDir() / "examples/digits/digits.onnx").string());
  ASSERT_FALSE(whole.empty());
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = whole;
    const size_t at = static_cast<size_t>(random()) % whole.size();
    if (round % 2 == 0) {
      damaged.resize(at);
    } else {
      damaged[at % 4096] = static_cast<char>(random());
    }
    Result<Graph> graph = Load(damaged);
    refused += graph.ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 150);
}

}  // namespace
}  // namespace crease::test
