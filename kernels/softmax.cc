// SPDX-License-Identifier: Apache-2.0
// Softmax and LogSoftmax, f32: along adjacent elements, or along an outer axis with vectors over the
// inner ones. Each vector of the softmax belongs to one thread.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "kernels/rounding.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "graph/ops/softmax.h"
#include "kernels/activation-inl.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// n adjacent elements are one softmax. dst may be src.
void AdjacentSoftmax(const float* src, float* dst, int64_t count, bool log) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(count);
  // Lanes past the end hold the first element, which changes no maximum.
  const V first = hn::Set(d, src[0]);
  V top = first;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) top = hn::Max(top, hn::LoadU(d, src + i));
  if (i < n) top = hn::Max(top, hn::IfThenElse(hn::FirstN(d, n - i), hn::LoadN(d, src + i, n - i), first));
  const V shift = hn::Set(d, hn::ReduceMax(d, top));
  V sum = hn::Zero(d);
  for (i = 0; i + lanes <= n; i += lanes) {
    const V e = Exp(d, hn::Sub(hn::LoadU(d, src + i), shift));
    sum = hn::Add(sum, e);
    if (!log) hn::StoreU(e, d, dst + i);
  }
  if (i < n) {
    const V e = Exp(d, hn::Sub(hn::LoadN(d, src + i, n - i), shift));
    sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, n - i), e));
    if (!log) hn::StoreN(e, d, dst + i, n - i);
  }
  const float total = hn::ReduceSum(d, sum);
  const V factor = hn::Set(d, 1.0f / total);
  const V log_total = hn::Add(shift, hn::Set(d, std::log(total)));
  for (i = 0; i < n; i += lanes) {
    const size_t left = std::min(lanes, n - i);
    const V y = log ? hn::Sub(hn::LoadN(d, src + i, left), log_total) : hn::Mul(hn::LoadN(d, dst + i, left), factor);
    hn::StoreN(y, d, dst + i, left);
  }
}

// `count` adjacent columns, each a softmax of `length` elements that are `stride` apart.
void ColumnSoftmax(const float* src, float* dst, int64_t length, int64_t stride, int64_t count, bool log) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < static_cast<size_t>(count); i += lanes) {
    const size_t left = std::min(lanes, static_cast<size_t>(count) - i);
    V top = hn::LoadN(d, src + i, left);
    for (int64_t k = 1; k < length; ++k) top = hn::Max(top, hn::LoadN(d, src + k * stride + i, left));
    V sum = hn::Zero(d);
    for (int64_t k = 0; k < length; ++k) {
      const V e = Exp(d, hn::Sub(hn::LoadN(d, src + k * stride + i, left), top));
      sum = hn::Add(sum, e);
      if (!log) hn::StoreN(e, d, dst + k * stride + i, left);
    }
    HWY_ALIGN float logs[HWY_MAX_LANES_D(hn::ScalableTag<float>)];
    hn::Store(sum, d, logs);
    for (size_t k = 0; k < lanes; ++k) logs[k] = std::log(logs[k]);
    const V log_total = hn::Add(top, hn::Load(d, logs));
    for (int64_t k = 0; k < length; ++k) {
      float* to = dst + k * stride + i;
      const V y =
          log ? hn::Sub(hn::LoadN(d, src + k * stride + i, left), log_total) : hn::Div(hn::LoadN(d, to, left), sum);
      hn::StoreN(y, d, to, left);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {

HWY_EXPORT(AdjacentSoftmax);
HWY_EXPORT(ColumnSoftmax);

constexpr int64_t kColumns = 64;  // of one part

// outer x (length x inner), as in ops::SoftmaxShape; with inner 1 the vectors may be pitches apart.
struct Plan {
  int64_t outer, length, inner;
  int64_t src_pitch, dst_pitch;
  bool log;
};

class SoftmaxKernel final : public Kernel {
 public:
  explicit SoftmaxKernel(const Plan& plan) : plan_(plan) {}
  std::string Describe() const override { return plan_.inner == 1 ? "softmax rows" : "softmax columns"; }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const auto* from = static_cast<const float*>(src[0].data);
    auto* to = static_cast<float*>(dst[0].data);
    const int64_t size = plan_.outer * plan_.length * plan_.inner;
    if (size == 0) return;
    const int64_t parts = DivideUp(plan_.inner, kColumns);
    // An exponential costs some 8 moves of an element.
    ParallelForCost(context, plan_.outer * parts, 8 * size, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / parts, first = i % parts * kColumns;
        if (plan_.inner == 1) {
          HWY_DYNAMIC_DISPATCH(AdjacentSoftmax)
          (from + row * plan_.src_pitch, to + row * plan_.dst_pitch, plan_.length, plan_.log);
        } else {
          const int64_t offset = row * plan_.length * plan_.inner + first;
          HWY_DYNAMIC_DISPATCH(ColumnSoftmax)
          (from + offset, to + offset, plan_.length, plan_.inner, std::min(kColumns, plan_.inner - first), plan_.log);
        }
      }
    });
  }

 private:
  Plan plan_;
};

}  // namespace

KernelResult MakeSoftmax(const KernelRequest& request) {
  InitTargets();
  const Operand& x = request.src[0];
  const Operand& y = request.dst[0];
  if (!x.present || x.dtype != DType::kFloat32 || x.constant != nullptr) return Refuse("not float32");
  if (!request.epilogue.empty()) return Refuse("epilogue");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  const bool log = request.node.op_type == "LogSoftmax";
  if (x.layout == Layout::kPlain && y.layout == Layout::kPlain) {
    CREASE_ASSIGN_OR_RETURN(const ops::SoftmaxShape shape, ops::ResolveSoftmax(request.node, request.opset, x.shape));
    return std::unique_ptr<Kernel>(
        new SoftmaxKernel({shape.outer, shape.length, shape.inner, shape.length, shape.length, log}));
  }
  if (x.layout != y.layout) return Refuse("layouts differ");
  CREASE_ASSIGN_OR_RETURN(const int64_t axis, AttrInt(request.node, "axis", request.opset < 13 ? 1 : -1));
  const auto rank = static_cast<int64_t>(x.shape.size());
  if (request.opset < 13 || (axis != 1 && axis != 1 - rank)) return Refuse("channels-last along another axis");
  int64_t pixels = x.shape[0];
  for (size_t i = 2; i < x.shape.size(); ++i) pixels *= x.shape[i];
  return std::unique_ptr<Kernel>(new SoftmaxKernel({pixels, x.shape[1], 1, x.pitch, y.pitch, log}));
}

}  // namespace crease
#endif  // HWY_ONCE
