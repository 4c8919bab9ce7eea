// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_sparse.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <span>
#include <utility>

#include "kernels/cache_sizes.h"
#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// Tiles that are looked at before it is decided how to multiply.
constexpr int64_t kSamples = 4;
// The share of the channels that tiles behind a ReLU list, before anything is known of them, and how many times as fast
// the kernel must be then.
constexpr double kUsualShare = 0.6, kLeastGain = 1.05;
// Floats of later steps' data that a tile brings in for each channel that it lists.
constexpr int64_t kFetchedFloats = 8;

// Of `rows` rows of each panel, biases included. Looked at once, whoever asks.
bool IsFinite(const PackedGemm& packed, int64_t rows, int lanes, Executor& executor) {
  if (packed.finite != Known::kNotYet) return packed.finite == Known::kYes;
  std::atomic<bool> finite = true;
  executor.ParallelFor(static_cast<int64_t>(packed.panels.size()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const GemmPanel& panel = packed.panels[static_cast<size_t>(i)];
      if (!AreFinite({packed.panel(panel), static_cast<size_t>(rows * panel.vectors * lanes)})) finite = false;
    }
  });
  packed.finite = finite ? Known::kYes : Known::kNo;
  return finite;
}

}  // namespace

bool SparseConv::CanRun(const ConvShape& s) {
  return s.groups == 1 && s.one_tap() && s.out_pixels() > 0 && s.channels > 0 && s.channels <= kMaxListed &&
         s.filters > 0;
}

double SparseConv::Gain(const ConvShape& s, double share) {
  const SparseCosts& costs = GetSparseOps().costs;
  const int64_t all = DivideUp(s.filters, int64_t{GetGemmOps().lanes});
  const auto panels = static_cast<double>(DivideUp(all, int64_t{kMaxTileVectors}));
  const double vectors = static_cast<double>(all) / panels, channels = static_cast<double>(s.channels);
  return costs.Dense(vectors, channels) / (costs.Sparse(vectors, share * channels) + costs.find * channels / panels);
}

bool SparseConv::Pays(const ConvShape& s) { return !CanUseAmx(s) && CanRun(s) && Gain(s, kUsualShare) >= kLeastGain; }

Result<SparseConv> SparseConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                    const Options& options) {
  Options vectors = options;
  vectors.amx = false;
  vectors.widest = kMaxTileVectors;  // the fewest lists
  CREASE_ASSIGN_OR_RETURN(GemmConv dense, GemmConv::Make(shape, ConvMatrix(shape, weights, bias), vectors));
  SerialExecutor serial;
  Executor& executor = options.executor == nullptr ? serial : *options.executor;
  if (!IsFinite(dense.weights(), 1 + shape.channels, GetGemmOps().lanes, executor)) {
    return Refuse("weights or biases that are infinite or NaN");
  }
  SparseConv conv(std::move(dense));
  conv.shape_ = shape;
  conv.epilogue_ = options.epilogue;
  conv.prologue_ = options.prologue;
  conv.near_ = options.near;
  conv.pointwise_ = shape.pointwise();
  conv.gemm_ = &GetGemmOps();
  conv.ops_ = &GetSparseOps();
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_);
  conv.Plan();
  return conv;
}

void SparseConv::Plan() {
  const int64_t channels = shape_.channels;
  // The pieces of all products, see GemmConv::RunPieces.
  const bool whole = channels <= kPieceFloats || (!finish_ && epilogue_.residual == Residual::kAfterActivation);
  depth_ = whole ? channels : PieceLength(channels);
  pieces_ = DivideUp(channels, depth_);
  list_floats_ = ChannelList::Floats(depth_);
  tiles_ = DivideUp(shape_.out_pixels(), int64_t{kSparseRows});
  for (const GemmPanel& panel : dense_.weights().panels) {
    panel_width_ = std::max(panel_width_, int64_t{panel.vectors} * gemm_->lanes);
  }
  most_share_ = 1;
  while (most_share_ > 0 && Gain(shape_, most_share_) < 1) most_share_ -= 1.0 / 64;

  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  weights_stay_ = shape_.filters * channels <= l2_floats / 2;
  const int64_t lists = pieces_ * list_floats_, rows = kSparseRows * channels;
  const int64_t sums = pieces_ > 1 || finish_ ? kSparseRows * panel_width_ : 0;
  const int64_t pixels = prologue_.scale != nullptr ? rows : 0;
  // As few blocks as L2 allows where the weights come from beyond it once a block.
  const int64_t limit = weights_stay_ ? l2_floats / 3 : l2_floats * 5 / 8;
  block_ = std::min(std::max<int64_t>(limit / (lists + rows + sums), 4), tiles_);
  worker_floats_ = static_cast<size_t>(RoundUp(listed_floats() + block_ * (lists + sums + pixels), kLineFloats));
}

std::string SparseConv::Describe() const {
  return "sparse " + std::to_string(panel_width_) + " wide, " + std::to_string(block_ * kSparseRows) +
         " pixels, split by " + (dense_.by_columns() ? "channels" : "pixels");
}

size_t SparseConv::scratch_bytes(int workers) const {
  return std::max(static_cast<size_t>(workers) * worker_floats_ * sizeof(float), dense_.scratch_bytes(workers));
}

int64_t SparseConv::fetchable_bytes(int workers) const {
  // Half of the tiles may fetch the next weights.
  const auto panels = static_cast<int64_t>(dense_.weights().panels.size());
  const double listed = kUsualShare * static_cast<double>(tiles_ * panels / 2 * shape_.channels);
  return static_cast<int64_t>(listed) * kFetchedFloats * static_cast<int64_t>(sizeof(float)) / workers;
}

SparseConv::Scratch SparseConv::ScratchOf(float* scratch, int worker) const {
  float* own = scratch + static_cast<size_t>(worker) * worker_floats_;
  float* lists = own + listed_floats();
  float* sums = lists + block_ * pieces_ * list_floats_;
  return {reinterpret_cast<int64_t*>(own), lists, sums,
          sums + (pieces_ > 1 || finish_ ? block_ * kSparseRows * panel_width_ : 0)};
}

double SparseConv::Share(const ConvOperands& operands, int64_t pixels, const Scratch& scratch) const {
  const int64_t samples = std::min(kSamples, DivideUp(pixels, int64_t{kSparseRows}));
  int64_t listed = 0;
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t at = (2 * i + 1) * pixels / (2 * samples);
    FindBlock(operands, {at, std::min(at + kSparseRows, pixels)}, scratch);
    listed = std::accumulate(scratch.listed, scratch.listed + pieces_, listed);
  }
  return static_cast<double>(listed) / static_cast<double>(samples * shape_.channels);
}

void SparseConv::Run(const RunContext& context, const ConvOperands& operands) const {
  float* scratch = reinterpret_cast<float*>(context.scratch);
  const int64_t pixels = shape_.out_pixels();
  if (Share(operands, pixels, ScratchOf(scratch, 0)) > most_share_) return dense_.Run(context, operands);
  const auto panels = static_cast<int64_t>(dense_.weights().panels.size());
  const auto run = [&](Range tiles, Range some, Fetch fetch, int worker) {
    const Range own{tiles.begin * kSparseRows, std::min(tiles.end * kSparseRows, pixels)};
    RunTiles(operands, own, some, fetch, ScratchOf(scratch, worker));
  };
  if (dense_.by_columns()) {
    context.ParallelFor(panels, [&](int64_t begin, int64_t end, int worker) {
      FetchCursor later(context.fetch_for(worker));
      run({0, tiles_}, {begin, end}, {later, true}, worker);
    });
  } else if (weights_stay_) {
    ParallelPieces(context, tiles_, [&](int worker, auto next) {
      FetchCursor later(context.fetch_for(worker));
      bool cold = true;
      for (WorkShares::Range r = next(); !r.empty(); r = next(), cold = false) {
        run({r.begin, r.end}, {0, panels}, {later, cold}, worker);
      }
    });
  } else {
    context.ParallelFor(tiles_, [&](int64_t begin, int64_t end, int worker) {
      FetchCursor later(context.fetch_for(worker));
      run({begin, end}, {0, panels}, {later, true}, worker);
    });
  }
}

void SparseConv::RunPixels(const ConvOperands& operands, int64_t count, float* scratch) const {
  const Scratch own = ScratchOf(scratch, 0);
  if (Share(operands, count, own) > most_share_) return dense_.RunPixels(operands, count, scratch);
  FetchCursor later;
  const auto panels = static_cast<int64_t>(dense_.weights().panels.size());
  RunTiles(operands, {0, count}, {0, panels}, {later, false}, own);
}

// Block by block, of whole tiles and as even as these allow.
void SparseConv::RunTiles(const ConvOperands& operands, Range pixels, Range panels, Fetch fetch,
                          const Scratch& scratch) const {
  const int64_t tiles = DivideUp(pixels.count(), int64_t{kSparseRows}), blocks = DivideUp(tiles, block_);
  for (int64_t i = 0; i < blocks; ++i) {
    const Range block{pixels.begin + tiles * i / blocks * kSparseRows,
                      std::min(pixels.begin + tiles * (i + 1) / blocks * kSparseRows, pixels.end)};
    FindBlock(operands, block, scratch);
    for (int64_t p = panels.begin; p < panels.end; ++p) {
      RunPanel(operands, block, dense_.weights().panels[static_cast<size_t>(p)], fetch, scratch);
    }
    fetch.cold = fetch.cold && !weights_stay_;
  }
}

void SparseConv::FindRows(const ConvOperands& operands, Range pixels, int64_t pixel, ChannelList& list) const {
  list.row_count = std::min<int64_t>(kSparseRows, pixels.end - pixel);
  for (int64_t r = 0; r < kSparseRows; ++r) {
    const int64_t at = pixel + std::min(r, list.row_count - 1);
    if (prologue_.scale != nullptr) {
      list.rows[r] = (at - pixels.begin) * shape_.channels;
    } else {
      list.rows[r] = (pointwise_ ? at : shape_.SourcePixel(at)) * operands.src_pitch;
    }
  }
}

void SparseConv::FindBlock(const ConvOperands& operands, Range pixels, const Scratch& scratch) const {
  const int64_t channels = shape_.channels;
  for (int64_t pixel = pixels.begin; prologue_.scale != nullptr && pixel < pixels.end; ++pixel) {
    gemm_->pack(operands.src + shape_.SourcePixel(pixel) * operands.src_pitch, 0, 1, channels,
                scratch.pixels + (pixel - pixels.begin) * channels, channels, prologue_);
  }
  std::fill_n(scratch.listed, pieces_, 0);
  for (int64_t pixel = pixels.begin, tile = 0; pixel < pixels.end; pixel += kSparseRows, ++tile) {
    ChannelList rows{};
    FindRows(operands, pixels, pixel, rows);
    const float* at[kSparseRows];
    for (int64_t r = 0; r < kSparseRows; ++r) at[r] = RowsAt(operands, scratch) + rows.rows[r];
    for (int64_t piece = 0; piece < pieces_; ++piece) {
      ChannelList* list = ListAt(scratch, tile, piece);
      *list = rows;
      const int64_t depth = std::min(depth_, channels - piece * depth_);
      list->count = ops_->find(at, static_cast<int>(rows.row_count), depth, list->channels());
      scratch.listed[piece] += list->count;
      for (const float*& row : at) row += depth_;
    }
  }
}

void SparseConv::RunPanel(const ConvOperands& operands, Range pixels, const GemmPanel& panel, Fetch fetch,
                          const Scratch& scratch) const {
  for (int64_t piece = 0; piece < pieces_; ++piece) RunPiece(operands, pixels, panel, piece, fetch, scratch);
  if (finish_) Finish(operands, pixels, panel, scratch.sums);
}

// Each piece is added to the sum of those before, the first to a residual that comes before the bounds.
void SparseConv::RunPiece(const ConvOperands& operands, Range pixels, const GemmPanel& panel, int64_t piece,
                          Fetch fetch, const Scratch& scratch) const {
  const int64_t width = int64_t{panel.vectors} * gemm_->lanes, k = piece * depth_;
  const int64_t depth = std::min(depth_, shape_.channels - k);
  const bool first = piece == 0, last = piece + 1 == pieces_, to_dst = last && !finish_;
  const bool residual = first && !finish_ && operands.residual != nullptr;
  const float* bias = dense_.weights().panel(panel);
  SparseTiles t;
  t.list_floats = pieces_ * list_floats_;
  t.a = RowsAt(operands, scratch) + k;
  t.b = bias + (1 + k) * width;
  t.start = first ? bias : nullptr;
  t.last = finish_ ? gemm_->lanes : panel.last;
  t.dst_stride = to_dst ? operands.dst_pitch : width;
  t.residual_stride = residual ? operands.residual_pitch : width;
  t.residual_last = epilogue_.residual == Residual::kAfterActivation;
  t.far = to_dst && !near_;
  BoundsOf(Epilogue{}, t.lo, t.hi);
  if (to_dst) {
    t.lo = lo_;
    t.hi = hi_;
  }
  const int64_t tiles = DivideUp(pixels.count(), int64_t{kSparseRows});
  const auto run = [&](int64_t begin, int64_t end) {
    const int64_t pixel = pixels.begin + begin * kSparseRows;
    float* sums = scratch.sums + begin * kSparseRows * width;
    t.lists = reinterpret_cast<const float*>(ListAt(scratch, begin, piece));
    t.count = end - begin;
    t.dst = to_dst ? operands.dst + pixel * operands.dst_pitch + panel.column : sums;
    t.residual = residual ? operands.residual + pixel * operands.residual_pitch + panel.column : first ? nullptr : sums;
    ops_->tiles[panel.vectors](t);
  };
  // What is multiplied next lies behind it. A line beside every second channel, or beside every one where tiles are few
  // and wide; of half of the tiles where the others have something for later steps.
  const int64_t listed = std::max<int64_t>(scratch.listed[piece], 1);
  int64_t done = 0;
  if (fetch.cold && !(last && &panel == &dense_.weights().panels.back())) {
    const GemmPanel& other = last ? *(&panel + 1) : panel;
    const int64_t rows = last ? depth_ : std::min(depth_, shape_.channels - k - depth_);
    t.ahead = t.b + depth * width;
    t.ahead_floats = rows * other.vectors * gemm_->lanes;
    const int64_t most = fetch.later.empty() ? tiles : DivideUp(tiles, int64_t{2});
    t.ahead_step = kLineFloats / 2;
    const bool few = t.ahead_floats * tiles > listed * t.ahead_step * most;
    if (few && panel.vectors >= kLeastFetchingVectors) t.ahead_step = kLineFloats;
    done = std::min(DivideUp(t.ahead_floats * tiles, listed * t.ahead_step), most);
    run(0, done);
  }
  t.ahead_step = kFetchedFloats;
  while (done < tiles) {
    int64_t one = 1;
    const Ahead later = fetch.later.Take(1, 0, DivideUp(listed * (tiles - done), tiles) * kFetchedFloats, one);
    t.ahead = later.first;
    t.ahead_floats = later.step;
    const int64_t some = later.first == nullptr ? tiles - done : DivideUp(later.step * tiles, listed * kFetchedFloats);
    const int64_t end = std::min(done + some, tiles);
    run(done, end);
    done = end;
  }
}

void SparseConv::Finish(const ConvOperands& operands, Range pixels, const GemmPanel& panel, const float* sums) const {
  FinishTile finish;
  finish.src = sums;
  finish.src_stride = int64_t{panel.vectors} * gemm_->lanes;
  finish.dst = operands.dst + pixels.begin * operands.dst_pitch + panel.column;
  finish.dst_stride = operands.dst_pitch;
  if (operands.residual != nullptr) {
    finish.residual = operands.residual + pixels.begin * operands.residual_pitch + panel.column;
  }
  finish.residual_stride = operands.residual_pitch;
  finish.rows = pixels.count();
  finish.columns = finish.src_stride - gemm_->lanes + panel.last;
  gemm_->finish(finish, epilogue_);
}

KernelResult MakeConvSparse(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (!SparseConv::CanRun(conv.shape)) return Refuse("not 1x1 in one group");
  if (!request.measured) {
    if (!HasRectifiedSource(request)) return Refuse("nothing before it makes zeros");
    if (!SparseConv::Pays(conv.shape)) return Refuse("too few channels or filters to gain, or AMX");
  }
  SparseConv::Options options{OptionsOf(request)};
  options.src_pitch = request.src[0].pitch;
  CREASE_ASSIGN_OR_RETURN(SparseConv made, SparseConv::Make(conv.shape, *conv.weights, conv.bias, options));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
