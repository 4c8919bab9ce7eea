// SPDX-License-Identifier: Apache-2.0
#include "runtime/session_impl.h"

#include <algorithm>

#include "graph/passes/passes.h"
#include "kernels/targets.h"
#include "runtime/cpu_count.h"
#include "runtime/lower.h"

namespace crease {
namespace {

// Plans kept for different input shapes; the least recently used one goes.
constexpr size_t kMaxPlans = 16;

TensorSpec SpecOf(const Value& value) {
  TensorSpec spec;
  spec.name = value.name;
  spec.dtype = value.type.dtype;
  for (const Dim& dim : value.type.dims) {
    spec.shape.push_back(dim.known() ? dim.value : -1);
    spec.symbols.push_back(dim.symbol);
  }
  return spec;
}

Error Wrong(std::string message, const std::string& name) {
  return Error{ErrorCode::kInvalidArgument, std::move(message), "tensor '" + Printable(name) + "'"};
}

bool Aligned(const void* data, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % std::max<size_t>(ByteSize(dtype), 1) == 0;
}

}  // namespace

Result<std::shared_ptr<const Session::Impl>> Session::Impl::Create(Graph graph, const Options& options,
                                                                   std::shared_ptr<const FileMap> file) {
  std::shared_ptr<Impl> impl(new Impl(std::move(graph), options));
  impl->file_ = std::move(file);
  CREASE_RETURN_IF_ERROR(impl->Prepare());
  return std::shared_ptr<const Impl>(std::move(impl));
}

Result<void> Session::Impl::Prepare() {
  CREASE_RETURN_IF_ERROR(CheckTargetCap());
  CREASE_RETURN_IF_ERROR(CheckThreads(options_.threads));
  if (options_.executor.parallel_for) {
    executor_ = std::make_shared<HostExecutorAdapter>(options_.executor);
  } else if (const int threads = ThreadCount(options_.threads); threads > 1) {
    executor_ = pool_ = ThreadPool::Shared(threads);
  } else {
    executor_ = std::make_shared<SerialExecutor>();
  }
  if (!options_.tuning_file.empty()) tuning_ = LoadTuning(options_.tuning_file, executor_->workers());
  if (options_.fold) {
    // What was folded has been read, and replaced by a copy; what was not is read again when it is packed.
    fold::Unrounded made([this](const Tensor& base) {
      if (file_) file_->Release({base.bytes(), base.byte_size()});
    });
    DriverOptions options;
    options.unrounded = &made;
    CREASE_RETURN_IF_ERROR(RunPasses(graph_, PreparationPasses()));
    CREASE_ASSIGN_OR_RETURN(pass_log_, RunPasses(graph_, FoldingPasses(), options));
    CREASE_ASSIGN_OR_RETURN(const PassLog runtime_log, RunPasses(graph_, RuntimePasses(), options));
    pass_log_.insert(pass_log_.end(), runtime_log.begin(), runtime_log.end());
    if (file_) {
      file_->Release(file_->bytes());
      folded_weights_ = FoldedWeights(graph_, made, *file_);
    }
  }
  CREASE_ASSIGN_OR_RETURN(const InferredTypes types, InferTypes(graph_));
  for (const ValueId id : RequiredInputs(graph_)) inputs_.push_back(SpecOf(graph_.value(id)));
  for (const ValueId id : graph_.outputs()) {
    Value value = graph_.value(id);
    value.type = types.types[static_cast<size_t>(id)];
    outputs_.push_back(SpecOf(value));
  }
  std::vector<Shape> shapes;
  for (const ValueId id : RequiredInputs(graph_)) {
    const TensorType& type = graph_.value(id).type;
    if (type.dtype == DType::kUndefined || !type.has_rank) {
      return Error{ErrorCode::kUnsupported, "an input needs an element type and a rank, found " + type.ToString(),
                   "input '" + Printable(graph_.value(id).name) + "'"};
    }
    if (type.is_static()) shapes.push_back(type.shape());
  }
  if (shapes.size() == inputs_.size()) CREASE_RETURN_IF_ERROR(Find(shapes));
  return {};
}

template <typename Matches>
std::shared_ptr<Session::Impl::Planned> Session::Impl::Cached(const Matches& matches) const {
  const std::lock_guard<std::mutex> lock(plans_mutex_);
  for (const std::shared_ptr<Planned>& planned : plans_) {
    if (!matches(planned->plan->input_shapes)) continue;
    planned->last_use = ++uses_;
    return planned;
  }
  return nullptr;
}

Result<std::shared_ptr<Session::Impl::Planned>> Session::Impl::Find(std::span<const Shape> input_shapes) const {
  if (input_shapes.size() != inputs_.size()) {
    return Error{
        ErrorCode::kInvalidArgument,
        "expected " + std::to_string(inputs_.size()) + " input shapes, found " + std::to_string(input_shapes.size()),
        ""};
  }
  for (size_t i = 0; i < inputs_.size(); ++i) CREASE_RETURN_IF_ERROR(CheckShape(inputs_[i], input_shapes[i]));
  const auto same = [&](const std::vector<Shape>& shapes) {
    return std::equal(shapes.begin(), shapes.end(), input_shapes.begin(), input_shapes.end());
  };
  if (std::shared_ptr<Planned> planned = Cached(same)) return planned;
  const std::lock_guard<std::mutex> planning(planning_mutex_);
  if (std::shared_ptr<Planned> planned = Cached(same)) return planned;  // made while we waited

  // After another shape's plan.
  if (folded_weights_.released_bytes() > 0) CREASE_RETURN_IF_ERROR(folded_weights_.Restore());
  CREASE_ASSIGN_OR_RETURN(Program program, Lower(graph_, input_shapes, constants_, {options_.limits, options_.fold}));
  PlanOptions plan_options;
  plan_options.workers = executor_->workers();
  plan_options.exact = options_.exact;
  plan_options.max_arena_bytes = options_.limits.max_arena_bytes;
  plan_options.packs = &packs_;
  plan_options.constants = &constants_;
  plan_options.executor = executor_.get();
  plan_options.tuning = tuning_.empty() ? nullptr : &tuning_;
  if (file_) {
    plan_options.packed = [this](const Tensor& tensor) { file_->Release({tensor.bytes(), tensor.byte_size()}); };
    plan_options.spent = [this](const Tensor& tensor) { folded_weights_.Release(tensor); };
  }
  auto planned = std::make_shared<Planned>();
  CREASE_ASSIGN_OR_RETURN(planned->plan, MakePlan(std::move(program), plan_options));
  if (file_) file_->Release(file_->bytes());
  if (options_.profile) planned->times = std::make_unique<StepTime[]>(planned->plan->steps.size());

  const std::lock_guard<std::mutex> lock(plans_mutex_);
  if (plans_.size() >= kMaxPlans) {
    plans_.erase(std::min_element(plans_.begin(), plans_.end(),
                                  [](const auto& a, const auto& b) { return a->last_use < b->last_use; }));
  }
  planned->last_use = ++uses_;
  plans_.push_back(planned);
  return planned;
}

Result<std::shared_ptr<const Plan>> Session::Impl::PlanFor(std::span<const Shape> input_shapes) const {
  CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<Planned> planned, Find(input_shapes));
  return planned->plan;
}

size_t Session::Impl::released_bytes() const {
  const std::lock_guard<std::mutex> planning(planning_mutex_);
  return folded_weights_.released_bytes();
}

Result<void> Session::Impl::CheckShape(const TensorSpec& spec, const Shape& shape) const {
  bool fits = shape.size() == spec.shape.size();
  for (size_t axis = 0; fits && axis < shape.size(); ++axis) {
    fits = shape[axis] >= 0 && (spec.shape[axis] < 0 || spec.shape[axis] == shape[axis]);
  }
  if (fits) return {};
  return Wrong("expected shape " + ToString(spec.shape) + " (-1: any), found " + ToString(shape), spec.name);
}

Result<const Input*> Session::Impl::FindInput(size_t spec_index, std::span<const Input> inputs) const {
  const TensorSpec& spec = inputs_[spec_index];
  const Input* found = nullptr;
  for (const Input& input : inputs) {
    if (input.name != spec.name) continue;
    if (found) return Wrong("given twice", spec.name);
    found = &input;
  }
  if (!found) return Wrong("the input is missing", spec.name);
  return found;
}

// The plan for these inputs; nothing is allocated where it exists.
Result<std::shared_ptr<Session::Impl::Planned>> Session::Impl::FindFor(std::span<const Input> inputs) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(const Input* input, FindInput(i, inputs));
    const TensorSpec& spec = inputs_[i];
    if (input->dtype != spec.dtype) {
      return Wrong(std::string("expected ") + Name(spec.dtype) + ", found " + Name(input->dtype), spec.name);
    }
    CREASE_RETURN_IF_ERROR(CheckShape(spec, input->shape));
    const bool empty = std::find(input->shape.begin(), input->shape.end(), 0) != input->shape.end();
    if (!empty && (!input->data || !Aligned(input->data, input->dtype))) {
      return Wrong(input->data ? "data is not aligned for its type" : "data is null", spec.name);
    }
  }
  if (inputs.size() != inputs_.size()) {
    for (const Input& input : inputs) {
      const auto named = [&](const TensorSpec& spec) { return spec.name == input.name; };
      if (std::none_of(inputs_.begin(), inputs_.end(), named))
        return Wrong("the network has no such input", input.name);
    }
  }
  const auto same = [&](const std::vector<Shape>& shapes) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const auto input = std::find_if(inputs.begin(), inputs.end(),
                                      [&](const Input& candidate) { return candidate.name == inputs_[i].name; });
      if (input->shape != shapes[i]) return false;
    }
    return true;
  };
  if (std::shared_ptr<Planned> planned = Cached(same)) return planned;
  std::vector<Shape> shapes;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(const Input* input, FindInput(i, inputs));
    shapes.push_back(input->shape);
  }
  return Find(shapes);
}

Result<void> Session::Impl::BindOutputs(const Planned& planned, CallContext& context,
                                        std::span<const Output> outputs) const {
  for (const Output& output : outputs) {
    const auto named = [&](const TensorSpec& spec) { return spec.name == output.name; };
    const auto spec = std::find_if(outputs_.begin(), outputs_.end(), named);
    if (spec == outputs_.end()) return Wrong("the network has no such output", output.name);
    const Shape& shape = planned.plan->output_shapes[static_cast<size_t>(spec - outputs_.begin())];
    if (output.dtype != spec->dtype || output.shape != shape) {
      return Wrong(std::string("expected ") + Name(spec->dtype) + " " + ToString(shape) + ", found " +
                       Name(output.dtype) + " " + ToString(output.shape),
                   output.name);
    }
    const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    if (!empty && (!output.data || !Aligned(output.data, output.dtype))) {
      return Wrong(output.data ? "data is not aligned for its type" : "data is null", output.name);
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Output* found = nullptr;
    for (const Output& output : outputs) {
      if (output.name != outputs_[i].name) continue;
      if (found) return Wrong("given twice", output.name);
      found = &output;
    }
    context.BindOutput(i, found ? found->data : nullptr);
  }
  return {};
}

Result<void> Session::Impl::Run(std::span<const Input> inputs, std::span<const Output> outputs) const {
  CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<Planned> planned, FindFor(inputs));
  std::unique_ptr<CallContext> context;
  {
    const std::lock_guard<std::mutex> lock(planned->mutex);
    if (!planned->idle.empty()) {
      context = std::move(planned->idle.back());
      planned->idle.pop_back();
    }
  }
  if (!context) {
    CREASE_ASSIGN_OR_RETURN(context, CallContext::Create(planned->plan));
  }
  for (size_t i = 0; i < inputs_.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(const Input* input, FindInput(i, inputs));
    context->BindInput(i, input->data);
  }
  const Result<void> bound = BindOutputs(*planned, *context, outputs);
  if (bound.ok()) {
    if (pool_) {
      PoolRequest request(pool_.get());
      context->Run(request.executor(), planned->times.get());
    } else {
      context->Run(*executor_, planned->times.get());
    }
  }
  const std::lock_guard<std::mutex> lock(planned->mutex);
  planned->idle.push_back(std::move(context));
  return bound;
}

std::vector<NodeProfile> Session::Impl::Profile() const {
  std::vector<NodeProfile> nodes;
  const std::lock_guard<std::mutex> lock(plans_mutex_);
  for (const std::shared_ptr<Planned>& planned : plans_) {
    if (!planned->times) continue;
    for (size_t i = 0; i < planned->plan->steps.size(); ++i) {
      const PlanStep& step = planned->plan->steps[i];
      NodeProfile node;
      node.name = step.name;
      node.op_type = step.op_type;
      node.kernel =
          step.detail.starts_with(step.kernel) || step.detail.empty() ? step.detail : step.kernel + " " + step.detail;
      if (node.kernel.empty()) node.kernel = step.kernel;
      node.layout = step.layout;
      const int dst = step.dst.empty() ? kNone : step.dst[0];
      if (dst != kNone) node.shape = ToString(planned->plan->tensors[static_cast<size_t>(dst)].shape);
      node.runs = planned->times[i].runs.load(std::memory_order_relaxed);
      node.total_ms = static_cast<double>(planned->times[i].nanoseconds.load(std::memory_order_relaxed)) * 1e-6;
      node.best_ms = static_cast<double>(planned->times[i].fastest.load(std::memory_order_relaxed)) * 1e-6;
      node.flops = step.flops;
      node.bytes = step.bytes;
      nodes.push_back(std::move(node));
    }
  }
  return nodes;
}

}  // namespace crease
