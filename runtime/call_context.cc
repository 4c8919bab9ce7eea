// SPDX-License-Identifier: Apache-2.0
#include "runtime/call_context.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "runtime/memory.h"

namespace crease {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

template <typename View>
View ViewOf(const PlanTensor& tensor) {
  View view;
  view.dtype = tensor.dtype;
  view.layout = tensor.layout;
  view.rank = static_cast<int>(tensor.shape.size());
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) view.dims[axis] = tensor.shape[axis];
  view.pitch = tensor.pitch;
  return view;
}

}  // namespace

void CallContext::Free::operator()(std::byte* memory) const { std::free(memory); }

Result<std::unique_ptr<CallContext>> CallContext::Create(std::shared_ptr<const Plan> plan) {
  std::unique_ptr<CallContext> context(new CallContext(std::move(plan)));
  const auto bytes = static_cast<size_t>(context->plan_->arena_bytes);
  if (bytes > 0) {
    // Large arenas on huge pages: a convolution's rows lie many small pages apart.
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : static_cast<size_t>(kArenaAlignment);
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    context->arena_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
    if (!context->arena_) {
      return Error{ErrorCode::kOutOfMemory, "no memory for activations of " + std::to_string(bytes) + " bytes", ""};
    }
    if (alignment == kHugePage) static_cast<void>(::madvise(context->arena_.get(), rounded, MADV_HUGEPAGE));
  }
  context->MakeViews();
  return context;
}

void CallContext::AddPlace(const PlanTensor& tensor, bool dst, size_t view) {
  const PlanBuffer& buffer = plan_->buffers[static_cast<size_t>(tensor.buffer)];
  const Place place{view, dst, tensor.offset};
  if (buffer.kind == PlanBuffer::Kind::kInput) input_places_[static_cast<size_t>(buffer.index)].push_back(place);
  if (buffer.output != kNone) output_places_[static_cast<size_t>(buffer.output)].push_back(place);
}

void CallContext::MakeViews() {
  input_places_.resize(plan_->input_shapes.size());
  output_places_.resize(plan_->output_shapes.size());
  const auto address = [&](const PlanTensor& tensor) -> std::byte* {
    const PlanBuffer& buffer = plan_->buffers[static_cast<size_t>(tensor.buffer)];
    return buffer.kind == PlanBuffer::Kind::kArena ? arena_.get() + buffer.offset + tensor.offset : nullptr;
  };
  for (const PlanStep& step : plan_->steps) {
    StepViews views{src_.size(), dst_.size(), step.src.size(), step.dst.size(), nullptr};
    if (step.scratch != kNone) {
      views.scratch = arena_.get() + plan_->buffers[static_cast<size_t>(step.scratch)].offset;
    }
    for (const int id : step.src) {
      src_.emplace_back();
      if (id == kNone) continue;
      const PlanTensor& tensor = plan_->tensors[static_cast<size_t>(id)];
      src_.back() = ViewOf<ConstTensorView>(tensor);
      src_.back().data = address(tensor);
      const PlanBuffer& buffer = plan_->buffers[static_cast<size_t>(tensor.buffer)];
      if (buffer.kind == PlanBuffer::Kind::kConstant) {
        src_.back().data = plan_->constants[static_cast<size_t>(buffer.index)].bytes();
      }
      AddPlace(tensor, false, src_.size() - 1);
    }
    for (const int id : step.dst) {
      dst_.emplace_back();
      if (id == kNone) continue;
      const PlanTensor& tensor = plan_->tensors[static_cast<size_t>(id)];
      dst_.back() = ViewOf<TensorView>(tensor);
      dst_.back().data = address(tensor);
      AddPlace(tensor, true, dst_.size() - 1);
    }
    steps_.push_back(views);
  }
}

void CallContext::Point(const std::vector<Place>& places, std::byte* base) {
  for (const Place& place : places) {
    if (place.dst) {
      dst_[place.view].data = base + place.offset;
    } else {
      src_[place.view].data = base + place.offset;
    }
  }
}

void CallContext::BindInput(size_t input, const void* data) {
  // Only src views read inputs; the plan writes into none.
  Point(input_places_[input], static_cast<std::byte*>(const_cast<void*>(data)));
}

void CallContext::BindOutput(size_t output, void* data) {
  const PlanBuffer& buffer = plan_->buffers[static_cast<size_t>(plan_->output_buffers[output])];
  if (data == nullptr && buffer.offset != kNone) data = arena_.get() + buffer.offset;
  Point(output_places_[output], static_cast<std::byte*>(data));
}

void StepTime::Add(int64_t elapsed) {
  nanoseconds.fetch_add(elapsed, std::memory_order_relaxed);
  runs.fetch_add(1, std::memory_order_relaxed);
  int64_t best = fastest.load(std::memory_order_relaxed);
  while ((best == 0 || elapsed < best) && !fastest.compare_exchange_weak(best, elapsed, std::memory_order_relaxed)) {
  }
}

void CallContext::Run(Executor& executor, StepTime* times) const {
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const StepViews& views = steps_[i];
    const std::span<const ConstTensorView> src(src_.data() + views.src, views.src_count);
    const std::span<const TensorView> dst(dst_.data() + views.dst, views.dst_count);
    const Clock::time_point start = times ? Clock::now() : Clock::time_point{};
    if (const Kernel* kernel = plan_->steps[i].run.get()) {
      kernel->Run(RunContext{executor, views.scratch, plan_->steps[i].fetch}, src, dst);
    } else {
      std::memcpy(dst[0].data, src[0].data, static_cast<size_t>(dst[0].size()) * ByteSize(dst[0].dtype));
    }
    if (times) {
      const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
      times[i].Add(took);
    }
  }
}

}  // namespace crease
