// SPDX-License-Identifier: Apache-2.0
// crease::BatchNorm1d, 2d and 3d against PyTorch's golden cases (tests/python/make_bn_golden.py), in
// several memory layouts, on every target; state files; errors.
#include "crease/batch_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "graph/npz.h"
#include "graph/safetensors.h"
#include "kernels/targets.h"
#include "tests/reference/batch_norm.h"
#include "tests/support/paths.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

using Json = nlohmann::json;

struct Golden {
  Json index;
  NamedTensors arrays;

  Tensor Get(const Json& reference) const {
    const std::string kind = reference[0];
    const std::string flat_name = kind == "bf16" || kind == "f16" ? "u16" : kind;
    const DType dtype = kind == "f64"    ? DType::kFloat64
                        : kind == "f32"  ? DType::kFloat32
                        : kind == "bf16" ? DType::kBFloat16
                                         : DType::kFloat16;
    for (const auto& [name, flat] : arrays) {
      if (name != flat_name) continue;
      Tensor t = Tensor::Allocate(dtype, reference[2].get<Shape>()).value();
      std::memcpy(t.mutable_data<std::byte>(), flat.bytes() + reference[1].get<size_t>() * ByteSize(dtype),
                  t.byte_size());
      return t;
    }
    return {};
  }
};

const Golden& LoadGolden() {
  static const Golden golden = [] {
    const auto data = SourceDir() / "tests" / "data";
    Golden g;
    std::ifstream(data / "batchnorm_golden.json") >> g.index;
    g.arrays = ReadNpz(data / "batchnorm_golden.npz").value();
    return g;
  }();
  return golden;
}

std::vector<double> Doubles(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = t.AsDouble(static_cast<int64_t>(i));
  return values;
}

// Half a unit of the 16-bit types and PyTorch's own float32 sums.
double Tolerance(const std::string& kind) {
  return kind == "f64" ? 2e-12 : kind == "f32" ? 4e-6 : kind == "bf16" ? 3 * 0x1p-8 : 3 * 0x1p-11;
}

void ExpectClose(const std::vector<double>& got, const std::vector<double>& want, double relative,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double size = 1;
  for (const double w : want) size = std::max(size, std::fabs(w));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], relative * size) << what << " at " << i;
}

// An array in memory of its own, with the given strides (in elements).
struct Placed {
  Placed(const Shape& shape, DType dtype, Shape strides_in) : strides(std::move(strides_in)) {
    int64_t last = 0;
    for (size_t i = 0; i < shape.size(); ++i) last += (shape[i] - 1) * strides[i];
    bytes.resize(static_cast<size_t>(last + 1) * ByteSize(dtype));
  }
  void Each(const Tensor& t, const std::function<void(int64_t, std::byte*)>& f) {
    for (int64_t i = 0; i < t.size(); ++i) {
      int64_t rest = i, offset = 0;
      for (size_t axis = t.shape().size(); axis-- > 0;) {
        offset += rest % t.shape()[axis] * strides[axis];
        rest /= t.shape()[axis];
      }
      f(i, bytes.data() + static_cast<size_t>(offset) * ByteSize(t.dtype()));
    }
  }
  void Write(const Tensor& t) {
    const size_t size = ByteSize(t.dtype());
    Each(t, [&](int64_t i, std::byte* at) { std::memcpy(at, t.bytes() + static_cast<size_t>(i) * size, size); });
  }
  Tensor Read(const Shape& shape, DType dtype) {
    Tensor t = Tensor::Allocate(dtype, shape).value();
    const size_t size = ByteSize(dtype);
    Each(t, [&](int64_t i, std::byte* at) {
      std::memcpy(t.mutable_data<std::byte>() + static_cast<size_t>(i) * size, at, size);
    });
    return t;
  }
  Shape strides;
  std::vector<std::byte> bytes;
};

enum class Memory { kDense, kInPlace, kChannelsLast, kPitched, kReversed, kMixed };

// Strides with the axes in the given order, outermost first, `extra` elements after the innermost.
Shape StridesInOrder(const Shape& shape, const std::vector<size_t>& order, int64_t extra) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = step;
    step *= shape[order[i]] + (i + 1 == order.size() ? extra : 0);
  }
  return strides;
}

Shape StridesFor(Memory memory, const Shape& shape, bool unbatched, bool output) {
  std::vector<size_t> order(shape.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const bool last =
      memory == Memory::kChannelsLast || memory == Memory::kPitched || (memory == Memory::kMixed && output);
  if (last) {
    const auto channel = order.begin() + (unbatched ? 0 : 1);
    std::rotate(channel, channel + 1, order.end());
  }
  if (memory == Memory::kReversed) std::reverse(order.begin(), order.end());
  return StridesInOrder(shape, order, memory == Memory::kPitched ? (output ? 3 : 2) : 0);
}

Result<Tensor> Forward(BatchNorm& norm, const Tensor& x, Memory memory, bool unbatched) {
  const bool in_place = memory == Memory::kInPlace;
  Placed from(x.shape(), x.dtype(), StridesFor(memory, x.shape(), unbatched, false));
  Placed to(x.shape(), x.dtype(), StridesFor(memory, x.shape(), unbatched, true));
  from.Write(x);
  Placed& y = in_place ? from : to;
  const bool dense = memory == Memory::kDense;
  CREASE_RETURN_IF_ERROR(norm.forward({from.bytes.data(), x.dtype(), x.shape(), dense ? Shape{} : from.strides},
                                      {y.bytes.data(), x.dtype(), x.shape(), dense ? Shape{} : y.strides}));
  return y.Read(x.shape(), x.dtype());
}

template <int kRank>
void SetUp(BatchNormNd<kRank>& norm, const Golden& golden, const Json& holder) {
  for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
    if (!holder.contains(name)) continue;
    ASSERT_TRUE(norm.set_state(name, Doubles(golden.Get(holder[name]))).ok());
  }
}

template <int kRank>
void RunCase(const Golden& golden, const Json& c, Memory memory, const std::string& what) {
  BatchNormOptions options;
  options.num_features = c["num_features"];
  options.eps = c["eps"];
  options.momentum = c["momentum"].is_null() ? std::nullopt : std::optional<double>(c["momentum"]);
  options.affine = c["affine"];
  options.track_running_stats = c["track_running_stats"];
  options.dtype = golden.Get(c["steps"][0]["x"]).dtype();
  options.threads = 2;
  auto norm = BatchNormNd<kRank>::create(options);
  ASSERT_TRUE(norm.ok()) << norm.error().ToString();
  SetUp(*norm, golden, c);
  const bool exact = c["exact"];
  const std::string kind = c["dtype"], state_kind = c["param_dtype"];
  for (const Json& step : c["steps"]) {
    step["training"].get<bool>() ? norm->train() : norm->eval();
    const Tensor x = golden.Get(step["x"]);
    const auto y = Forward(*norm, x, memory, c["unbatched"]);
    ASSERT_TRUE(y.ok()) << what << ": " << y.error().ToString();
    ExpectClose(Doubles(*y), Doubles(golden.Get(step["y"])), exact ? 1e-6 : Tolerance(kind), what);
    if (!options.track_running_stats) continue;
    EXPECT_EQ(norm->num_batches_tracked(), step["num_batches_tracked"].get<int64_t>());
    for (const char* name : {"running_mean", "running_var"}) {
      ExpectClose(*norm->state(name), Doubles(golden.Get(step[name])), exact ? 1e-6 : Tolerance(state_kind),
                  what + " " + name);
    }
    if (state_kind != "f32" && state_kind != "f64") SetUp(*norm, golden, step);  // PyTorch rounds it every step
  }
}

TEST(BatchNorm, GoldenCasesOnEveryTarget) {
  const Golden& golden = LoadGolden();
  ASSERT_GT(golden.index["cases"].size(), 100u);
  ForEachTarget([&](const char* target) {
    for (const Json& c : golden.index["cases"]) {
      for (const Memory memory : {Memory::kDense, Memory::kInPlace, Memory::kChannelsLast, Memory::kPitched,
                                  Memory::kReversed, Memory::kMixed}) {
        const std::string what =
            c["name"].get<std::string>() + " on " + target + ", memory " + std::to_string(static_cast<int>(memory));
        const int rank = c["rank"];
        if (rank == 1) RunCase<1>(golden, c, memory, what);
        if (rank == 2) RunCase<2>(golden, c, memory, what);
        if (rank == 3) RunCase<3>(golden, c, memory, what);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

template <int kRank>
Result<void> TryShape(const Json& c) {
  BatchNormOptions options;
  options.num_features = c["num_features"];
  auto norm = BatchNormNd<kRank>::create(options).value();
  if (!c["training"]) norm.eval();
  const Shape shape = c["shape"];
  std::vector<float> data(static_cast<size_t>(*ElementCount(shape)));
  return norm.forward({data.data(), DType::kFloat32, shape, {}}, {data.data(), DType::kFloat32, shape, {}});
}

TEST(BatchNorm, FailsWherePyTorchFails) {
  for (const Json& c : LoadGolden().index["errors"]) {
    const int rank = c["rank"];
    const auto result = rank == 1 ? TryShape<1>(c) : rank == 2 ? TryShape<2>(c) : TryShape<3>(c);
    ASSERT_FALSE(result.ok()) << c["name"];
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find("expected"), std::string::npos) << result.error().message;
    EXPECT_NE(result.error().message.find("got"), std::string::npos) << result.error().message;
  }
}

TEST(BatchNorm, RefusesBadOptions) {
  const auto code = [](auto change) {
    BatchNormOptions options;
    options.num_features = 3;
    change(options);
    const auto norm = BatchNorm2d::create(options);
    return norm.ok() ? std::string() : norm.error().message;
  };
  EXPECT_EQ(code([](BatchNormOptions&) {}), "");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.num_features = 0; }), "expected num_features >= 1, got 0");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.eps = -1; }), "expected a finite eps >= 0, got -1");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.eps = NAN; }), "expected a finite eps >= 0, got nan");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.momentum = 1.5; }), "expected a momentum in [0, 1], got 1.5");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.dtype = DType::kInt32; }),
            "expected float32, float64, bfloat16 or float16, got int32");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.threads = -1; }), "expected threads of 0 to 4096, got -1");
  EXPECT_EQ(code([](BatchNormOptions& o) { o.threads = 4097; }), "expected threads of 0 to 4096, got 4097");
  const char* const set = std::getenv("CREASE_TARGET");
  const std::string before = set == nullptr ? "" : set;
  ASSERT_EQ(setenv("CREASE_TARGET", "sse3", 1), 0);
  EXPECT_EQ(code([](BatchNormOptions&) {}), "CREASE_TARGET is 'sse3', expected one of AMX AVX3 AVX2 SSE2");
  ASSERT_EQ(setenv("CREASE_TARGET", before.c_str(), 1), 0);
}

TEST(BatchNorm, RefusesMixedTypesStridesAndBadVariance) {
  BatchNormOptions options;
  options.num_features = 2;
  auto norm = BatchNorm2d::create(options).value();
  norm.eval();
  std::vector<float> data(16);
  const Shape shape = {1, 2, 2, 2};
  const auto message = [&](const ConstArray& x, const Array& y) {
    const auto result = norm.forward(x, y);
    return result.ok() ? std::string() : result.error().message;
  };
  const ConstArray x{data.data(), DType::kFloat32, shape, {}};
  const Array y{data.data(), DType::kFloat32, shape, {}};
  EXPECT_EQ(message(x, y), "");
  EXPECT_EQ(message({data.data(), DType::kFloat64, shape, {}}, y),
            "expected float32, got x of float64 and y of float32");
  EXPECT_EQ(message(x, {data.data(), DType::kFloat32, {1, 2, 4, 1}, {}}),
            "expected y of x's shape, (1, 2, 2, 2), got (1, 2, 4, 1)");
  EXPECT_EQ(message({data.data(), DType::kFloat32, shape, {1, 2}}, y), "x: expected 4 strides, got 2");
  EXPECT_EQ(message({data.data(), DType::kFloat32, shape, {8, 4, -2, 1}}, y), "x: expected strides >= 0, got -2");
  ASSERT_TRUE(norm.set_state("running_var", std::vector<double>{1, -1}).ok());
  EXPECT_NE(message(x, y).find("channel 1: expected running_var + eps > 0"), std::string::npos);
  EXPECT_FALSE(norm.set_state("running_var", std::vector<double>{1}).ok());
  EXPECT_FALSE(norm.state("gamma").ok());
}

double Activate(NormActivation activation, double a, double b, double y) {
  switch (activation) {
    case NormActivation::kIdentity:
      break;
    case NormActivation::kRelu:
      return std::fmax(y, 0);
    case NormActivation::kClip:
      return std::fmin(std::fmax(y, a), b);
    case NormActivation::kLeakyRelu:
      return y < 0 ? a * y : y;
    case NormActivation::kHardSwish:
      return y * std::fmin(std::fmax(y / 6 + 0.5, 0), 1);
    case NormActivation::kSilu:
      return y / (1 + std::exp(-y));
  }
  return y;
}

constexpr int64_t kFusedChannels = 5;
const Shape kFusedShape = {2, kFusedChannels, 7, 3};

Tensor Wave(DType dtype, double step) {
  Tensor wide = Tensor::Allocate(DType::kFloat64, kFusedShape).value();
  for (int64_t i = 0; i < wide.size(); ++i) {
    wide.mutable_data<double>()[i] = 5 * std::sin(step * static_cast<double>(i));
  }
  return wide.ConvertedTo(dtype).value();
}

BatchNorm2d FusedNorm(DType dtype) {
  BatchNormOptions options;
  options.num_features = kFusedChannels;
  options.dtype = dtype;
  options.threads = 2;
  auto norm = BatchNorm2d::create(options).value();
  EXPECT_TRUE(norm.set_state("weight", std::vector<double>{1, -1, 0.5, 2, 1.5}).ok());
  EXPECT_TRUE(norm.set_state("bias", std::vector<double>{0, 1, -1, 2, 0.5}).ok());
  EXPECT_TRUE(norm.set_state("running_mean", std::vector<double>{0.5, 1, -2, 0, 1}).ok());
  EXPECT_TRUE(norm.set_state("running_var", std::vector<double>{4, 1, 2, 9, 0.25}).ok());
  norm.eval();
  return norm;
}

// x and y as `memory` says, the residual dense or as x lies; against double precision. Bound: half a unit of the dtype,
// and 2e-6 of values up to 20 for float32.
void RunFused(DType dtype, Memory memory, NormEpilogue epilogue, bool residual_dense) {
  BatchNorm2d norm = FusedNorm(dtype);
  const Tensor x = Wave(dtype, 0.7), r = Wave(dtype, 0.3);
  const Shape strides = StridesFor(memory, kFusedShape, false, false);
  Placed from(kFusedShape, dtype, strides), to(kFusedShape, dtype, StridesFor(memory, kFusedShape, false, true));
  Placed added(kFusedShape, dtype, residual_dense ? StridesFor(Memory::kDense, kFusedShape, false, false) : strides);
  from.Write(x);
  added.Write(r);
  const bool has_residual = epilogue.residual_last || residual_dense;
  if (has_residual) epilogue.residual = {added.bytes.data(), dtype, kFusedShape, added.strides};
  const auto result = norm.forward({from.bytes.data(), dtype, kFusedShape, from.strides},
                                   {to.bytes.data(), dtype, kFusedShape, to.strides}, epilogue);
  ASSERT_TRUE(result.ok()) << result.error().ToString();
  const Tensor y = to.Read(kFusedShape, dtype);
  const auto weight = *norm.state("weight"), bias = *norm.state("bias"), mean = *norm.state("running_mean"),
             var = *norm.state("running_var");
  for (int64_t i = 0; i < y.size(); ++i) {
    const auto c = static_cast<size_t>(i / 21 % kFusedChannels);
    const double plain = ChannelMap{mean[c], var[c], weight[c], bias[c]}(x.AsDouble(i));
    const double extra = has_residual ? r.AsDouble(i) : 0;
    const double before = epilogue.residual_last ? plain : plain + extra;
    const double want =
        Activate(epilogue.activation, static_cast<double>(epilogue.a), static_cast<double>(epilogue.b), before) +
        (epilogue.residual_last ? extra : 0);
    const double half = dtype == DType::kFloat32 ? 0 : dtype == DType::kFloat16 ? 0x1p-11 : 0x1p-8;
    ASSERT_NEAR(y.AsDouble(i), want, half * std::fabs(want) + 4e-5)
        << Name(dtype) << " memory " << static_cast<int>(memory) << " activation "
        << static_cast<int>(epilogue.activation) << " at " << i;
  }
}

TEST(BatchNorm, EpiloguesInEveryMemory) {
  ForEachTarget([&](const char*) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
      for (const Memory memory : {Memory::kDense, Memory::kChannelsLast, Memory::kPitched, Memory::kReversed}) {
        for (int a = 0; a <= static_cast<int>(NormActivation::kSilu); ++a) {
          NormEpilogue epilogue{static_cast<NormActivation>(a), 0, 6, {}};
          if (epilogue.activation == NormActivation::kLeakyRelu) epilogue.a = 0.125f;
          RunFused(dtype, memory, epilogue, false);
          RunFused(dtype, memory, epilogue, true);
          epilogue.residual_last = true;
          RunFused(dtype, memory, epilogue, false);
          RunFused(dtype, memory, epilogue, true);
        }
      }
    }
  });
}

TEST(BatchNorm, RefusesEpilogues) {
  BatchNorm2d norm = FusedNorm(DType::kFloat32);
  std::vector<float> data(210);
  const auto message = [&](BatchNorm& own, DType dtype, const NormEpilogue& epilogue) {
    std::vector<double> room(210);
    const auto result =
        own.forward({room.data(), dtype, kFusedShape, {}}, {room.data(), dtype, kFusedShape, {}}, epilogue);
    return result.ok() ? std::string() : result.error().message;
  };
  NormEpilogue relu{NormActivation::kRelu};
  EXPECT_EQ(message(norm, DType::kFloat32, relu), "");
  EXPECT_EQ(message(norm, DType::kFloat32, {NormActivation::kClip, 6, 0, {}}),
            "epilogue: expected bounds in order, got 6 and 0");
  relu.residual = {data.data(), DType::kFloat32, {1, 5, 7, 6}, {}};
  EXPECT_EQ(message(norm, DType::kFloat32, relu),
            "expected a residual of x's dtype and shape, float32 (2, 5, 7, 3), got float32 (1, 5, 7, 6)");
  relu.residual = {data.data(), DType::kFloat32, kFusedShape, {1}};
  EXPECT_EQ(message(norm, DType::kFloat32, relu), "residual: expected 4 strides, got 1");
  norm.train();
  EXPECT_EQ(message(norm, DType::kFloat32, {NormActivation::kRelu}),
            "epilogue: expected running statistics in eval mode, got batch statistics");
  BatchNorm2d wide = FusedNorm(DType::kFloat64);
  EXPECT_EQ(message(wide, DType::kFloat64, {}), "");
  EXPECT_EQ(message(wide, DType::kFloat64, {NormActivation::kRelu}),
            "epilogue: expected float32, float16 or bfloat16, got float64");
}

TEST(BatchNorm, StateSurvivesFiles) {
  const TemporaryFolder folder;
  for (const char* name : {"state.npz", "state.safetensors"}) {
    for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
      BatchNormOptions options;
      options.num_features = 3;
      options.dtype = dtype;
      auto norm = BatchNorm2d::create(options).value();
      ASSERT_TRUE(norm.set_state("weight", std::vector<double>{1.5, -2, 0.25}).ok());
      ASSERT_TRUE(norm.set_state("running_mean", std::vector<double>{-1, 2, 3}).ok());
      ASSERT_TRUE(norm.set_num_batches_tracked(7).ok());
      const std::string path = folder / name;
      ASSERT_TRUE(norm.save(path, "layer1.bn.").ok());
      auto other = BatchNorm2d::create(options).value();
      const auto loaded = other.load(path, "layer1.bn.");
      ASSERT_TRUE(loaded.ok()) << loaded.error().ToString();
      for (const char* state : {"weight", "bias", "running_mean", "running_var"}) {
        EXPECT_EQ(*other.state(state), *norm.state(state));
      }
      EXPECT_EQ(other.num_batches_tracked(), 7);
      EXPECT_NE(other.load(path).error().message.find("no array 'weight'"), std::string::npos);
      options.num_features = 4;
      auto wider = BatchNorm2d::create(options).value();
      EXPECT_NE(wider.load(path, "layer1.bn.").error().message.find("expected 4 floats"), std::string::npos);
      EXPECT_EQ((*wider.state("weight"))[3], 1);
    }
  }
  BatchNormOptions options;
  options.num_features = 1;
  const auto norm = BatchNorm2d::create(options).value();
  EXPECT_EQ(norm.save("state.bin").error().message, "expected a file of suffix .npz or .safetensors");
}

TEST(BatchNorm, ComesFromAnOnnxNode) {
  const std::string path = SourceDir() / "examples" / "digits" / "digits.onnx";
  auto norm = BatchNorm2d::from_onnx_node(path, "/layers/layers.1/BatchNormalization");
  ASSERT_TRUE(norm.ok()) << norm.error().ToString();
  EXPECT_FALSE(norm->training());
  const int64_t channels = norm->options().num_features;
  EXPECT_EQ(channels, 24);
  EXPECT_NEAR(*norm->options().momentum, 0.1, 1e-6);
  std::vector<float> x(static_cast<size_t>(channels), 0.75f), y(x.size());
  const Shape shape = {1, channels, 1, 1};
  ASSERT_TRUE(norm->forward({x.data(), DType::kFloat32, shape, {}}, {y.data(), DType::kFloat32, shape, {}}).ok());
  for (size_t c = 0; c < y.size(); ++c) {
    const auto of = [&](const char* name) { return (*norm->state(name))[c]; };
    const ChannelMap map{of("running_mean"), of("running_var"), of("weight"), of("bias"), norm->options().eps};
    const double want = map(0.75);
    EXPECT_NEAR(y[c], want, 1e-6 * (1 + std::fabs(want)));
  }
  const auto missing = BatchNorm2d::from_onnx_node(path, "no such node");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("no such node"), std::string::npos);
}

TEST(Safetensors, RefusesEveryTruncation) {
  const TemporaryFolder folder;
  const std::string path = folder / "whole.safetensors";
  const NamedTensors written = {{"a \"b\"", Tensor::From<float>({2, 1}, {1, 2})}, {"n", Tensor::Scalar<int64_t>(-3)}};
  ASSERT_TRUE(WriteSafetensors(path, written).ok());
  const auto read = ReadSafetensors(path);
  ASSERT_TRUE(read.ok()) << read.error().ToString();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].first, "a \"b\"");
  EXPECT_EQ((*read)[0].second.shape(), (Shape{2, 1}));
  EXPECT_EQ((*read)[1].second.AsInt64(0), -3);
  std::ifstream file(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(file)), {});
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::string cut = folder.Write("cut.safetensors", whole.substr(0, length));
    EXPECT_FALSE(ReadSafetensors(cut).ok()) << length;
  }
}

}  // namespace
}  // namespace crease::test
