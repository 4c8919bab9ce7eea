// SPDX-License-Identifier: Apache-2.0
// Batch normalization alone against the memory's speed: memcpy, a copy with streaming stores, and our
// kernels, on tensors from a few hundred KB to 100 MB. Threads are the pool's. Bandwidth counts one
// read and one write of the tensor for copies and eval, two reads and one write for training.
//
//   bench_batchnorm --benchmark_filter=eval/f32/NCHW
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/affine_rows.h"
#include "kernels/batch_norm.h"
#include "kernels/loop_nest.h"
#include "runtime/thread_pool.h"

namespace crease {
namespace {

struct BenchShape {
  int64_t n, c, h, w;
  int64_t size() const { return n * c * h * w; }
  std::string name() const {
    return std::to_string(n) + "x" + std::to_string(c) + "x" + std::to_string(h) + "x" + std::to_string(w);
  }
};

constexpr BenchShape kShapes[] = {{32, 256, 56, 56},  {1, 64, 112, 112}, {8, 2048, 7, 7},
                                  {1, 3, 1080, 1920}, {256, 24, 28, 28}, {1, 960, 7, 7}};

enum class What { kMemcpy, kStreamCopy, kEval, kTrain };

struct Buffers {
  Tensor src, dst;
  std::vector<double> weight, bias, mean, var;

  Buffers(const BenchShape& shape, DType dtype) {
    src = Tensor::Allocate(dtype, {shape.size()}).value();
    dst = Tensor::Allocate(dtype, {shape.size()}).value();
    auto* bytes = src.mutable_data<std::byte>();
    for (int64_t i = 0; i < shape.size(); ++i) {
      const float x = static_cast<float>((i * 2654435761LL >> 8) % 1000) * 0.01f - 5;
      if (dtype == DType::kFloat32) std::memcpy(bytes + i * 4, &x, 4);
      const uint16_t half = FloatToBFloat16(x);
      if (dtype == DType::kBFloat16) std::memcpy(bytes + i * 2, &half, 2);
    }
    const auto channels = static_cast<size_t>(shape.c);
    weight.assign(channels, 1.25);
    bias.assign(channels, 0.5);
    mean.assign(channels, 0.25);
    var.assign(channels, 4);
  }
};

// The fastest plain copy we know for tensors beyond the caches: one channel, y = 1 * x + 0, streamed.
void StreamCopy(const RunContext& context, const Buffers& b) {
  static const float one = 1, zero = 0;
  AffineArgs args;
  args.src = b.src.bytes();
  args.dst = const_cast<std::byte*>(b.dst.bytes());
  args.scale = &one;
  args.shift = &zero;
  args.stream = true;
  const AffinePlanes rows = FindAffinePlanes(DType::kFloat32, Activation::kNone, Residual::kNone);
  const int64_t count = b.src.size();
  ParallelForCost(context, (count + 63) / 64, count,
                  [&](int64_t begin, int64_t end) { rows(args, 1, count, begin * 64, std::min(end * 64, count)); });
}

void Memcpy(const RunContext& context, const Buffers& b) {
  const auto size = static_cast<int64_t>(b.src.byte_size());
  ParallelForCost(context, (size + 63) / 64, size / 4, [&](int64_t begin, int64_t end) {
    std::memcpy(const_cast<std::byte*>(b.dst.bytes()) + begin * 64, b.src.bytes() + begin * 64,
                static_cast<size_t>(std::min(end * 64, size) - begin * 64));
  });
}

NormTensor TensorOf(const BenchShape& shape, Layout layout, DType dtype, Buffers& b) {
  NormTensor t;
  t.src = b.src.bytes();
  t.dst = b.dst.mutable_data<std::byte>();
  t.dtype = dtype;
  t.layout = layout;
  t.batch = shape.n;
  t.channels = shape.c;
  t.plane = shape.h * shape.w;
  t.src_pitch = t.dst_pitch = shape.c;
  return t;
}

void Run(benchmark::State& state, BenchShape shape, What what, Layout layout, DType dtype, int threads) {
  const std::shared_ptr<ThreadPool> pool = ThreadPool::Shared(threads);
  Buffers buffers(shape, dtype);
  const NormTensor tensor = TensorOf(shape, layout, dtype, buffers);
  const NormParameters parameters{buffers.weight, buffers.bias, 1e-5};
  for (auto _ : state) {
    PoolRequest request(pool.get());
    const RunContext context{request.executor(), nullptr};
    if (what == What::kMemcpy) Memcpy(context, buffers);
    if (what == What::kStreamCopy) StreamCopy(context, buffers);
    if (what == What::kEval) NormalizeWith(context, tensor, parameters, buffers.mean, buffers.var);
    if (what == What::kTrain) NormalizeByBatch(context, tensor, parameters, buffers.mean, buffers.var);
    benchmark::ClobberMemory();
  }
  const int64_t passes = what == What::kTrain ? 3 : 2;
  state.SetBytesProcessed(state.iterations() * passes * static_cast<int64_t>(buffers.src.byte_size()));
}

void Register(const std::string& name, const BenchShape& shape, What what, Layout layout, DType dtype, int threads) {
  const std::string full = name + "/" + shape.name() + "/threads:" + std::to_string(threads);
  benchmark::RegisterBenchmark(full.c_str(),
                               [=](benchmark::State& state) { Run(state, shape, what, layout, dtype, threads); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

void RegisterAll() {
  for (const int threads : {1, 2}) {
    for (const BenchShape& shape : kShapes) {
      Register("memcpy", shape, What::kMemcpy, Layout::kPlain, DType::kFloat32, threads);
      Register("stream_copy", shape, What::kStreamCopy, Layout::kPlain, DType::kFloat32, threads);
      for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
        const std::string tail = layout == Layout::kPlain ? "NCHW" : "NHWC";
        Register("BatchNorm/eval/f32/" + tail, shape, What::kEval, layout, DType::kFloat32, threads);
        Register("BatchNorm/train/f32/" + tail, shape, What::kTrain, layout, DType::kFloat32, threads);
        Register("BatchNorm/eval/bf16/" + tail, shape, What::kEval, layout, DType::kBFloat16, threads);
      }
    }
  }
}

}  // namespace
}  // namespace crease

int main(int argc, char** argv) {
  crease::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
