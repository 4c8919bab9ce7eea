// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise.h"

#include <algorithm>
#include <cstring>

#include "kernels/cache_sizes.h"
#include "kernels/conv_wrapper.h"
#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

std::shared_ptr<FloatBuffer> PackDepthwise(const Tensor& weights, const Tensor* bias, int64_t channels, int64_t taps,
                                           int64_t lanes) {
  const int64_t padded = DivideUp(channels, lanes) * lanes;
  auto packed = std::make_shared<FloatBuffer>(static_cast<size_t>(padded * (taps + 1)));
  if (packed->data() == nullptr) return nullptr;
  const Elements<float> from = weights.elements<float>();
  float* to = packed->data();
  for (int64_t c = 0; c < padded; ++c) to[c] = bias != nullptr && c < channels ? bias->elements<float>()[c] : 0.0f;
  to += padded;
  for (int64_t c0 = 0; c0 < padded; c0 += lanes) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t c = c0; c < c0 + lanes; ++c) *to++ = c < channels ? from[c * taps + tap] : 0.0f;
    }
  }
  return packed;
}

// First and past-the-last tap of `taps` that fall into [0, size), from position `first` in steps of `dilation`.
int FirstTap(int64_t first, int64_t dilation, int64_t taps) {
  return static_cast<int>(std::min(first >= 0 ? 0 : DivideUp(-first, dilation), taps));
}
int EndTap(int64_t first, int64_t dilation, int64_t taps, int64_t size) {
  return static_cast<int>(std::clamp<int64_t>(DivideUp(size - first, dilation), 0, taps));
}

}  // namespace

Result<DepthwiseConv> DepthwiseConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                          const Epilogue& epilogue, PackCache* cache) {
  DepthwiseConv conv;
  conv.shape_ = shape;
  conv.epilogue_ = epilogue;
  conv.ops_ = &GetDepthwiseOps();
  conv.finish_ops_ = &GetGemmOps();
  conv.finish_ = !BoundsOf(epilogue, conv.lo_, conv.hi_);
  const int64_t lanes = conv.ops_->lanes;
  conv.padded_channels_ = DivideUp(shape.channels, lanes) * lanes;
  const auto make = [&]() -> PackCache::Packed {
    return PackDepthwise(weights, bias, shape.channels, shape.taps(), lanes);
  };
  const std::string key = PackKey("depthwise", weights, bias, {lanes});
  conv.packed_ = std::static_pointer_cast<const FloatBuffer>(cache == nullptr ? make() : cache->GetOrMake(key, make));
  if (conv.packed_ == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};

  // The source rows of one dst row should stay in L1 for the next row; where not even four vectors of channels do,
  // they stay in L2 with long runs of channels (144 channels at 56x56: 0.28 ms, in blocks of 64 0.33 ms).
  const int64_t row_floats = (shape.kernel_h + shape.stride_h) * shape.width * lanes;
  const int64_t l1_vectors = static_cast<int64_t>(GetCacheSizes().l1 / sizeof(float)) * 3 / 4 / row_floats;
  const int64_t l2_vectors = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float)) / 4 / row_floats;
  const int64_t vectors = l1_vectors >= 4 ? std::min<int64_t>(l1_vectors, 16) : std::max<int64_t>(l2_vectors, 4);
  conv.channel_block_ = std::min(vectors * lanes, conv.padded_channels_);
  conv.chunks_ = DivideUp(shape.out_width, kMaxDepthwisePixels);
  const bool square = shape.kernel_h == shape.kernel_w && shape.dilation_w == 1 && shape.stride_w <= 2;
  if (square && shape.kernel_w % 2 == 1 && shape.kernel_w >= 3 && shape.kernel_w <= 7) {
    conv.fixed_kernel_ = static_cast<int>(shape.kernel_w / 2 - 1);
  }
  const bool fits = std::find(kDepthwisePixels.begin(), kDepthwisePixels.end(), shape.out_width / conv.chunks_) !=
                    kDepthwisePixels.end();
  conv.even_ = conv.fixed_kernel_ >= 0 && shape.out_width % conv.chunks_ == 0 && fits && !conv.finish_;
  return conv;
}

std::string DepthwiseConv::Describe() const {
  return "depthwise " + std::to_string(shape_.kernel_h) + "x" + std::to_string(shape_.kernel_w) +
         (fixed_kernel_ < 0 ? ", any" : "") + ", " + std::to_string(channel_block_) + " channels a pass";
}

size_t DepthwiseConv::scratch_bytes(int workers) const {
  return finish_ ? static_cast<size_t>(workers * channel_block_ * kMaxDepthwisePixels) * sizeof(float) : 0;
}

// Many rows are shared out as rows, which is how the neighbouring convolutions share pixels: a worker finds its source
// in its own L2. Few rows are shared as blocks of channels, for even shares.
void DepthwiseConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t rows = shape_.batch * shape_.out_height;
  const bool by_rows = rows >= 6 * context.workers();
  const int64_t lanes = ops_->lanes;
  const int64_t vectors = padded_channels_ / lanes;
  ParallelPieces(context, by_rows ? rows : vectors, [&](int worker, auto next) {
    float* scratch = reinterpret_cast<float*>(context.scratch) + worker * channel_block_ * kMaxDepthwisePixels;
    for (WorkShares::Range r = next(); !r.empty(); r = next()) {
      if (by_rows) {
        RunBlock(operands, {}, {r.begin, r.end}, {0, shape_.channels}, scratch);
      } else {
        RunBlock(operands, {}, {0, rows}, {r.begin * lanes, std::min(r.end * lanes, shape_.channels)}, scratch);
      }
    }
  });
}

void DepthwiseConv::RunRows(const ConvOperands& operands, const Origin& origin, int64_t begin, int64_t end,
                            float* scratch) const {
  RunBlock(operands, origin, {begin, end}, {0, shape_.channels}, scratch);
}

void DepthwiseConv::RunBlock(const ConvOperands& operands, const Origin& origin, Range rows, Range channels,
                             float* scratch) const {
  for (int64_t channel = channels.begin; channel < channels.end; channel += channel_block_) {
    const Range block{channel, std::min(channel + channel_block_, channels.end)};
    for (int64_t row = rows.begin; row < rows.end; ++row) RunRow(operands, origin, row, block, scratch);
  }
}

void DepthwiseConv::RunRow(const ConvOperands& operands, const Origin& origin, int64_t row, Range channels,
                           float* scratch) const {
  const ConvShape& s = shape_;
  const int64_t channel = channels.begin;
  const int64_t image = row / s.out_height;
  const int64_t y = row % s.out_height * s.stride_h - s.pad_top;
  DepthwiseTile tile;
  tile.src = operands.src + channel;
  tile.row_stride = s.dilation_h * s.width * operands.src_pitch;
  tile.tap_stride = s.dilation_w * operands.src_pitch;
  tile.pixel_stride = s.stride_w * operands.src_pitch;
  tile.kernel_h = static_cast<int>(s.kernel_h);
  tile.kernel_w = static_cast<int>(s.kernel_w);
  tile.first_row = FirstTap(y, s.dilation_h, s.kernel_h);
  tile.end_row = EndTap(y, s.dilation_h, s.kernel_h, s.height);
  tile.stride_w = s.stride_w;
  tile.dilation_w = s.dilation_w;
  tile.bias = packed_->data() + channel;
  tile.weights = packed_->data() + padded_channels_ + channel * s.taps();
  tile.channels = channels.end - channel;
  tile.lo = lo_;
  tile.hi = hi_;
  // Chunk i ends at out_width * (i + 1) / chunks_, without a division for each.
  const int64_t least = s.out_width / chunks_, rest = s.out_width % chunks_;
  int64_t carry = 0;
  for (int64_t begin = 0; begin < s.out_width; begin += tile.pixels * tile.repeat) {
    carry += rest;
    tile.pixels = static_cast<int>(least + (carry >= chunks_ ? 1 : 0));
    carry -= carry >= chunks_ ? chunks_ : 0;
    const int64_t x = begin * s.stride_w - s.pad_left;
    tile.offset = ((image * s.height + y - origin.src) * s.width + x) * operands.src_pitch;
    tile.first_column = std::max<int64_t>(-x, 0);
    tile.end_column = s.width - x;
    // All that fit before the right edge at once.
    tile.repeat = 1;
    if (even_ && x >= 0) {
      const int64_t inside = (s.width - x - s.span_w()) / s.stride_w + 1;
      tile.repeat = std::max<int64_t>(std::min(inside, s.out_width - begin) / least, 1);
    }
    RunPixels(operands, tile, (row - origin.dst) * s.out_width + begin, channel, scratch);
  }
}

DepthwiseFunction DepthwiseConv::Choose(const DepthwiseTile& tile) const {
  if (fixed_kernel_ < 0) return ops_->any;
  const auto fits = std::lower_bound(kDepthwisePixels.begin(), kDepthwisePixels.end(), tile.pixels);
  const int64_t columns = (*fits - 1) * shape_.stride_w + shape_.kernel_w;
  const bool edge = tile.pixels != *fits || tile.first_column > 0 || tile.end_column < columns;
  const int variant = tile.channels < ops_->lanes ? 2 : edge ? 1 : 0;
  return ops_->fixed[fixed_kernel_][shape_.stride_w - 1][fits - kDepthwisePixels.begin()][variant];
}

void DepthwiseConv::RunPixels(const ConvOperands& operands, DepthwiseTile& tile, int64_t pixel, int64_t channel,
                              float* scratch) const {
  float* dst = operands.dst + pixel * operands.dst_pitch + channel;
  const float* residual =
      operands.residual == nullptr ? nullptr : operands.residual + pixel * operands.residual_pitch + channel;
  tile.dst = finish_ ? scratch : dst;
  tile.dst_stride = finish_ ? channel_block_ : operands.dst_pitch;
  tile.residual = finish_ ? nullptr : residual;
  tile.residual_stride = operands.residual_pitch;
  tile.residual_last = epilogue_.residual == Residual::kAfterActivation;
  // The channels past the last whole vector go to the kernel that masks.
  const int64_t channels = tile.channels;
  const int64_t whole = fixed_kernel_ < 0 ? 0 : channels / ops_->lanes * ops_->lanes;
  if (whole > 0) {
    tile.channels = whole;
    Choose(tile)(tile);
    tile.channels = channels;
  }
  if (whole < channels) {
    DepthwiseTile rest = tile;
    rest.src += whole;
    rest.bias += whole;
    rest.weights += whole * shape_.taps();
    rest.dst += whole;
    if (rest.residual != nullptr) rest.residual += whole;
    rest.channels = channels - whole;
    Choose(rest)(rest);
  }
  if (finish_) {
    finish_ops_->finish(
        {scratch, channel_block_, dst, operands.dst_pitch, residual, operands.residual_pitch, tile.pixels, channels},
        epilogue_);
  }
}

KernelResult MakeDepthwise(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (!conv.shape.depthwise()) return Refuse("not depthwise");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  CREASE_ASSIGN_OR_RETURN(DepthwiseConv made,
                          DepthwiseConv::Make(conv.shape, *conv.weights, conv.bias, request.epilogue, request.packs));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
