// SPDX-License-Identifier: Apache-2.0
// What one call of a plan needs: the arena and the views of every step. Made at the first call of a
// shape (and for every further call that runs at the same time), then used again and again.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "runtime/plan.h"

namespace crease {

struct StepTime {
  std::atomic<int64_t> nanoseconds{0}, runs{0};
  std::atomic<int64_t> fastest{0};  // nanoseconds; 0 before the first run

  void Add(int64_t elapsed);
};

class CallContext {
 public:
  // Errors: kOutOfMemory.
  static Result<std::unique_ptr<CallContext>> Create(std::shared_ptr<const Plan> plan);

  // Pointers by graph input and output; null for an output that is not wanted.
  void BindInput(size_t input, const void* data);
  void BindOutput(size_t output, void* data);
  // Runs all steps; `times`, one a step, may be null. Allocates nothing.
  void Run(Executor& executor, StepTime* times) const;

 private:
  struct Place {
    size_t view;
    bool dst;
    int64_t offset;
  };
  struct StepViews {
    size_t src = 0, dst = 0;  // first views
    size_t src_count = 0, dst_count = 0;
    std::byte* scratch = nullptr;
  };
  struct Free {
    void operator()(std::byte* memory) const;
  };

  explicit CallContext(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)) {}
  void MakeViews();
  void AddPlace(const PlanTensor& tensor, bool dst, size_t view);
  void Point(const std::vector<Place>& places, std::byte* base);

  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<std::byte, Free> arena_;
  std::vector<StepViews> steps_;
  std::vector<ConstTensorView> src_;
  std::vector<TensorView> dst_;
  std::vector<std::vector<Place>> input_places_, output_places_;
};

}  // namespace crease
