// SPDX-License-Identifier: Apache-2.0
// Small networks, and running them against the double-precision interpreter.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/interpreter.h"
#include "graph/op.h"
#include "runtime/session_impl.h"
#include "runtime/tuning.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {

inline Tensor RandomTensor(std::mt19937& random, Shape shape, float scale = 1) {
  Result<Tensor> tensor = Tensor::Allocate(DType::kFloat32, std::move(shape));
  std::normal_distribution<float> normal(0, scale);
  float* data = tensor->mutable_data<float>();
  for (int64_t i = 0; i < tensor->size(); ++i) data[i] = normal(random);
  return std::move(tensor).value();
}

// A GraphBuilder with random weights and names by number.
class Net {
 public:
  explicit Net(uint32_t seed) : random_(seed) { builder_.info().opsets[""] = 13; }

  ValueId Input(const std::string& name, Shape shape) {
    TensorType type = TensorType::Of(DType::kFloat32, shape);
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      if (shape[axis] < 0) type.dims[axis] = Dim{Dim::kUnknown, "N"};
    }
    return builder_.AddInput(name, type);
  }
  ValueId Constant(Tensor value) { return builder_.AddConstant(Name("w"), std::move(value)); }
  ValueId Weights(Shape shape, float scale) { return Constant(RandomTensor(random_, std::move(shape), scale)); }
  ValueId Ints(std::vector<int64_t> values) {
    const auto size = static_cast<int64_t>(values.size());
    return builder_.AddConstant(Name("i"), Tensor::From<int64_t>({size}, std::span<const int64_t>(values)));
  }
  ValueId Op(std::string_view type, std::vector<ValueId> inputs, std::vector<Attribute> attributes = {}) {
    return builder_.Add(type, std::move(inputs), Name("v"), std::move(attributes));
  }
  ValueId Conv(ValueId x, int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t groups = 1,
               bool bias = true) {
    const float scale = 1 / std::sqrt(static_cast<float>(in / groups * kernel * kernel));
    std::vector<ValueId> inputs = {x, Weights({out, in / groups, kernel, kernel}, scale)};
    if (bias) inputs.push_back(Weights({out}, 0.5f));
    const int64_t pad = kernel / 2;
    return Op("Conv", std::move(inputs),
              {MakeAttr("kernel_shape", std::vector<int64_t>{kernel, kernel}),
               MakeAttr("strides", std::vector<int64_t>{stride, stride}),
               MakeAttr("pads", std::vector<int64_t>{pad, pad, pad, pad}), MakeAttr("group", groups)});
  }
  ValueId BatchNorm(ValueId x, int64_t channels) {
    std::vector<float> variance(static_cast<size_t>(channels));
    std::uniform_real_distribution<float> uniform(0.5f, 2.0f);
    for (float& v : variance) v = uniform(random_);
    const ValueId var = Constant(Tensor::From<float>({channels}, std::span<const float>(variance)));
    return Op("BatchNormalization", {x, Weights({channels}, 1), Weights({channels}, 1), Weights({channels}, 1), var});
  }
  // A node with several outputs.
  std::vector<ValueId> Outputs(std::string_view type, std::vector<ValueId> inputs, int64_t count,
                               std::vector<Attribute> attributes) {
    Node node;
    node.op_type = type;
    node.inputs = std::move(inputs);
    for (int64_t i = 0; i < count; ++i) node.outputs.push_back(builder_.GetOrAddValue(Name("v")));
    node.attributes = std::move(attributes);
    const std::vector<ValueId> outputs = node.outputs;
    builder_.AddNode(std::move(node));
    return outputs;
  }
  std::vector<ValueId> Split(ValueId x, int64_t parts) {
    return Outputs("Split", {x}, parts, {MakeAttr("axis", int64_t{1})});
  }
  // In training form, as opset 13 has it: Y, running mean and variance, the batch's mean and variance.
  std::vector<ValueId> TrainingNorm(ValueId x, int64_t channels) {
    std::vector<ValueId> inputs = {x};
    for (int i = 0; i < 4; ++i) inputs.push_back(Weights({channels}, 1));
    return Outputs("BatchNormalization", std::move(inputs), 5, {MakeAttr("momentum", 0.75f)});
  }
  void Output(ValueId id) { builder_.AddOutput(id); }
  std::mt19937& random() { return random_; }
  Graph Build() {
    Result<Graph> graph = std::move(builder_).Build();
    EXPECT_TRUE(graph.ok()) << (graph.ok() ? "" : graph.error().ToString());
    return std::move(graph).value();
  }

 private:
  std::string Name(const char* kind) { return kind + std::to_string(next_++); }
  GraphBuilder builder_;
  std::mt19937 random_;
  int next_ = 0;
};

// Inputs of the graph's shapes, unknown dimensions as `batch`.
inline std::map<std::string, Tensor> RandomInputs(const Graph& graph, uint32_t seed, int64_t batch = 1) {
  std::mt19937 random(seed);
  std::map<std::string, Tensor> inputs;
  for (const ValueId id : graph.inputs()) {
    Shape shape;
    for (const Dim& dim : graph.value(id).type.dims) shape.push_back(dim.known() ? dim.value : batch);
    inputs[graph.value(id).name] = RandomTensor(random, std::move(shape));
  }
  return inputs;
}

// Runs once; empty on an error, which fails the test.
inline std::vector<Tensor> RunImpl(const Session::Impl& impl, const std::map<std::string, Tensor>& inputs) {
  std::vector<Input> in;
  std::vector<Shape> shapes;
  for (const TensorSpec& spec : impl.inputs()) {
    const Tensor& tensor = inputs.at(spec.name);
    in.push_back({spec.name, tensor.dtype(), tensor.shape(), tensor.bytes()});
    shapes.push_back(tensor.shape());
  }
  const auto plan = impl.PlanFor(shapes);
  EXPECT_TRUE(plan.ok()) << (plan.ok() ? "" : plan.error().ToString());
  if (!plan.ok()) return {};
  std::vector<Tensor> results;
  std::vector<Output> out;
  for (size_t i = 0; i < impl.outputs().size(); ++i) {
    Result<Tensor> tensor = Tensor::Allocate(impl.outputs()[i].dtype, (*plan)->output_shapes[i]);
    results.push_back(std::move(tensor).value());
    out.push_back(
        {impl.outputs()[i].name, results[i].dtype(), results[i].shape(), const_cast<std::byte*>(results[i].bytes())});
  }
  const Result<void> run = impl.Run(in, out);
  EXPECT_TRUE(run.ok()) << (run.ok() ? "" : run.error().ToString());
  return run.ok() ? results : std::vector<Tensor>{};
}

// Max difference in units of the expected output's rms (or 1e-3 where that is tiny).
inline double RelativeError(const Tensor& actual, const Tensor& expected) {
  double square = 0, worst = 0;
  for (int64_t i = 0; i < expected.size(); ++i) square += expected.AsDouble(i) * expected.AsDouble(i);
  const double rms = std::sqrt(square / static_cast<double>(std::max<int64_t>(expected.size(), 1)));
  for (int64_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(actual.AsDouble(i) - expected.AsDouble(i));
    worst = std::isfinite(difference) ? std::max(worst, difference) : INFINITY;
  }
  return worst / std::max(rms, 1e-3);
}

inline void ExpectMatchesInterpreter(const Graph& graph, const Session::Impl& impl, uint32_t seed, int64_t batch,
                                     double bound) {
  const std::map<std::string, Tensor> inputs = RandomInputs(graph, seed, batch);
  std::map<std::string, Tensor> wide;
  for (const auto& [name, tensor] : inputs) wide[name] = tensor.ConvertedTo(DType::kFloat64).value();
  const Result<std::vector<Tensor>> expected = Interpret(graph, wide);
  ASSERT_TRUE(expected.ok()) << expected.error().ToString();
  const std::vector<Tensor> actual = RunImpl(impl, inputs);
  ASSERT_EQ(actual.size(), expected->size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].shape(), (*expected)[i].shape()) << "output " << i;
    EXPECT_LE(RelativeError(actual[i], (*expected)[i]), bound) << "output " << i << " of " << actual.size();
  }
}

inline std::shared_ptr<const Session::Impl> MakeImpl(const Graph& graph, const Options& options = {}) {
  auto impl = Session::Impl::Create(graph, options);
  EXPECT_TRUE(impl.ok()) << (impl.ok() ? "" : impl.error().ToString());
  return impl.ok() ? std::move(impl).value() : nullptr;
}

// A tuning that asks for one kernel wherever it can be.
class TuningFor {
 public:
  TuningFor(const std::string& kernel, int threads) : path_(folder_ / "tuning.txt") {
    Tuning everywhere;
    everywhere.SetDefault(kernel);
    EXPECT_TRUE(UpdateTuning(path_, threads, everywhere).ok());
  }
  const std::string& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  std::string path_;
};

}  // namespace crease::test
