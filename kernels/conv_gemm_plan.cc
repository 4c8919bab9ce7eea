// SPDX-License-Identifier: Apache-2.0
// How GemmConv packs its weights, and how it divides its work into blocks and between workers.
#include <algorithm>

#include "kernels/cache_sizes.h"
#include "kernels/conv_gemm.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// A tile of more rows than ways that alias reads them from a copy.
constexpr int kL1Ways = 8;
// Rates that only their ratio counts of: what a core computes and reads past its L2.
constexpr double kFlopsPerSecond = 1e11;
constexpr double kAmxFlopsPerSecond = 3.5e11;
constexpr double kBytesPerSecond = 1.2e10;

int WidestOf(const GemmConv::Options& options, const GemmOps& ops) {
  return options.widest == 0 ? ops.wide : options.widest;
}

// The largest of `workers` static shares of `count`, relative to a perfect one.
double Imbalance(int64_t count, int workers) {
  return static_cast<double>(DivideUp(count, workers) * workers) / static_cast<double>(count);
}

}  // namespace

MatrixSource ConvMatrix(const ConvShape& shape, const Tensor& weights, const Tensor* bias) {
  MatrixSource matrix;
  matrix.values = &weights;
  matrix.bias = bias;
  matrix.groups = shape.groups;
  matrix.columns = shape.group_filters();
  matrix.taps = shape.taps();
  matrix.channels = shape.group_channels();
  matrix.tap_stride = 1;
  matrix.channel_stride = shape.taps();
  matrix.column_stride = shape.taps() * shape.group_channels();
  matrix.group_stride = matrix.column_stride * shape.group_filters();
  return matrix;
}

MatrixSource PlanarMatrix(const ConvShape& shape, const Tensor& weights, const Tensor* bias) {
  MatrixSource matrix = ConvMatrix(shape, weights, bias);
  matrix.channels *= matrix.taps;
  matrix.taps = matrix.channel_stride = 1;
  return matrix;
}

Result<GemmConv> GemmConv::Make(const ConvShape& shape, const MatrixSource& matrix, const Options& options) {
  GemmConv conv;
  conv.shape_ = shape;
  conv.epilogue_ = options.epilogue;
  conv.prologue_ = options.prologue;
  conv.near_ = options.near;
  conv.lattice_ = options.lattice.value_or(Lattice{1, 1, shape.out_height, shape.out_width});
  conv.ops_ = &GetGemmOps();
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_);
  if (options.amx && shape.groups == 1 && !options.planar && !options.lattice) conv.amx_ = GetAmxOps();
  conv.flat_ = conv.amx_ != nullptr || (shape.one_tap() && !options.planar && !options.lattice);
  const int64_t line = conv.flat_ ? shape.out_pixels() : shape.out_width;
  const int wide = WidestOf(options, *conv.ops_);
  const int most = conv.ops_->max_rows[wide];
  const int64_t rows = 2 * line <= most && !options.lattice ? 2 * line : DivideUp(line, DivideUp(line, most));
  const bool amx = conv.amx_ != nullptr;
  const int vectors = amx ? 2 : wide < 3 && rows <= conv.ops_->max_rows[3] ? 3 : wide;
  const int lanes = amx ? kAmxColumns : conv.ops_->lanes;
  const int64_t column_vectors = DivideUp(matrix.columns, lanes);
  const auto panels = static_cast<int64_t>(PlanPanels(matrix.groups, matrix.columns, 1, lanes, vectors).size());
  // By channels, workers have even shares of vectors, not of panels.
  const bool even = !amx && matrix.groups == 1;
  conv.PlanBand(options, panels);
  const int64_t column_units = even ? column_vectors : panels;
  conv.by_columns_ = conv.SplitsByColumns(options.workers, column_units, conv.copy_);
  // Whether this one copies or not, so that kernels which are only tried pack the same weights, but for those that ask
  // for panels as wide as they can be.
  const int64_t parts = even && conv.SplitsByColumns(options.workers, column_units, true) ? options.workers : 1;
  if (amx) {
    CREASE_ASSIGN_OR_RETURN(conv.packed_, PackAmxGemm(matrix, options.cache, options.executor));
  } else {
    CREASE_ASSIGN_OR_RETURN(conv.packed_,
                            PackGemm(matrix, *conv.ops_, vectors, parts, options.cache, options.executor));
  }
  conv.PlanPieces();
  return conv;
}

void GemmConv::PlanBand(const Options& options, int64_t panels) {
  const ConvShape& s = shape_;
  const bool wide = panels > 2 * s.groups;
  const bool alias = options.src_pitch % kTileAliasFloats == 0 && wide && ops_->max_rows[1] > kL1Ways;
  // Rows of the source as they are, though not all that dst lies between.
  const bool in_place = !flat_ && options.lattice && s.taps() == 1 && s.pad_top == 0 && s.pad_left == 0 &&
                        s.out_height <= s.height && s.out_width <= s.width && s.stride_h == 1 && s.stride_w == 1;
  const bool amx = amx_ != nullptr;
  copy_ = amx || !(in_place || (flat_ && s.pointwise())) || options.prologue.scale != nullptr || alias;
  by_group_ = copy_ && !flat_ && s.groups > 1;
  const int64_t band_channels = by_group_ ? s.group_channels() : s.channels;
  a_pitch_ = options.src_pitch;
  if (options.planar) {
    a_pitch_ = 1;
  } else if (copy_) {
    a_pitch_ = amx ? DivideUp(depth(), kAmxDepth) * kAmxChunkFloats : band_channels;
    if ((a_pitch_ * (flat_ ? 1 : s.stride_w)) % kTileAliasFloats == 0) a_pitch_ += kLineFloats;
  }
  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  weights_stay_ = s.filters * s.group_channels() * s.taps() <= l2_floats / 2;
  if (flat_) {
    units_ = s.out_pixels();
    row_stride_ = a_pitch_;
    // Weights that stay in L2 are read again for every block: small blocks, so that a and the lines of dst, which
    // are written panel by panel, stay close. Others come from beyond: as few blocks as L2 allows.
    const int64_t l1_floats = static_cast<int64_t>(GetCacheSizes().l1 / sizeof(float));
    const int64_t most = ops_->max_rows[WidestOf(options, *ops_)];
    const int64_t rows = (weights_stay_ ? l1_floats / 2 : l2_floats / 3) / a_pitch_;
    unit_block_ = std::min(std::max<int64_t>(rows / most, weights_stay_ ? 4 : 1) * most, units_);
    if (amx) {
      grain_ = 2 * kAmxRows;
      const int64_t most_rows = l2_floats / (weights_stay_ ? 4 : 2) / a_pitch_;
      unit_block_ = std::min(std::max<int64_t>(most_rows / grain_, 2) * grain_, units_);
    }
  } else {
    band_ = {s, a_pitch_, options.planar};
    band_.shape.channels = band_channels;
    units_ = s.batch * s.out_height;
    row_stride_ = s.stride_w * a_pitch_;
    line_stride_ = copy_ ? band_.line_stride() : s.width * a_pitch_;
    // Two lines at the least: short ones pair up in a tile.
    const int64_t limit = options.planar ? static_cast<int64_t>(GetCacheSizes().l1 / sizeof(float)) / 2 : l2_floats / 3;
    unit_block_ = std::min(std::max<int64_t>(band_.LinesWithin(limit), 2), s.out_height);
  }
  if (copy_) {
    const int64_t floats = amx ? AmxFloats() : flat_ ? unit_block_ * a_pitch_ : band_.floats(unit_block_);
    worker_floats_ = static_cast<size_t>(DivideUp(floats, kLineFloats) * kLineFloats);
  }
  PlanSegments();
}

void GemmConv::PlanSegments() {
  const ConvShape& s = shape_;
  if (band_.planar) {
    segment_length_ = s.dilation_w == 1 ? s.kernel_w : 1;
    for (int64_t c = 0; c < s.channels; ++c) {
      for (int64_t i = 0; i < s.kernel_h; ++i) {
        for (int64_t j = 0; j < s.kernel_w; j += segment_length_) {
          segments_.push_back(i * s.dilation_h * band_.row_floats() + c * band_.width() + j * s.dilation_w);
        }
      }
    }
    return;
  }
  // Neighbouring taps of all channels are one run where nothing lies between.
  const bool runs = s.dilation_w == 1 && a_pitch_ == s.group_channels();
  segment_length_ = (runs ? s.kernel_w : 1) * s.group_channels();
  for (int64_t i = 0; i < s.kernel_h; ++i) {
    for (int64_t j = 0; j < (runs ? 1 : s.kernel_w); ++j) {
      segments_.push_back((i * s.dilation_h * band_.width() + j * s.dilation_w) * a_pitch_);
    }
  }
}

void GemmConv::PlanPieces() {
  const int64_t count = static_cast<int64_t>(segments_.size());
  if (segment_length_ <= kPieceFloats) {
    const int64_t pieces = DivideUp(count, std::max<int64_t>(kPieceFloats / std::max<int64_t>(segment_length_, 1), 1));
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t first = count * i / pieces;
      pieces_.push_back({first, count * (i + 1) / pieces - first, 0, segment_length_});
    }
    return;
  }
  const int64_t length = PieceLength(segment_length_);
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t offset = 0; offset < segment_length_; offset += length) {
      pieces_.push_back({s, 1, offset, std::min(length, segment_length_ - offset)});
    }
  }
}

// By units every worker reads all weights, by columns all of the source: the estimate of the slower part decides.
bool GemmConv::SplitsByColumns(int workers, int64_t column_units, bool copy) const {
  const ConvShape& s = shape_;
  const double flops = 2.0 * static_cast<double>(s.out_pixels() * s.filters * s.taps() * s.group_channels());
  const double weights = 4.0 * static_cast<double>(s.filters * s.taps() * s.group_channels());
  const double source = 4.0 * static_cast<double>(s.batch * s.height * s.width * s.channels);
  const double ideal = flops / workers / (amx_ != nullptr ? kAmxFlopsPerSecond : kFlopsPerSecond);
  const double by_units =
      ideal * Imbalance(DivideUp(units_, grain_), workers) + (weights + source / workers) / kBytesPerSecond;
  // Maps of many rows are shared by rows before and after: of the source and of dst, a worker then has its own share
  // only in its L2.
  const double dst = 4.0 * static_cast<double>(s.out_pixels() * s.filters);
  const double others = s.out_height >= 6 * workers ? (source + dst / workers) * (workers - 1) / workers : 0;
  // Each worker copies the whole band for itself, or its own groups.
  const double read = (copy ? 2 : 1) * source / (by_group_ ? workers : 1);
  const double by_columns =
      ideal * Imbalance(column_units, workers) + (weights / workers + read + others) / kBytesPerSecond;
  return workers > 1 && by_columns < by_units;
}

std::string GemmConv::Describe() const {
  std::string text = amx_ != nullptr ? "gemm of digits " : "gemm ";
  text += std::to_string(packed_->panels.front().vectors * ops_->lanes) + " wide";
  if (copy_) text += band_.planar ? ", from planes" : ", copied";
  text += by_columns_ ? ", split by channels" : ", split by pixels";
  return text;
}

}  // namespace crease
