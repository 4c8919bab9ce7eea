// SPDX-License-Identifier: Apache-2.0
// What Session::load refuses of files and models, beside what the importer's and the operators' own tests hold.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>

#include "crease/session.h"
#include "tests/graph/onnx_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

Options Limited(int64_t arena_bytes = int64_t{1} << 30) {
  Options options;
  options.threads = 1;
  options.limits.max_arena_bytes = arena_bytes;
  return options;
}

void ExpectLoadFails(const OnnxModel& model, ErrorCode code, const std::vector<std::string>& parts,
                     const Options& options = Limited()) {
  const SharedBytes shared(model.Bytes());
  const Result<Session> session = Session::load(shared.bytes, options, shared.owner);
  ASSERT_FALSE(session.ok()) << "a broken model was loaded";
  EXPECT_STREQ(Name(session.error().code), Name(code)) << session.error().ToString();
  for (const std::string& part : parts) {
    EXPECT_NE(session.error().ToString().find(part), std::string::npos)
        << "no '" << part << "' in: " << session.error().ToString();
  }
}

// x (1, 4, 5, 5) through one node, whose constants come with it.
OnnxModel OneLayer(const Proto& node, const std::vector<Proto>& constants, int64_t opset = 13) {
  OnnxModel model(opset);
  model.Node(node).Input("x", {1, 4, 5, 5}).Output("y", {-1, -1, -1, -1});
  for (const Proto& constant : constants) model.Initializer(constant);
  return model;
}

OnnxModel BatchNorm(const std::vector<float>& variance, float epsilon = 1e-5f) {
  const auto vector = [](const char* name, std::vector<float> values) {
    const auto count = static_cast<int64_t>(values.size());
    return FloatTensor(name, {count}, values);
  };
  return OneLayer(
      NodeProto("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y"}, "norm", {FloatAttr("epsilon", epsilon)}),
      {vector("s", {1, 1, 1, 1}), vector("b", {0, 0, 0, 0}), vector("m", {0, 0, 0, 0}), vector("v", variance)});
}

OnnxModel Conv(const std::vector<Proto>& attributes, const std::vector<int64_t>& weights = {4, 4, 3, 3}) {
  int64_t count = 1;
  for (const int64_t d : weights) count *= d;
  return OneLayer(NodeProto("Conv", {"x", "w"}, {"y"}, "conv", attributes),
                  {FloatTensor("w", weights, std::vector<float>(static_cast<size_t>(count), 1))});
}

constexpr int64_t kHuge = int64_t{1} << 62;

TEST(LoadRules, FilesThatAreNone) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& path, bool map, const Limits& limits = {}) {
    Options options = Limited();
    options.map_files = map;
    options.limits = limits;
    const Result<Session> session = Session::load(path, options);
    EXPECT_FALSE(session.ok()) << path;
    return session.ok() ? std::string() : session.error().ToString();
  };
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in: " << text;
  };
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  folder.Write("empty.onnx", "");
  folder.Write("zeros.onnx", std::string(100, '\0'));
  folder.Write("ones.onnx", std::string(100, '\xff'));
  const std::string good = folder.Write("good.onnx", Conv({}).Bytes());
  Limits small;
  small.max_file_bytes = 20;
  for (const bool map : {true, false}) {
    has(refused(folder / "missing.onnx", map), "No such file");
    has(refused(folder.path(), map), "regular file, this is a folder");
    has(refused(folder / "fifo", map), "regular file, this is a FIFO");
    has(refused("/dev/zero", map), "regular file, this is a device");
    has(refused(folder / "empty.onnx", map), "the file is empty");
    has(refused(folder / "zeros.onnx", map), "zeros.onnx");
    has(refused(folder / "ones.onnx", map), "ones.onnx");
    has(refused(good + std::string("\0x", 2), map), "NUL");
    has(refused(good, map, small), "max_file_bytes");
  }
}

TEST(LoadRules, BatchNormsNameTheChannel) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float bad : {-1.0f, -1e-5f, nan, inf, -inf}) {
    for (const bool fold : {true, false}) {
      Options options = Limited();
      options.fold = fold;
      ExpectLoadFails(BatchNorm({1, 1, bad, 1}), ErrorCode::kInvalidModel,
                      {"BatchNormalization 'norm'", "var", "channel 2"}, options);
    }
  }
  ExpectLoadFails(BatchNorm({1, 0, 1, 1}, 0), ErrorCode::kInvalidModel, {"'norm'", "var + epsilon", "channel 1"});
  ExpectLoadFails(BatchNorm({1, 1, 1}), ErrorCode::kInvalidModel, {"'norm'", "length of var", "4", "3"});
}

TEST(LoadRules, Convolutions) {
  const auto fails = [](const OnnxModel& model, std::vector<std::string> parts) {
    parts.push_back("Conv 'conv'");
    ExpectLoadFails(model, ErrorCode::kInvalidModel, parts);
  };
  fails(Conv({IntsAttr("strides", {0, 1})}), {"strides", "found 0"});
  fails(Conv({IntsAttr("dilations", {1, 0})}), {"dilations", "found 0"});
  fails(Conv({IntAttr("group", 0)}), {"group", "at least 1"});
  fails(Conv({IntAttr("group", -4)}), {"group", "at least 1"});
  fails(Conv({IntAttr("group", 3)}), {"group"});
  fails(Conv({IntAttr("group", (int64_t{1} << 32) + 1)}), {"4294967297"});  // 1 if it were cut to 32 bits
  fails(Conv({IntsAttr("pads", {1, 1})}), {"pads", "4 values"});
  fails(Conv({IntsAttr("pads", {kHuge, 0, 0, 0})}), {"pads", "4611686018427387904"});
  fails(Conv({IntsAttr("pads", {0, 0, -9, 0})}), {});
  fails(Conv({IntsAttr("kernel_shape", {5, 5})}), {"kernel_shape", "(3, 3)"});
  fails(Conv({}, {4, 4, 3}), {"same rank"});
}

TEST(LoadRules, OtherOperators) {
  const auto fails = [](const char* type, const std::vector<Proto>& attributes, const std::vector<Proto>& constants,
                        const std::vector<std::string>& parts) {
    std::vector<std::string> inputs = {"x"};
    for (size_t i = 0; i < constants.size(); ++i) inputs.push_back("c" + std::to_string(i));
    ExpectLoadFails(OneLayer(NodeProto(type, inputs, {"y"}, "node", attributes), constants), ErrorCode::kInvalidModel,
                    parts);
  };
  fails("MaxPool", {IntsAttr("kernel_shape", {0, 2})}, {}, {"'node'", "kernel_shape", "found 0"});
  fails("Concat", {IntAttr("axis", 4)}, {}, {"'node'", "axis", "4"});
  fails("Softmax", {IntAttr("axis", (int64_t{1} << 32) + 1)}, {}, {"'node'", "axis", "4294967297"});
  fails("Reshape", {}, {Int64Tensor("c0", {2}, {-1, -1})}, {"'node'", "one -1"});
  fails("DepthToSpace", {IntAttr("blocksize", int64_t{1} << 32)}, {}, {"'node'", "blocksize", "4294967296"});
}

// A few bytes of a file that ask for a lot of memory are refused before any of it is touched.
TEST(LoadRules, BombsMeetTheLimits) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t large = int64_t{1} << 20;
  const std::vector<OnnxModel> bombs = {
      OneLayer(NodeProto("Tile", {"x", "n"}, {"y"}, "bomb"), {Int64Tensor("n", {4}, {large, 1, 1, 1})}),
      OneLayer(NodeProto("Expand", {"x", "n"}, {"y"}, "bomb"), {Int64Tensor("n", {4}, {large, 4, 5, 5})}),
      OneLayer(NodeProto("Pad", {"x", "n"}, {"y"}, "bomb"), {Int64Tensor("n", {8}, {0, 0, 0, 0, 0, 0, large, 0})}),
  };
  for (const OnnxModel& bomb : bombs) {
    ExpectLoadFails(bomb, ErrorCode::kLimitExceeded, {"max_arena_bytes"}, Limited(int64_t{64} << 20));
  }
  // Its value is a constant: the limit is that of tensors.
  OnnxModel constant(13);
  constant.Node("ConstantOfShape", {"n"}, {"c"}, "bomb").Node("Add", {"x", "c"}, {"y"}, "sum");
  constant.Initializer(Int64Tensor("n", {2}, {large, large})).Input("x", {1, 1}).Output("y", {-1, -1});
  ExpectLoadFails(constant, ErrorCode::kLimitExceeded, {}, Limited(int64_t{64} << 20));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace crease::test
