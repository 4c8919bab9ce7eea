// SPDX-License-Identifier: Apache-2.0
#include "kernels/onednn/primitive.h"

#include <array>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "kernels/targets.h"
#include "kernels/weight_memory.h"

#if CREASE_ONEDNN_THREADPOOL
#include "oneapi/dnnl/dnnl_threadpool.hpp"
#include "oneapi/dnnl/dnnl_threadpool_iface.hpp"
#endif

namespace crease::onednn {
namespace {

// Source, weights, bias, destination, scratchpad, residual.
constexpr size_t kMaxArguments = 8;

#if CREASE_ONEDNN_THREADPOOL
// Where oneDNN's loops run that this thread starts, and whether it is inside one.
struct Loops {
  Executor* executor = nullptr;
  bool inside = false;
};
thread_local Loops current_loops;

// oneDNN's loops on the executor of the moment. It asks for n tasks, task i of n; the partition is oneDNN's own.
class Adapter final : public dnnl::threadpool_interop::threadpool_iface {
 public:
  int get_num_threads() const override { return current_loops.executor ? current_loops.executor->workers() : 1; }
  bool get_in_parallel() const override { return current_loops.inside; }
  void parallel_for(int count, const std::function<void(int, int)>& task) override;
  uint64_t get_flags() const override { return 0; }  // parallel_for returns when all is done
  // Pure virtual from oneDNN 3.11 on, unknown before.
  virtual void wait() {}
};

// While it lives, oneDNN's loops that this thread starts run there.
class LoopsOn {
 public:
  explicit LoopsOn(Executor& executor, bool inside = false)
      : before_(std::exchange(current_loops, Loops{&executor, inside})) {}
  ~LoopsOn() { current_loops = before_; }
  LoopsOn(const LoopsOn&) = delete;
  LoopsOn& operator=(const LoopsOn&) = delete;

 private:
  Loops before_;
};

void Adapter::parallel_for(int count, const std::function<void(int, int)>& task) {
  SerialExecutor serial;
  Executor& executor = current_loops.executor ? *current_loops.executor : serial;
  executor.ParallelFor(count, [&](int64_t begin, int64_t end) {
    const LoopsOn here(executor, true);
    for (int64_t i = begin; i < end; ++i) task(static_cast<int>(i), count);
  });
}

// One adapter for all streams: an exception that leaves an execution leaves the thread's pointer to it in oneDNN,
// which the thread's next execution then uses.
dnnl::stream MakeStream() {
  static Adapter* const adapter = new Adapter;  // never destroyed: threads may outlive static objects
  return dnnl::threadpool_interop::make_stream(CpuEngine(), adapter);
}
#else
// OpenMP's runtime has threads of its own.
class LoopsOn {
 public:
  explicit LoopsOn(Executor&) {}
};

dnnl::stream MakeStream() { return dnnl::stream(CpuEngine()); }
#endif

// All that tells one packing from another.
std::string KeyOf(const dnnl::memory::desc& desc) {
  std::string key;
  const auto add = [&key](const dnnl::memory::dims& dims) {
    for (const auto d : dims) key += std::to_string(d) + ",";
    key += ";";
  };
  add(desc.get_dims());
  add(desc.get_padded_dims());
  add(desc.get_strides());
  add(desc.get_inner_blks());
  add(desc.get_inner_idxs());
  return key;
}

Result<void> AddActivation(const Epilogue& epilogue, dnnl::post_ops& ops) {
  using Algorithm = dnnl::algorithm;
  switch (epilogue.activation) {
    case Activation::kNone:
      return {};
    case Activation::kRelu:
      ops.append_eltwise(Algorithm::eltwise_relu, 0, 0);
      return {};
    case Activation::kClip:
      ops.append_eltwise(Algorithm::eltwise_clip, epilogue.a, epilogue.b);
      return {};
    case Activation::kLeakyRelu:
      ops.append_eltwise(Algorithm::eltwise_relu, epilogue.a, 0);
      return {};
    case Activation::kHardSwish:
      ops.append_eltwise(Algorithm::eltwise_hardswish, 1.0f / 6, 0.5f);
      return {};
    case Activation::kHardSigmoid:
      ops.append_eltwise(Algorithm::eltwise_hardsigmoid, epilogue.a, epilogue.b);
      return {};
    case Activation::kSigmoid:
      ops.append_eltwise(Algorithm::eltwise_logistic, 0, 0);
      return {};
    case Activation::kSilu:
      ops.append_eltwise(Algorithm::eltwise_swish, 1, 0);
      return {};
    case Activation::kTanh:
      ops.append_eltwise(Algorithm::eltwise_tanh, 0, 0);
      return {};
    case Activation::kElu:
      ops.append_eltwise(Algorithm::eltwise_elu, epilogue.a, 0);
      return {};
    case Activation::kGelu:
      ops.append_eltwise(Algorithm::eltwise_gelu_erf, 0, 0);
      return {};
    case Activation::kMish:
      ops.append_eltwise(Algorithm::eltwise_mish, 0, 0);
      return {};
  }
  return Refuse("an activation that oneDNN does not have");
}

// oneDNN's instruction set as CREASE_TARGET caps it; below SSE4.1 it has none. It refuses where somebody has used it
// before in this process.
void CapInstructions() {
  const char* cap = TargetCap();
  if (cap == nullptr) return;
  const std::string_view name = cap;
  const auto isa = name == "AVX3"   ? dnnl::cpu_isa::avx512_core
                   : name == "AVX2" ? dnnl::cpu_isa::avx2
                                    : dnnl::cpu_isa::sse41;
  static_cast<void>(dnnl::set_max_cpu_isa(isa));
}

}  // namespace

const dnnl::engine& CpuEngine() {
  static const dnnl::engine engine = [] {
    CapInstructions();
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return engine;
}

#if CREASE_ONEDNN_THREADPOOL
BlockedFor::BlockedFor(int workers) {
  dnnl_threadpool_interop_get_max_concurrency(&before_);
  dnnl_threadpool_interop_set_max_concurrency(workers);
}
BlockedFor::~BlockedFor() { dnnl_threadpool_interop_set_max_concurrency(before_); }
#else
BlockedFor::BlockedFor(int) {}
BlockedFor::~BlockedFor() = default;
#endif

dnnl::memory::desc DescOf(const Operand& operand) {
  const dnnl::memory::dims dims(operand.shape.begin(), operand.shape.end());
  dnnl::memory::dims strides(dims.size(), 1);
  if (operand.layout == Layout::kPlain) {
    for (size_t axis = dims.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * dims[axis];
  } else {
    int64_t stride = operand.pitch;
    for (size_t axis = dims.size(); axis-- > 2;) {
      strides[axis] = stride;
      stride *= dims[axis];
    }
    strides[0] = stride;
    strides[1] = 1;
  }
  return {dims, dnnl::memory::data_type::f32, strides};
}

Result<PostOps> MakePostOps(const KernelRequest& request) {
  PostOps made;
  dnnl::post_ops ops;
  const Epilogue& epilogue = request.epilogue;
  const auto add_residual = [&] {
    if (request.residual_in_place) {
      ops.append_sum(1.0f);
      return;
    }
    made.residual_argument = DNNL_ARG_ATTR_MULTIPLE_POST_OP(ops.len()) | DNNL_ARG_SRC_1;
    ops.append_binary(dnnl::algorithm::binary_add, DescOf(request.src.back()));
  };
  if (epilogue.residual == Residual::kBeforeActivation) add_residual();
  CREASE_RETURN_IF_ERROR(AddActivation(epilogue, ops));
  if (epilogue.residual == Residual::kAfterActivation) add_residual();
  made.attributes.set_post_ops(ops);
  made.attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  made.attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
  return made;
}

std::shared_ptr<const void> CopyFloats(const Tensor& tensor) {
  std::shared_ptr<void> copy = AllocateWeights(tensor.byte_size());
  if (copy && tensor.byte_size() > 0) std::memcpy(copy.get(), tensor.bytes(), tensor.byte_size());
  return copy;
}

Result<std::shared_ptr<const void>> PackWeights(const KernelRequest& request, const Tensor& tensor,
                                                const dnnl::memory::desc& given, const dnnl::memory::desc& wanted) {
  const auto pack = [&]() -> PackCache::Packed {
    std::shared_ptr<const void> aligned;
    const void* bytes = tensor.bytes();
    if (reinterpret_cast<uintptr_t>(bytes) % sizeof(float) != 0) {
      aligned = CopyFloats(tensor);
      bytes = aligned.get();
    }
    std::shared_ptr<void> packed = AllocateWeights(wanted.get_size());
    if (!bytes || !packed) return nullptr;
    dnnl::memory src(given, CpuEngine(), const_cast<void*>(bytes));
    dnnl::memory dst(wanted, CpuEngine(), packed.get());
    SerialExecutor serial;
    const LoopsOn loops(request.executor ? *request.executor : serial);
    dnnl::stream stream = MakeStream();
    dnnl::reorder(src, dst).execute(stream, src, dst);
    stream.wait();
    return packed;
  };
  const auto address = reinterpret_cast<uintptr_t>(tensor.bytes());
  PackCache::Packed packed =
      request.packs
          ? request.packs->GetOrMake("onednn:" + std::to_string(address) + ":" + KeyOf(given) + KeyOf(wanted), pack)
          : pack();
  if (!packed) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  return packed;
}

Result<std::string> Implementation(const dnnl::primitive_desc_base& desc) {
  std::string name = desc.impl_info_str();
  if (name.find("ref") != std::string::npos || name.find("simple") != std::string::npos) {
    return Refuse("only oneDNN's reference implementation (" + name + ")");
  }
  return name;
}

struct Primitive::State {
  dnnl::stream stream = MakeStream();
  std::vector<dnnl::memory> memories;
  std::vector<dnnl_exec_arg_t> arguments;
};

void Primitive::StateDeleter::operator()(State* state) const { delete state; }

std::unique_ptr<Primitive::State, Primitive::StateDeleter> Primitive::NewState() const {
  std::unique_ptr<State, StateDeleter> state(new State);
  for (const Argument& argument : arguments_) {
    state->memories.emplace_back(argument.desc, CpuEngine(), nullptr);
    state->arguments.push_back({argument.id, state->memories.back().get()});
  }
  return state;
}

void Primitive::Run(const RunContext& context, std::span<void* const> data) const {
  std::unique_ptr<State, StateDeleter> state;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      state = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (!state) state = NewState();
  const LoopsOn loops(context.executor);
  for (size_t i = 0; i < data.size(); ++i) state->memories[i].set_data_handle(data[i]);
  const dnnl_status_t status = dnnl_primitive_execute(
      primitive_.get(), state->stream.get(), static_cast<int>(state->arguments.size()), state->arguments.data());
  static_cast<void>(dnnl_stream_wait(state->stream.get()));
  // The arguments are those of the descriptors, so memory is all that can be missing. Session::run makes an error of
  // it, as it does where oneDNN throws this itself.
  if (status != dnnl_success) throw std::bad_alloc();
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(state));
}

void PrimitiveKernel::Run(const RunContext& context, std::span<const ConstTensorView> src,
                          std::span<const TensorView> dst) const {
  using From = Source::From;
  std::array<void*, kMaxArguments> data{};
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    const void* pointer = nullptr;
    if (source.from == From::kSrc) pointer = src[source.index].data;
    if (source.from == From::kResidual) pointer = src.back().data;
    if (source.from == From::kDst) pointer = dst[0].data;
    if (source.from == From::kOwned) pointer = source.owned.get();
    if (source.from == From::kScratch) pointer = context.scratch;
    data[i] = const_cast<void*>(pointer);
  }
  primitive_.Run(context, std::span<void* const>(data.data(), sources_.size()));
}

void KernelBuilder::Add(int id, dnnl::memory::desc desc, PrimitiveKernel::Source::From from, size_t index) {
  if (from == PrimitiveKernel::Source::From::kScratch) scratch_ = desc.get_size();
  arguments_.push_back({id, std::move(desc)});
  sources_.push_back({from, index, nullptr});
}

void KernelBuilder::AddOwned(int id, dnnl::memory::desc desc, std::shared_ptr<const void> data) {
  arguments_.push_back({id, std::move(desc)});
  sources_.push_back({PrimitiveKernel::Source::From::kOwned, 0, std::move(data)});
}

std::unique_ptr<Kernel> KernelBuilder::Build(std::string description, dnnl::primitive primitive) && {
  return std::make_unique<PrimitiveKernel>(std::move(description), std::move(primitive), std::move(arguments_),
                                           std::move(sources_), scratch_);
}

}  // namespace crease::onednn
