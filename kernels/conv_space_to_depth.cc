// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_space_to_depth.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr WinogradKind kKind = WinogradKind::kF4;
constexpr double kLeastGain = 1.2;

// The same convolution over blocks. Channels of a block: by row, source channel, column, so that a block's columns are
// neighbours in the source too.
ConvShape InnerShape(const ConvShape& s) {
  const int64_t side = s.stride_h;
  ConvShape inner = s;
  inner.channels = s.channels * side * side;
  inner.kernel_h = DivideUp(s.kernel_h, side);
  inner.kernel_w = DivideUp(s.kernel_w, side);
  inner.height = s.out_height + inner.kernel_h - 1;
  inner.width = s.out_width + inner.kernel_w - 1;
  inner.stride_h = inner.stride_w = 1;
  inner.pad_top = inner.pad_left = 0;
  return inner;
}

// Taps that the kernel lacks are zero.
Tensor InnerWeights(const ConvShape& s, const ConvShape& inner, const Tensor& weights) {
  const int64_t side = s.stride_h;
  std::vector<float> values(static_cast<size_t>(inner.filters * inner.channels * inner.taps()), 0.0f);
  for (int64_t from = 0; from < s.filters * s.channels * s.taps(); ++from) {
    const int64_t filter = from / (s.channels * s.taps()), channel = from / s.taps() % s.channels;
    const int64_t i = from / s.kernel_w % s.kernel_h, j = from % s.kernel_w;
    const int64_t depth = (i % side * s.channels + channel) * side + j % side;
    const int64_t row = (filter * inner.channels + depth) * inner.kernel_h + i / side;
    std::memcpy(&values[static_cast<size_t>(row * inner.kernel_w + j / side)],
                weights.bytes() + static_cast<size_t>(from) * sizeof(float), sizeof(float));
  }
  return Tensor::From<float>({inner.filters, inner.channels, inner.kernel_h, inner.kernel_w},
                             std::span<const float>(values));
}

}  // namespace

bool SpaceToDepthConv::CanRun(const ConvShape& s) {
  if (s.groups != 1 || s.dilation_h != 1 || s.dilation_w != 1 || s.stride_h != s.stride_w) return false;
  if (s.stride_h < 2 || s.stride_h > 4 || s.out_pixels() == 0) return false;
  const ConvShape inner = InnerShape(s);
  return FindWinogradOps(kKind, inner.kernel_h, inner.kernel_w, 1, 1) != nullptr;
}

double SpaceToDepthConv::Gain(const ConvShape& s) {
  const ConvShape inner = InnerShape(s);
  const WinogradOps& ops = *FindWinogradOps(kKind, inner.kernel_h, inner.kernel_w, 1, 1);
  return DirectConvCost(s, false) / WinogradCost(inner, ops, false);  // neither has AMX for few channels
}

Result<SpaceToDepthConv> SpaceToDepthConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                                const Options& options) {
  const ConvShape inner = InnerShape(shape);
  // Kept, as the name of what is packed of them is where they lie.
  const auto make = [&] { return std::make_shared<const Tensor>(InnerWeights(shape, inner, weights)); };
  const PackCache::Packed kept =
      options.cache == nullptr ? make()
                               : options.cache->GetOrMake(PackKey("blocks", weights, nullptr, {shape.stride_h}), make);
  WinogradConv::Options winograd{options};
  winograd.kind = kKind;
  winograd.whole_vectors = true;
  CREASE_ASSIGN_OR_RETURN(WinogradConv made,
                          WinogradConv::Make(inner, *static_cast<const Tensor*>(kept.get()), bias, winograd));
  SpaceToDepthConv conv(std::move(made));
  conv.shape_ = shape;
  conv.inner_ = inner;
  conv.weights_ = kept;
  conv.pitch_ = RoundUp(inner.channels, int64_t{GetGemmOps().lanes});
  return conv;
}

std::string SpaceToDepthConv::Describe() const {
  return "blocks of " + std::to_string(shape_.stride_h) + "x" + std::to_string(shape_.stride_w) + ", " +
         conv_.Describe();
}

size_t SpaceToDepthConv::block_bytes() const {
  return static_cast<size_t>(RoundUp(inner_.batch * inner_.height * inner_.width * pitch_, kLineFloats)) *
         sizeof(float);
}

size_t SpaceToDepthConv::scratch_bytes(int workers) const { return block_bytes() + conv_.scratch_bytes(workers); }

template <int kSide>
void SpaceToDepthConv::MakeRow(const float* src, int64_t index, float* row) const {
  const ConvShape& s = shape_;
  for (int64_t x = 0; x < inner_.width; ++x) {
    std::fill(row + x * pitch_ + inner_.channels, row + (x + 1) * pitch_, 0.0f);
  }
  // The blocks of which all columns exist.
  const int64_t first = std::min(DivideUp(s.pad_left, int64_t{kSide}), inner_.width);
  const int64_t past = std::clamp((s.width + s.pad_left) / kSide, first, inner_.width);
  const int64_t image = index / inner_.height, top = index % inner_.height * kSide - s.pad_top;
  for (int64_t depth = 0; depth < kSide * s.channels; ++depth) {
    const int64_t y = top + depth / s.channels, plane = image * s.channels + depth % s.channels;
    const bool exists = y >= 0 && y < s.height;
    const float* from = exists ? src + (plane * s.height + y) * s.width : nullptr;
    for (int64_t x = 0; x < inner_.width; ++x) {
      float* to = row + x * pitch_ + depth * kSide;
      const int64_t column = x * kSide - s.pad_left;
      if (exists && x >= first && x < past) {
        std::memcpy(to, from + column, kSide * sizeof(float));
        continue;
      }
      for (int64_t j = 0; j < kSide; ++j) {
        to[j] = exists && column + j >= 0 && column + j < s.width ? from[column + j] : 0.0f;
      }
    }
  }
}

void SpaceToDepthConv::Run(const RunContext& context, const ConvOperands& operands) const {
  auto* blocks = reinterpret_cast<float*>(context.scratch);
  context.ParallelFor(inner_.batch * inner_.height, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = blocks + i * inner_.width * pitch_;
      if (shape_.stride_h == 2) MakeRow<2>(operands.src, i, row);
      if (shape_.stride_h == 3) MakeRow<3>(operands.src, i, row);
      if (shape_.stride_h == 4) MakeRow<4>(operands.src, i, row);
    }
  });
  ConvOperands inner = operands;
  inner.src = blocks;
  inner.src_pitch = pitch_;
  conv_.Run({context.executor, context.scratch + block_bytes(), context.fetch}, inner);
}

KernelResult MakeConvSpaceToDepth(const KernelRequest& request) {
  if (request.exact) return Refuse("exact results asked for");
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadPlanarConvRequest(request));
  if (!SpaceToDepthConv::CanRun(conv.shape)) return Refuse("no transform for this kernel and stride");
  if (!request.measured) {
    if (SpaceToDepthConv::Gain(conv.shape) < kLeastGain) return Refuse("too few taps or filters to gain");
  }
  CREASE_ASSIGN_OR_RETURN(SpaceToDepthConv made,
                          SpaceToDepthConv::Make(conv.shape, *conv.weights, conv.bias, OptionsOf(request)));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
