// SPDX-License-Identifier: Apache-2.0
// BatchNorm on arrays that repeat their elements, as views of expanded tensors do, and on what it can't take.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "crease/batch_norm.h"
#include "graph/npz.h"
#include "graph/onnx/exporter.h"
#include "graph/op.h"
#include "tests/support/temporary_folder.h"

namespace crease {
namespace {

// Strides of an array whose axes in `expanded`, a bit each, repeat what there is; `order`: axes, outermost first.
Shape Expanded(const Shape& shape, unsigned expanded, const std::vector<size_t>& order) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t i = order.size(); i-- > 0;) {
    const size_t axis = order[i];
    const bool repeats = (expanded >> axis & 1) != 0;
    strides[axis] = repeats ? 0 : step;
    if (!repeats) step *= shape[axis];
  }
  return strides;
}

// As many floats as such an array has of its own, so that a sanitizer sees reads beyond them.
std::vector<float> Values(const Shape& shape, const Shape& strides) {
  int64_t last = 0;
  for (size_t i = 0; i < shape.size(); ++i) last += (shape[i] - 1) * strides[i];
  std::vector<float> values(static_cast<size_t>(last) + 1);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(std::sin(1.0 + 2.3 * static_cast<double>(i)));
  return values;
}

// Row-major.
std::vector<float> Dense(const Shape& shape, const Shape& strides, const std::vector<float>& values) {
  std::vector<float> dense;
  Shape at(shape.size(), 0);
  for (bool more = true; more;) {
    dense.push_back(values[static_cast<size_t>(std::inner_product(at.begin(), at.end(), strides.begin(), int64_t{0}))]);
    more = false;
    for (size_t i = shape.size(); i-- > 0 && !more;) {
      more = ++at[i] < shape[i];
      if (!more) at[i] = 0;
    }
  }
  return dense;
}

BatchNorm2d NormOf(int64_t channels) {
  BatchNormOptions options;
  options.num_features = channels;
  BatchNorm2d norm = BatchNorm2d::create(options).value();
  std::vector<double> values(static_cast<size_t>(channels));
  std::iota(values.begin(), values.end(), 1.0);
  for (const char* name : {"weight", "bias", "running_mean", "running_var"})
    EXPECT_TRUE(norm.set_state(name, values).ok());
  return norm;
}

TEST(BatchNormArrays, ElementsMayRepeat) {
  const std::vector<std::vector<size_t>> orders = {{0, 1, 2, 3}, {0, 2, 3, 1}, {3, 2, 1, 0}};
  for (const Shape& shape : {Shape{2, 5, 3, 4}, Shape{3, 4, 1, 1}, Shape{1, 3, 2, 7}, Shape{2, 1, 3, 3}}) {
    const int64_t channels = shape[1];
    for (unsigned expanded = 0; expanded < 16; ++expanded) {
      for (const auto& order : orders) {
        const Shape strides = Expanded(shape, expanded, order);
        const std::vector<float> x = Values(shape, strides), dense = Dense(shape, strides, x);
        for (const auto& to : orders) {
          const Shape y_strides = Expanded(shape, 0, to);
          for (const bool training : {false, true}) {
            for (const bool residual : {false, true}) {
              if (training && residual) continue;
              SCOPED_TRACE(ToString(shape) + " strides " + ToString(strides) + ", y " + ToString(y_strides) +
                           (training ? " training" : "") + (residual ? " residual" : ""));
              const auto run = [&](const std::vector<float>& from, const Shape& from_strides, const Shape& out_strides,
                                   BatchNorm2d norm) {
                if (!training) norm.eval();
                std::vector<float> y(dense.size());
                NormEpilogue epilogue;
                if (residual) epilogue.residual = {from.data(), DType::kFloat32, shape, from_strides};
                // With a residual x itself is dense, so that only that repeats.
                const ConstArray in = residual ? ConstArray{dense.data(), DType::kFloat32, shape, {}}
                                               : ConstArray{from.data(), DType::kFloat32, shape, from_strides};
                const auto done = norm.forward(in, {y.data(), DType::kFloat32, shape, out_strides}, epilogue);
                EXPECT_TRUE(done.ok()) << done.error().ToString();
                return std::pair(out_strides.empty() ? y : Dense(shape, out_strides, y), *norm.state("running_var"));
              };
              const auto [want, want_var] = run(dense, {}, {}, NormOf(channels));
              const auto [got, got_var] = run(x, strides, y_strides, NormOf(channels));
              for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5 * (1 + std::fabs(want[i])));
              for (size_t c = 0; c < want_var.size(); ++c) ASSERT_NEAR(got_var[c], want_var[c], 1e-5 * want_var[c]);
            }
          }
        }
      }
    }
  }
}

TEST(BatchNormArrays, ResultsMayNot) {
  BatchNorm2d norm = NormOf(4);
  norm.eval();
  std::vector<float> data(24, 1.0f);
  const Shape shape = {2, 4, 1, 3}, strides = {0, 1, 12, 4};
  for (const Shape& of_x : {Shape{}, strides}) {
    const auto done =
        norm.forward({data.data(), DType::kFloat32, shape, of_x}, {data.data(), DType::kFloat32, shape, strides});
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().message, "y: expected strides > 0, got (0, 1, 12, 4) for (2, 4, 1, 3)");
  }
}

TEST(BatchNormArrays, TooManyChannelsAreAnError) {
  BatchNormOptions options;
  options.num_features = int64_t{1} << 60;
  const auto norm = BatchNorm2d::create(options);
  ASSERT_FALSE(norm.ok());
  EXPECT_EQ(norm.error().code, ErrorCode::kOutOfMemory);
}

TEST(BatchNormArrays, CountsOfBatchesAreIntegers) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "state.npz";
  BatchNormOptions options;
  options.num_features = 2;
  auto norm = BatchNorm2d::create(options).value();
  ASSERT_TRUE(norm.save(path).ok());
  NamedTensors tensors = ReadNpz(path).value();
  for (const Tensor& bad :
       {Tensor::Scalar<int64_t>(-7), Tensor::Scalar<float>(7.5f), Tensor::From<int64_t>({2}, {1, 2})}) {
    for (auto& [name, tensor] : tensors) {
      if (name == "num_batches_tracked") tensor = bad;
    }
    ASSERT_TRUE(WriteNpz(path, tensors).ok());
    const auto loaded = norm.load(path);
    ASSERT_FALSE(loaded.ok());
    EXPECT_NE(loaded.error().message.find("num_batches_tracked: expected one integer >= 0"), std::string::npos);
  }
}

TEST(BatchNormArrays, NoStateIsSavedAndLoaded) {
  const test::TemporaryFolder folder;
  BatchNormOptions options;
  options.num_features = 2;
  options.affine = options.track_running_stats = false;
  auto norm = BatchNorm2d::create(options).value();
  for (const char* name : {"none.npz", "none.safetensors"}) {
    ASSERT_TRUE(norm.save(folder / name).ok());
    const auto loaded = norm.load(folder / name);
    EXPECT_TRUE(loaded.ok()) << loaded.error().ToString();
  }
}

TEST(BatchNormArrays, StatisticsOfEveryElementAreNoChannels) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "spatial.onnx";
  GraphBuilder builder;
  std::vector<ValueId> inputs = {builder.AddInput("x", TensorType::Of(DType::kFloat32, {2, 2, 1, 2}))};
  for (const char* name : {"s", "b", "m", "v"}) {
    inputs.push_back(builder.AddConstant(name, Tensor::From<float>({2, 1, 2}, {1, 2, 3, 4})));
  }
  const ValueId y = builder.Add("BatchNormalization", inputs, "node", {MakeAttr("spatial", int64_t{0})});
  builder.AddOutput(y);
  builder.info().opsets[""] = 7;
  const Graph graph = std::move(builder).Build().value();
  ASSERT_TRUE(WriteOnnxFile(graph, path).ok());
  const auto norm = BatchNorm2d::from_onnx_node(path, "node");
  ASSERT_FALSE(norm.ok());
  EXPECT_EQ(norm.error().message, "weight: expected one value a channel, got (2, 1, 2)");
}

// As exporters write them: one initializer for several parameters, half precision behind a Cast, none at all.
TEST(BatchNormArrays, ParametersMayBeComputedFromConstants) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "computed.onnx";
  GraphBuilder builder;
  const ValueId x = builder.AddInput("x", TensorType::Of(DType::kFloat32, {2, 2, 1, 2}));
  const ValueId half =
      builder.AddConstant("half", Tensor::From<float>({2}, {1.5f, -2}).ConvertedTo(DType::kFloat16).value());
  const ValueId s = builder.Add("Cast", {half}, "s", {MakeAttr("to", int64_t{1})});
  const ValueId b = builder.AddConstant("b", Tensor::From<float>({2}, {3, 4}));
  const ValueId m = builder.Add("Identity", {b}, "m");
  const ValueId shape = builder.AddConstant("shape", Tensor::From<int64_t>({1}, {2}));
  const ValueId v =
      builder.Add("ConstantOfShape", {shape}, "v", {MakeAttr("value", Tensor::From<float>({1}, {0.25f}))});
  const ValueId given = builder.AddInput("given", TensorType::Of(DType::kFloat32, {2}));
  builder.AddOutput(builder.Add("BatchNormalization", {x, s, b, m, v}, "node"));
  builder.AddOutput(builder.Add("BatchNormalization", {x, s, b, m, given}, "of data"));
  const Graph graph = std::move(builder).Build().value();
  ASSERT_TRUE(WriteOnnxFile(graph, path).ok());
  const auto norm = BatchNorm2d::from_onnx_node(path, "node");
  ASSERT_TRUE(norm.ok()) << norm.error().ToString();
  EXPECT_EQ(*norm->state("weight"), (std::vector<double>{1.5, -2}));
  EXPECT_EQ(*norm->state("bias"), (std::vector<double>{3, 4}));
  EXPECT_EQ(*norm->state("running_mean"), (std::vector<double>{3, 4}));
  EXPECT_EQ(*norm->state("running_var"), (std::vector<double>{0.25, 0.25}));
  const auto of_data = BatchNorm2d::from_onnx_node(path, "of data");
  ASSERT_FALSE(of_data.ok());
  EXPECT_EQ(of_data.error().message, "running_var is not constant");
}

}  // namespace
}  // namespace crease
