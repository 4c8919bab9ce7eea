// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_group.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/cache_sizes.h"
#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// 1 to 4 for groups of 2, 4, 8 and 16; 0 for others.
int Log2Group(const ConvShape& s) {
  if (s.group_channels() != s.group_filters()) return 0;
  for (int log2 = 1; log2 < kGroupSizes; ++log2) {
    if (s.group_channels() == 1 << log2) return log2;
  }
  return 0;
}

std::shared_ptr<FloatBuffer> PackGroups(const ConvShape& s, const Tensor& weights, const Tensor* bias, int64_t lanes) {
  const int64_t vectors = DivideUp(s.filters, lanes);
  const int64_t group = s.group_channels();
  const size_t count = static_cast<size_t>(vectors * (1 + s.taps() * group) * lanes);
  auto packed = std::make_shared<FloatBuffer>(count);
  if (packed->data() == nullptr) return nullptr;
  std::fill_n(packed->data(), count, 0.0f);
  const Elements<float> from = weights.elements<float>();
  for (int64_t k = 0; k < s.filters; ++k) {
    float* to = packed->data() + k / lanes * (1 + s.taps() * group) * lanes + GroupLane(k % lanes, group, lanes);
    *to = bias != nullptr ? bias->elements<float>()[k] : 0;
    for (int64_t y = 0; y < s.kernel_h; ++y) {
      for (int64_t c = 0; c < group; ++c) {
        for (int64_t x = 0; x < s.kernel_w; ++x) {
          to += lanes;
          *to = from[((k * group + c) * s.kernel_h + y) * s.kernel_w + x];
        }
      }
    }
  }
  return packed;
}

}  // namespace

Result<GroupConv> GroupConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                  const Options& options) {
  const int log2 = Log2Group(shape);
  if (log2 == 0) return Refuse("groups of other than 2, 4, 8 or 16 channels and filters");
  GroupConv conv;
  conv.shape_ = shape;
  conv.epilogue_ = options.epilogue;
  conv.prologue_ = options.prologue;
  conv.ops_ = &GetGroupOps();
  conv.gemm_ = &GetGemmOps();
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_);
  conv.functions_ = &conv.ops_->any[log2];
  if (shape.kernel_w == 3 && shape.dilation_w == 1 && shape.stride_w == 1) conv.functions_ = &conv.ops_->wide3[log2];
  if (shape.kernel_w == 3 && shape.dilation_w == 1 && shape.stride_w == 2) conv.functions_ = &conv.ops_->wide3s2[log2];
  conv.pack_ = conv.ops_->pack[log2];
  if (conv.pack_ == nullptr) return Refuse("groups wider than a vector");
  const auto make = [&]() -> PackCache::Packed { return PackGroups(shape, weights, bias, conv.ops_->lanes); };
  const std::string key = PackKey("group", weights, bias, {shape.groups, conv.ops_->lanes});
  conv.packed_ = std::static_pointer_cast<const FloatBuffer>(
      options.cache == nullptr ? make() : options.cache->GetOrMake(key, make));
  if (conv.packed_ == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  conv.Plan(options.workers);
  return conv;
}

void GroupConv::Plan(int workers) {
  const int64_t lanes = ops_->lanes;
  tile_rows_ =
      std::count_if(std::begin(*functions_), std::end(*functions_), [](const auto& row) { return row[0] != nullptr; });
  vectors_ = DivideUp(shape_.filters, lanes);
  vector_floats_ = (1 + shape_.taps() * shape_.group_channels()) * lanes;
  // Whole vectors of every pixel; kernels may also read past the last pixel of a line.
  band_ = {shape_, vectors_ * lanes};
  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  // Bands of like heights.
  lines_ = DivideUp(shape_.out_height, DivideUp(shape_.out_height, band_.LinesWithin(l2_floats / 6)));
  const int64_t past_the_end = kGroupPixels.back() * shape_.stride_w * lanes;
  worker_floats_ = static_cast<size_t>(DivideUp(band_.floats(lines_) + past_the_end, kMaxLanes) * kMaxLanes);
  chunks_ = DivideUp(shape_.out_width, kGroupPixels.back());
  // Few rows do not share evenly.
  by_channels_ = shape_.batch * shape_.out_height < 4 * workers && vectors_ >= 4 * workers;
}

std::string GroupConv::Describe() const {
  return "groups of " + std::to_string(shape_.group_channels()) + ", bands of " + std::to_string(lines_) + " rows, " +
         (by_channels_ ? "split by channels" : "split by pixels");
}

void GroupConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t rows = shape_.batch * shape_.out_height;
  float* scratch = reinterpret_cast<float*>(context.scratch);
  if (by_channels_) {
    ParallelPieces(context, vectors_, [&](int worker, auto next) {
      for (WorkShares::Range r = next(); !r.empty(); r = next()) {
        RunRange(operands, {0, rows}, {r.begin, r.end}, scratch + static_cast<size_t>(worker) * worker_floats_);
      }
    });
    return;
  }
  ParallelPieces(context, rows, [&](int worker, auto next) {
    for (WorkShares::Range r = next(); !r.empty(); r = next()) {
      RunRange(operands, {r.begin, r.end}, {0, vectors_}, scratch + static_cast<size_t>(worker) * worker_floats_);
    }
  });
}

void GroupConv::RunRange(const ConvOperands& operands, Range rows, Range vectors, float* scratch) const {
  // The band holds these vectors' channels alone.
  const int64_t first = vectors.begin * ops_->lanes;
  ConvBand band = band_;
  band.pitch = (vectors.end - vectors.begin) * ops_->lanes;
  band.shape.channels = std::min(band.pitch, shape_.channels - first);
  for (int64_t row = rows.begin; row < rows.end;) {
    // A band lies in one image.
    const int64_t end = std::min({row + lines_, rows.end, (row / shape_.out_height + 1) * shape_.out_height});
    PackBand(operands, band, {row, end}, first, scratch);
    for (int64_t vector = vectors.begin; vector < vectors.end; ++vector) {
      const float* src = scratch + (vector - vectors.begin) * band.width() * ops_->lanes;
      const int64_t tiles = DivideUp(end - row, tile_rows_);
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t y = (end - row) * i / tiles, next = (end - row) * (i + 1) / tiles;
        RunRows(operands, band, src + y * band.line_stride(), {row + y, row + next}, vector);
      }
    }
    row = end;
  }
}

void GroupConv::PackBand(const ConvOperands& operands, const ConvBand& band, Range rows, int64_t channel,
                         float* to) const {
  Prologue prologue = prologue_;
  if (prologue.scale != nullptr) {
    prologue.scale += channel;
    prologue.shift += channel;
  }
  const int64_t count = band.Rows(rows.begin, rows.end);
  for (int64_t i = 0; i < count; ++i, to += band.row_floats()) {
    const int64_t y = band.SourceRow(rows.begin, i);
    if (y < 0) {
      std::fill_n(to, band.row_floats(), 0.0f);
      continue;
    }
    const float* src = operands.src + y * shape_.width * operands.src_pitch + channel;
    pack_({src, operands.src_pitch, band.shape.channels, band.left(), band.inside(),
           band.width() - band.left() - band.inside(), to},
          prologue);
  }
}

void GroupConv::RunRows(const ConvOperands& operands, const ConvBand& band, const float* src, Range rows,
                        int64_t vector) const {
  const int64_t lanes = ops_->lanes;
  const int64_t channel = vector * lanes;
  const int64_t row_pixels = kGroupPixels.back();
  alignas(64) float sums[kMaxGroupRows * kGroupPixels.back() * kMaxLanes];
  GroupTile t;
  t.line_stride = band.line_stride();
  t.row_stride = shape_.dilation_h * band.row_floats();
  t.dilation = shape_.dilation_w;
  t.stride = shape_.stride_w;
  t.kernel_h = static_cast<int>(shape_.kernel_h);
  t.kernel_w = static_cast<int>(shape_.kernel_w);
  t.weights = packed_->data() + vector * vector_floats_;
  t.last = static_cast<int>(std::min(lanes, shape_.filters - channel));
  t.lo = lo_;
  t.hi = hi_;
  t.residual_last = epilogue_.residual == Residual::kAfterActivation;
  t.dst_stride = finish_ ? lanes : operands.dst_pitch;
  t.dst_line = finish_ ? row_pixels * lanes : shape_.out_width * operands.dst_pitch;
  t.residual_stride = operands.residual_pitch;
  t.residual_line = shape_.out_width * operands.residual_pitch;
  const GroupFunction* functions = (*functions_)[rows.end - rows.begin - 1];
  for (int64_t i = 0; i < chunks_; ++i) {
    const int64_t x = shape_.out_width * i / chunks_;
    const int64_t pixel = rows.begin * shape_.out_width + x;
    float* dst = operands.dst + pixel * operands.dst_pitch + channel;
    const float* residual =
        operands.residual == nullptr ? nullptr : operands.residual + pixel * operands.residual_pitch + channel;
    t.src = src + x * t.stride * lanes;
    t.pixels = static_cast<int>(shape_.out_width * (i + 1) / chunks_ - x);
    t.dst = finish_ ? sums : dst;
    t.residual = finish_ ? nullptr : residual;
    const auto fits = std::lower_bound(kGroupPixels.begin(), kGroupPixels.end(), t.pixels);
    functions[fits - kGroupPixels.begin()](t);
    if (!finish_) continue;
    for (int64_t r = 0; r < rows.end - rows.begin; ++r) {
      const float* extra = residual == nullptr ? nullptr : residual + r * t.residual_line;
      gemm_->finish({sums + r * t.dst_line, lanes, dst + r * shape_.out_width * operands.dst_pitch, operands.dst_pitch,
                     extra, operands.residual_pitch, t.pixels, t.last},
                    epilogue_);
    }
  }
}

KernelResult MakeGroupConv(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (conv.shape.groups == 1) return Refuse("one group");
  CREASE_ASSIGN_OR_RETURN(GroupConv made, GroupConv::Make(conv.shape, *conv.weights, conv.bias, OptionsOf(request)));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
