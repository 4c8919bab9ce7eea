// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_gemm.h"

#include <algorithm>

#include "kernels/cache_sizes.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// Rows of a that lie a multiple of this apart fall into one or two sets of L1 (8 ways of 4 KiB, 12 of 4 KiB).
constexpr int64_t kAliasFloats = 2048 / sizeof(float);
// More pixels than these hide the wait for the next panel by themselves.
constexpr int64_t kMostFetchingPixels = 16 * kMaxTileRows;
// Longer sums are sums of pieces: rounding errors grow with the square root of a piece's length (864 products: 4.9e-7
// of the outputs' rms in one piece, 2.2e-7 in pieces of 288).
constexpr int64_t kPieceFloats = 576;
// Rates that only their ratio counts of: what a core computes and reads past its L2.
constexpr double kFlopsPerSecond = 1e11;
constexpr double kAmxFlopsPerSecond = 3.5e11;
constexpr double kBytesPerSecond = 1.2e10;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The largest of `workers` static shares of `count`, relative to a perfect one.
double Imbalance(int64_t count, int workers) {
  return static_cast<double>(DivideUp(count, workers) * workers) / static_cast<double>(count);
}

// The same for panels, by vectors.
double LargestShare(const std::vector<GemmPanel>& panels, int workers) {
  const auto count = static_cast<int64_t>(panels.size());
  int64_t all = 0, largest = 0;
  for (int worker = 0; worker < workers; ++worker) {
    int64_t vectors = 0;
    for (int64_t i = count * worker / workers; i < count * (worker + 1) / workers; ++i) {
      vectors += panels[static_cast<size_t>(i)].vectors;
    }
    all += vectors;
    largest = std::max(largest, vectors);
  }
  return static_cast<double>(largest * workers) / static_cast<double>(std::max<int64_t>(all, 1));
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
  conv.one_tap_ = shape.taps() == 1 && shape.pad_top == 0 && shape.pad_left == 0 &&
                  (shape.out_height - 1) * shape.stride_h < shape.height &&
                  (shape.out_width - 1) * shape.stride_w < shape.width;
  if (options.amx && shape.groups == 1 && !options.planar && !options.lattice) conv.amx_ = GetAmxOps();
  conv.flat_ = conv.amx_ != nullptr || (conv.one_tap_ && !options.planar && !options.lattice);
  const int64_t line = conv.flat_ ? shape.out_pixels() : shape.out_width;
  const int wide = conv.ops_->wide;
  const int most = conv.ops_->max_rows[wide];
  const int64_t rows = 2 * line <= most && !options.lattice ? 2 * line : DivideUp(line, DivideUp(line, most));
  const bool amx = conv.amx_ != nullptr;
  const int vectors = amx ? 2 : wide < 3 && rows <= conv.ops_->max_rows[3] ? 3 : wide;
  const int lanes = amx ? kAmxColumns : conv.ops_->lanes;
  const auto plan = [&](int64_t parts) { return PlanPanels(matrix.groups, matrix.columns, 1, lanes, vectors, parts); };
  const std::vector<GemmPanel> panels = plan(1);
  // By channels, workers have even shares of vectors where those of panels would not be.
  const std::vector<GemmPanel> even = !amx && matrix.groups == 1 ? plan(options.workers) : panels;
  const bool uneven = LargestShare(panels, options.workers) > LargestShare(even, options.workers);
  conv.PlanBand(options, static_cast<int64_t>(panels.size()));
  conv.PlanSplit(options.workers, LargestShare(uneven ? even : panels, options.workers));
  if (amx) {
    CREASE_ASSIGN_OR_RETURN(conv.packed_, PackAmxGemm(matrix, options.cache, options.executor));
  } else {
    const int64_t parts = conv.by_columns_ && uneven ? options.workers : 1;
    CREASE_ASSIGN_OR_RETURN(conv.packed_,
                            PackGemm(matrix, *conv.ops_, vectors, parts, options.cache, options.executor));
  }
  conv.PlanPieces();
  return conv;
}

void GemmConv::PlanBand(const Options& options, int64_t panels) {
  const ConvShape& s = shape_;
  const bool wide = panels > 2 * s.groups;
  const bool alias = options.src_pitch % kAliasFloats == 0 && wide;
  // Rows of the source as they are, though not all that dst lies between.
  const bool in_place = !flat_ && options.lattice && s.taps() == 1 && s.pad_top == 0 && s.pad_left == 0 &&
                        s.out_height <= s.height && s.out_width <= s.width && s.stride_h == 1 && s.stride_w == 1;
  const bool amx = amx_ != nullptr;
  copy_ = amx || !(in_place || (flat_ && s.pointwise())) || options.prologue.scale != nullptr || alias;
  a_pitch_ = options.src_pitch;
  if (options.planar) {
    a_pitch_ = 1;
  } else if (copy_) {
    a_pitch_ = amx ? DivideUp(depth(), kAmxDepth) * kAmxChunkFloats : s.channels;
    if ((a_pitch_ * (flat_ ? 1 : s.stride_w)) % kAliasFloats == 0) a_pitch_ += kLineFloats;
  }
  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  weights_stay_ = s.filters * s.group_channels() * s.taps() <= l2_floats / 2;
  if (flat_) {
    units_ = s.out_pixels();
    row_stride_ = a_pitch_;
    // Weights that stay in L2 are read again for every block: small blocks, so that a and the lines of dst, which
    // are written panel by panel, stay close. Others come from beyond: as few blocks as L2 allows.
    const int64_t l1_floats = static_cast<int64_t>(GetCacheSizes().l1 / sizeof(float));
    const int64_t most = ops_->max_rows[ops_->wide];
    const int64_t rows = (weights_stay_ ? l1_floats / 2 : l2_floats / 3) / a_pitch_;
    unit_block_ = std::min(std::max<int64_t>(rows / most, weights_stay_ ? 4 : 1) * most, units_);
    if (amx) {
      grain_ = 2 * kAmxRows;
      const int64_t most_rows = l2_floats / (weights_stay_ ? 4 : 2) / a_pitch_;
      unit_block_ = std::min(std::max<int64_t>(most_rows / grain_, 2) * grain_, units_);
    }
  } else {
    band_ = {s, a_pitch_, options.planar};
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
  const bool runs = s.groups == 1 && s.dilation_w == 1 && a_pitch_ == s.channels;
  segment_length_ = runs ? s.kernel_w * s.channels : s.group_channels();
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
  constexpr int64_t kUnroll = 4;
  const int64_t length =
      DivideUp(DivideUp(segment_length_, DivideUp(segment_length_, kPieceFloats)), kUnroll) * kUnroll;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t offset = 0; offset < segment_length_; offset += length) {
      pieces_.push_back({s, 1, offset, std::min(length, segment_length_ - offset)});
    }
  }
}

// By units every worker reads all weights, by columns all of the source: the estimate of the slower part decides.
void GemmConv::PlanSplit(int workers, double columns_share) {
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
  // Each worker copies the whole band for itself.
  const double by_columns =
      ideal * columns_share + (weights / workers + (copy_ ? 2 : 1) * source + others) / kBytesPerSecond;
  by_columns_ = workers > 1 && by_columns < by_units;
}

std::string GemmConv::Describe() const {
  std::string text = amx_ != nullptr ? "gemm of digits " : "gemm ";
  text += std::to_string(packed_->panels.front().vectors * ops_->lanes) + " wide";
  if (copy_) text += band_.planar ? ", from planes" : ", copied";
  text += by_columns_ ? ", split by channels" : ", split by pixels";
  return text;
}

void GemmConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t panels = static_cast<int64_t>(packed_->panels.size());
  float* scratch = reinterpret_cast<float*>(context.scratch);
  const auto band = [&](int worker) { return scratch + static_cast<size_t>(worker) * worker_floats_; };
  if (by_columns_) {
    ParallelPieces(context, panels, [&](int worker, auto next) {
      const AmxScope scope(amx_ != nullptr);
      const bool once = units_ <= unit_block_ && (flat_ || shape_.batch == 1);
      Block block;
      for (WorkShares::Range r = next(); !r.empty(); r = next()) {
        if (!once) {
          RunRange(operands, {0, units_}, {r.begin, r.end}, true, band(worker));
          continue;
        }
        if (block.a == nullptr) block = Pack(operands, {0, units_}, band(worker));
        RunBlock(operands, block, {r.begin, r.end}, true);
      }
    });
  } else if (weights_stay_) {
    ParallelPieces(context, DivideUp(units_, grain_), [&](int worker, auto next) {
      const AmxScope scope(amx_ != nullptr);
      bool cold = true;
      for (WorkShares::Range r = next(); !r.empty(); r = next(), cold = false) {
        RunRange(operands, Units(r.begin, r.end), {0, panels}, cold, band(worker));
      }
    });
  } else {
    // Every piece would read all weights from beyond L2.
    context.ParallelFor(DivideUp(units_, grain_), [&](int64_t begin, int64_t end, int worker) {
      const AmxScope scope(amx_ != nullptr);
      RunRange(operands, Units(begin, end), {0, panels}, true, band(worker));
    });
  }
}

GemmConv::Block GemmConv::Pack(const ConvOperands& operands, Range units, float* scratch) const {
  return flat_ ? PackFlat(operands, units, scratch) : PackRows(operands, units, scratch);
}

void GemmConv::RunPixels(const ConvOperands& operands, int64_t count, float* scratch) const {
  const AmxScope scope(amx_ != nullptr);
  RunRange(operands, {0, count}, {0, static_cast<int64_t>(packed_->panels.size())}, false, scratch);
}

void GemmConv::RunRows(const ConvOperands& operands, int64_t origin, int64_t begin, int64_t end, float* scratch) const {
  for (int64_t row = begin; row < end; row += unit_block_) {
    Block block = PackRows(operands, {row, std::min(row + unit_block_, end)}, scratch);
    block.pixel -= origin * shape_.out_width;
    RunBlock(operands, block, {0, static_cast<int64_t>(packed_->panels.size())}, false);
  }
}

void GemmConv::RunRange(const ConvOperands& operands, Range units, Range panels, bool cold, float* scratch) const {
  for (int64_t unit = units.begin; unit < units.end;) {
    int64_t end = std::min(unit + unit_block_, units.end);
    // A band lies in one image.
    if (!flat_) end = std::min(end, (unit / shape_.out_height + 1) * shape_.out_height);
    RunBlock(operands, Pack(operands, {unit, end}, scratch), panels, cold);
    cold = !weights_stay_;
    unit = end;
  }
}

GemmConv::Block GemmConv::PackFlat(const ConvOperands& operands, Range pixels, float* scratch) const {
  const ConvShape& s = shape_;
  Block block{pixels.begin, pixels.end - pixels.begin, 1, 0, operands.src + pixels.begin * operands.src_pitch};
  if (!copy_) return block;
  if (amx_ != nullptr) return PackAmx(operands, pixels, scratch);
  block.a = scratch;
  VisitPixels(operands, pixels, [&](const float* src, int64_t src_stride, int64_t count) {
    ops_->pack(src, src_stride, count, s.channels, scratch, a_pitch_, prologue_);
    scratch += count * a_pitch_;
  });
  return block;
}

GemmConv::Block GemmConv::PackRows(const ConvOperands& operands, Range rows, float* scratch) const {
  const int64_t image = rows.begin / shape_.out_height, y = rows.begin % shape_.out_height;
  const float* a = scratch;
  if (!copy_) {
    a = operands.src + (image * shape_.height + y) * line_stride_;
  } else if (band_.planar) {
    band_.PackPlanes(operands.src, rows.begin, rows.end, scratch);
  } else {
    band_.Pack(*ops_, operands, prologue_, rows.begin, rows.end, scratch);
  }
  const int64_t step = lattice_.step_h * lattice_.width;
  return {image * lattice_.height * lattice_.width + y * step, shape_.out_width, rows.end - rows.begin, step, a};
}

void GemmConv::RunBlock(const ConvOperands& operands, const Block& block, Range panels, bool cold) const {
  if (amx_ != nullptr) return RunAmxBlock(operands, block, panels, cold);
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const GemmPanel& panel = packed_->panels[static_cast<size_t>(p)];
    const int64_t most = ops_->max_rows[panel.vectors];
    // Two short lines fill one tile.
    const bool pairs =
        2 * block.line <= most && block.lines > 1 && block.line_step == block.line && lattice_.step_w == 1;
    const int64_t chunks = DivideUp(block.line, most);
    // Weights that come from beyond L2: the next panel's, dealt out over this panel's tiles.
    const int64_t tiles = (pairs ? DivideUp(block.lines, 2) : block.lines * chunks);
    const bool fetch =
        cold && p + 1 < static_cast<int64_t>(packed_->panels.size()) && block.lines * block.line <= kMostFetchingPixels;
    Ahead ahead;
    if (fetch) {
      const GemmPanel& next = packed_->panels[static_cast<size_t>(p + 1)];
      const int64_t width = int64_t{panel.vectors} * ops_->lanes;
      ahead = {packed_->panel(next), width / tiles,
               segment_length_ * static_cast<int64_t>(segments_.size()) * width / tiles};
    }
    // Tiles of two sizes, the larger first.
    const int64_t least = block.line / chunks, rest = block.line % chunks;
    const auto run = [&](const Tiles& some) {
      if (some.count == 0) return;
      RunTiles(operands, block, panel, some, ahead);
      ahead.Advance(some.count);
    };
    for (int64_t y = 0; y < block.lines; ++y) {
      if (pairs) {
        const bool two = y + 1 < block.lines;
        run({y, 0, static_cast<int>(block.line * (two ? 2 : 1))});
        y += two;
        continue;
      }
      run({y, 0, static_cast<int>(least + 1), rest});
      run({y, rest * (least + 1), static_cast<int>(least), chunks - rest});
    }
  }
}

// Every tile piece by piece: each is added to the sum of those before, the first to a residual that comes before the
// bounds. With one that comes after them, all in one piece.
void GemmConv::RunPieces(GemmTileFunction run, const GemmTile& tiles, int rows, int vectors) const {
  if (pieces_.size() == 1 || (tiles.residual != nullptr && tiles.residual_last)) return run(tiles);
  alignas(64) float total[kMaxTileRows * kMaxTileVectors * kMaxLanes];
  const int64_t width = int64_t{vectors} * ops_->lanes;
  GemmTile whole = tiles;
  whole.count = 1;
  for (int64_t i = 0; i < tiles.count; ++i) {
    GemmTile tile = whole;
    BoundsOf(Epilogue{}, tile.lo, tile.hi);
    for (const Piece& piece : pieces_) {
      tile.a = whole.a + piece.offset;
      tile.segments = whole.segments + piece.first_segment;
      tile.segment_count = piece.segments;
      tile.segment_length = piece.length;
      if (&piece == &pieces_.back()) {
        tile.lo = whole.lo;
        tile.hi = whole.hi;
        tile.dst = whole.dst;
        tile.dst_stride = whole.dst_stride;
      } else {
        tile.dst = total;
        tile.dst_stride = width;
      }
      run(tile);
      const int64_t products = piece.segments * piece.length;
      tile.b += products * width;
      if (tile.ahead != nullptr) tile.ahead += products * tile.ahead_step;
      tile.biased = false;
      tile.residual = total;
      tile.residual_stride = width;
    }
    whole.a += rows * whole.row_stride;
    whole.dst += rows * whole.dst_stride;
    if (whole.residual != nullptr) whole.residual += rows * whole.residual_stride;
    if (whole.ahead != nullptr) whole.ahead += whole.ahead_tile;
  }
}

// The tiles' sums, as many as fit into a buffer at once, then what the epilogue has beyond bounds.
void GemmConv::FinishTiles(GemmTileFunction run, GemmTile tile, const Tiles& tiles, const GemmPanel& panel) const {
  constexpr int64_t kFloats = kMaxTileRows * kMaxTileVectors * kMaxLanes;
  alignas(64) float sums[kFloats];
  const int64_t width = int64_t{panel.vectors} * ops_->lanes;
  const int64_t columns = width - ops_->lanes + panel.last;
  FinishTile finish{sums, width, tile.dst, tile.dst_stride, tile.residual, tile.residual_stride, 0, columns};
  tile.dst = sums;
  tile.dst_stride = width;
  tile.residual = nullptr;
  tile.far = false;
  const int64_t most = kFloats / (tiles.rows * width);
  for (int64_t left = tiles.count; left > 0; left -= tile.count) {
    tile.count = std::min(left, most);
    finish.rows = static_cast<int>(tile.count * tiles.rows);
    if (!near_) {
      PrefetchRows<1>(finish.dst, finish.dst_stride, finish.rows, columns);
      if (finish.residual != nullptr) PrefetchRows<0>(finish.residual, finish.residual_stride, finish.rows, columns);
    }
    RunPieces(run, tile, tiles.rows, panel.vectors);
    ops_->finish(finish, epilogue_);
    tile.a += finish.rows * tile.row_stride;
    if (tile.ahead != nullptr) tile.ahead += tile.count * tile.ahead_tile;
    finish.dst += finish.rows * finish.dst_stride;
    if (finish.residual != nullptr) finish.residual += finish.rows * finish.residual_stride;
  }
}

void GemmConv::RunTiles(const ConvOperands& operands, const Block& block, const GemmPanel& panel, const Tiles& tiles,
                        const Ahead& ahead) const {
  const bool within_line = tiles.x + tiles.rows <= block.line;
  const int64_t pixel = block.pixel + tiles.y * block.line_step + tiles.x * lattice_.step_w;
  GemmTile tile;
  tile.count = tiles.count;
  tile.a = block.a + tiles.y * line_stride_ + tiles.x * row_stride_ + panel.group * shape_.group_channels();
  tile.row_stride = row_stride_;
  tile.half_offset = within_line ? (tiles.rows + 1) / 2 * row_stride_ : line_stride_;
  tile.segments = segments_.data();
  tile.segment_count = static_cast<int64_t>(segments_.size());
  tile.segment_length = segment_length_;
  tile.b = packed_->panel(panel);
  tile.ahead = ahead.weights;
  tile.ahead_step = ahead.step;
  tile.ahead_tile = ahead.tile;
  tile.far = !near_;
  tile.dst = operands.dst + pixel * operands.dst_pitch + panel.column;
  tile.dst_stride = lattice_.step_w * operands.dst_pitch;
  tile.last = panel.last;
  if (operands.residual != nullptr) tile.residual = operands.residual + pixel * operands.residual_pitch + panel.column;
  tile.residual_stride = lattice_.step_w * operands.residual_pitch;
  tile.residual_last = epilogue_.residual == Residual::kAfterActivation;
  tile.lo = lo_;
  tile.hi = hi_;
  GemmTileFunction run = ops_->tile[panel.vectors][tiles.rows];
  if (band_.planar && panel.vectors == 1 && row_stride_ <= kMostCloseStride && within_line) {
    const GemmTileFunction found = ops_->close[row_stride_][tiles.rows];
    if (found != nullptr) run = found;
  }
  if (finish_) return FinishTiles(run, tile, tiles, panel);
  RunPieces(run, tile, tiles.rows, panel.vectors);
}

}  // namespace crease
