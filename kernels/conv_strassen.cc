// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_strassen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "kernels/cache_sizes.h"
#include "kernels/conv_gemm.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr int64_t kProducts = 7;
constexpr int64_t kSums = 4;  // of a panel that are kept at once
// What the seven right factors take beyond plain weights, and the multiply-adds that one more float must save: the
// first layers of a network have many pixels and few weights, the last ones few pixels and most of the memory.
constexpr double kMoreMemory = 7.0 / 4 - 1, kLeastSaved = 16;
// Pairs of pixels for a worker from which on workers share the pixels. Of fewer, the weights cost more to read than the
// left factors cost to compute by every worker.
constexpr int64_t kLeastPairs = 32;
// In front of matrices: the micro-kernel's row of biases, which none of them has.
constexpr int64_t kLead = kMaxTileVectors * kMaxLanes;

// The larger of the two sizes; what is not finite counts for nothing.
float Larger(float most, float x) {
  const float size = std::abs(x);
  return size > most && size <= std::numeric_limits<float>::max() ? size : most;
}

// Powers of two near the largest sizes in place of these, and their reciprocals. Zeros stay: what has only zero weights
// must not take part in the sums, nor have a share of their errors.
std::vector<float> TakeScales(std::vector<float>& largest) {
  BalanceOf(largest);
  std::vector<float> reciprocals;
  reciprocals.reserve(largest.size());
  for (const float x : largest) reciprocals.push_back(x == 0 ? 0 : 1 / x);
  return reciprocals;
}

std::shared_ptr<StrassenWeights> Pack(const ConvShape& s, const Tensor& weights, const Tensor* bias,
                                      const GemmOps& gemm, Executor& executor) {
  const int64_t half = s.channels / 2, columns = s.filters / 2;
  std::vector<GemmPanel> panels = PlanPanels(1, columns, half, gemm.lanes, gemm.wide);
  const GemmPanel& end = panels.back();
  const size_t count = end.offset + static_cast<size_t>(half * end.vectors * gemm.lanes);
  auto packed = std::make_shared<StrassenWeights>(std::move(panels), s.channels, s.filters,
                                                  static_cast<size_t>(kLead) + static_cast<size_t>(kProducts) * count);
  if (packed->values.data() == nullptr) return nullptr;
  // Filter by filter: one column of the matrix after the other.
  const Elements<float> values = weights.elements<float>();
  std::vector<float>&filter_scale = packed->filter_scale, &channel_scale = packed->channel_scale;
  executor.ParallelFor(s.filters, [&](int64_t begin, int64_t end_column) {
    for (int64_t j = begin; j < end_column; ++j) {
      float most = 0;
      for (int64_t k = 0; k < s.channels; ++k) most = Larger(most, values[j * s.channels + k]);
      filter_scale[static_cast<size_t>(j)] = most;
    }
  });
  const std::vector<float> by_filter = TakeScales(filter_scale);
  for (int64_t j = 0; j < s.filters; ++j) {
    const float scale = by_filter[static_cast<size_t>(j)];
    for (int64_t k = 0; k < s.channels; ++k) {
      float& most = channel_scale[static_cast<size_t>(k)];
      most = Larger(most, values[j * s.channels + k] * scale);
    }
    if (bias != nullptr) packed->bias[static_cast<size_t>(j)] = bias->elements<float>()[j];
  }
  const std::vector<float> by_channel = TakeScales(channel_scale);
  const auto scaled = [&](int64_t k, int64_t j) {
    return values[j * s.channels + k] * by_filter[static_cast<size_t>(j)] * by_channel[static_cast<size_t>(k)];
  };
  executor.ParallelFor(static_cast<int64_t>(packed->panels.size()), [&](int64_t begin, int64_t end_panel) {
    for (int64_t i = begin; i < end_panel; ++i) {
      const GemmPanel& panel = packed->panels[static_cast<size_t>(i)];
      const int64_t width = int64_t{panel.vectors} * gemm.lanes, matrix = half * width;
      float* to = packed->values.data() + kLead + static_cast<size_t>(kProducts) * panel.offset;
      std::fill_n(to, kProducts * matrix, 0.0f);
      for (int64_t j = 0; j < width - gemm.lanes + panel.last; ++j) {
        const int64_t first = panel.column + j, second = first + columns;
        for (int64_t k = 0; k < half; ++k) {
          // The sums in double: they are rounded once.
          const double b11 = scaled(k, first), b12 = scaled(k, second);
          const double b21 = scaled(half + k, first), b22 = scaled(half + k, second);
          const double t1 = b12 - b11, t2 = b22 - t1;
          float* at = to + k * width + j;
          for (const double value : {b11, b21, t2, t1, b22, b22 - b12, b21 - t2}) {
            *at = static_cast<float>(value);
            at += matrix;
          }
        }
      }
    }
  });
  return packed;
}

}  // namespace

StrassenWeights::StrassenWeights(std::vector<GemmPanel> all, int64_t channels, int64_t filters, size_t count)
    : panels(std::move(all)),
      channel_scale(static_cast<size_t>(channels)),
      filter_scale(static_cast<size_t>(filters)),
      bias(static_cast<size_t>(filters)),
      values(count) {}

bool StrassenConv::CanRun(const ConvShape& s) {
  return s.groups == 1 && s.one_tap() && s.out_pixels() > 0 && s.channels > 0 && s.channels % 2 == 0 && s.filters > 0 &&
         s.filters % 2 == 0;
}

// Measured on a core that does one multiply-add of 8 floats a cycle (Zen 1), see docs/performance.md: the left factors
// cost 1.9 multiply-adds of vectors a channel of a pair, what is added and stored around the products 4.4 a filter,
// where the pair has channels * filters / 4 in all. AVX-512 on Zen 4: 768-192 channels at 17x17 1.07 times as fast.
bool StrassenConv::Pays(const ConvShape& s) {
  if (CanUseAmx(s)) return false;
  const double saved = 1.0 / 8 - 4 * 1.9 / static_cast<double>(s.filters) - 4 * 4.4 / static_cast<double>(s.channels);
  return saved * static_cast<double>(s.out_pixels()) >= kLeastSaved * kMoreMemory;
}

Result<StrassenConv> StrassenConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                        const Options& options) {
  StrassenConv conv;
  conv.shape_ = shape;
  conv.epilogue_ = options.epilogue;
  conv.prologue_ = options.prologue;
  conv.gemm_ = &GetGemmOps();
  conv.ops_ = &GetStrassenOps();
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_);
  SerialExecutor serial;
  Executor& executor = options.executor == nullptr ? serial : *options.executor;
  const auto make = [&]() -> PackCache::Packed { return Pack(shape, weights, bias, *conv.gemm_, executor); };
  const std::string key = PackKey("strassen", weights, bias, {conv.gemm_->lanes});
  conv.weights_ = std::static_pointer_cast<const StrassenWeights>(
      options.cache == nullptr ? make() : options.cache->GetOrMake(key, make));
  if (conv.weights_ == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  conv.Plan(options.workers);
  return conv;
}

void StrassenConv::Plan(int workers) {
  half_ = shape_.channels / 2;
  image_pixels_ = shape_.out_height * shape_.out_width;
  image_pairs_ = DivideUp(image_pixels_, int64_t{2});
  pairs_ = shape_.batch * image_pairs_;
  by_columns_ = workers > 1 && DivideUp(pairs_, workers) < kLeastPairs &&
                static_cast<int64_t>(weights_->panels.size()) >= workers;
  left_pitch_ = kProducts * half_;
  if (left_pitch_ % kTileAliasFloats == 0) left_pitch_ += kLineFloats;
  const int64_t rows = gemm_->max_rows[gemm_->wide];
  const int64_t width = int64_t{weights_->panels.front().vectors} * gemm_->lanes;
  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  block_ = std::max<int64_t>(3 * l2_floats / 4 / (left_pitch_ + kSums * width) / rows, 2) * rows;
  block_ = std::min(block_, RoundUp(DivideUp(pairs_, by_columns_ ? 1 : workers), rows));
  sums_floats_ = block_ * width;
  worker_floats_ =
      static_cast<size_t>(RoundUp(kSums * sums_floats_ + block_ * left_pitch_ + 2 * shape_.channels, kLineFloats));
}

std::string StrassenConv::Describe() const {
  return "strassen " + std::to_string(weights_->panels.front().vectors * gemm_->lanes) + " wide, " +
         std::to_string(block_) + " pairs of pixels, split by " + (by_columns_ ? "channels" : "pixels");
}

size_t StrassenConv::scratch_bytes(int workers) const {
  return static_cast<size_t>(workers) * worker_floats_ * sizeof(float);
}

int64_t StrassenConv::fetchable_bytes(int workers) const {
  const int64_t tiles = kProducts * DivideUp(pairs_, gemm_->max_rows[weights_->panels.front().vectors]) *
                        static_cast<int64_t>(weights_->panels.size());
  // Half of the tiles may fetch the next matrix.
  return tiles / 2 * RoundDown(half_, kTileUnroll) * TileFetch::kStep * static_cast<int64_t>(sizeof(float)) / workers;
}

StrassenConv::Scratch StrassenConv::ScratchOf(float* scratch, int worker) const {
  float* own = scratch + static_cast<size_t>(worker) * worker_floats_;
  float* left = own + kSums * sums_floats_;
  return {left, own, own + sums_floats_, own + 2 * sums_floats_, own + 3 * sums_floats_, left + block_ * left_pitch_};
}

void StrassenConv::Run(const RunContext& context, const ConvOperands& operands) const {
  const auto panels = static_cast<int64_t>(weights_->panels.size());
  context.ParallelFor(by_columns_ ? panels : pairs_, [&](int64_t begin, int64_t end, int worker) {
    FetchCursor later(context.fetch_for(worker));
    const Range own{begin, end};
    RunPairs(operands, by_columns_ ? Range{0, pairs_} : own, by_columns_ ? own : Range{0, panels}, later,
             ScratchOf(reinterpret_cast<float*>(context.scratch), worker));
  });
}

// Block by block, as even as whole tiles allow.
void StrassenConv::RunPairs(const ConvOperands& operands, Range pairs, Range panels, FetchCursor& later,
                            const Scratch& scratch) const {
  const int64_t blocks = DivideUp(pairs.count(), block_);
  const int64_t each = RoundUp(DivideUp(pairs.count(), blocks), gemm_->max_rows[gemm_->wide]);
  for (int64_t pair = pairs.begin; pair < pairs.end; pair += each) {
    const Range block{pair, std::min(pair + each, pairs.end)};
    PackLeft(operands, block, scratch);
    for (int64_t i = panels.begin; i < panels.end; ++i) {
      RunPanel(operands, block, weights_->panels[static_cast<size_t>(i)], later, scratch);
    }
  }
}

// For the second of a last pair, which does not exist, any numbers that the first has will do.
RowPair StrassenConv::RowsOf(const ConvOperands& operands, int64_t pair) const {
  const int64_t first = FirstPixel(pair), past = (pair / image_pairs_ + 1) * image_pixels_;
  const auto row = [&](int64_t pixel) { return operands.src + shape_.SourcePixel(pixel) * operands.src_pitch; };
  return {row(first), row(std::min(first + 1, past - 1))};
}

void StrassenConv::PackLeft(const ConvOperands& operands, Range pairs, const Scratch& scratch) const {
  float* left = scratch.left;
  RowPair rows = RowsOf(operands, pairs.begin);
  for (int64_t pair = pairs.begin; pair < pairs.end; ++pair, left += left_pitch_) {
    const RowPair next = pair + 1 < pairs.end ? RowsOf(operands, pair + 1) : RowPair{};
    if (prologue_.scale != nullptr) {
      const int64_t channels = shape_.channels;
      gemm_->pack(rows.even, 0, 1, channels, scratch.pixels, channels, prologue_);
      gemm_->pack(rows.odd, 0, 1, channels, scratch.pixels + channels, channels, prologue_);
      rows = {scratch.pixels, scratch.pixels + channels};
    }
    ops_->left(rows, weights_->channel_scale.data(), half_, left, next);
    rows = next;
  }
}

void StrassenConv::RunPanel(const ConvOperands& operands, Range pairs, const GemmPanel& panel, FetchCursor& later,
                            const Scratch& scratch) const {
  const auto multiply = [&](int64_t index, const float* addend, float* dst) {
    Multiply(panel, index, pairs.count(), scratch.left, addend, dst, later);
  };
  const auto store = [&](Quarter quarter, float* sums, const float* more) {
    Store(operands, pairs, panel, quarter, sums, more);
  };
  float *u = scratch.u, *v = scratch.v, *p = scratch.p, *c = scratch.c;
  multiply(0, nullptr, u);
  multiply(1, u, c);
  store({false, false}, c, nullptr);
  multiply(2, u, u);
  multiply(3, u, v);
  multiply(4, v, c);
  store({false, true}, c, nullptr);
  multiply(5, nullptr, p);
  store({true, true}, v, p);
  multiply(6, u, u);
  store({true, false}, u, p);
}

void StrassenConv::Multiply(const GemmPanel& panel, int64_t index, int64_t rows, const float* left, const float* addend,
                            float* dst, FetchCursor& later) const {
  const int64_t width = int64_t{panel.vectors} * gemm_->lanes, matrix = half_ * width;
  const int64_t chunks = DivideUp(rows, gemm_->max_rows[panel.vectors]), least = rows / chunks, larger = rows % chunks;
  const int64_t length = PieceLength(half_);
  const float* right =
      weights_->values.data() + kLead + kProducts * static_cast<int64_t>(panel.offset) + index * matrix;
  const int64_t origin = 0;
  GemmTile tile;
  tile.row_stride = left_pitch_;
  tile.segments = &origin;
  tile.segment_count = 1;
  tile.biased = false;
  tile.dst_stride = tile.residual_stride = width;
  tile.last = gemm_->lanes;
  BoundsOf(Epilogue{}, tile.lo, tile.hi);
  for (int64_t begin = 0; begin < half_; begin += length, addend = dst) {
    const int64_t end = std::min(begin + length, half_);
    tile.segment_length = end - begin;
    tile.b = right + (begin - 1) * width;
    tile.a = left + index * half_ + begin;
    tile.dst = dst;
    tile.residual = addend;
    TileFetch fetch(RoundDown(end - begin, kTileUnroll), width, &later);
    // The matrix after this one: of the next product, or of the next panel's first.
    if (index + 1 < kProducts || &panel != &weights_->panels.back()) {
      const std::span next(right + matrix + begin * width, static_cast<size_t>((end - begin) * width));
      fetch.Begin(std::as_bytes(next), chunks);
    }
    // Tiles of two sizes, the larger first.
    for (const auto& [height, count] : {std::pair{least + 1, larger}, std::pair{least, chunks - larger}}) {
      for (int64_t done = 0; done < count; done += tile.count) {
        tile.count = count - done;
        const Ahead ahead = fetch.Take(tile.count);
        tile.ahead = ahead.first;
        tile.ahead_step = ahead.step;
        tile.ahead_tile = ahead.tile;
        tile.half_offset = (height + 1) / 2 * left_pitch_;
        gemm_->tile[panel.vectors][height](tile);
        tile.a += tile.count * height * left_pitch_;
        tile.dst += tile.count * height * width;
        if (tile.residual != nullptr) tile.residual += tile.count * height * width;
      }
    }
  }
}

FinishTile StrassenConv::TileOf(const ConvOperands& operands, Range pairs, const GemmPanel& panel,
                                Quarter quarter) const {
  const int64_t first = FirstPixel(pairs.begin), past = (pairs.begin / image_pairs_ + 1) * image_pixels_;
  const int64_t pixel = first + (quarter.odd ? 1 : 0);
  const int64_t column = panel.column + (quarter.second ? shape_.filters / 2 : 0);
  FinishTile tile;
  tile.dst = operands.dst + pixel * operands.dst_pitch + column;
  tile.dst_stride = 2 * operands.dst_pitch;
  if (operands.residual != nullptr) tile.residual = operands.residual + pixel * operands.residual_pitch + column;
  tile.residual_stride = 2 * operands.residual_pitch;
  tile.rows = std::min(pairs.count(), (past - pixel + 1) / 2);
  tile.columns = int64_t{panel.vectors - 1} * gemm_->lanes + panel.last;
  return tile;
}

void StrassenConv::Store(const ConvOperands& operands, Range pairs, const GemmPanel& panel, Quarter quarter,
                         float* sums, const float* more) const {
  const int64_t column = panel.column + (quarter.second ? shape_.filters / 2 : 0);
  StrassenResult result;
  result.width = int64_t{panel.vectors} * gemm_->lanes;
  result.scale = weights_->filter_scale.data() + column;
  result.bias = weights_->bias.data() + column;
  result.lo = lo_;
  result.hi = hi_;
  result.residual_last = epilogue_.residual == Residual::kAfterActivation;
  if (finish_) BoundsOf(Epilogue{}, result.lo, result.hi);
  for (int64_t begin = pairs.begin, end = begin; begin < pairs.end; begin = end) {
    end = std::min((begin / image_pairs_ + 1) * image_pairs_, pairs.end);
    FinishTile out = TileOf(operands, {begin, end}, panel, quarter);
    result.sums = sums;
    result.more = more;
    result.out = out;
    if (finish_) {
      out.src = sums;
      out.src_stride = result.width;
      result.out.dst = sums;
      result.out.dst_stride = result.width;
      result.out.residual = nullptr;
    }
    ops_->result(result);
    if (finish_) gemm_->finish(out, epilogue_);
    sums += (end - begin) * result.width;
    if (more != nullptr) more += (end - begin) * result.width;
  }
}

KernelResult MakeConvStrassen(const KernelRequest& request) {
  if (request.exact) return Refuse("exact results asked for");
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (!StrassenConv::CanRun(conv.shape))
    return Refuse("not 1x1 with even numbers of channels and filters in one group");
  if (!request.measured && !StrassenConv::Pays(conv.shape))
    return Refuse("too few channels, filters or pixels to be worth the memory");
  CREASE_ASSIGN_OR_RETURN(StrassenConv made,
                          StrassenConv::Make(conv.shape, *conv.weights, conv.bias, OptionsOf(request)));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
