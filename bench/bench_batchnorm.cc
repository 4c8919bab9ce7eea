// SPDX-License-Identifier: Apache-2.0
// crease::BatchNorm2d, alone, with Relu and with a residual and Relu, against the memory's speed: memcpy, a copy with
// streaming stores and a read, on tensors from a few hundred KB to 100 MB. Threads are the pool's. Bandwidth counts
// what has to move: one read and one write of the tensor, and one read of a residual; one read for `read`; for training
// two reads and one write where a channel does not fit into L2 twice (NCHW) or its values lie apart (NHWC). What lies
// in caches is read twice by training in any case: `two_pass`, a contender there alone, does that and nothing else, the
// second time from L1 where it can be.
//
//   bench_batchnorm --benchmark_filter=eval/f32/NCHW
//   bench_batchnorm --turns=SECONDS [--cases=REGEX]
//
// Pace and caches change from one second to the next, so only the second form says how the contenders of a case
// compare: they take turns of a fraction of a millisecond in one process, on the same memory, with the same pool and
// split. It prints JSON, a case an object: microseconds by contender, the fastest and the median run.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "crease/batch_norm.h"
#include "kernels/affine.h"
#include "kernels/affine_rows.h"
#include "kernels/cache_sizes.h"
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

enum class What { kMemcpy, kStreamCopy, kRead, kTwoPass, kEval, kEvalRelu, kEvalAddRelu, kTrain };

struct Buffers {
  Tensor src, dst, residual;
  Tensor streamed;  // what was written past the caches is slow to be written into them, for several runs

  Buffers(const BenchShape& shape, DType dtype) {
    src = Tensor::Allocate(dtype, {shape.size()}).value();
    dst = Tensor::Allocate(dtype, {shape.size()}).value();
    residual = Tensor::Allocate(dtype, {shape.size()}).value();
    streamed = Tensor::Allocate(dtype, {shape.size()}).value();
    auto* bytes = src.mutable_data<std::byte>();
    for (int64_t i = 0; i < shape.size(); ++i) {
      const float x = static_cast<float>((i * 2654435761LL >> 8) % 1000) * 0.01f - 5;
      if (dtype == DType::kFloat32) std::memcpy(bytes + i * 4, &x, 4);
      const uint16_t half = FloatToBFloat16(x);
      if (dtype == DType::kBFloat16) std::memcpy(bytes + i * 2, &half, 2);
    }
    std::memcpy(residual.mutable_data<std::byte>(), bytes, residual.byte_size());
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
  args.dst = const_cast<std::byte*>(b.streamed.bytes());
  args.scale = &one;
  args.shift = &zero;
  args.stream = true;
  args.walk = PreferredWalk();
  const AffinePlanes rows = FindAffineRows(Activation::kNone, Residual::kNone).planes;
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

// Lines [begin, end) by vectors that every x86 has.
template <bool kFetch>
void ReadLines(const Buffers& b, int64_t begin, int64_t end) {
  using Words __attribute__((vector_size(16))) = uint64_t;
  constexpr int64_t kAhead = 16;  // lines
  const auto* words = reinterpret_cast<const Words*>(b.src.bytes());
  Words s0 = {}, s1 = {}, s2 = {}, s3 = {};
  for (int64_t i = 4 * begin; i < 4 * end; i += 4) {
    if constexpr (kFetch) __builtin_prefetch(words + i + 4 * kAhead);
    s0 += words[i];
    s1 += words[i + 1];
    s2 += words[i + 2];
    s3 += words[i + 3];
  }
  s0 += s1 + s2 + s3;
  benchmark::DoNotOptimize(s0);
}

// Fetched ahead, as the fastest reads of memory are; from L3 (Zen 4) 49 us so where 33 do without.
void Read(const RunContext& context, const Buffers& b) {
  const auto size = static_cast<int64_t>(b.src.byte_size());
  ParallelForCost(context, size / 64, size / 4, [&](int64_t begin, int64_t end) {
    ShouldStream(size) ? ReadLines<true>(b, begin, end) : ReadLines<false>(b, begin, end);
  });
}

// A read and a copy, `block` bytes at a time: what normalizing by the batch has to move where caches hold the tensor.
// A block that L1 holds is copied from there.
void TwoPass(const RunContext& context, const Buffers& b, int64_t block) {
  const int64_t lines = static_cast<int64_t>(b.src.byte_size()) / 64, each = block / 64;
  ParallelForCost(context, lines, lines * 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += each) {
      const int64_t stop = std::min(end, i + each);
      ReadLines<false>(b, i, stop);
      std::memcpy(const_cast<std::byte*>(b.dst.bytes()) + i * 64, b.src.bytes() + i * 64,
                  static_cast<size_t>(stop - i) * 64);
    }
  });
}

Array ArrayOf(const BenchShape& s, Layout layout, DType dtype, Tensor& tensor) {
  Array array{tensor.mutable_data<std::byte>(), dtype, {s.n, s.c, s.h, s.w}, {}};
  if (layout == Layout::kChannelsLast) array.strides = {s.h * s.w * s.c, 1, s.w * s.c, s.c};
  return array;
}

ConstArray ConstArrayOf(const BenchShape& s, Layout layout, DType dtype, Tensor& tensor) {
  const Array array = ArrayOf(s, layout, dtype, tensor);
  return {array.data, array.dtype, array.shape, array.strides};
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
  if (what == What::kEvalAddRelu) return 3;
  if (what != What::kTrain) return 2;
  const int64_t channel = shape.size() / shape.c * static_cast<int64_t>(ByteSize(dtype));
  return layout == Layout::kPlain && 2 * channel <= static_cast<int64_t>(GetCacheSizes().l2) ? 2 : 3;
}

// One contender of a case: what is timed.
class Contender {
 public:
  Contender(const BenchShape& shape, What what, Layout layout, DType dtype, int threads)
      : what_(what),
        pool_(ThreadPool::Shared(threads)),
        buffers_(BuffersFor(shape, dtype)),
        block_(TwoPassBlock(shape, layout, dtype)),
        norm_(MakeNorm(shape.c, what == What::kTrain, dtype, threads)),
        x_(ConstArrayOf(shape, layout, dtype, buffers_.src)),
        y_(ArrayOf(shape, layout, dtype, buffers_.dst)) {
    if (what == What::kEvalRelu || what == What::kEvalAddRelu) epilogue_.activation = NormActivation::kRelu;
    if (what == What::kEvalAddRelu) epilogue_.residual = ConstArrayOf(shape, layout, dtype, buffers_.residual);
  }

  bool Run() {
    if (what_ == What::kEval || what_ == What::kTrain) return norm_.forward(x_, y_).ok();
    if (what_ == What::kEvalRelu || what_ == What::kEvalAddRelu) return norm_.forward(x_, y_, epilogue_).ok();
    PoolRequest request(PoolFor(buffers_.src.size()));
    const RunContext context{request.executor(), nullptr};
    if (what_ == What::kMemcpy) Memcpy(context, buffers_);
    if (what_ == What::kStreamCopy) StreamCopy(context, buffers_);
    if (what_ == What::kRead) Read(context, buffers_);
    if (what_ == What::kTwoPass) TwoPass(context, buffers_, block_);
    return true;
  }
  int64_t bytes() const { return static_cast<int64_t>(buffers_.src.byte_size()); }

 private:
  // BatchNorm::forward works on so few elements on the caller; what it is compared with does as well.
  ThreadPool* PoolFor(int64_t count) const {
    return count < int64_t{1} << (what_ == What::kTwoPass ? 15 : 17) ? nullptr : pool_.get();
  }

  // A channel, or as much as lies well in L1. Where channels lie side by side, everything, unless two lines of every
  // row are no more than that.
  static int64_t TwoPassBlock(const BenchShape& shape, Layout layout, DType dtype) {
    constexpr int64_t kInL1 = 16 << 10, kColumns = 128;
    const int64_t bytes = shape.size() * static_cast<int64_t>(ByteSize(dtype));
    const bool by_columns = shape.n * shape.h * shape.w * kColumns <= kInL1;
    const int64_t block = layout == Layout::kPlain ? std::max(bytes / shape.c, kInL1) : by_columns ? kInL1 : bytes;
    return (block + 63) / 64 * 64;
  }

  What what_;
  std::shared_ptr<ThreadPool> pool_;
  Buffers& buffers_;
  int64_t block_;
  BatchNorm2d norm_;
  ConstArray x_;
  Array y_;
  NormEpilogue epilogue_;
};

void Run(benchmark::State& state, BenchShape shape, What what, Layout layout, DType dtype, int threads) {
  Contender contender(shape, what, layout, dtype, threads);
  for (auto _ : state) {
    if (!contender.Run()) state.SkipWithError("forward failed");
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * Passes(shape, what, layout, dtype) * contender.bytes());
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
        Register("BatchNorm/eval+relu/f32/" + tail, shape, What::kEvalRelu, layout, DType::kFloat32, threads);
        Register("BatchNorm/eval+add+relu/f32/" + tail, shape, What::kEvalAddRelu, layout, DType::kFloat32, threads);
        Register("BatchNorm/train/f32/" + tail, shape, What::kTrain, layout, DType::kFloat32, threads);
        Register("BatchNorm/eval/bf16/" + tail, shape, What::kEval, layout, DType::kBFloat16, threads);
      }
    }
  }
}

using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kTurn{400};
constexpr int kLeastRuns = 2;

struct Times {
  const char* name;
  What what;
  std::vector<double> microseconds = {};
};

// One run that is not timed, for the caches, then some that are.
void TakeTurn(Contender& contender, std::vector<double>& microseconds) {
  contender.Run();
  Clock::time_point start = Clock::now();
  const Clock::time_point end = start + kTurn;
  for (int runs = 0; runs < kLeastRuns || start < end; ++runs) {
    contender.Run();
    const Clock::time_point now = Clock::now();
    microseconds.push_back(std::chrono::duration<double, std::micro>(now - start).count());
    start = now;
  }
}

void PrintCase(const std::string& name, std::vector<Times>& all, bool first) {
  std::printf("%s\n \"%s\": {", first ? "" : ",", name.c_str());
  for (Times& times : all) {
    std::vector<double>& us = times.microseconds;
    std::sort(us.begin(), us.end());
    std::printf("%s\"%s\": {\"least\": %.3f, \"median\": %.3f}", &times == all.data() ? "" : ", ", times.name,
                us.front(), us[us.size() / 2]);
  }
  std::printf("}");
  std::fflush(stdout);
}

void Turns(double seconds, const std::regex& cases) {
  bool first = true;
  std::printf("{");
  for (const int threads : {1, 2}) {
    for (const BenchShape& shape : kShapes) {
      for (const Layout layout : {Layout::kPlain, Layout::kChannelsLast}) {
        const std::string name =
            shape.name() + (layout == Layout::kPlain ? "/NCHW" : "/NHWC") + "/threads:" + std::to_string(threads);
        if (!std::regex_search(name, cases)) continue;
        std::vector<Times> all = {{"memcpy", What::kMemcpy},      {"stream_copy", What::kStreamCopy},
                                  {"read", What::kRead},          {"two_pass", What::kTwoPass},
                                  {"eval", What::kEval},          {"train", What::kTrain},
                                  {"eval_relu", What::kEvalRelu}, {"eval_add_relu", What::kEvalAddRelu}};
        if (ShouldStream(shape.size() * static_cast<int64_t>(sizeof(float)))) {
          std::erase_if(all, [](const Times& times) { return times.what == What::kTwoPass; });
        }
        std::vector<Contender> contenders;
        for (const Times& times : all) contenders.emplace_back(shape, times.what, layout, DType::kFloat32, threads);
        const Clock::time_point end =
            Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
        do {
          for (size_t i = 0; i < all.size(); ++i) TakeTurn(contenders[i], all[i].microseconds);
        } while (Clock::now() < end);
        PrintCase(name, all, first);
        first = false;
      }
    }
  }
  std::printf("\n}\n");
}

}  // namespace
}  // namespace crease

int main(int argc, char** argv) {
  double seconds = 0;
  std::string cases;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--turns=")) seconds = std::atof(argv[i] + 8);
    if (argument.starts_with("--cases=")) cases = argv[i] + 8;
  }
  if (seconds > 0) {
    crease::Turns(seconds, std::regex(cases));
    return 0;
  }
  crease::RegisterAll();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
