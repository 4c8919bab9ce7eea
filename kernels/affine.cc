// SPDX-License-Identifier: Apache-2.0
#include "kernels/affine.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "graph/ops/batch_norm.h"
#include "kernels/aligned_vector.h"
#include "kernels/cache_sizes.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// Repeats per-channel values up to `period`.
void RepeatTo(int64_t period, AlignedVector<float>& values) {
  const size_t channels = values.size();
  if (channels == 0) return;
  values.reserve(static_cast<size_t>(period));
  for (auto i = channels; i < static_cast<size_t>(period); ++i) values.push_back(values[i - channels]);
}

// The pattern stays in L1 beside the data.
constexpr int64_t kMaxPeriod = 2048;
// Floats of the widest vector: a multiple of it never needs a masked tail.
constexpr int64_t kVector = 16;
// Work is handed out in runs of this many elements (64 bytes of the narrowest type), so that no two
// workers write the same cache line of an aligned tensor.
constexpr int64_t kGrain = 64;

// Of a large shared last-level cache, as servers report it, a process gets some 32 MiB (measured: streaming wins by
// 20-70 % from there on).
constexpr size_t kShare = size_t{32} << 20;

// What is read besides a source and a result of so many bytes.
int64_t ResidualBytes(const AffineArgs& args, int64_t bytes) {
  return args.residual == nullptr || args.residual == args.dst ? 0 : bytes;
}

// Whether what a worker reads and writes, for a result of so many bytes, is more than its L2 holds. From 1.6 times L2
// on rows one by one are faster (kernels/affine_maps-inl.h): rows of 960 floats, Zen 4, 1.5 MB read and written 15.8 us
// in blocks, 17.2 one by one; 1.9 MB 21.8, and 20.8; rows of 512, 1.6 MB, 18.2 and 17.4.
bool IsPastL2(const RunContext& context, const AffineArgs& args, int64_t bytes) {
  const int64_t moved = (args.src == args.dst ? 1 : 2) * bytes + ResidualBytes(args, bytes);
  return 5 * moved > 8 * static_cast<int64_t>(GetCacheSizes().l2) * context.executor.workers();
}

// For a result of so many bytes, with sources as large.
void DecideWrites(const RunContext& context, int64_t bytes, AffineArgs& args) {
  args.walk = PreferredWalk();
  args.stream = ShouldStream(bytes + ResidualBytes(args, bytes) / 2, context.executor.workers());
  const auto l2 = static_cast<int64_t>(GetCacheSizes().l2);
  args.fetch = 4 * bytes > l2;
  args.fetch_source = 2 * bytes > l2;
  args.past_l2 = IsPastL2(context, args, bytes);
}

// Aligned, since they are read with every row: where each vector of them lies on two lines, rows of 512 floats with
// Relu, 3 MB in L3, Zen 4, take 94 us in place of 79.
struct Parameters {
  AlignedVector<float> scale, shift;
};

Result<Parameters> ParametersOf(const KernelRequest& request, int64_t channels) {
  const bool batch_norm = request.node.op_type == "BatchNormalization";
  const size_t count = batch_norm ? 5 : 3;
  if (request.src.size() < count) return Refuse("too few inputs");
  for (size_t i = 1; i < count; ++i) {
    const Operand& operand = request.src[i];
    if (!operand.present || operand.constant == nullptr) return Refuse("parameters are not constant");
    if (operand.constant->size() != channels) return Refuse("parameter length differs from the channels");
  }
  Parameters parameters;
  if (!batch_norm) {
    for (int64_t c = 0; c < channels; ++c) {
      parameters.scale.push_back(static_cast<float>(request.src[1].constant->AsDouble(c)));
      parameters.shift.push_back(static_cast<float>(request.src[2].constant->AsDouble(c)));
    }
    return parameters;
  }
  CREASE_ASSIGN_OR_RETURN(const auto attributes, ops::ParseBatchNorm(request.node, request.opset));
  if (attributes.training) return Refuse("training mode");
  CREASE_ASSIGN_OR_RETURN(const ops::BatchNormAffine affine,
                          ops::ResolveBatchNorm(attributes, *request.src[1].constant, *request.src[2].constant,
                                                *request.src[3].constant, *request.src[4].constant));
  parameters.scale.assign(affine.scale.begin(), affine.scale.end());
  parameters.shift.assign(affine.shift.begin(), affine.shift.end());
  return parameters;
}

class AffineKernel final : public Kernel {
 public:
  AffineKernel(const KernelRequest& request, Parameters parameters)
      : epilogue_(request.epilogue),
        rows_(FindAffineRows(epilogue_.activation, epilogue_.residual)),
        parameters_(std::move(parameters)),
        period_(PatternPeriod(static_cast<int64_t>(parameters_.scale.size()))) {
    RepeatTo(period_, parameters_.scale);
    RepeatTo(period_, parameters_.shift);
  }

  std::string Describe() const override { return "affine"; }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const ConstTensorView& x = src[0];
    if (x.size() == 0) return;
    const ConstTensorView& r = src.back();
    AffineArgs args;
    args.src = x.data;
    args.dst = dst[0].data;
    args.scale = parameters_.scale.data();
    args.shift = parameters_.shift.data();
    args.a = epilogue_.a;
    args.b = epilogue_.b;
    const bool has_residual = epilogue_.residual != Residual::kNone;
    if (has_residual) args.residual = r.data;
    const int64_t channels = x.channels();
    const int64_t pixels = x.batch() * x.spatial();
    const bool plain = x.layout == Layout::kPlain && x.spatial() > 1;
    if (plain) {
      RunAffinePlain(context, rows_.planes, args, x.dtype, x.batch(), channels, x.spatial());
    } else if (x.dense() && dst[0].dense() && (!has_residual || r.dense())) {
      RunAffineDense(context, rows_.pixels, args, x.dtype, channels, period_, pixels * channels);
    } else {
      const AffinePitches pitches = {PitchOf(x), has_residual ? PitchOf(r) : 0, PitchOf(dst[0])};
      RunAffinePitched(context, rows_.pixels, args, x.dtype, channels, pitches, pixels);
    }
  }

 private:
  static int64_t PitchOf(const ConstTensorView& view) {
    return view.layout == Layout::kPlain ? view.channels() : view.pitch;
  }

  Epilogue epilogue_;
  AffineRows rows_;
  Parameters parameters_;  // repeated up to period_
  int64_t period_;
};

}  // namespace

int64_t PatternPeriod(int64_t channels) {
  if (channels == 0) return 0;
  const int64_t whole = std::lcm(channels, kVector);
  // Short periods are repeated, so that a row is worth its loop.
  return whole > kMaxPeriod ? channels : whole * std::max<int64_t>(1, 256 / whole);
}

int64_t LastLevelBytes() { return static_cast<int64_t>(std::min(GetCacheSizes().l3, kShare)); }

bool ShouldStream(int64_t bytes, int workers) {
  // What cores that share a cache write past it goes through one link. 19 MB by 2 threads, Zen 4 with 32 MiB: 0.69 ms
  // past the cache, 0.45 to 0.5 into it, or with a cache for each core 0.35 and 0.25; by one thread 0.70 and 0.83.
  const int64_t last_level = LastLevelBytes();
  const bool together = workers > 1 && PreferredWalk() == Walk::kOrder && last_level == static_cast<int64_t>(kShare);
  // Else where source and result together are past the last-level cache.
  return together ? 3 * bytes > 2 * last_level : 2 * bytes > last_level;
}

void RunAffinePlain(const RunContext& context, AffinePlanes rows, AffineArgs args, DType dtype, int64_t batch,
                    int64_t channels, int64_t plane) {
  const int64_t count = batch * channels * plane;
  DecideWrites(context, count * static_cast<int64_t>(ByteSize(dtype)), args);
  ParallelForCost(context, DivideUp(count, kGrain), count, [&](int64_t begin, int64_t end) {
    rows(args, channels, plane, begin * kGrain, std::min(end * kGrain, count));
  });
}

void RunAffineDense(const RunContext& context, AffinePixels rows, AffineArgs args, DType dtype, int64_t channels,
                    int64_t period, int64_t count) {
  DecideWrites(context, count * static_cast<int64_t>(ByteSize(dtype)), args);
  args.cycle = channels;
  const AffinePitches pitches = {period, period, period};
  const int64_t whole = count / period;
  ParallelForCost(context, whole, count, [&](int64_t begin, int64_t end) { rows(args, period, pitches, begin, end); });
  if (whole * period == count) return;
  const int64_t done = whole * period * static_cast<int64_t>(ByteSize(dtype));
  args.stream = args.fetch = args.fetch_source = args.past_l2 = false;
  args.cycle = 0;
  args.src = static_cast<const std::byte*>(args.src) + done;
  args.dst = static_cast<std::byte*>(args.dst) + done;
  if (args.residual != nullptr) args.residual = static_cast<const std::byte*>(args.residual) + done;
  rows(args, count - whole * period, pitches, 0, 1);
}

void RunAffinePitched(const RunContext& context, AffinePixels rows, AffineArgs args, DType dtype, int64_t channels,
                      const AffinePitches& pitches, int64_t pixels) {
  args.walk = PreferredWalk();
  args.past_l2 = IsPastL2(context, args, pixels * channels * static_cast<int64_t>(ByteSize(dtype)));
  ParallelForCost(context, pixels, pixels * channels,
                  [&](int64_t begin, int64_t end) { rows(args, channels, pitches, begin, end); });
}

KernelResult MakeAffine(const KernelRequest& request) {
  const Operand& x = request.src[0];
  if (!x.present || x.dtype != DType::kFloat32 || request.dst[0].dtype != DType::kFloat32) return Refuse("not float32");
  if (x.shape.size() < 2) return Refuse("rank < 2");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (x.constant != nullptr) return Refuse("constant input");
  for (size_t i = 1; i < request.dst.size(); ++i) {
    if (request.dst[i].present) return Refuse("outputs beyond Y");
  }
  if (FindAffineRows(request.epilogue.activation, request.epilogue.residual).planes == nullptr) {
    return Refuse("this activation with a residual");
  }
  CREASE_ASSIGN_OR_RETURN(Parameters parameters, ParametersOf(request, x.shape[1]));
  return std::unique_ptr<Kernel>(new AffineKernel(request, std::move(parameters)));
}

}  // namespace crease
