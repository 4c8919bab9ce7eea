// SPDX-License-Identifier: Apache-2.0
// Every kernel of Conv on the layers of the speed suite's networks, and of ConvTranspose on those of U-Nets and others:
// f32, batch 1, channels-last, bias and ReLU. Names: layer/kernel/threads. Filter with --benchmark_filter, as in "3x3
// .*/(winograd|onednn)/1". "of peak" compares with a loop of multiply-adds in turns, as clocks and neighbours change
// from second to second; Winograd's may pass 100 %.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/conv_shape.h"
#include "kernels/gemm_pack.h"
#include "kernels/kernel.h"
#include "kernels/peak.h"
#include "kernels/targets.h"
#include "runtime/thread_pool.h"

namespace crease {
namespace {

struct Layer {
  const char* name;  // channels -> filters @ side of the source
  int64_t side, channels, filters, kernel, stride = 1, groups = 1;
  int64_t kernel_width = kernel;
  int64_t transposed_pad = -1, output_padding = 0;  // of a ConvTranspose

  bool transposed() const { return transposed_pad >= 0; }
  const char* op_type() const { return transposed() ? "ConvTranspose" : "Conv"; }
};

Layer Transposed(const char* name, int64_t side, int64_t channels, int64_t filters, int64_t kernel, int64_t stride,
                 int64_t pad, int64_t output_padding = 0, int64_t groups = 1) {
  return {name, side, channels, filters, kernel, stride, groups, kernel, pad, output_padding};
}

const Layer kLayers[] = {
    // ResNet, VGG, Darknet
    {"7x7 s2 3-64@224", 224, 3, 64, 7, 2},
    {"3x3 3-64@224", 224, 3, 64, 3},
    {"3x3 64-64@224", 224, 64, 64, 3},
    {"3x3 64-64@56", 56, 64, 64, 3},
    {"3x3 128-128@28", 28, 128, 128, 3},
    {"3x3 256-256@14", 14, 256, 256, 3},
    {"3x3 512-512@7", 7, 512, 512, 3},
    {"3x3 256-256@56", 56, 256, 256, 3},
    {"3x3 512-512@28", 28, 512, 512, 3},
    {"3x3 512-512@14", 14, 512, 512, 3},
    {"3x3 s2 64-128@112", 112, 64, 128, 3, 2},
    {"3x3 s2 128-128@56", 56, 128, 128, 3, 2},
    {"3x3 s2 256-256@28", 28, 256, 256, 3, 2},
    {"3x3 s2 512-512@14", 14, 512, 512, 3, 2},
    {"1x1 64-64@56", 56, 64, 64, 1},
    {"1x1 64-256@56", 56, 64, 256, 1},
    {"1x1 256-64@56", 56, 256, 64, 1},
    {"1x1 s2 256-512@56", 56, 256, 512, 1, 2},
    {"1x1 512-128@28", 28, 512, 128, 1},
    {"1x1 1024-256@14", 14, 1024, 256, 1},
    {"1x1 256-1024@14", 14, 256, 1024, 1},
    {"1x1 2048-512@7", 7, 2048, 512, 1},
    {"1x1 512-2048@7", 7, 512, 2048, 1},
    // DenseNet, Inception
    {"3x3 128-32@56", 56, 128, 32, 3},
    {"3x3 128-32@28", 28, 128, 32, 3},
    {"3x3 128-32@14", 14, 128, 32, 3},
    {"3x3 128-32@7", 7, 128, 32, 3},
    {"1x1 512-128@14", 14, 512, 128, 1},
    {"3x3 96-96@35", 35, 96, 96, 3},
    {"5x5 48-64@35", 35, 48, 64, 5},
    {"1x7 192-192@17", 17, 192, 192, 1, 1, 1, 7},
    {"7x1 128-128@17", 17, 128, 128, 7, 1, 1, 1},
    {"1x3 384-384@8", 8, 384, 384, 1, 1, 1, 3},
    {"3x1 384-384@8", 8, 384, 384, 3, 1, 1, 1},
    {"3x3 s2 288-384@35", 35, 288, 384, 3, 2},
    {"1x1 768-192@17", 17, 768, 192, 1},
    // MobileNet, EfficientNet, ShuffleNet
    {"3x3 s2 3-32@224", 224, 3, 32, 3, 2},
    {"1x1 32-64@112", 112, 32, 64, 1},
    {"1x1 16-96@112", 112, 16, 96, 1},
    {"1x1 96-24@56", 56, 96, 24, 1},
    {"1x1 24-144@56", 56, 24, 144, 1},
    {"1x1 144-24@56", 56, 144, 24, 1},
    {"1x1 240-40@28", 28, 240, 40, 1},
    {"1x1 116-116@14", 14, 116, 116, 1},
    {"1x1 960-160@7", 7, 960, 160, 1},
    {"1x1 320-1280@7", 7, 320, 1280, 1},
    {"1x1 1152-48@1", 1, 1152, 48, 1},
    {"depthwise 3x3 32@112", 112, 32, 32, 3, 1, 32},
    {"depthwise 3x3 s2 96@112", 112, 96, 96, 3, 2, 96},
    {"depthwise 3x3 144@56", 56, 144, 144, 3, 1, 144},
    {"depthwise 3x3 192@28", 28, 192, 192, 3, 1, 192},
    {"depthwise 3x3 s2 240@28", 28, 240, 240, 3, 2, 240},
    {"depthwise 3x3 576@14", 14, 576, 576, 3, 1, 576},
    {"depthwise 3x3 960@7", 7, 960, 960, 3, 1, 960},
    {"depthwise 5x5 240@28", 28, 240, 240, 5, 1, 240},
    {"depthwise 5x5 672@14", 14, 672, 672, 5, 1, 672},
    {"depthwise 5x5 1152@7", 7, 1152, 1152, 5, 1, 1152},
    // ResNeXt, RegNet
    {"groups 32x4 3x3@56", 56, 128, 128, 3, 1, 32},
    {"groups 32x8 3x3@28", 28, 256, 256, 3, 1, 32},
    {"groups 32x16 3x3@14", 14, 512, 512, 3, 1, 32},
    {"groups 32x32 3x3@7", 7, 1024, 1024, 3, 1, 32},
    {"groups 3x8 3x3 s2@112", 112, 24, 24, 3, 2, 3},
    {"groups 7x8 3x3@28", 28, 56, 56, 3, 1, 7},
    {"groups 46x8 3x3@7", 7, 368, 368, 3, 1, 46},
    // U-Nets, text detection, pose estimation, generators, super-resolution
    Transposed("transposed 2x2 s2 64-32@56", 56, 64, 32, 2, 2, 0),
    Transposed("transposed 2x2 s2 512-256@14", 14, 512, 256, 2, 2, 0),
    Transposed("transposed 2x2 s2 24-24@160", 160, 24, 24, 2, 2, 0),
    Transposed("transposed 2x2 s2 24-1@320", 320, 24, 1, 2, 2, 0),
    Transposed("transposed 3x3 s2 64-64@28", 28, 64, 64, 3, 2, 1, 1),
    Transposed("transposed 4x4 s2 128-64@28", 28, 128, 64, 4, 2, 1),
    Transposed("transposed 4x4 s2 256-256@16", 16, 256, 256, 4, 2, 1),
    Transposed("transposed 4x4 s2 512-256@8", 8, 512, 256, 4, 2, 1),
    Transposed("transposed 4x4 100-512@1", 1, 100, 512, 4, 1, 0),
    Transposed("transposed 4x4 s2 64-3@32", 32, 64, 3, 4, 2, 1),
    Transposed("transposed 9x9 s3 56-1@64", 64, 56, 1, 9, 3, 4, 2),
    Transposed("transposed 3x3 64-64@28", 28, 64, 64, 3, 1, 1),
    Transposed("transposed 64x64 s32 21-21@16", 16, 21, 21, 64, 32, 16),
    Transposed("transposed depthwise 4x4 s2 64@28", 28, 64, 64, 4, 2, 1, 0, 64),
    Transposed("transposed groups 32x8 4x4 s2@14", 14, 256, 256, 4, 2, 1, 0, 32),
    Transposed("transposed groups 4x16 4x4 s2@28", 28, 64, 64, 4, 2, 1, 0, 4),
};

Tensor Random(Shape shape) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return Tensor::From<float>(std::move(shape), std::span<const float>(values));
}

// Of `flops` operations by `run` on `threads` cores: the median share of their peak, in turns with the loop that is it.
template <typename Function>
double ShareOfPeak(double flops, int threads, const Function& run) {
  using Clock = std::chrono::steady_clock;
  constexpr int kTurns = 31;
  std::vector<double> shares;
  double before = PeakFlops(1);
  for (int i = 0; i < kTurns; ++i) {
    const Clock::time_point start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const double after = PeakFlops(1);
    shares.push_back(flops / seconds / ((before + after) / 2 * threads));
    before = after;
  }
  std::nth_element(shares.begin(), shares.begin() + kTurns / 2, shares.end());
  return shares[kTurns / 2];
}

void Run(benchmark::State& state, const Layer& layer, const KernelEntry& entry, int threads) {
  const bool transposed = layer.transposed();
  const int64_t pad = transposed ? layer.transposed_pad : layer.kernel / 2;
  const int64_t pad_width = transposed ? pad : layer.kernel_width / 2;
  const int64_t out = transposed ? (layer.side - 1) * layer.stride + layer.kernel + layer.output_padding - 2 * pad
                                 : (layer.side + 2 * pad - layer.kernel) / layer.stride + 1;
  const Tensor src = Random({1, layer.channels, layer.side, layer.side});
  const Shape matrix = transposed ? Shape{layer.channels, layer.filters / layer.groups}
                                  : Shape{layer.filters, layer.channels / layer.groups};
  const Tensor weights = Random({matrix[0], matrix[1], layer.kernel, layer.kernel_width});
  const Tensor bias = Random({layer.filters});
  Tensor dst = Random({1, layer.filters, out, out});

  Node node;
  node.op_type = layer.op_type();
  node.attributes = {MakeAttr("strides", std::vector<int64_t>(2, layer.stride)),
                     MakeAttr("pads", std::vector<int64_t>{pad, pad_width, pad, pad_width}),
                     MakeAttr("group", layer.groups)};
  if (transposed) node.attributes.push_back(MakeAttr("output_padding", std::vector<int64_t>(2, layer.output_padding)));
  const Operand operands[] = {
      {true, DType::kFloat32, src.shape(), Layout::kChannelsLast, layer.channels, nullptr},
      {true, DType::kFloat32, weights.shape(), Layout::kPlain, 0, &weights},
      {true, DType::kFloat32, bias.shape(), Layout::kPlain, 0, &bias},
  };
  const Operand result[] = {{true, DType::kFloat32, dst.shape(), Layout::kChannelsLast, layer.filters, nullptr}};
  const std::shared_ptr<ThreadPool> pool = ThreadPool::Shared(threads);
  Epilogue epilogue;
  epilogue.activation = Activation::kRelu;
  const KernelRequest request{.node = node,
                              .opset = 17,
                              .src = operands,
                              .dst = result,
                              .epilogue = epilogue,
                              .prologue = {},
                              .workers = threads,
                              .measured = true};  // all that can, not what a rule would choose
  const auto made = entry.make(request);
  if (!made.ok()) return state.SkipWithError(made.error().message.c_str());
  const Kernel& kernel = **made;
  state.SetLabel(kernel.Describe());

  FloatBuffer scratch(kernel.scratch_bytes(threads) / sizeof(float));
  const auto view = [](const Tensor& tensor, int64_t pitch) {
    ConstTensorView v{tensor.bytes(), DType::kFloat32, Layout::kChannelsLast, tensor.rank(), {}, pitch};
    std::copy(tensor.shape().begin(), tensor.shape().end(), v.dims.begin());
    return v;
  };
  ConstTensorView weights_view = view(weights, 0), bias_view = view(bias, 0);
  weights_view.layout = bias_view.layout = Layout::kPlain;
  const ConstTensorView sources[] = {view(src, layer.channels), weights_view, bias_view};
  TensorView dst_view{dst.mutable_data<float>(), DType::kFloat32, Layout::kChannelsLast, 4, {}, layer.filters};
  std::copy(dst.shape().begin(), dst.shape().end(), dst_view.dims.begin());
  const RunContext context{*pool, reinterpret_cast<std::byte*>(scratch.data())};
  const bool mine = pool->BeginRequest();
  const auto run = [&] { kernel.Run(context, sources, {&dst_view, 1}); };
  for (auto _ : state) run();
  const int64_t pixels = transposed ? layer.side * layer.side : out * out;
  const double flops = 2.0 * static_cast<double>(pixels * layer.filters * layer.channels / layer.groups * layer.kernel *
                                                 layer.kernel_width);
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
  state.counters["of peak"] = ShareOfPeak(flops, threads, run);
  if (mine) pool->EndRequest();
}

void Register() {
  for (const Layer& layer : kLayers) {
    for (const KernelEntry& entry : KernelsFor(layer.op_type())) {
      if (entry.layout != LayoutRule::kChannelsLast) continue;
      for (const int threads : {1, 2}) {
        const std::string name =
            std::string(layer.name) + "/" + std::string(entry.name) + "/" + std::to_string(threads);
        benchmark::RegisterBenchmark(
            name.c_str(), [&layer, &entry, threads](benchmark::State& state) { Run(state, layer, entry, threads); })
            ->UseRealTime()
            ->MinTime(0.05);
      }
    }
  }
}

}  // namespace
}  // namespace crease

int main(int argc, char** argv) {
  crease::InitTargets();
  crease::Register();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
