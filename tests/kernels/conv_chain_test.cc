// SPDX-License-Identifier: Apache-2.0
// A chain gives the bits of its stages run one by one, which have tests of their own against the definition.
#include "kernels/conv_chain.h"

#include <deque>

#include "graph/op.h"
#include "kernels/kernels.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

struct ChainCase {
  std::vector<ConvCase> stages;
  int64_t src_extra = 0, dst_extra = 0;
};

Operand Activations(int64_t n, int64_t c, int64_t h, int64_t w, int64_t pitch) {
  return {true, DType::kFloat32, {n, c, h, w}, Layout::kChannelsLast, pitch, nullptr};
}
Operand Constant(const Tensor& tensor) { return {true, DType::kFloat32, tensor.shape(), Layout::kPlain, 0, &tensor}; }

// Random data of a chain, and the requests that a planner would make.
class ChainData {
 public:
  explicit ChainData(const ChainCase& test) : test_(test) {
    uint32_t seed = 1;
    for (ConvCase stage : test.stages) {
      if (stages.empty()) stage.src_extra = test.src_extra;
      if (stages.size() + 1 == test.stages.size()) stage.dst_extra = test.dst_extra;
      stages.emplace_back(stage, seed++);
      AddRequest(stage);
    }
  }

  // As a planner says it of sources that come from a ReLU; the first source gets zeros.
  void Rectify() {
    const auto pitch = static_cast<size_t>(stages.front().src_pitch);
    for (size_t i = 0; i < stages.front().src.size(); ++i) {
      if (i % pitch % 3 != 0) stages.front().src[i] = 0;
    }
    for (std::vector<Operand>& operands : operands_) {
      for (Operand& operand : operands) operand.rectified = operand.constant == nullptr;
    }
  }

  // What the stages make one after the other, each on its own.
  std::vector<float> OneByOne() {
    SerialExecutor executor;
    for (size_t i = 0; i < stages.size(); ++i) {
      if (i > 0) stages[i].src = stages[i - 1].dst;
      const ConvCase& stage = test_.stages[i];
      const Tensor* bias = stage.bias ? &stages[i].bias : nullptr;
      if (stage.shape.depthwise()) {
        const auto conv = DepthwiseConv::Make(stage.shape, stages[i].weights, bias, stage.epilogue, nullptr);
        FloatBuffer scratch(conv->scratch_bytes(1) / sizeof(float));
        conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, stages[i].operands());
      } else {
        GemmConv::Options options;
        options.epilogue = stage.epilogue;
        options.src_pitch = stages[i].src_pitch;
        options.planar = stage.planar;
        options.amx = !stage.planar && CanUseAmx(stage.shape);
        const MatrixSource matrix = stage.planar ? PlanarMatrix(stage.shape, stages[i].weights, bias)
                                                 : ConvMatrix(stage.shape, stages[i].weights, bias);
        const auto conv = GemmConv::Make(stage.shape, matrix, options);
        FloatBuffer scratch(conv->scratch_bytes(1) / sizeof(float));
        conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, stages[i].operands());
      }
    }
    return stages.back().dst;
  }

  std::vector<float> InOne(int workers) {
    const Result<ConvChain> chain = ConvChain::Make(requests);
    EXPECT_TRUE(chain.ok()) << (chain.ok() ? "" : chain.error().message);
    if (!chain.ok()) return {};
    ThreadsExecutor executor(workers);
    FloatBuffer scratch(chain->scratch_bytes(workers) / sizeof(float));
    ConvOperands operands = stages.back().operands();
    operands.src = stages.front().src.data();
    operands.src_pitch = stages.front().src_pitch;
    chain->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, operands);
    return stages.back().dst;
  }

  std::deque<ConvData> stages;
  std::vector<KernelRequest> requests;

 private:
  void AddRequest(const ConvCase& test) {
    const ConvShape& s = test.shape;
    const ConvData& data = stages.back();
    Node& node = nodes_.emplace_back();
    node.op_type = "Conv";
    const int64_t bottom = (s.out_height - 1) * s.stride_h + s.span_h() - s.height - s.pad_top;
    const int64_t right = (s.out_width - 1) * s.stride_w + s.span_w() - s.width - s.pad_left;
    node.attributes = {MakeAttr("kernel_shape", std::vector<int64_t>{s.kernel_h, s.kernel_w}),
                       MakeAttr("strides", std::vector<int64_t>{s.stride_h, s.stride_w}),
                       MakeAttr("dilations", std::vector<int64_t>{s.dilation_h, s.dilation_w}),
                       MakeAttr("pads", std::vector<int64_t>{s.pad_top, s.pad_left, std::max<int64_t>(bottom, 0),
                                                             std::max<int64_t>(right, 0)}),
                       MakeAttr("group", s.groups)};
    std::vector<Operand>& src = operands_.emplace_back();
    src = {Activations(s.batch, s.channels, s.height, s.width, data.src_pitch), Constant(data.weights)};
    if (test.planar) src[0].layout = Layout::kPlain;
    src.push_back(test.bias ? Constant(data.bias) : Operand{});
    if (test.epilogue.residual != Residual::kNone) {
      src.push_back(Activations(s.batch, s.filters, s.out_height, s.out_width, data.residual_pitch));
    }
    std::vector<Operand>& dst = operands_.emplace_back();
    dst = {Activations(s.batch, s.filters, s.out_height, s.out_width, data.dst_pitch)};
    requests.push_back({node, 17, src, dst, test.epilogue, {}, false, 1, false, nullptr, nullptr});
  }

  ChainCase test_;
  std::deque<Node> nodes_;
  std::deque<std::vector<Operand>> operands_;
};

ConvCase Pointwise(const ConvShape& before, int64_t filters, Epilogue epilogue = {}) {
  return {MakeConvShape(before.batch, before.out_height, before.out_width, before.filters, filters, 1), epilogue};
}
ConvCase Depthwise(const ConvShape& before, int64_t kernel, int64_t stride = 1, Epilogue epilogue = {},
                   int64_t pad = -1, int64_t dilation = 1) {
  return {MakeConvShape(before.batch, before.out_height, before.out_width, before.filters, before.filters, kernel,
                        stride, pad, dilation, before.filters),
          epilogue};
}
ConvShape Source(int64_t batch, int64_t height, int64_t width, int64_t channels) {
  ConvShape shape;
  shape.batch = batch;
  shape.out_height = height;
  shape.out_width = width;
  shape.filters = channels;
  return shape;
}

constexpr Epilogue kRelu6 = {Activation::kClip, 0, 6};
constexpr Epilogue kSilu = {Activation::kSilu};

ChainCase Inverted(const ConvShape& source, int64_t wide, int64_t narrow, int64_t kernel, int64_t stride,
                   Epilogue inside, Epilogue last = {}) {
  ChainCase test;
  test.stages.push_back(Pointwise(source, wide, inside));
  test.stages.push_back(Depthwise(test.stages.back().shape, kernel, stride, inside));
  test.stages.push_back(Pointwise(test.stages.back().shape, narrow, last));
  return test;
}

std::vector<ChainCase> Cases() {
  std::vector<ChainCase> cases;
  for (const int64_t kernel : {3, 5, 7}) {
    for (const int64_t stride : {1, 2}) {
      cases.push_back(Inverted(Source(1, 33, 19, 9), 37, 21, kernel, stride, kRelu6));
      cases.push_back(Inverted(Source(2, 14, 7, 16), 32, 16, kernel, stride, kSilu));
    }
  }
  for (const Residual residual : {Residual::kBeforeActivation, Residual::kAfterActivation}) {
    cases.push_back(Inverted(Source(2, 23, 11, 24), 144, 24, 3, 1, kRelu6, {Activation::kRelu, 0, 0, residual}));
    cases.back().src_extra = 5;
    cases.back().dst_extra = 3;
  }
  // Two depthwise ones, the last alone at the end; dilation; no padding; windows of nothing but padding.
  ChainCase deep = Inverted(Source(1, 61, 13, 8), 48, 16, 3, 1, kRelu6);
  deep.stages.push_back(Pointwise(deep.stages.back().shape, 128, kSilu));
  deep.stages.push_back(Depthwise(deep.stages.back().shape, 5, 2, kSilu));
  cases.push_back(deep);
  const ConvShape source = Source(1, 40, 17, 24);
  for (const ConvCase& first : {Depthwise(source, 3, 2), Depthwise(source, 3, 1, kRelu6, 2, 2),
                                Depthwise(source, 5, 1, {}, 0), Depthwise(source, 3, 1, {}, 4)}) {
    cases.push_back({{first, Pointwise(first.shape, 40), Depthwise(Pointwise(first.shape, 40).shape, 3)}});
  }
  // A network's first layers, from a plain source.
  for (const int64_t batch : {1, 2}) {
    ConvCase first = {MakeConvShape(batch, 75, 61, 3, 24, 3, 2), kSilu};
    first.planar = true;
    cases.push_back({{first, Depthwise(first.shape, 3, 1, kSilu), Pointwise(first.shape, 16)}});
    first.shape = MakeConvShape(batch, 40, 33, 2, 9, 5, 1, 1);
    cases.push_back({{first, Pointwise(first.shape, 40), Depthwise(Pointwise(first.shape, 40).shape, 5, 2)}});
  }
  // Rows so long that a band holds few of them.
  cases.push_back(Inverted(Source(1, 9, 700, 16), 160, 24, 3, 1, kRelu6));
  return cases;
}

TEST(ConvChain, BitsOfItsStages) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ChainCase& test : Cases()) {
      ChainData data(test);
      const std::vector<float> expected = data.OneByOne();
      for (const int workers : {1, 2, 3}) {
        ASSERT_EQ(data.InOne(workers), expected)
            << workers << " workers, last of " << test.stages.size() << ": " << test.stages.back().ToString();
      }
    }
  });
}

TEST(ConvChain, BitsOfItsStagesBehindReLUs) {
  constexpr Epilogue kRelu = {Activation::kRelu};
  std::vector<ChainCase> cases = {Inverted(Source(1, 33, 19, 40), 128, 96, 3, 1, kRelu),
                                  Inverted(Source(2, 23, 11, 150), 64, 160, 5, 2, kRelu6)};
  cases[0].stages.push_back(Pointwise(cases[0].stages.back().shape, 70, kSilu));
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ChainCase& test : cases) {
      ChainData data(test);
      data.Rectify();
      const std::vector<float> expected = data.OneByOne();
      for (const int workers : {1, 2, 3}) ASSERT_EQ(data.InOne(workers), expected) << workers << " workers";
      const bool listed = ConvChain::Make(data.requests)->Describe().find("sparse 1x1") != std::string::npos;
      ASSERT_EQ(listed, SparseConv::Pays(test.stages.front().shape));
    }
  });
}

TEST(ConvChain, RefusesWhatItCannotDo) {
  const ConvShape source = Source(1, 30, 9, 8);
  const ConvCase wide = Pointwise(source, 16);
  ConvCase inside = wide;
  inside.epilogue.residual = Residual::kBeforeActivation;
  const ConvCase dense = {MakeConvShape(1, 30, 9, 16, 16, 3)};
  EXPECT_FALSE(ConvChain::Make(ChainData({{inside, Depthwise(wide.shape, 3)}}).requests).ok());
  EXPECT_FALSE(ConvChain::Make(ChainData({{wide, dense}}).requests).ok());
  EXPECT_FALSE(ConvChain::Make(ChainData({std::vector<ConvCase>(9, Pointwise(source, 8))}).requests).ok());
  EXPECT_FALSE(ConvChain::Make({}).ok());
  ConvCase planar = {MakeConvShape(1, 30, 9, 5, 16, 3)};
  planar.planar = true;
  EXPECT_FALSE(ConvChain::Make(ChainData({{planar, Depthwise(planar.shape, 3)}}).requests).ok());  // many channels
  planar.shape = MakeConvShape(1, 30, 9, 3, 16, 3);
  EXPECT_TRUE(ConvChain::Make(ChainData({{planar, Depthwise(planar.shape, 3)}}).requests).ok());
  ConvCase last = Depthwise(planar.shape, 3);
  last.epilogue.residual = Residual::kBeforeActivation;
  EXPECT_FALSE(ConvChain::Make(ChainData({{planar, last}}).requests).ok());
}

TEST(ConvChain, OnlyMapsLargerThanTheCache) {
  EXPECT_EQ(ConvChainLength(ChainData(Inverted(Source(1, 7, 7, 160), 960, 160, 3, 1, kRelu6)).requests), 0u);
  EXPECT_EQ(ConvChainLength(ChainData(Inverted(Source(1, 224, 224, 8), 96, 8, 3, 1, kRelu6)).requests), 3u);
  ConvCase first = {MakeConvShape(1, 224, 224, 3, 32, 3, 2)};
  first.planar = true;
  ConvCase last = Depthwise(first.shape, 3);
  EXPECT_EQ(ConvChainLength(ChainData({{first, last}}).requests), 2u);
  last.epilogue.residual = Residual::kBeforeActivation;
  EXPECT_EQ(ConvChainLength(ChainData({{first, last}}).requests), 1u);
}

}  // namespace
}  // namespace crease::test
