// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_chain.h"

#include <algorithm>
#include <cstring>

#include "kernels/cache_sizes.h"
#include "kernels/conv_wrapper.h"
#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// Pixels this many floats apart fall into few sets of L1.
constexpr int64_t kAliasFloats = 128;
constexpr int64_t kMostLines = 8;
// Rows of the last stage for each worker: with fewer, what is computed twice at the shares' borders costs more than
// the bands save.
constexpr int64_t kFewestRows = 12;

// Source rows that dst rows from `row` on need, those that exist.
int64_t FirstSource(const ConvShape& shape, int64_t row) {
  return std::clamp<int64_t>(row * shape.stride_h - shape.pad_top, 0, shape.height);
}
// Past the last source row that dst rows before `end` need.
int64_t EndSource(const ConvShape& shape, int64_t end) {
  return std::clamp<int64_t>((end - 1) * shape.stride_h - shape.pad_top + shape.span_h(), 0, shape.height);
}

// Plain is what a network's input is: only the first stage's source can be that.
bool IsPlanar(const KernelRequest& request) { return !request.src.empty() && request.src[0].layout == Layout::kPlain; }

Result<ConvRequest> ReadStage(const KernelRequest& request) {
  if (IsPlanar(request)) return ReadPlanarConvRequest(request);
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  const ConvShape& s = conv.shape;
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (s.pointwise() && s.groups == 1) return conv;
  if (!s.depthwise()) return Refuse("neither 1x1 nor depthwise");
  if (s.span_h() < s.stride_h) return Refuse("skips rows");
  return conv;
}

}  // namespace

Result<ConvChain> ConvChain::Make(std::span<const KernelRequest> requests) {
  if (requests.empty() || requests.size() > kMaxStages) return Refuse("too many stages");
  ConvChain chain;
  for (const KernelRequest& request : requests) {
    CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadStage(request));
    const bool last = &request == &requests.back();
    const bool residual = request.epilogue.residual != Residual::kNone;
    if (!last && residual) return Refuse("residual inside");
    if (residual && IsPlanar(requests.front())) return Refuse("residual and plain source");
    Stage stage;
    stage.shape = conv.shape;
    stage.planar = IsPlanar(request);
    if (conv.shape.depthwise() && !stage.planar) {
      CREASE_ASSIGN_OR_RETURN(
          stage.depthwise, DepthwiseConv::Make(conv.shape, *conv.weights, conv.bias, request.epilogue, request.packs));
    } else {
      GemmConv::Options options;
      options.epilogue = request.epilogue;
      options.src_pitch = chain.stages_.empty() ? request.src[0].pitch : chain.stages_.back().pitch;
      options.cache = request.packs;
      options.executor = request.executor;
      options.planar = stage.planar;
      options.near = !last;  // in a band
      options.amx = !request.exact && !stage.planar && CanUseAmx(conv.shape);
      if (!stage.planar && request.src[0].rectified && SparseConv::Pays(conv.shape)) {
        Result<SparseConv> sparse = SparseConv::Make(conv.shape, *conv.weights, conv.bias, options);
        if (sparse.ok()) stage.sparse = std::move(sparse).value();
      }
      if (!stage.sparse) {
        const MatrixSource matrix = stage.planar ? PlanarMatrix(conv.shape, *conv.weights, conv.bias)
                                                 : ConvMatrix(conv.shape, *conv.weights, conv.bias);
        CREASE_ASSIGN_OR_RETURN(stage.gemm, GemmConv::Make(conv.shape, matrix, options));
      }
    }
    stage.pitch = RoundUp(conv.shape.filters, kLineFloats);
    if (stage.pitch % kAliasFloats == 0) stage.pitch += kLineFloats;
    chain.stages_.push_back(std::move(stage));
  }
  chain.PlanBands();
  chain.PlanShares();
  return chain;
}

// Sizes the bands for steps of `lines` rows; floats of a worker's bands. A band holds what the next stage reads in its
// first step, the longest, and a later step's rows, so that at most every second step moves rows that are still needed.
size_t ConvChain::BandFloats(int64_t lines) {
  size_t floats = 0;
  int64_t first = lines, later = lines;
  for (size_t i = stages_.size() - 1; i-- > 0;) {
    const ConvShape& next = stages_[i + 1].shape;
    first = (first - 1) * next.stride_h + next.span_h();
    later *= next.stride_h;
    stages_[i].rows = std::min(first + later, next.height);
    stages_[i].offset = floats;
    floats += static_cast<size_t>(RoundUp(stages_[i].rows * stages_[i].row_floats(), kLineFloats));
  }
  return floats;
}

void ConvChain::PlanBands() {
  const size_t limit = GetCacheSizes().l2 / sizeof(float) * 3 / 4;
  lines_ = std::min(kMostLines, stages_.back().shape.out_height);
  while (lines_ > 1 && BandFloats(lines_) > limit) --lines_;
  scratch_offset_ = BandFloats(lines_);
  size_t scratch = 0;
  for (const Stage& stage : stages_) {
    scratch = std::max(scratch, stage.gemm     ? stage.gemm->scratch_bytes(1)
                                : stage.sparse ? stage.sparse->scratch_bytes(1)
                                               : stage.depthwise->scratch_bytes(1));
  }
  worker_floats_ =
      scratch_offset_ + static_cast<size_t>(RoundUp(static_cast<int64_t>(scratch / sizeof(float)), kLineFloats));
}

std::string ConvChain::Describe() const {
  std::string text = "chain of ";
  for (const Stage& stage : stages_) {
    if (&stage != &stages_.front()) text += ", ";
    text += stage.planar ? "planes " : stage.gemm ? "1x1 " : stage.sparse ? "sparse 1x1 " : "depthwise ";
    text += std::to_string(stage.shape.filters);
  }
  return text + "; " + std::to_string(lines_) + " rows a step";
}

// Whoever starts in the middle of an image computes rows of the first stage that another one has, too: what it takes is
// at least twice as much.
void ConvChain::PlanShares() {
  int64_t rows = 1, step = 1;  // of a stage's result for one row of the last; from one of those to the next
  for (size_t i = stages_.size(); --i > 0;) {
    const ConvShape& s = stages_[i].shape;
    rows = (rows - 1) * s.stride_h + s.span_h();
    step *= s.stride_h;
  }
  const int64_t height = stages_.back().shape.out_height;
  share_rows_ = std::min(2 * ((rows - 1) / step) + 1, height);
}

void ConvChain::Run(const RunContext& context, const ConvOperands& operands) const {
  const int64_t height = stages_.back().shape.out_height;
  const int64_t shares = DivideUp(height, share_rows_);  // of an image
  const auto row_at = [&](int64_t share) { return share / shares * height + share % shares * height / shares; };
  ParallelPieces(context, stages_.back().shape.batch * shares, [&](int worker, auto next) {
    float* floats = reinterpret_cast<float*>(context.scratch) + static_cast<size_t>(worker) * worker_floats_;
    Bands bands;
    int64_t done = 0;
    for (WorkShares::Range r = next(); !r.empty(); r = next()) {
      r = {row_at(r.begin), row_at(r.end)};
      while (r.begin < r.end) {
        const int64_t image = r.begin / height, first = r.begin % height;
        const int64_t stop = std::min(r.end, (image + 1) * height);
        // A worker's pieces mostly follow each other.
        if (first == 0 || r.begin != done) StartAt(first, bands);
        RunRows(operands, image, stop - image * height, bands, floats);
        r.begin = done = stop;
      }
    }
  });
}

// Empty bands that begin with what row `row` of the last stage needs.
void ConvChain::StartAt(int64_t row, Bands& bands) const {
  for (size_t i = stages_.size(); i-- > 0;) {
    bands[i] = {row, row};
    row = FirstSource(stages_[i].shape, row);
  }
}

void ConvChain::RunRows(const ConvOperands& operands, int64_t image, int64_t end, Bands& bands, float* floats) const {
  const size_t last = stages_.size() - 1;
  std::array<int64_t, kMaxStages> ends{};
  while (bands[last].end < end) {
    ends[last] = std::min(bands[last].end + lines_, end);
    for (size_t i = last; i-- > 0;) ends[i] = std::max(EndSource(stages_[i + 1].shape, ends[i + 1]), bands[i].end);
    for (size_t i = 0; i <= last; ++i) {
      if (i < last) MakeRoom(i, ends[i], bands, floats);
      RunStage(i, operands, image, {bands[i].end, ends[i]}, bands, floats);
      bands[i].end = ends[i];
    }
  }
}

// Room for rows up to `end` in the stage's band: drops what the next stage has done with.
void ConvChain::MakeRoom(size_t index, int64_t end, Bands& bands, float* floats) const {
  const Stage& stage = stages_[index];
  Range& band = bands[index];
  if (end - band.begin <= stage.rows) return;
  const int64_t keep = std::clamp(FirstSource(stages_[index + 1].shape, bands[index + 1].end), band.begin, band.end);
  float* to = floats + stage.offset;
  std::memmove(to, to + (keep - band.begin) * stage.row_floats(),
               static_cast<size_t>((band.end - keep) * stage.row_floats()) * sizeof(float));
  band.begin = keep;
}

void ConvChain::RunStage(size_t index, const ConvOperands& operands, int64_t image, Range rows, const Bands& bands,
                         float* floats) const {
  if (rows.begin >= rows.end) return;
  const Stage& stage = stages_[index];
  const ConvShape& s = stage.shape;
  ConvOperands own = operands;
  DepthwiseConv::Origin origin;
  if (index > 0) {
    own.src = floats + stages_[index - 1].offset;
    own.src_pitch = stages_[index - 1].pitch;
    origin.src = image * s.height + bands[index - 1].begin;
  }
  if (index + 1 < stages_.size()) {
    own.dst = floats + stage.offset;
    own.dst_pitch = stage.pitch;
    own.residual = nullptr;
    origin.dst = image * s.out_height + bands[index].begin;
  }
  const Range all = {image * s.out_height + rows.begin, image * s.out_height + rows.end};
  if (stage.depthwise) return stage.depthwise->RunRows(own, origin, all.begin, all.end, floats + scratch_offset_);
  if (stage.planar) return stage.gemm->RunRows(own, origin.dst, all.begin, all.end, floats + scratch_offset_);
  own.src += (all.begin - origin.src) * s.width * own.src_pitch;
  own.dst += (all.begin - origin.dst) * s.out_width * own.dst_pitch;
  if (own.residual != nullptr) own.residual += all.begin * s.out_width * own.residual_pitch;
  const int64_t pixels = (all.end - all.begin) * s.out_width;
  if (stage.sparse) return stage.sparse->RunPixels(own, pixels, floats + scratch_offset_);
  stage.gemm->RunPixels(own, pixels, floats + scratch_offset_);
}

size_t ConvChainLength(std::span<const KernelRequest> requests) {
  const auto l2 = static_cast<int64_t>(GetCacheSizes().l2);
  int64_t weights = 0;
  size_t length = 0;
  for (const KernelRequest& request : requests.first(std::min(requests.size(), ConvChain::kMaxStages))) {
    const Result<ConvRequest> conv = ReadStage(request);
    if (!conv.ok()) break;
    const ConvShape& s = conv->shape;
    const int workers = request.workers;
    weights += static_cast<int64_t>(conv->weights->byte_size());
    if (s.batch * s.out_height < kFewestRows * workers || weights > l2 / 4) break;
    if (IsPlanar(requests.front()) && request.epilogue.residual != Residual::kNone) break;
    ++length;
    // What lies between two stages must be too much for L2 beside all that goes with it.
    const int64_t bytes = s.out_pixels() * s.filters * static_cast<int64_t>(sizeof(float));
    if (request.epilogue.residual != Residual::kNone || bytes / workers < l2 / 8) break;
  }
  return length;
}

KernelResult MakeConvChain(std::span<const KernelRequest> requests) {
  CREASE_ASSIGN_OR_RETURN(ConvChain chain, ConvChain::Make(requests));
  return WrapConv(std::move(chain), requests.back().epilogue);
}

}  // namespace crease
