// SPDX-License-Identifier: Apache-2.0
// What a Session holds. Public to the tools of this repository only.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "crease/session.h"
#include "graph/graph.h"
#include "graph/passes/pass.h"
#include "kernels/kernel.h"
#include "runtime/call_context.h"
#include "runtime/file_map.h"
#include "runtime/folded_weights.h"
#include "runtime/plan.h"
#include "runtime/thread_pool.h"
#include "runtime/tuning.h"

namespace crease {

class Session::Impl {
 public:
  // Folds, checks, and plans if all input shapes are known. `file`, if any, is what the graph's weights
  // lie in: its pages are given back once they are packed.
  static Result<std::shared_ptr<const Impl>> Create(Graph graph, const Options& options,
                                                    std::shared_ptr<const FileMap> file = nullptr);

  const Graph& graph() const { return graph_; }          // after folding
  const PassLog& pass_log() const { return pass_log_; }  // what folding did and refused
  const Options& options() const { return options_; }
  int workers() const { return executor_->workers(); }
  // Of folded weights, given back since they are packed.
  size_t released_bytes() const;
  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }

  // The plan for inputs of these shapes (in inputs()'s order), made if new. Thread-safe.
  Result<std::shared_ptr<const Plan>> PlanFor(std::span<const Shape> input_shapes) const;

  Result<void> Run(std::span<const Input> inputs, std::span<const Output> outputs) const;
  std::vector<NodeProfile> Profile() const;

 private:
  // A plan in use: calls hold it while they run, so that dropping it from the cache harms no one.
  struct Planned {
    std::shared_ptr<const Plan> plan;
    std::unique_ptr<StepTime[]> times;  // with Options::profile
    std::mutex mutex;
    std::vector<std::unique_ptr<CallContext>> idle;
    uint64_t last_use = 0;  // guarded by plans_mutex_
  };

  explicit Impl(Graph graph, const Options& options) : graph_(std::move(graph)), options_(options) {}
  Result<void> Prepare();
  Result<std::shared_ptr<Planned>> Find(std::span<const Shape> input_shapes) const;
  Result<std::shared_ptr<Planned>> FindFor(std::span<const Input> inputs) const;
  template <typename Matches>
  std::shared_ptr<Planned> Cached(const Matches& matches) const;
  Result<const Input*> FindInput(size_t spec, std::span<const Input> inputs) const;
  Result<void> CheckShape(const TensorSpec& spec, const Shape& shape) const;
  Result<void> BindOutputs(const Planned& planned, CallContext& context, std::span<const Output> outputs) const;

  Graph graph_;
  Options options_;
  std::shared_ptr<const FileMap> file_;  // or null
  PassLog pass_log_;
  std::vector<TensorSpec> inputs_, outputs_;
  std::shared_ptr<ThreadPool> pool_;    // null with a host's executor or one thread
  std::shared_ptr<Executor> executor_;  // the pool, the host's, or a serial one
  Tuning tuning_;
  mutable PackCache packs_;
  mutable ConstantPool constants_;
  mutable FoldedWeights folded_weights_;  // guarded by planning_mutex_
  mutable std::mutex planning_mutex_;     // one plan is made at a time
  mutable std::mutex plans_mutex_;
  mutable std::vector<std::shared_ptr<Planned>> plans_;
  mutable uint64_t uses_ = 0;
};

}  // namespace crease
