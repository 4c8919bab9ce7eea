// SPDX-License-Identifier: Apache-2.0
// How WinogradConv transforms and packs its weights, and how it divides its work into blocks and between workers.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "kernels/cache_sizes.h"
#include "kernels/conv_winograd.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr int64_t kPageAliasFloats = 1024 / sizeof(float);
// Channels whose weights are transformed at once.
constexpr int64_t kChannelsPacked = 32;
// Panels that are multiplied at one point before the next where a block's sources are several times L2 (512 channels at
// 28x28 on Zen 1, share of peak: 319 % with 1, 331 with 2, 334 with 4, 342 with 8).
constexpr int64_t kFarGroup = 8;
// Tiles of a block below which workers do not share their work in smaller pieces (32 channels at 28x28 on Zen 1, 25
// tiles a worker: 1.16 times as fast in 2 blocks as in 4).
constexpr int64_t kLeastTiles = 12;
// Channels up to which, and strides at which, calls for panels as wide as they can be gain (AVX-512 on Zen 4: 32 -> 64
// channels at 112x112 1.58 -> 1.44 ms, to the same at stride 2 4.02 -> 3.66; 128 -> 128 at 28x28 0.97 times as fast).
constexpr int64_t kFewChannels = 64;

// Whole lines, an odd number: consecutive strides spread over all sets of L1.
int64_t OddLines(int64_t floats) { return (DivideUp(floats, kLineFloats) | 1) * kLineFloats; }

// Powers of two, by channel, that stand for the largest weights.
std::vector<float> Balance(const ConvShape& shape, const Tensor& weights, const AmxOps& ops) {
  std::vector<float> all(static_cast<size_t>(shape.channels * shape.taps()), 0.0f);
  std::vector<float> filter(all.size());
  for (int64_t k = 0; k < shape.filters; ++k) {
    std::memcpy(filter.data(), weights.bytes() + static_cast<size_t>(k) * filter.size() * sizeof(float),
                filter.size() * sizeof(float));
    ops.largest(filter.data(), static_cast<int64_t>(filter.size()), all.data());
  }
  std::vector<float> largest(static_cast<size_t>(shape.channels));
  const auto taps = static_cast<size_t>(shape.taps());
  for (size_t c = 0; c < largest.size(); ++c) {
    largest[c] = *std::max_element(&all[c * taps], &all[c * taps] + taps);
  }
  BalanceOf(largest);
  return largest;
}

struct Filters {
  const ConvShape& shape;
  const Tensor& weights;
  const WinogradOps& ops;
  const AmxOps* amx;
  int lanes;
  int vectors;   // of a panel at most
  int64_t rows;  // of a panel for one weight
};

// Channels [first, end) of one panel. False if there is no memory.
bool PackPanel(const Filters& f, const std::vector<float>& balance, const GemmPanel& panel, int64_t first, int64_t end,
               float* dst) {
  const size_t filter_bytes = static_cast<size_t>(f.shape.channels * f.shape.taps()) * sizeof(float);
  WinogradWeights t;
  t.weights = f.weights.bytes() + static_cast<size_t>(panel.column) * filter_bytes;
  t.channels = f.shape.channels;
  t.first = first;
  t.end = end;
  t.width = int64_t{panel.vectors} * f.lanes;
  t.columns = t.width - f.lanes + panel.last;
  t.dst = dst;
  if (f.amx == nullptr) {
    f.ops.weights(t);
    return true;
  }
  const int64_t floats_of_weight = (t.channels + 1) * t.width;
  const auto count = static_cast<size_t>(f.ops.distinct_weights() * floats_of_weight);
  const std::unique_ptr<float[]> floats(new (std::nothrow) float[count]);
  if (floats == nullptr) return false;
  t.dst = floats.get();
  f.ops.weights(t);
  for (int i = 0; i < f.ops.distinct_weights(); ++i, dst += f.rows * t.width) {
    std::fill_n(dst, t.width, 0.0f);
    f.amx->pack_columns(floats.get() + i * floats_of_weight + t.width, t.channels, t.width, balance.data(),
                        dst + t.width, dst + 2 * t.width);
  }
  return true;
}

// Of what PackPanel has written by vectors.
bool IsPanelFinite(const Filters& f, const GemmPanel& panel, int64_t first, int64_t end, const float* values) {
  const int64_t width = int64_t{panel.vectors} * f.lanes;
  bool finite = true;
  for (int i = 0; i < f.ops.distinct_weights(); ++i, values += f.rows * width) {
    finite &= AreFinite({values + (1 + first) * width, static_cast<size_t>((end - first) * width)});
  }
  return finite;
}

PackCache::Packed PackFilters(const Filters& f, Executor* executor) {
  const int64_t rows = f.ops.distinct_weights() * f.rows;
  std::vector<GemmPanel> panels = PlanPanels(1, f.shape.filters, rows, f.lanes, f.vectors);
  const GemmPanel& last = panels.back();
  const size_t count = last.offset + static_cast<size_t>(rows * last.vectors * f.lanes);
  auto packed = std::make_shared<PackedGemm>(std::move(panels), count);
  if (packed->values.data() == nullptr) return nullptr;
  if (f.amx != nullptr) packed->balance = Balance(f.shape, f.weights, *f.amx);
  SerialExecutor serial;
  Executor& on = executor == nullptr ? serial : *executor;
  // Only lists of channels ask, see PlanLists.
  const bool ask = f.amx == nullptr;
  std::atomic<bool> done = true, finite = true;
  // By channels too: narrow convolutions have one panel. Digits need all channels of a column.
  const int64_t channels = f.amx != nullptr ? f.shape.channels : std::min(kChannelsPacked, f.shape.channels);
  const int64_t parts = DivideUp(f.shape.channels, channels);
  on.ParallelFor(static_cast<int64_t>(packed->panels.size()) * parts, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const GemmPanel& panel = packed->panels[static_cast<size_t>(i / parts)];
      const int64_t first = i % parts * channels, past = std::min(first + channels, f.shape.channels);
      float* values = packed->values.data() + panel.offset;
      if (!PackPanel(f, packed->balance, panel, first, past, values)) done = false;
      if (ask && !IsPanelFinite(f, panel, first, past, values)) finite = false;
    }
  });
  if (!done) return nullptr;
  if (ask) packed->finite = finite ? Known::kYes : Known::kNo;
  return packed;
}

}  // namespace

Result<WinogradConv> WinogradConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                        const Options& options) {
  WinogradConv conv;
  conv.shape_ = shape;
  conv.options_ = options;
  conv.gemm_ = &GetGemmOps();
  conv.ops_ = FindWinogradOps(options.kind, shape.kernel_h, shape.kernel_w, shape.stride_h, shape.stride_w);
  if (conv.ops_ == nullptr || shape.dilation_h != 1 || shape.dilation_w != 1 || shape.groups != 1) {
    return Refuse("no transform for this kernel, stride, dilation or grouping");
  }
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_);
  conv.amx_ = options.amx ? GetAmxOps() : nullptr;
  const int64_t chunks = DivideUp(shape.channels, kAmxDepth);
  conv.weight_rows_ = conv.amx_ != nullptr ? 2 + chunks * kAmxChunkFloats : 1 + shape.channels;
  const int lanes = conv.gemm_->lanes;
  // Where lists may be used, their channels serve as many filters as they can.
  const bool few = shape.channels <= kFewChannels;
  const int vectors =
      conv.amx_ == nullptr && (conv.MayList() || few || shape.stride_h > 1) ? kMaxTileVectors : conv.gemm_->wide;
  const Filters filters{shape, weights, *conv.ops_, conv.amx_, lanes, vectors, conv.weight_rows_};
  const auto make = [&] { return PackFilters(filters, options.executor); };
  const std::string key = PackKey(conv.amx_ != nullptr ? "winograd amx" : "winograd", weights, nullptr,
                                  {static_cast<int64_t>(options.kind), shape.stride_h, shape.stride_w, lanes, vectors});
  const PackCache::Packed packed = options.cache == nullptr ? make() : options.cache->GetOrMake(key, make);
  conv.packed_ = std::static_pointer_cast<const PackedGemm>(packed);
  const auto padded_bias = std::make_shared<FloatBuffer>(static_cast<size_t>(DivideUp(shape.filters, lanes) * lanes));
  if (packed == nullptr || padded_bias->data() == nullptr) {
    return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  }
  std::fill_n(padded_bias->data(), DivideUp(shape.filters, lanes) * lanes, 0.0f);
  for (int64_t k = 0; bias != nullptr && k < shape.filters; ++k) padded_bias->data()[k] = bias->elements<float>()[k];
  conv.bias_ = padded_bias;
  conv.options_.cache = nullptr;
  conv.options_.executor = nullptr;
  conv.PlanBlocks(options.workers);
  return conv;
}

// Tiles of `outputs` and, to cover no more than needed, of one output fewer.
std::vector<WinogradConv::Span> WinogradConv::Split(int64_t size, int outputs) {
  std::vector<Span> spans;
  const int64_t count = DivideUp(size, outputs);
  const int64_t reduced = std::min(count, count * outputs - size);
  int64_t begin = 0;
  for (int64_t i = 0; i < count; ++i) {
    Span span;
    span.begin = begin;
    span.reduced = i >= count - reduced;
    const int64_t covers = outputs - (span.reduced ? 1 : 0);
    span.count = static_cast<int>(std::min(covers, size - begin));
    begin += covers;
    spans.push_back(span);
  }
  return spans;
}

// Past L2 the weights are what is read; shared panels halve it. Few tiles leave no other choice; many make up for the
// reading, and have even shares where panels may not (2 threads of Zen 1: 96 -> 96 channels at 35x35 1.15 -> 0.87 ms,
// 512 -> 512 at 28x28 17.1 -> 15.7, but 256 -> 256 at 14x14, 16 tiles, 1.16 -> 1.34). Cores that compute faster need
// more tiles for the same bytes: two and eight times as many, which nobody has measured.
void WinogradConv::PlanSplit(int workers, int64_t weight_bytes) {
  const int64_t panels = static_cast<int64_t>(packed_->panels.size());
  const int64_t many = amx_ != nullptr ? 128 : gemm_->lanes == kMaxLanes ? 32 : 16;
  const bool cold = 2 * weight_bytes > 3 * static_cast<int64_t>(GetCacheSizes().l2);
  by_columns_ = workers > 1 && panels >= workers && (cold || tiles_ < 8 * workers) && tiles_ <= many * workers;
}

void WinogradConv::PlanBlocks(int workers) {
  const ConvShape& s = shape_;
  const int64_t points = ops_->points();
  vertical_ = Split(s.out_height, ops_->height.outputs);
  horizontal_ = Split(s.out_width, ops_->width.outputs);
  tiles_ = s.batch * static_cast<int64_t>(vertical_.size() * horizontal_.size());
  const GemmPanel& widest = packed_->panels.front();
  panel_width_ = widest.vectors * gemm_->lanes;

  tile_stride_ = DivideUp(s.channels, kMaxLanes) * kMaxLanes;
  // Rows of a micro-kernel's tile that are powers of two apart would share few sets of L1.
  if (amx_ != nullptr) tile_stride_ = std::max(tile_stride_, DivideUp(s.channels, kAmxDepth) * kAmxChunkFloats);
  if (tile_stride_ % kPageAliasFloats == 0) tile_stride_ += kLineFloats;

  const int64_t weight_bytes =
      ops_->distinct_weights() * weight_rows_ * s.filters * static_cast<int64_t>(sizeof(float));
  const int64_t l2 = static_cast<int64_t>(GetCacheSizes().l2);
  PlanSplit(workers, weight_bytes);

  const int64_t worker_tiles = by_columns_ ? tiles_ : DivideUp(tiles_, workers);
  const bool stay = weight_bytes <= l2 * 2 / 3;                                               // the weights, in L2
  const int64_t product_bytes = points * panel_width_ * static_cast<int64_t>(sizeof(float));  // of a tile and a panel
  const int64_t source_bytes = points * tile_stride_ * static_cast<int64_t>(sizeof(float));
  const int64_t tile_rows = amx_ != nullptr ? kAmxRows : gemm_->max_rows[widest.vectors];
  int64_t block = Block::kMaxTiles;
  if (weight_bytes > 5 * l2) {
    // Weights come from beyond L2 once a block: large blocks. The sources of one point then serve several panels (512
    // channels at 28x28, L2 of 2 MiB: 190 GFLOP/s in blocks of 13 and single panels, 320 in blocks of 49 and groups of
    // 4), as many as L2 holds the weights and products of beside them.
    const int64_t point_bytes = weight_rows_ * panel_width_ * static_cast<int64_t>(sizeof(float));
    const int64_t tiles = std::min(worker_tiles, block), products = l2 / 2 / (product_bytes * tiles);
    panel_group_ = std::clamp<int64_t>(std::min(products, l2 / 4 / point_bytes), 1, 4);
    // Sources that come from far beyond L2 themselves are more than the products, which then go there too.
    if (source_bytes * tiles > 4 * l2) panel_group_ = kFarGroup;
  } else {
    // Three quarters of L2 for transformed sources and products, the rest for the stream of weights; half of that
    // where the weights stay in L2 (64 -> 128 channels to 56x56 at stride 2: 122 GFLOP/s without, 157 so). Cores that
    // compute less and have less of L2 (Zen 1: 512 KiB) gain more by reading the weights less often.
    const bool slow = gemm_->lanes < kMaxLanes;
    const int64_t share = stay ? l2 * (slow ? 5 : 3) / 8 : l2 * (slow ? 7 : 3) / 4;
    block = std::min(block, std::max(share / (source_bytes + product_bytes), tile_rows));
  }
  // Even blocks, so that none is a remainder; several for each worker, so that a slow one leaves some to the others,
  // but none below a micro-kernel's rows, or a few times these where they are few.
  const bool several = workers > 1 && !by_columns_ && stay;
  const int64_t pieces = several ? std::clamp<int64_t>(worker_tiles / std::max(tile_rows, kLeastTiles), 1, 4) : 1;
  tile_block_ = DivideUp(worker_tiles, std::max(DivideUp(worker_tiles, block), pieces));
  // Full tiles.
  if (amx_ != nullptr) tile_block_ = std::min(DivideUp(tile_block_, kAmxRows) * kAmxRows, tiles_);
  point_stride_ = OddLines(tile_block_ * tile_stride_);
  product_stride_ = OddLines(tile_block_ * panel_width_);
  panel_products_ = points * product_stride_;
  // The last tile of rows reads on past the last row.
  scales_ = points * point_stride_ + (amx_ != nullptr ? 2 * kAmxRows * tile_stride_ : 0);
  products_ = scales_ + (amx_ != nullptr ? DivideUp(points * tile_block_, kLineFloats) * kLineFloats : 0);
  worker_floats_ = static_cast<size_t>(PlanLists(products_ + panel_group_ * panel_products_));
}

std::string WinogradConv::Describe() const {
  return "winograd f" + std::to_string(ops_->height.outputs) + "x" + std::to_string(ops_->width.outputs) +
         (amx_ != nullptr ? " of digits" : "") + ", blocks of " + std::to_string(tile_block_) + " tiles, " +
         (by_columns_ ? "split by channels" : "split by pixels") + (lists_.ops != nullptr ? ", zeros left out" : "");
}

}  // namespace crease
