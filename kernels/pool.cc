// SPDX-License-Identifier: Apache-2.0
// MaxPool and AveragePool over one to three spatial axes, channels-last, f32: vectors over channels,
// rows of the output split over threads.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "graph/ops/pool.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"
#include "kernels/rounding.h"
#include "kernels/window_rows.h"

namespace crease {
namespace {

// More taps than this are a global pool in all but name: the reduction kernels take these.
constexpr size_t kMaxTaps = 1024;

// The taps of output index o along one axis that lie inside the input: [first, last).
struct TapRange {
  int64_t first, last;
  int64_t divisor;  // taps that AveragePool counts
};

TapRange TapsOf(const ops::WindowAxis& axis, int64_t o, bool count_include_pad) {
  const int64_t start = o * axis.stride - axis.pad_begin;
  int64_t first = 0, last = axis.kernel;
  if (start < 0) first = DivideUp(-start, axis.dilation);
  const int64_t room = axis.input - start;
  last = room <= 0 ? 0 : std::min(last, DivideUp(room, axis.dilation));
  last = std::max(last, first);
  int64_t divisor = last - first;
  if (count_include_pad) {
    const int64_t padded = axis.input + axis.pad_end - start;
    divisor = std::min(axis.kernel, padded <= 0 ? 0 : DivideUp(padded, axis.dilation));
  }
  return {first, last, divisor};
}

class PoolKernel final : public Kernel {
 public:
  PoolKernel(const KernelRequest& request, ops::PoolShape shape, bool average)
      : shape_(std::move(shape)),
        average_(average),
        pixel_(FindPoolPixel(average ? ReduceOp::kSum : ReduceOp::kMax)),
        mapped_pixel_(FindPoolMappedPixel()),
        prologue_(request.prologue) {
    // Up to three spatial axes; absent ones have size 1.
    const ops::WindowAxis one{1, 1, 1, 1, 1, 0, 0};
    axes_.fill(one);
    std::copy(shape_.axes.begin(), shape_.axes.end(), axes_.end() - static_cast<int64_t>(shape_.axes.size()));
    src_pitch_ = request.src[0].pitch;
    dst_pitch_ = request.dst[0].pitch;
    for (size_t i = 0; i < 3; ++i) {
      for (int64_t o = 0; o < axes_[i].output; ++o) taps_[i].push_back(TapsOf(axes_[i], o, shape_.count_include_pad));
    }
  }

  std::string Describe() const override { return average_ ? "average pool" : "max pool"; }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const auto* from = static_cast<const float*>(src[0].data);
    auto* to = static_cast<float*>(dst[0].data);
    const int64_t rows = shape_.batch * axes_[0].output * axes_[1].output;
    const int64_t cost =
        rows * axes_[2].output * shape_.channels * axes_[0].kernel * axes_[1].kernel * axes_[2].kernel / 4;
    if (rows * axes_[2].output * shape_.channels == 0) return;
    ParallelForCost(context, rows, cost, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) RunRow(from, to, row);
    });
  }

 private:
  void RunRow(const float* src, float* dst, int64_t row) const {
    const int64_t height = axes_[1].output;
    const int64_t oz = row / height % axes_[0].output, oy = row % height;
    const int64_t n = row / height / axes_[0].output;
    const TapRange& tz = taps_[0][static_cast<size_t>(oz)];
    const TapRange& ty = taps_[1][static_cast<size_t>(oy)];
    std::array<int64_t, kMaxTaps> offsets;  // from the first tap's column
    int64_t count = 0;
    const TapRange* last = nullptr;
    for (int64_t ox = 0; ox < axes_[2].output; ++ox) {
      const TapRange& tx = taps_[2][static_cast<size_t>(ox)];
      // All but the pixels at the edges have the same taps.
      if (last == nullptr || tx.first != last->first || tx.last != last->last) {
        count = RowOffsets(n, oz, oy, tx, offsets);
        last = &tx;
      }
      const float* from = src + Position(2, ox, tx.first) * src_pitch_;
      float* to = dst + (row * axes_[2].output + ox) * dst_pitch_;
      const float factor = average_ ? 1.0f / static_cast<float>(tz.divisor * ty.divisor * tx.divisor) : 1.0f;
      if (prologue_.scale == nullptr) {
        pixel_(from, offsets.data(), count, shape_.channels, factor, to);
      } else {
        mapped_pixel_(from, offsets.data(), count, shape_.channels, factor, prologue_, to);
      }
    }
  }

  int64_t RowOffsets(int64_t n, int64_t oz, int64_t oy, const TapRange& tx,
                     std::array<int64_t, kMaxTaps>& offsets) const {
    const TapRange& tz = taps_[0][static_cast<size_t>(oz)];
    const TapRange& ty = taps_[1][static_cast<size_t>(oy)];
    int64_t count = 0;
    for (int64_t kz = tz.first; kz < tz.last; ++kz) {
      const int64_t z = n * axes_[0].input + Position(0, oz, kz);
      for (int64_t ky = ty.first; ky < ty.last; ++ky) {
        const int64_t y = z * axes_[1].input + Position(1, oy, ky);
        for (int64_t kx = tx.first; kx < tx.last; ++kx) {
          offsets[static_cast<size_t>(count++)] =
              (y * axes_[2].input + (kx - tx.first) * axes_[2].dilation) * src_pitch_;
        }
      }
    }
    return count;
  }

  int64_t Position(size_t axis, int64_t o, int64_t k) const {
    const ops::WindowAxis& a = axes_[axis];
    return o * a.stride - a.pad_begin + k * a.dilation;
  }

  ops::PoolShape shape_;
  bool average_;
  PoolPixel pixel_;
  PoolMappedPixel mapped_pixel_;
  Prologue prologue_;
  std::array<ops::WindowAxis, 3> axes_;
  std::array<std::vector<TapRange>, 3> taps_;
  int64_t src_pitch_ = 0, dst_pitch_ = 0;
};

// Every window has a tap inside the input.
bool NoWindowIsEmpty(const ops::PoolShape& shape) {
  for (const ops::WindowAxis& axis : shape.axes) {
    for (int64_t o = 0; o < axis.output; ++o) {
      const TapRange taps = TapsOf(axis, o, false);
      if (taps.first >= taps.last) return false;
    }
  }
  return true;
}

// A prologue is computed as often as pixels are read.
bool ReadsPixelsOften(const ops::PoolShape& shape) {
  int64_t read = 1, there = 1;
  for (const ops::WindowAxis& axis : shape.axes) {
    read *= axis.output * std::min(axis.kernel, axis.input);
    there *= axis.input;
  }
  return read > 2 * there;
}

}  // namespace

KernelResult MakePool(const KernelRequest& request) {
  const Operand& x = request.src[0];
  const Operand& y = request.dst[0];
  if (!x.present || x.dtype != DType::kFloat32) return Refuse("not float32");
  if (x.layout != Layout::kChannelsLast || y.layout != Layout::kChannelsLast) return Refuse("not channels-last");
  if (!request.epilogue.empty()) return Refuse("epilogue");
  const bool average = request.node.op_type == "AveragePool";
  if (request.prologue.scale != nullptr && !average) return Refuse("prologue");
  if (request.dst.size() > 1 && request.dst[1].present) return Refuse("indices wanted");
  if (x.shape.size() < 3 || x.shape.size() > 5) return Refuse("more than three spatial axes");
  CREASE_ASSIGN_OR_RETURN(ops::PoolShape shape, ops::ResolvePool(request.node, x.shape));
  size_t taps = 1;
  for (const ops::WindowAxis& axis : shape.axes) {
    taps *= static_cast<size_t>(std::min<int64_t>(axis.kernel, axis.input));
    if (taps > kMaxTaps) return Refuse("a large window");
  }
  if (!NoWindowIsEmpty(shape)) return Refuse("a window without input");
  if (request.prologue.scale != nullptr && ReadsPixelsOften(shape)) return Refuse("prologue, windows overlap");
  return std::unique_ptr<Kernel>(new PoolKernel(request, std::move(shape), average));
}

}  // namespace crease
