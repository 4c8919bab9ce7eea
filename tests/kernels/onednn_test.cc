// SPDX-License-Identifier: Apache-2.0
// oneDNN's kernels against the operators' definitions in double precision. Bound: 1e-5 of the output's
// rms for sums of up to 600 terms.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "graph/op.h"
#include "kernels/kernels.h"
#include "tests/reference/epilogue.h"
#include "tests/support/threads_executor.h"

#if CREASE_HAS_ONEDNN

namespace crease::test {
namespace {

constexpr double kBound = 1e-5;

Tensor Random(std::mt19937& random, Shape shape) {
  Tensor tensor = Tensor::Allocate(DType::kFloat32, std::move(shape)).value();
  std::normal_distribution<float> normal;
  float* data = tensor.mutable_data<float>();
  for (int64_t i = 0; i < tensor.size(); ++i) data[i] = normal(random);
  return tensor;
}

// Channels-last memory with a pitch; elements between the pixels are NaN and must stay.
struct Pixels {
  Operand operand;
  std::vector<float> memory;

  Pixels(const Shape& shape, int64_t extra) {
    operand.present = true;
    operand.shape = shape;
    operand.layout = shape.size() >= 3 ? Layout::kChannelsLast : Layout::kPlain;
    operand.pitch = shape.size() >= 3 ? shape[1] + extra : 0;
    memory.assign(static_cast<size_t>(Count() * (shape.size() >= 3 ? operand.pitch : shape[1])), NAN);
  }
  int64_t Count() const {  // pixels
    int64_t count = operand.shape[0];
    for (size_t axis = 2; axis < operand.shape.size(); ++axis) count *= operand.shape[axis];
    return count;
  }
  size_t At(int64_t i) const {  // of element i in row-major order of the logical axes
    if (operand.layout == Layout::kPlain) return static_cast<size_t>(i);
    const int64_t spatial = Count() / operand.shape[0], channels = operand.shape[1];
    const int64_t n = i / (channels * spatial), c = i / spatial % channels, p = i % spatial;
    return static_cast<size_t>((n * spatial + p) * operand.pitch + c);
  }
  void Set(const Tensor& tensor) {
    for (int64_t i = 0; i < tensor.size(); ++i) memory[At(i)] = tensor.data<float>()[i];
  }
  TensorView View() {
    TensorView view;
    view.data = memory.data();
    view.layout = operand.layout;
    view.rank = static_cast<int>(operand.shape.size());
    for (size_t axis = 0; axis < operand.shape.size(); ++axis) view.dims[axis] = operand.shape[axis];
    view.pitch = operand.pitch;
    return view;
  }
};

struct Case {
  Node node;
  Tensor x, w, bias;  // bias may be undefined
  Epilogue epilogue;
  int64_t extra = 0;  // pitch - channels of source, destination and residual
  bool in_place = false;
};

// other_bits: counts the cases whose bits differ from one number of workers to another, which are failures without it.
void Check(KernelResult (*make)(const KernelRequest&), Case c, uint32_t seed, bool may_refuse = false,
           int* other_bits = nullptr) {
  const OpDef* op = FindOp("", c.node.op_type, 13);
  ASSERT_TRUE(op);
  c.node.inputs = {0, 1, c.bias.defined() ? 2 : kNone};
  c.node.outputs = {3};
  const Tensor wide_x = c.x.ConvertedTo(DType::kFloat64).value(), wide_w = c.w.ConvertedTo(DType::kFloat64).value();
  const Tensor wide_b = c.bias.defined() ? c.bias.ConvertedTo(DType::kFloat64).value() : Tensor();
  std::vector<const Tensor*> inputs = {&wide_x, &wide_w};
  if (c.bias.defined()) inputs.push_back(&wide_b);
  const auto expected = op->eval({c.node, 13, inputs, 1});
  ASSERT_TRUE(expected.ok()) << expected.error().ToString();
  const Shape shape = (*expected)[0].shape();

  std::mt19937 random(seed);
  const Tensor residual = Random(random, shape);
  Pixels x(c.x.shape(), c.extra), dst(shape, c.extra), r(shape, c.extra);
  x.Set(c.x);
  r.Set(residual);
  const auto constant = [](const Tensor& tensor) {
    Operand operand;
    operand.present = tensor.defined();
    if (tensor.defined()) operand.shape = tensor.shape();
    operand.constant = tensor.defined() ? &tensor : nullptr;
    return operand;
  };
  std::vector<Operand> src = {x.operand, constant(c.w), constant(c.bias)};
  if (c.epilogue.residual != Residual::kNone) src.push_back(r.operand);
  std::vector<std::vector<float>> results;
  for (int workers : {1, 2, 3}) {
    ThreadsExecutor executor(workers);
    PackCache packs;
    const KernelRequest request{c.node,  13,    src,    {&dst.operand, 1}, c.epilogue, {}, c.in_place,
                                workers, false, &packs, &executor};
    const KernelResult kernel = make(request);
    if (may_refuse && !kernel.ok()) return;
    ASSERT_TRUE(kernel.ok()) << kernel.error().ToString();
    Pixels out = dst;
    if (c.in_place) out.Set(residual);
    std::vector<ConstTensorView> views = {x.View(), ConstTensorView{}, ConstTensorView{}};
    if (c.epilogue.residual != Residual::kNone) views.push_back(c.in_place ? out.View() : r.View());
    const TensorView view = out.View();
    std::vector<std::byte> scratch((*kernel)->scratch_bytes(workers) + 64);
    const auto start = (reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64;
    (*kernel)->Run({executor, reinterpret_cast<std::byte*>(start)}, views, {&view, 1});
    double square = 0, worst = 0;
    for (int64_t i = 0; i < (*expected)[0].size(); ++i) {
      const double want = Finish(c.epilogue, (*expected)[0].AsDouble(i), residual.AsDouble(i));
      square += want * want;
      const double difference = std::abs(want - out.memory[out.At(i)]);
      worst = std::isfinite(difference) ? std::max(worst, difference) : INFINITY;
    }
    EXPECT_LE(worst, kBound * std::sqrt(square / static_cast<double>((*expected)[0].size())))
        << (*kernel)->Describe() << ", " << workers << " workers";
    if (c.extra > 0) {
      for (int64_t p = 0; p < out.Count(); ++p) {
        ASSERT_TRUE(std::isnan(out.memory[static_cast<size_t>(p * out.operand.pitch + shape[1])]));
      }
    }
    results.push_back(std::move(out.memory));
  }
  const auto same = [&](const std::vector<float>& other) {
    return std::memcmp(results[0].data(), other.data(), other.size() * sizeof(float)) == 0;
  };
  if (other_bits != nullptr) {
    *other_bits += std::all_of(results.begin(), results.end(), same) ? 0 : 1;
    return;
  }
  for (size_t i = 1; i < results.size(); ++i)
    EXPECT_TRUE(same(results[i])) << "other bits with " << i + 1 << " workers";
}

Node Window(const char* type, std::vector<int64_t> kernel, int64_t stride, int64_t pad, int64_t groups) {
  Node node;
  node.op_type = type;
  const size_t rank = kernel.size();
  node.attributes = {MakeAttr("strides", std::vector<int64_t>(rank, stride)),
                     MakeAttr("pads", std::vector<int64_t>(2 * rank, pad)), MakeAttr("group", groups),
                     MakeAttr("kernel_shape", std::move(kernel))};
  return node;
}

TEST(OneDnn, Conv) {
  std::mt19937 random(1);
  const Epilogue epilogues[] = {{},
                                {Activation::kRelu},
                                {Activation::kClip, 0, 6},
                                {Activation::kSilu},
                                {Activation::kRelu, 0, 0, Residual::kBeforeActivation},
                                {Activation::kHardSwish, 0, 0, Residual::kAfterActivation}};
  for (const Epilogue& epilogue : epilogues) {
    for (const bool in_place : {false, true}) {
      if (in_place && epilogue.residual == Residual::kNone) continue;
      Case c{Window("Conv", {3, 3}, 1, 1, 1),
             Random(random, {2, 19, 9, 7}),
             Random(random, {35, 19, 3, 3}),
             Random(random, {35}),
             epilogue,
             0,
             in_place};
      Check(MakeOneDnnConv, c, 2);
    }
  }
  Check(MakeOneDnnConv,
        {Window("Conv", {3, 3}, 2, 1, 1),
         Random(random, {1, 16, 9, 8}),
         Random(random, {16, 16, 3, 3}),
         {},
         {},
         0,
         false},
        3);
  Check(MakeOneDnnConv,
        {Window("Conv", {3, 3}, 1, 1, 24),
         Random(random, {1, 24, 9, 8}),
         Random(random, {24, 1, 3, 3}),
         {},
         {},
         0,
         false},
        3);
  Check(MakeOneDnnConv,
        {Window("Conv", {5}, 1, 2, 1), Random(random, {2, 8, 17}), Random(random, {12, 8, 5}), {}, {}, 0, false}, 3);
}

// Small ones with few channels, few outputs, and strides that differ from axis to axis.
TEST(OneDnn, ConvOfManyShapes) {
  std::mt19937 random(1);
  const auto one_of = [&](std::initializer_list<int64_t> values) {
    return *(values.begin() + std::uniform_int_distribution<size_t>(0, values.size() - 1)(random));
  };
  constexpr int kCases = 500;
  int other_bits = 0;
  for (int i = 0; i < kCases; ++i) {
    const int64_t channels = one_of({1, 1, 2, 3, 16}), group = one_of({1, 1, channels}),
                  filters = group * one_of({1, 2, 8, 17});
    Shape x = {one_of({1, 2}), channels}, w = {filters, channels / group};
    std::vector<int64_t> strides, dilations, pads, pads_end;
    for (int64_t axis = one_of({1, 2, 3, 3}); axis > 0; --axis) {
      w.push_back(one_of({1, 2, 3}));
      strides.push_back(one_of({1, 1, 2, 3}));
      dilations.push_back(one_of({1, 1, 2}));
      const int64_t most = w.back() > 1 ? 1 : 0;
      pads.push_back(one_of({0, 0, most}));
      pads_end.push_back(one_of({0, 0, most}));
      x.push_back((w.back() - 1) * dilations.back() + 1 + one_of({0, 1, 2, 5}));
    }
    pads.insert(pads.end(), pads_end.begin(), pads_end.end());
    Node node;
    node.op_type = "Conv";
    node.attributes = {MakeAttr("strides", strides), MakeAttr("dilations", dilations), MakeAttr("pads", pads),
                       MakeAttr("group", group)};
    SCOPED_TRACE("case " + std::to_string(i));
    Check(MakeOneDnnConv, {node, Random(random, x), Random(random, w), Random(random, {filters}), {}, 0, false}, 2,
          false, &other_bits);
  }
  EXPECT_LE(other_bits, kCases / 50);
}

TEST(OneDnn, ConvTranspose) {
  std::mt19937 random(1);
  for (const int64_t channels : {1, 3, 19, 32}) {
    for (const int64_t filters : {1, 2, 24}) {
      Case c{Window("ConvTranspose", {2, 2}, 2, 0, 1),
             Random(random, {2, channels, 5, 7}),
             Random(random, {channels, filters, 2, 2}),
             Random(random, {filters}),
             {Activation::kRelu},
             0,
             false};
      Check(MakeOneDnnConvTranspose, c, 2);
    }
  }
  Check(MakeOneDnnConvTranspose,
        {Window("ConvTranspose", {4, 4}, 2, 1, 1),
         Random(random, {1, 16, 6, 5}),
         Random(random, {16, 8, 4, 4}),
         {},
         {},
         0,
         false},
        3);
  Check(MakeOneDnnConvTranspose,
        {Window("ConvTranspose", {3, 3}, 1, 1, 1),
         Random(random, {1, 16, 6, 5}),
         Random(random, {16, 8, 3, 3}),
         {},
         {},
         0,
         false},
        3);
}

// Whether an implementation takes pixels with a pitch depends on the CPU; what is taken must be right.
TEST(OneDnn, ChannelSlices) {
  std::mt19937 random(1);
  for (const int64_t extra : {1, 16}) {
    Check(MakeOneDnnConv,
          {Window("Conv", {1, 1}, 1, 0, 1),
           Random(random, {1, 32, 6, 5}),
           Random(random, {16, 32, 1, 1}),
           {},
           {Activation::kRelu, 0, 0, Residual::kBeforeActivation},
           extra,
           false},
          3, true);
    Check(MakeOneDnnConvTranspose,
          {Window("ConvTranspose", {2, 2}, 2, 0, 1),
           Random(random, {2, 19, 5, 7}),
           Random(random, {19, 24, 2, 2}),
           {},
           {},
           extra,
           false},
          3, true);
  }
}

TEST(OneDnn, RefusalsSayWhy) {
  std::mt19937 random(1);
  const Tensor w = Random(random, {8, 8, 3, 3});
  Operand x, weights, dst;
  x.present = weights.present = dst.present = true;
  x.shape = dst.shape = {1, 8, 5, 5};
  weights.shape = w.shape();
  weights.constant = &w;
  const Node node = Window("Conv", {3, 3}, 1, 1, 1);
  std::vector<Operand> src = {x, weights};
  const auto reason = [&] {
    const KernelResult made = MakeOneDnnConv({node, 13, src, {&dst, 1}, {}, {}});
    return made.ok() ? std::string() : made.error().message;
  };
  EXPECT_EQ(reason(), "layout");
  src[0].layout = Layout::kChannelsLast;
  src[0].pitch = 8;
  src[1].constant = nullptr;
  EXPECT_EQ(reason(), "weights are not constant");
}

}  // namespace
}  // namespace crease::test

#endif  // CREASE_HAS_ONEDNN
