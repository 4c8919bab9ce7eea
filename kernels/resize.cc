// SPDX-License-Identifier: Apache-2.0
// Resize and Upsample over one to three spatial axes, channels-last, f32: every output pixel is a
// weighted sum of input pixels, vectors over channels, rows of the output split over threads.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/resize.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/highway.h>

#include "graph/ops/resize.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// dst[c] = sum over taps of weights[t] * src[offsets[t] + c].
void WeightedPixel(const float* src, const int64_t* offsets, const float* weights, int64_t taps, int64_t channels,
                   float* dst) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto n = static_cast<size_t>(channels);
  size_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    auto sum = hn::Mul(hn::Set(d, weights[0]), hn::LoadU(d, src + offsets[0] + c));
    for (int64_t t = 1; t < taps; ++t) {
      sum = hn::MulAdd(hn::Set(d, weights[t]), hn::LoadU(d, src + offsets[t] + c), sum);
    }
    hn::StoreU(sum, d, dst + c);
  }
  if (c == n) return;
  const size_t left = n - c;
  auto sum = hn::Mul(hn::Set(d, weights[0]), hn::LoadN(d, src + offsets[0] + c, left));
  for (int64_t t = 1; t < taps; ++t) {
    sum = hn::MulAdd(hn::Set(d, weights[t]), hn::LoadN(d, src + offsets[t] + c, left), sum);
  }
  hn::StoreN(sum, d, dst + c, left);
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {
namespace {

HWY_EXPORT(WeightedPixel);

// The taps of every output index along one axis.
struct Axis {
  int64_t input = 1, output = 1;
  int count = 1;                     // taps of each index
  std::vector<int64_t> index = {0};  // [output][count]
  std::vector<float> weight = {1.0f};
};

Axis MakeAxis(const ops::ResizeAttributes& attributes, const ops::ResizePlan& plan, size_t of, int64_t input) {
  Axis axis{input, plan.output[of], 1, {}, {}};
  const bool same = axis.input == axis.output && plan.scales[of] == 1;
  for (int64_t o = 0; o < axis.output; ++o) {
    if (same) {
      axis.index.push_back(o);
      axis.weight.push_back(1);
      continue;
    }
    const ops::ResizeTaps taps = ops::ResizeTapsAt(attributes, plan, of, o, input);
    axis.count = taps.count;
    for (size_t t = 0; t < static_cast<size_t>(taps.count); ++t) {
      axis.index.push_back(taps.index[t]);
      axis.weight.push_back(static_cast<float>(taps.weight[t]));
    }
  }
  return axis;
}

class ResizeKernel final : public Kernel {
 public:
  ResizeKernel(const KernelRequest& request, std::array<Axis, 3> axes)
      : axes_(std::move(axes)),
        batch_(request.src[0].shape[0]),
        channels_(request.src[0].shape[1]),
        src_pitch_(request.src[0].pitch),
        dst_pitch_(request.dst[0].pitch) {}

  std::string Describe() const override {
    return "resize taps " + std::to_string(axes_[0].count * axes_[1].count * axes_[2].count);
  }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const auto* from = static_cast<const float*>(src[0].data);
    auto* to = static_cast<float*>(dst[0].data);
    const int64_t rows = batch_ * axes_[0].output * axes_[1].output;
    const int64_t cost = rows * axes_[2].output * channels_;
    if (cost == 0) return;
    ParallelForCost(context, rows, cost, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) RunRow(from, to, row);
    });
  }

 private:
  void RunRow(const float* src, float* dst, int64_t row) const {
    const int64_t oy = row % axes_[1].output;
    const int64_t oz = row / axes_[1].output % axes_[0].output;
    const int64_t n = row / axes_[1].output / axes_[0].output;
    std::array<int64_t, 64> offsets;
    std::array<float, 64> weights;
    const auto bytes = static_cast<size_t>(channels_) * sizeof(float);
    for (int64_t ox = 0; ox < axes_[2].output; ++ox) {
      const int64_t taps = Taps(n, oz, oy, ox, offsets, weights);
      float* to = dst + (row * axes_[2].output + ox) * dst_pitch_;
      if (taps == 1 && weights[0] == 1) {
        std::memcpy(to, src + offsets[0], bytes);
      } else {
        HWY_DYNAMIC_DISPATCH(WeightedPixel)(src, offsets.data(), weights.data(), taps, channels_, to);
      }
    }
  }

  // Taps of weight 0 are left out, but for one.
  int64_t Taps(int64_t n, int64_t oz, int64_t oy, int64_t ox, std::array<int64_t, 64>& offsets,
               std::array<float, 64>& weights) const {
    int64_t count = 0;
    const auto at = [this](size_t axis, int64_t o, int k) { return static_cast<size_t>(o * axes_[axis].count + k); };
    for (int kz = 0; kz < axes_[0].count; ++kz) {
      const size_t tz = at(0, oz, kz);
      for (int ky = 0; ky < axes_[1].count; ++ky) {
        const size_t ty = at(1, oy, ky);
        const int64_t line = ((n * axes_[0].input + axes_[0].index[tz]) * axes_[1].input + axes_[1].index[ty]);
        for (int kx = 0; kx < axes_[2].count; ++kx) {
          const size_t tx = at(2, ox, kx);
          const float weight = axes_[0].weight[tz] * axes_[1].weight[ty] * axes_[2].weight[tx];
          const auto slot = static_cast<size_t>(count);
          offsets[slot] = (line * axes_[2].input + axes_[2].index[tx]) * src_pitch_;
          weights[slot] = weight;
          if (weight != 0) ++count;
        }
      }
    }
    return std::max<int64_t>(count, 1);
  }

  std::array<Axis, 3> axes_;
  int64_t batch_, channels_, src_pitch_, dst_pitch_;
};

// The constant of an optional input; null where it is absent or empty. Fails where it is not constant.
Result<const Tensor*> OptionalConstant(const KernelRequest& request, int slot) {
  const Tensor* none = nullptr;
  if (slot < 0 || static_cast<size_t>(slot) >= request.src.size()) return none;
  const Operand& operand = request.src[static_cast<size_t>(slot)];
  if (!operand.present) return none;
  if (operand.constant != nullptr) return operand.constant->size() == 0 ? none : operand.constant;
  if (operand.shape.size() == 1 && operand.shape[0] == 0) return none;
  return Refuse("scales or sizes are not constant");
}

}  // namespace

KernelResult MakeResize(const KernelRequest& request) {
  InitTargets();
  const Operand& x = request.src[0];
  const Operand& y = request.dst[0];
  if (!x.present || x.dtype != DType::kFloat32 || x.constant != nullptr) return Refuse("not float32");
  if (x.layout != Layout::kChannelsLast || y.layout != Layout::kChannelsLast) return Refuse("not channels-last");
  if (!request.epilogue.empty()) return Refuse("epilogue");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (x.shape.size() < 3 || x.shape.size() > 5) return Refuse("more than three spatial axes");
  CREASE_ASSIGN_OR_RETURN(const ops::ResizeAttributes attributes, ops::ParseResize(request.node, request.opset));
  CREASE_ASSIGN_OR_RETURN(const Tensor* scales, OptionalConstant(request, attributes.scales_slot));
  CREASE_ASSIGN_OR_RETURN(const Tensor* sizes, OptionalConstant(request, attributes.sizes_slot));
  CREASE_ASSIGN_OR_RETURN(const ops::ResizePlan plan, ops::ResolveResize(attributes, x.shape, scales, sizes));
  if (plan.output != y.shape) return Refuse("another output shape than planned");
  if (x.shape[0] != y.shape[0] || x.shape[1] != y.shape[1] || plan.scales[0] != 1 || plan.scales[1] != 1) {
    return Refuse("resizes batch or channels");
  }
  std::array<Axis, 3> axes;
  const size_t lead = 5 - x.shape.size();
  for (size_t i = 2; i < x.shape.size(); ++i) {
    if (x.shape[i] == 0) return Refuse("empty input");
    axes[i - 2 + lead] = MakeAxis(attributes, plan, i, x.shape[i]);
  }
  return std::unique_ptr<Kernel>(new ResizeKernel(request, std::move(axes)));
}

}  // namespace crease
#endif  // HWY_ONCE
