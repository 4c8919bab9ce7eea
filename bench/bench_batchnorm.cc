// SPDX-License-Identifier: Apache-2.0
// crease::BatchNorm2d against the memory's speed: memcpy, a copy with streaming stores and a read, on
// tensors from a few hundred KB to 100 MB. Threads are the pool's. Bandwidth counts what has to move: one
// read and one write of the tensor; one read for `read`; for training two reads and one write where a
// channel does not fit into L2 twice (NCHW) or its values lie apart (NHWC).
//
//   bench_batchnorm --benchmark_filter=eval/f32/NCHW
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "crease/batch_norm.h"
#include "kernels/affine_rows.h"
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

enum class What { kMemcpy, kStreamCopy, kRead, kEval, kTrain };

struct Buffers {
  Tensor src, dst;

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
  }
};

// Those of the last case, which its repetitions use again: filling them takes longer than a run.
Buffers& BuffersFor(const BenchShape& shape, DType dtype) {
  static std::string made;
  static std::unique_ptr<Buffers> buffers;
  const std::string wanted = shape.name() + Name(dtype);
  if (made != wanted) {
    buffers = nullptr;
    buffers = std::make_unique<Buffers>(shape, dtype);
    made = wanted;
  }
  return *buffers;
}

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

void Read(const RunContext& context, const Buffers& b) {
  const auto size = static_cast<int64_t>(b.src.byte_size());
  const auto* words = reinterpret_cast<const uint64_t*>(b.src.bytes());
  ParallelForCost(context, size / 64, size / 4, [&](int64_t begin, int64_t end) {
    uint64_t sums[8] = {};
    for (int64_t i = begin * 8; i < end * 8; i += 8) {
      for (int k = 0; k < 8; ++k) sums[k] += words[i + k];
    }
    benchmark::DoNotOptimize(sums);
  });
}

Array ArrayOf(const BenchShape& s, Layout layout, DType dtype, Tensor& tensor) {
  Array array{tensor.mutable_data<std::byte>(), dtype, {s.n, s.c, s.h, s.w}, {}};
  if (layout == Layout::kChannelsLast) array.strides = {s.h * s.w * s.c, 1, s.w * s.c, s.c};
  return array;
}

BatchNorm2d MakeNorm(int64_t channels, bool training, DType dtype, int threads) {
  BatchNormOptions options;
  options.num_features = channels;
  options.dtype = dtype;
  options.threads = threads;
  BatchNorm2d norm = BatchNorm2d::create(options).value();
  const auto set = [&](const char* name, double value) {
    static_cast<void>(norm.set_state(name, std::vector<double>(static_cast<size_t>(channels), value)).ok());
  };
  set("weight", 1.25);
  set("bias", 0.5);
  set("running_mean", 0.25);
  set("running_var", 4);
  if (!training) norm.eval();
  return norm;
}

// Times that the tensor has to move between the memory and the cores.
int64_t Passes(const BenchShape& shape, What what, Layout layout, DType dtype) {
  if (what == What::kRead) return 1;
  if (what != What::kTrain) return 2;
  const int64_t channel = shape.size() / shape.c * static_cast<int64_t>(ByteSize(dtype));
  return layout == Layout::kPlain && 2 * channel <= sysconf(_SC_LEVEL2_CACHE_SIZE) ? 2 : 3;
}

void Run(benchmark::State& state, BenchShape shape, What what, Layout layout, DType dtype, int threads) {
  const std::shared_ptr<ThreadPool> pool = ThreadPool::Shared(threads);
  Buffers& buffers = BuffersFor(shape, dtype);
  BatchNorm2d norm = MakeNorm(shape.c, what == What::kTrain, dtype, threads);
  const Array x = ArrayOf(shape, layout, dtype, buffers.src), y = ArrayOf(shape, layout, dtype, buffers.dst);
  for (auto _ : state) {
    if (what == What::kEval || what == What::kTrain) {
      if (!norm.forward({x.data, x.dtype, x.shape, x.strides}, y).ok()) state.SkipWithError("forward failed");
    } else {
      PoolRequest request(pool.get());
      const RunContext context{request.executor(), nullptr};
      if (what == What::kMemcpy) Memcpy(context, buffers);
      if (what == What::kStreamCopy) StreamCopy(context, buffers);
      if (what == What::kRead) Read(context, buffers);
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * Passes(shape, what, layout, dtype) *
                          static_cast<int64_t>(buffers.src.byte_size()));
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
      Register("read", shape, What::kRead, Layout::kPlain, DType::kFloat32, threads);
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
