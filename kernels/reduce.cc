// SPDX-License-Identifier: Apache-2.0
// ReduceSum, ReduceMean, ReduceMax, ReduceMin and the global pools, f32, in any layout where the
// reduced axes merge into one loop. Split by output, so that the bits do not depend on the threads.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "graph/ops/reduce.h"
#include "kernels/affine_rows.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"
#include "kernels/rounding.h"
#include "kernels/window_rows.h"

namespace crease {
namespace {

// Outputs of one part of a row: a few vectors, so that few channels still feed several threads.
constexpr int64_t kBlock = 64;
// Pixels that a prologue maps at a time, into 16 KiB on the stack.
constexpr int64_t kMapped = 64;
// Elements of one part of a long reduction: they pass through L1 once, in the order in which they lie.
constexpr int64_t kPartElements = 8192;

struct Named {
  std::string_view name;
  ReduceOp op;
  bool mean;
  bool global;
};
constexpr Named kNamed[] = {
    {"GlobalAveragePool", ReduceOp::kSum, true, true}, {"GlobalMaxPool", ReduceOp::kMax, false, true},
    {"ReduceMean", ReduceOp::kSum, true, false},       {"ReduceSum", ReduceOp::kSum, false, false},
    {"ReduceMax", ReduceOp::kMax, false, false},       {"ReduceMin", ReduceOp::kMin, false, false},
};

struct Plan {
  LoopNest kept;       // dst, src
  int64_t length = 1;  // of the reduced loop
  int64_t stride = 0;
  bool rows = false;  // the innermost kept loop is adjacent: vectors over it
  float factor = 1;
};

class ReduceKernel final : public Kernel {
 public:
  ReduceKernel(Plan plan, ReduceOp op, const Prologue& prologue)
      : plan_(plan),
        reduce_rows_(FindReduceRows(op)),
        reduce_run_(FindReduceRun(op)),
        prologue_(prologue),
        map_(prologue.scale != nullptr ? FindAffineRows(prologue.activation, Residual::kNone).pixels : nullptr) {
    if (!plan_.rows) return;
    blocks_ = DivideUp(plan_.kept.inner(), kBlock);
    if (map_ != nullptr || plan_.length * plan_.kept.inner() < 2 * kPartElements) return;
    part_rows_ = std::max<int64_t>(kPartElements / plan_.kept.inner(), 1);
    parts_ = DivideUp(plan_.length, part_rows_);
  }

  std::string Describe() const override {
    return parts_ > 1 ? "reduce parts" : plan_.rows ? "reduce rows" : "reduce runs";
  }
  size_t scratch_bytes(int) const override {
    return parts_ > 1 ? static_cast<size_t>(plan_.kept.total() * parts_) * sizeof(float) : 0;
  }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const auto* from = static_cast<const float*>(src[0].data);
    auto* to = static_cast<float*>(dst[0].data);
    const int64_t outputs = plan_.kept.total();
    if (outputs == 0) return;
    if (parts_ > 1) return RunParts(context, from, to);
    const int64_t items = plan_.rows ? plan_.kept.outer_total() * blocks_ : outputs;
    ParallelForCost(context, items, outputs * plan_.length, [&](int64_t begin, int64_t end) {
      plan_.rows ? RunRows(from, to, begin, end) : RunRuns(from, to, begin, end);
    });
  }

 private:
  void RunRows(const float* src, float* dst, int64_t begin, int64_t end) const {
    LoopWalker walker(plan_.kept, 1, begin / blocks_);
    int64_t block = begin % blocks_;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = block * kBlock, count = std::min(kBlock, plan_.kept.inner() - first);
      const float* from = src + walker.offset(1) + first;
      float* to = dst + walker.offset(0) + first;
      if (map_ == nullptr) {
        reduce_rows_(from, plan_.stride, plan_.length, count, plan_.factor, to);
      } else {
        SumMapped(from, first, count, to);
      }
      if (++block == blocks_) {
        block = 0;
        walker.Next();
      }
    }
  }

  // to[c] = factor * sum of activation(scale[c] * from[.., c] + shift[c]), c from channel `first` on.
  void SumMapped(const float* from, int64_t first, int64_t count, float* to) const {
    alignas(64) float mapped[kMapped * kBlock];
    alignas(64) float part[kBlock];
    AffineArgs args;
    args.dst = mapped;
    args.scale = prologue_.scale + first;
    args.shift = prologue_.shift + first;
    args.a = prologue_.a;
    args.b = prologue_.b;
    args.walk = PreferredWalk();
    std::fill_n(to, count, 0.0f);
    for (int64_t row = 0; row < plan_.length; row += kMapped) {
      const int64_t rows = std::min(kMapped, plan_.length - row);
      args.src = from + row * plan_.stride;
      map_(args, count, {plan_.stride, 0, kBlock}, 0, rows);
      reduce_rows_(mapped, kBlock, rows, count, plan_.factor, part);
      for (int64_t c = 0; c < count; ++c) to[c] += part[c];
    }
  }

  // The parts follow from the shape alone, so that the bits do not depend on who reduces which.
  void RunParts(const RunContext& context, const float* src, float* dst) const {
    const int64_t inner = plan_.kept.inner(), outer = plan_.kept.outer_total();
    auto* sums = reinterpret_cast<float*>(context.scratch);
    ParallelForCost(context, outer * parts_, outer * inner * plan_.length, [&](int64_t begin, int64_t end) {
      LoopWalker walker(plan_.kept, 1, begin / parts_);
      int64_t part = begin % parts_;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = part * part_rows_;
        reduce_rows_(src + walker.offset(1) + first * plan_.stride, plan_.stride,
                     std::min(part_rows_, plan_.length - first), inner, 1.0f, sums + i * inner);
        if (++part == parts_) {
          part = 0;
          walker.Next();
        }
      }
    });
    ParallelForCost(context, outer, outer * inner * parts_, [&](int64_t begin, int64_t end) {
      LoopWalker walker(plan_.kept, 1, begin);
      for (int64_t i = begin; i < end; ++i, walker.Next()) {
        reduce_rows_(sums + i * parts_ * inner, inner, parts_, inner, plan_.factor, dst + walker.offset(0));
      }
    });
  }

  void RunRuns(const float* src, float* dst, int64_t begin, int64_t end) const {
    LoopWalker walker(plan_.kept, 0, begin);
    for (int64_t i = begin; i < end; ++i, walker.Next()) {
      dst[walker.offset(0)] = reduce_run_(src + walker.offset(1), plan_.length, plan_.factor);
    }
  }

  Plan plan_;
  ReduceRows reduce_rows_;
  ReduceRun reduce_run_;
  Prologue prologue_;
  AffinePixels map_;
  int64_t blocks_ = 1;
  int64_t parts_ = 1, part_rows_ = 0;  // of the reduced loop
};

// Which axes are reduced.
Result<ops::ReducePlan> AxesOf(const KernelRequest& request, const Named& named) {
  const Shape& shape = request.src[0].shape;
  if (named.global) {
    ops::ReducePlan plan;
    plan.output = shape;
    for (size_t i = 0; i < shape.size(); ++i) {
      plan.reduced.push_back(i >= 2);
      if (i >= 2) plan.output[i] = 1;
    }
    return plan;
  }
  const Tensor* axes = nullptr;
  if (request.src.size() > 1 && request.src[1].present) {
    axes = request.src[1].constant;
    if (axes == nullptr) return Refuse("axes are not constant");
  }
  return ops::ResolveReduce(request.node, request.opset, shape, axes);
}

Result<Plan> PlanOf(const KernelRequest& request, const Named& named) {
  const Operand& x = request.src[0];
  const Operand& y = request.dst[0];
  CREASE_ASSIGN_OR_RETURN(const ops::ReducePlan axes, AxesOf(request, named));
  if (axes.output != y.shape) return Refuse("another output shape than planned");
  const std::vector<int64_t> from = StorageStrides(x);
  const std::vector<int64_t> to = StorageStrides(y);
  Plan plan;
  plan.kept.operands = 2;
  LoopNest reduced;
  reduced.operands = 1;
  size_t out = 0;
  for (size_t i = 0; i < x.shape.size(); ++i) {
    if (axes.reduced[i]) {
      reduced.Add(x.shape[i], std::array{from[i]});
    } else {
      plan.kept.Add(x.shape[i], std::array{to[out], from[i]});
    }
    if (!axes.reduced[i] || axes.keepdims) ++out;
  }
  if (reduced.loops == 0) return Refuse("no axis to reduce");
  reduced.Simplify();
  if (reduced.loops > 1) return Refuse("reduced axes do not merge");
  if (reduced.inner() == 0) return Refuse("nothing to reduce");
  plan.kept.Simplify();
  plan.length = reduced.inner();
  plan.stride = reduced.inner_stride(0);
  plan.factor = named.mean ? 1.0f / static_cast<float>(plan.length) : 1.0f;
  const bool adjacent = plan.kept.inner_stride(0) == 1 && plan.kept.inner_stride(1) == 1;
  plan.rows = plan.stride != 1 || plan.length == 1;
  if (plan.rows && !adjacent) return Refuse("neither reduced nor kept elements are adjacent");
  return plan;
}

}  // namespace

KernelResult MakeReduce(const KernelRequest& request) {
  const Operand& x = request.src[0];
  if (!x.present || x.dtype != DType::kFloat32 || x.constant != nullptr) return Refuse("not float32");
  if (!request.epilogue.empty()) return Refuse("epilogue");
  for (const Named& named : kNamed) {
    if (named.name != request.node.op_type) continue;
    CREASE_ASSIGN_OR_RETURN(const Plan plan, PlanOf(request, named));
    if (request.prologue.scale != nullptr) {
      const bool channels_inside = plan.rows && x.shape.size() > 1 && plan.kept.inner() == x.shape[1];
      if (named.name != "GlobalAveragePool" || !channels_inside) return Refuse("prologue");
    }
    return std::unique_ptr<Kernel>(new ReduceKernel(plan, named.op, request.prologue));
  }
  return Refuse("not a reduction");
}

}  // namespace crease
