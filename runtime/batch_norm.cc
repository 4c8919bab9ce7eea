// SPDX-License-Identifier: Apache-2.0
#include "crease/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "graph/ops/common.h"
#include "kernels/batch_norm.h"
#include "kernels/rounding.h"
#include "kernels/strided_copy.h"
#include "kernels/targets.h"
#include "runtime/batch_norm_state.h"
#include "runtime/cpu_count.h"
#include "runtime/thread_pool.h"

namespace crease {
namespace {

Error Invalid(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message), "BatchNorm"}; }

// Elements that one thread maps in some 20 microseconds.
constexpr int64_t kWorthPool = int64_t{1} << 17;

// Shape and strides of an array with a batch axis, and how its elements lie. No memory of its own: a small tensor is
// mapped in a few microseconds.
struct Placement {
  size_t rank = 0;
  std::array<int64_t, 5> shape = {}, strides = {};
  bool plain = false;          // dense, row-major
  bool channels_last = false;  // channels adjacent, pixels `pitch` apart
  int64_t pitch = 0;

  Shape Dims() const { return {shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(rank)}; }
  Shape Steps() const { return {strides.begin(), strides.begin() + static_cast<std::ptrdiff_t>(rank)}; }
};

bool IsPlain(const Placement& p) {
  int64_t step = 1;
  for (size_t i = p.rank; i-- > 0;) {
    if (p.shape[i] != 1 && p.strides[i] != step) return false;
    step *= p.shape[i];
  }
  return true;
}

// The distance of pixels if they are evenly spaced with adjacent channels, else 0.
int64_t PixelPitch(const Placement& p) {
  if (p.shape[1] != 1 && p.strides[1] != 1) return 0;
  int64_t pitch = p.shape[1], step = 0;
  bool one_pixel = true;
  for (size_t i = p.rank; i-- > 0;) {
    if (i == 1 || p.shape[i] == 1) continue;
    if (one_pixel) {
      pitch = step = p.strides[i];
      one_pixel = false;
    } else if (p.strides[i] != step) {
      return 0;
    }
    step *= p.shape[i];
  }
  return pitch >= p.shape[1] ? pitch : 0;
}

// `shape` has a rank that CheckShapes let pass.
Result<Placement> Place(const Shape& shape, const Shape& strides, bool add_batch, const char* what) {
  Placement p;
  CREASE_RETURN_IF_ERROR(ElementCount(shape));
  if (!strides.empty() && strides.size() != shape.size()) {
    return Invalid(ops::StrCat(what, ": expected ", shape.size(), " strides, got ", strides.size()));
  }
  for (const int64_t stride : strides) {
    if (stride < 0) return Invalid(ops::StrCat(what, ": expected strides >= 0, got ", stride));
  }
  const size_t first = add_batch ? 1 : 0;
  p.rank = shape.size() + first;
  p.shape[0] = 1;
  std::copy(shape.begin(), shape.end(), p.shape.begin() + first);
  int64_t step = 1;
  for (size_t i = p.rank; i-- > first;) {
    p.strides[i] = strides.empty() ? step : strides[i - first];
    step *= p.shape[i];
  }
  p.plain = IsPlain(p);
  p.pitch = PixelPitch(p);
  p.channels_last = p.pitch > 0;
  return p;
}

// What is written has a place of its own for every element.
Result<void> CheckNotExpanded(const Placement& p) {
  for (size_t i = 0; i < p.rank; ++i) {
    if (p.shape[i] > 1 && p.strides[i] == 0) {
      return Invalid(ops::StrCat("y: expected strides > 0, got ", ToString(p.Steps()), " for ", ToString(p.Dims())));
    }
  }
  return {};
}

NormTensor TensorOf(const Placement& p, DType dtype) {
  NormTensor t;
  t.dtype = dtype;
  t.batch = p.shape[0];
  t.channels = p.shape[1];
  for (size_t i = 2; i < p.rank; ++i) t.plane *= p.shape[i];
  return t;
}

Epilogue KernelEpilogue(const NormEpilogue& epilogue) {
  const auto activation = [&] {
    switch (epilogue.activation) {
      case NormActivation::kIdentity:
        break;
      case NormActivation::kRelu:
        return Activation::kRelu;
      case NormActivation::kClip:
        return Activation::kClip;
      case NormActivation::kLeakyRelu:
        return Activation::kLeakyRelu;
      case NormActivation::kHardSwish:
        return Activation::kHardSwish;
      case NormActivation::kSilu:
        return Activation::kSilu;
    }
    return Activation::kNone;
  };
  const Residual residual = epilogue.residual.data == nullptr ? Residual::kNone
                            : epilogue.residual_last          ? Residual::kAfterActivation
                                                              : Residual::kBeforeActivation;
  return {activation(), epilogue.a, epilogue.b, residual};
}

// What StridedCopy does for elements of one shape.
void CopyStrided(const RunContext& context, const Shape& shape, DType dtype, const void* src, const Shape& src_strides,
                 void* dst, const Shape& dst_strides) {
  StridedCopy(MakeLoopNest(shape, std::array{dst_strides, src_strides}), 0, 0, ByteSize(dtype)).Run(context, src, dst);
}

Result<Tensor> DenseCopy(const RunContext& context, const Placement& p, const void* data, DType dtype) {
  const Shape shape = p.Dims();
  CREASE_ASSIGN_OR_RETURN(Tensor dense, Tensor::Allocate(dtype, shape));
  CopyStrided(context, shape, dtype, data, p.Steps(), dense.mutable_data<std::byte>(),
              StorageStrides(shape, Layout::kPlain, 0));
  return dense;
}

}  // namespace

struct BatchNorm::Impl {
  BatchNormOptions options;
  int spatial_rank = 2;
  bool training = true;
  BatchNormState state;
  std::shared_ptr<ThreadPool> pool;
  std::unique_ptr<HostExecutorAdapter> host;
  std::mutex map_mutex;                     // calls in eval mode come from several threads
  std::unique_ptr<const NormMap> eval_map;  // of the running statistics; null once they have changed

  Result<void> CheckShapes(const ConstArray& x, const Array& y) const;
  Result<void> CheckVariance() const;
  Result<void> CheckEpilogue(const ConstArray& x, const NormEpilogue& epilogue) const;
  Result<void> Forward(const ConstArray& x, const Array& y, const NormEpilogue& epilogue);
  Result<void> ForwardDense(Executor& executor, const NormTensor& tensor, const Epilogue& epilogue,
                            const Placement& from, const Placement& added, const Placement& to);
  Result<void> Normalize(Executor& executor, const NormTensor& tensor, const Epilogue& epilogue);
  bool batch_statistics() const { return training || !options.track_running_stats; }
  Result<const NormMap*> EvalMap();  // valid until they change
  RunningStatistics NextRunning();   // those that one more batch is to move
};

Result<void> BatchNorm::Impl::CheckShapes(const ConstArray& x, const Array& y) const {
  const int rank = static_cast<int>(x.shape.size());
  const bool fits = spatial_rank == 1   ? rank == 2 || rank == 3
                    : spatial_rank == 2 ? rank == 3 || rank == 4
                                        : rank == spatial_rank + 2;
  if (!fits) {
    const char* expected = spatial_rank == 1   ? "(N, C) or (N, C, L)"
                           : spatial_rank == 2 ? "(N, C, H, W) or (C, H, W)"
                                               : "(N, C, D, H, W)";
    return Invalid(ops::StrCat("expected x of shape ", expected, ", got ", ToString(x.shape)));
  }
  const size_t axis = spatial_rank == 2 && rank == 3 ? 0 : 1;
  if (x.shape[axis] != options.num_features) {
    return Invalid(ops::StrCat("expected ", options.num_features, " channels on axis ", axis, ", got ", x.shape[axis],
                               " in ", ToString(x.shape)));
  }
  if (x.dtype != options.dtype || y.dtype != options.dtype) {
    return Invalid(
        ops::StrCat("expected ", Name(options.dtype), ", got x of ", Name(x.dtype), " and y of ", Name(y.dtype)));
  }
  if (x.shape != y.shape) {
    return Invalid(ops::StrCat("expected y of x's shape, ", ToString(x.shape), ", got ", ToString(y.shape)));
  }
  return {};
}

Result<void> BatchNorm::Impl::CheckEpilogue(const ConstArray& x, const NormEpilogue& epilogue) const {
  const Epilogue wanted = KernelEpilogue(epilogue);
  if (wanted.empty()) return {};
  if (batch_statistics()) return Invalid("epilogue: expected running statistics in eval mode, got batch statistics");
  if (!CanFuse(x.dtype, wanted)) {
    return Invalid(ops::StrCat("epilogue: expected float32, float16 or bfloat16, got ", Name(x.dtype)));
  }
  if (wanted.activation == Activation::kClip && !(wanted.a <= wanted.b)) {
    return Invalid(ops::StrCat("epilogue: expected bounds in order, got ", wanted.a, " and ", wanted.b));
  }
  const ConstArray& r = epilogue.residual;
  if (wanted.residual != Residual::kNone && (r.dtype != x.dtype || r.shape != x.shape)) {
    return Invalid(ops::StrCat("expected a residual of x's dtype and shape, ", Name(x.dtype), " ", ToString(x.shape),
                               ", got ", Name(r.dtype), " ", ToString(r.shape)));
  }
  return {};
}

Result<void> BatchNorm::Impl::CheckVariance() const {
  for (size_t c = 0; c < state.running_var.size(); ++c) {
    const double sum = state.running_var[c] + options.eps;
    if (!(sum > 0) || !std::isfinite(sum)) {
      return Invalid(ops::StrCat("channel ", c, ": expected running_var + eps > 0 and finite, got ", sum));
    }
  }
  return {};
}

RunningStatistics BatchNorm::Impl::NextRunning() {
  const double factor =
      options.momentum ? *options.momentum : 1.0 / (static_cast<double>(state.num_batches_tracked) + 1);
  return {state.running_mean, state.running_var, factor};
}

Result<const NormMap*> BatchNorm::Impl::EvalMap() {
  const std::lock_guard<std::mutex> lock(map_mutex);
  if (eval_map == nullptr) {
    CREASE_RETURN_IF_ERROR(CheckVariance());
    const NormParameters parameters{state.weight, state.bias, options.eps};
    eval_map = std::make_unique<const NormMap>(options.dtype, parameters, state.running_mean, state.running_var);
  }
  return eval_map.get();
}

Result<void> BatchNorm::Impl::Normalize(Executor& executor, const NormTensor& tensor, const Epilogue& epilogue) {
  RunContext context{executor, nullptr};
  if (!batch_statistics()) {
    CREASE_ASSIGN_OR_RETURN(const NormMap* map, EvalMap());
    map->Apply(context, tensor, epilogue);
    return {};
  }
  const NormParameters parameters{state.weight, state.bias, options.eps};
  // The batch's mean and variance, each from where a line begins, then the kernels' memory.
  constexpr size_t kLine = 64;
  const auto channels = static_cast<size_t>(tensor.channels);
  const auto each = static_cast<size_t>(RoundUp(tensor.channels, kLine / sizeof(double)));
  const size_t own_bytes = 2 * each * sizeof(double);
  const std::unique_ptr<std::byte[], decltype(&std::free)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kLine, own_bytes + NormScratchBytes(tensor))), &std::free);
  if (memory == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for statistics", "BatchNorm"};
  auto* const values = reinterpret_cast<double*>(memory.get());
  std::uninitialized_default_construct_n(values, 2 * each);
  const std::span<double> mean(values, channels), var(values + each, channels);
  context.scratch = memory.get() + own_bytes;
  if (!training || !options.track_running_stats) {
    NormalizeByBatch(context, tensor, parameters, mean, var);
    return {};
  }
  const RunningStatistics running = NextRunning();
  eval_map = nullptr;
  NormalizeByBatch(context, tensor, parameters, mean, var, &running);
  if (state.num_batches_tracked < std::numeric_limits<int64_t>::max()) ++state.num_batches_tracked;
  return {};
}

// Strides that no kernel takes: through dense copies.
Result<void> BatchNorm::Impl::ForwardDense(Executor& executor, const NormTensor& tensor, const Epilogue& epilogue,
                                           const Placement& from, const Placement& added, const Placement& to) {
  const RunContext context{executor, nullptr};
  CREASE_ASSIGN_OR_RETURN(Tensor dense, DenseCopy(context, from, tensor.src, tensor.dtype));
  NormTensor own = tensor;
  own.src = own.dst = dense.mutable_data<std::byte>();
  Tensor residual;
  if (tensor.residual != nullptr) {
    CREASE_ASSIGN_OR_RETURN(residual, DenseCopy(context, added, tensor.residual, tensor.dtype));
    own.residual = residual.bytes();
  }
  CREASE_RETURN_IF_ERROR(Normalize(executor, own, epilogue));
  const Shape shape = to.Dims();
  CopyStrided(context, shape, tensor.dtype, own.dst, StorageStrides(shape, Layout::kPlain, 0), tensor.dst, to.Steps());
  return {};
}

Result<void> BatchNorm::Impl::Forward(const ConstArray& x, const Array& y, const NormEpilogue& epilogue) {
  CREASE_RETURN_IF_ERROR(CheckShapes(x, y));
  CREASE_RETURN_IF_ERROR(CheckEpilogue(x, epilogue));
  const bool unbatched = static_cast<int>(x.shape.size()) == spatial_rank + 1 && spatial_rank == 2;
  CREASE_ASSIGN_OR_RETURN(const Placement from, Place(x.shape, x.strides, unbatched, "x"));
  const Result<Placement> of_y = y.strides == x.strides ? from : Place(y.shape, y.strides, unbatched, "y");
  CREASE_RETURN_IF_ERROR(of_y);
  const Placement& to = *of_y;
  CREASE_RETURN_IF_ERROR(CheckNotExpanded(to));
  const Epilogue wanted = KernelEpilogue(epilogue);
  Placement added;
  if (wanted.residual != Residual::kNone) {
    CREASE_ASSIGN_OR_RETURN(added, Place(x.shape, epilogue.residual.strides, unbatched, "residual"));
  }
  const Placement& third = wanted.residual != Residual::kNone ? added : from;
  NormTensor tensor = TensorOf(from, x.dtype);
  tensor.src = x.data;
  tensor.residual = epilogue.residual.data;
  tensor.dst = y.data;
  const int64_t values = tensor.values_per_channel();
  if (batch_statistics() && values <= 1) {
    return Invalid(ops::StrCat("batch statistics: expected more than one value a channel, got ", values));
  }
  // A channel of one value many times would be divided by zero.
  if (batch_statistics() && options.eps == 0) return Invalid("batch statistics: expected eps > 0, got 0");
  if (values == 0) return {};
  if (x.data == nullptr || y.data == nullptr) return Invalid(x.data == nullptr ? "x: data is null" : "y: data is null");
  // Waking the pool takes longer than such a tensor does.
  const bool small = values * tensor.channels < (batch_statistics() ? kWorthPool / 4 : kWorthPool);
  PoolRequest request(host || small ? nullptr : pool.get());
  Executor& executor = host ? static_cast<Executor&>(*host) : request.executor();
  if (from.plain && to.plain && third.plain) return Normalize(executor, tensor, wanted);
  if (from.channels_last && to.channels_last && third.channels_last) {
    tensor.layout = Layout::kChannelsLast;
    tensor.src_pitch = from.pitch;
    tensor.residual_pitch = third.pitch;
    tensor.dst_pitch = to.pitch;
    return Normalize(executor, tensor, wanted);
  }
  return ForwardDense(executor, tensor, wanted, from, added, to);
}

BatchNorm::BatchNorm(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
BatchNorm::BatchNorm(BatchNorm&&) noexcept = default;
BatchNorm& BatchNorm::operator=(BatchNorm&&) noexcept = default;
BatchNorm::~BatchNorm() = default;

const BatchNormOptions& BatchNorm::options() const { return impl_->options; }
bool BatchNorm::training() const { return impl_->training; }
void BatchNorm::train() { impl_->training = true; }
void BatchNorm::eval() { impl_->training = false; }

Result<void> BatchNorm::forward(const ConstArray& x, const Array& y) { return impl_->Forward(x, y, {}); }

Result<void> BatchNorm::forward(const ConstArray& x, const Array& y, const NormEpilogue& epilogue) {
  return impl_->Forward(x, y, epilogue);
}

Result<std::vector<double>> BatchNorm::state(std::string_view name) const {
  const ChannelValues* values = impl_->state.Find(name);
  if (values == nullptr) return Invalid(ops::StrCat("no state of name '", name, "'"));
  return std::vector<double>(values->begin(), values->end());
}

Result<void> BatchNorm::set_state(std::string_view name, std::span<const double> values) {
  ChannelValues* target = impl_->state.Find(name);
  if (target == nullptr) return Invalid(ops::StrCat("no state of name '", name, "'"));
  if (values.size() != target->size()) {
    return Invalid(ops::StrCat(name, ": expected ", target->size(), " values, got ", values.size()));
  }
  *target = Kept(impl_->options.dtype, values);
  impl_->eval_map = nullptr;
  return {};
}

int64_t BatchNorm::num_batches_tracked() const { return impl_->state.num_batches_tracked; }
Result<void> BatchNorm::set_num_batches_tracked(int64_t count) {
  if (count < 0) return Invalid(ops::StrCat("num_batches_tracked: expected an integer >= 0, got ", count));
  impl_->state.num_batches_tracked = count;
  return {};
}

Result<void> BatchNorm::load(const std::string& path, const std::string& prefix) {
  impl_->eval_map = nullptr;
  return LoadState(path, prefix, impl_->options.dtype, &impl_->state);
}

Result<void> BatchNorm::save(const std::string& path, const std::string& prefix) const {
  return SaveState(path, prefix, impl_->options.dtype, impl_->state);
}

Result<std::shared_ptr<BatchNorm::Impl>> BatchNorm::Make(int spatial_rank, const BatchNormOptions& options) {
  CREASE_RETURN_IF_ERROR(CheckTargetCap());
  if (options.num_features < 1) return Invalid(ops::StrCat("expected num_features >= 1, got ", options.num_features));
  if (!(options.eps >= 0) || !std::isfinite(options.eps)) {
    return Invalid(ops::StrCat("expected a finite eps >= 0, got ", options.eps));
  }
  if (options.momentum && !(*options.momentum >= 0 && *options.momentum <= 1)) {
    return Invalid(ops::StrCat("expected a momentum in [0, 1], got ", *options.momentum));
  }
  if (!IsFloat(options.dtype)) {
    return Invalid(ops::StrCat("expected float32, float64, bfloat16 or float16, got ", Name(options.dtype)));
  }
  CREASE_RETURN_IF_ERROR(CheckThreads(options.threads));
  auto impl = std::make_shared<Impl>();
  impl->options = options;
  impl->spatial_rank = spatial_rank;
  try {
    impl->state =
        BatchNormState(static_cast<size_t>(options.num_features), options.affine, options.track_running_stats);
  } catch (const std::exception&) {  // std::bad_alloc, std::length_error
    return Error{ErrorCode::kOutOfMemory, ops::StrCat("no memory for ", options.num_features, " channels"),
                 "BatchNorm"};
  }
  if (options.executor.parallel_for) {
    impl->host = std::make_unique<HostExecutorAdapter>(options.executor);
  } else {
    impl->pool = ThreadPool::Shared(ThreadCount(options.threads));
  }
  return impl;
}

Result<std::shared_ptr<BatchNorm::Impl>> BatchNorm::FromNode(int spatial_rank, const std::string& path,
                                                             const std::string& node_name,
                                                             const BatchNormOptions& options) {
  CREASE_ASSIGN_OR_RETURN(const NodeState node, ReadNodeState(path, node_name, options.dtype));
  BatchNormOptions own = options;
  own.num_features = static_cast<int64_t>(node.state.weight.size());
  own.eps = node.eps;
  own.momentum = 1 - node.momentum;
  own.affine = own.track_running_stats = true;
  CREASE_ASSIGN_OR_RETURN(std::shared_ptr<Impl> impl, Make(spatial_rank, own));
  impl->state = node.state;
  impl->training = false;
  return impl;
}

}  // namespace crease
