// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv_transpose.h"

#include <algorithm>
#include <utility>

#include "kernels/cache_sizes.h"
#include "kernels/conv_wrapper.h"
#include "kernels/rounding.h"
#include "kernels/work_shares.h"

namespace crease {
namespace {

// Pixels this many floats apart fall into few sets of L1.
constexpr int64_t kAliasFloats = 128;
// Dst pixels that wait for an epilogue that is more than bounds.
constexpr int64_t kSumPixels = 32;
// What a worker's products may take, in floats: 64 MiB.
constexpr int64_t kMostFloats = int64_t{16} << 20;
constexpr int64_t kMostTermsInWidth = 256;
constexpr int64_t kMostPhases = 4096;  // along an axis

// Towards minus infinity; b is positive.
int64_t FloorDivide(int64_t a, int64_t b) { return (a >= 0 ? a : a - b + 1) / b; }

// Column t * group_filters + k of a group: tap t, filter k.
MatrixSource TransposedMatrix(const ConvShape& shape, const Tensor& weights) {
  MatrixSource matrix;
  matrix.values = &weights;
  matrix.groups = shape.groups;
  matrix.columns = shape.taps() * shape.group_filters();
  matrix.channels = shape.group_channels();
  matrix.column_taps = matrix.column_stride = shape.taps();
  matrix.channel_stride = matrix.columns;
  matrix.group_stride = matrix.columns * matrix.channels;
  return matrix;
}

// A row of pixels is a column of pixels in memory; workers share rows.
ConvShape Upright(ConvShape shape) {
  if (shape.height != 1 || shape.out_height != 1 || shape.kernel_h != 1 || shape.pad_top != 0) return shape;
  std::swap(shape.height, shape.width);
  std::swap(shape.out_height, shape.out_width);
  std::swap(shape.kernel_h, shape.kernel_w);
  std::swap(shape.stride_h, shape.stride_w);
  std::swap(shape.dilation_h, shape.dilation_w);
  std::swap(shape.pad_top, shape.pad_left);
  return shape;
}

}  // namespace

std::vector<std::vector<TransposedTap>> TransposedTaps(int64_t stride, int64_t kernel, int64_t dilation, int64_t pad,
                                                       int64_t out) {
  std::vector<std::vector<TransposedTap>> taps(static_cast<size_t>(std::min(stride, out)));
  for (int64_t i = 0; i < kernel; ++i) {
    // Source row or column `first` adds to dst row or column `phase`, the first one that is not before 0.
    const int64_t first = -FloorDivide(i * dilation - pad, stride);
    const size_t phase = static_cast<size_t>(i * dilation - pad + first * stride);
    if (phase < taps.size()) taps[phase].push_back({i, first});
  }
  return taps;
}

Result<TransposedConv> TransposedConv::Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                            const Options& options) {
  TransposedConv conv;
  const ConvShape& s = conv.shape_ = Upright(shape);
  if (s.height == 0 || s.width == 0) return Refuse("empty");
  if (s.kernel_w / s.stride_w > kMostTermsInWidth) return Refuse("many taps at one pixel");
  if (std::max(std::min(s.stride_h, s.out_height), std::min(s.stride_w, s.out_width)) > kMostPhases) {
    return Refuse("large strides");
  }
  conv.epilogue_ = options.epilogue;
  conv.ops_ = &GetGemmOps();
  conv.sum_ops_ = &GetSumOps();
  conv.finish_ = !BoundsOf(options.epilogue, conv.lo_, conv.hi_) || options.epilogue.residual != Residual::kNone;
  if (conv.finish_) BoundsOf(Epilogue{}, conv.lo_, conv.hi_);
  conv.bias_.assign(static_cast<size_t>(s.filters + kMaxLanes), 0.0f);
  for (int64_t k = 0; bias != nullptr && k < s.filters; ++k) {
    conv.bias_[static_cast<size_t>(k)] = bias->elements<float>()[k];
  }
  conv.pixel_ = RoundUp(s.taps() * s.filters, kLineFloats);
  if (conv.pixel_ % kAliasFloats == 0) conv.pixel_ += kLineFloats;
  CREASE_RETURN_IF_ERROR(conv.PlanRows(options.workers));
  conv.PlanSpans();

  ConvShape pointwise;
  pointwise.batch = s.batch;
  pointwise.height = pointwise.out_height = s.height;
  pointwise.width = pointwise.out_width = s.width;
  pointwise.channels = s.channels;
  pointwise.filters = s.taps() * s.filters;
  pointwise.groups = s.groups;
  GemmConv::Options product;
  product.prologue = options.prologue;
  product.src_pitch = options.src_pitch;
  product.workers = options.workers;
  product.cache = options.cache;
  product.executor = options.executor;
  product.near = !conv.whole_;
  CREASE_ASSIGN_OR_RETURN(conv.product_, GemmConv::Make(pointwise, TransposedMatrix(s, weights), product));
  return conv;
}

void TransposedConv::PlanSpans() {
  const ConvShape& s = shape_;
  vertical_ = TransposedTaps(s.stride_h, s.kernel_h, s.dilation_h, s.pad_top, s.out_height);
  int64_t phase = 0;
  for (const std::vector<TransposedTap>& taps :
       TransposedTaps(s.stride_w, s.kernel_w, s.dilation_w, s.pad_left, s.out_width)) {
    const int64_t count = (s.out_width - phase - 1) / s.stride_w + 1;
    std::vector<int64_t> bounds = {0, count};
    for (const TransposedTap& tap : taps) {
      bounds.push_back(std::clamp<int64_t>(-tap.first, 0, count));
      bounds.push_back(std::clamp<int64_t>(s.width - tap.first, 0, count));
    }
    std::sort(bounds.begin(), bounds.end());
    for (size_t i = 1; i < bounds.size(); ++i) {
      const int64_t t = bounds[i - 1];
      if (t == bounds[i]) continue;
      Span span{phase + t * s.stride_w, bounds[i] - t, offsets_.size(), 0};
      for (const TransposedTap& tap : taps) {
        if (t + tap.first < 0 || t + tap.first >= s.width) continue;
        offsets_.push_back((t + tap.first) * pixel_ + tap.tap * s.group_filters());
      }
      span.end = offsets_.size();
      spans_.push_back(span);
    }
    ++phase;
  }
}

Result<void> TransposedConv::PlanRows(int workers) {
  const ConvShape& s = shape_;
  constexpr double kMostProducts = 1e15;  // whose bytes an integer can count
  if (static_cast<double>(s.batch) * static_cast<double>(s.height) * static_cast<double>(s.width) *
          static_cast<double>(pixel_) >
      kMostProducts) {
    return Refuse("too many products");
  }
  row_ = s.width * pixel_;
  const int64_t l2_floats = static_cast<int64_t>(GetCacheSizes().l2 / sizeof(float));
  const int64_t weights = s.taps() * s.filters * s.group_channels();
  const bool weights_stay = weights <= l2_floats / 2;
  reach_ = std::min((s.span_h() - 1) / s.stride_h + 1, s.height);
  // Weights that come from beyond L2 for every step: few steps.
  const int64_t limit = weights_stay ? l2_floats / 8 : 4 * l2_floats;
  rows_ = std::clamp(limit / row_, reach_, s.height);
  shares_ = DivideUp(s.height, 2 * reach_ - 1);
  const int64_t all = s.batch * s.height * row_;
  // Every worker would read all of the weights, or few rows would be computed twice.
  whole_ = all <= (weights_stay ? l2_floats / 2 : 8 * l2_floats) && (!weights_stay || shares_ < 4 * workers);
  if (whole_) {
    rows_ = shares_ = s.height;
  } else if (rows_ * row_ > kMostFloats) {
    return Refuse("products of a few rows too large");
  }
  return {};
}

std::string TransposedConv::Describe() const {
  const std::string rows = whole_ ? "all rows" : std::to_string(rows_) + (rows_ == 1 ? " row" : " rows");
  return product_->Describe() + ", " + rows + " a step";
}

size_t TransposedConv::product_floats() const {
  return static_cast<size_t>((whole_ ? shape_.batch : 1) * rows_ * row_ + kLineFloats);
}

// Beside the products of a matrix product that is done as a whole.
size_t TransposedConv::worker_floats() const {
  size_t floats = finish_ ? static_cast<size_t>(kSumPixels * RoundUp(shape_.filters, kLineFloats)) : 0;
  if (!whole_) floats += product_floats() + product_->scratch_bytes(1) / sizeof(float);
  return static_cast<size_t>(RoundUp(static_cast<int64_t>(floats), kLineFloats));
}

size_t TransposedConv::scratch_bytes(int workers) const {
  const size_t shared = whole_ ? product_floats() * sizeof(float) + product_->scratch_bytes(workers) : 0;
  return shared + static_cast<size_t>(workers) * worker_floats() * sizeof(float);
}

TransposedConv::Products TransposedConv::ProductsOf(int worker, float* scratch) const {
  Products products;
  if (whole_) {
    products.data = scratch;
    products.end = shape_.height;
    scratch += product_floats();
  }
  scratch += static_cast<size_t>(worker) * worker_floats();
  if (!whole_) {
    products.data = scratch;
    scratch += product_floats();
  }
  products.sums = scratch;
  if (finish_) scratch += kSumPixels * RoundUp(shape_.filters, kLineFloats);
  products.scratch = scratch;
  return products;
}

// The first source row that may add to a dst row, and past the last one; of those that exist.
int64_t TransposedConv::FirstSource(int64_t row) const {
  const int64_t first = FloorDivide(row + shape_.pad_top - shape_.span_h(), shape_.stride_h) + 1;
  return std::clamp<int64_t>(first, 0, shape_.height);
}
int64_t TransposedConv::EndSource(int64_t row) const {
  return std::clamp<int64_t>(FloorDivide(row + shape_.pad_top, shape_.stride_h) + 1, 0, shape_.height);
}

// The first dst row of a share, which begins where a source row's does, counted over all images.
int64_t TransposedConv::RowAt(int64_t share) const {
  const ConvShape& s = shape_;
  const int64_t image = share / shares_, part = share % shares_;
  const int64_t row = part == 0 ? 0 : part * s.height / shares_ * s.stride_h - s.pad_top;
  return image * s.out_height + std::clamp<int64_t>(row, 0, s.out_height);
}

void TransposedConv::Run(const RunContext& context, const ConvOperands& operands) const {
  float* scratch = reinterpret_cast<float*>(context.scratch);
  if (whole_) {
    ConvOperands product = operands;
    product.dst = scratch;
    product.dst_pitch = pixel_;
    product.residual = nullptr;
    const size_t behind = product_floats() + static_cast<size_t>(context.workers()) * worker_floats();
    product_->Run({context.executor, reinterpret_cast<std::byte*>(scratch + behind)}, product);
  }
  ParallelPieces(context, shape_.batch * shares_, [&](int worker, auto next) {
    Products products = ProductsOf(worker, scratch);
    for (WorkShares::Range r = next(); !r.empty(); r = next()) {
      RunRows(operands, RowAt(r.begin), RowAt(r.end), products);
    }
  });
}

// Dst rows counted over all images.
void TransposedConv::RunRows(const ConvOperands& operands, int64_t begin, int64_t end, Products& products) const {
  const int64_t height = shape_.out_height;
  while (begin < end) {
    const int64_t image = begin / height;
    const int64_t first = FirstSource(begin % height), limit = std::min(end, (image + 1) * height);
    int64_t stop = begin + 1;
    while (stop < limit && EndSource(stop % height) - first <= rows_) ++stop;
    Multiply(operands, image, first, EndSource((stop - 1) % height), products);
    for (; begin < stop; ++begin) SumRow(operands, products, begin);
  }
}

// Sees to it that the products of source rows [begin, end) are there.
void TransposedConv::Multiply(const ConvOperands& operands, int64_t image, int64_t begin, int64_t end,
                              Products& products) const {
  if (whole_) {
    products.data += (image - products.image) * rows_ * row_;
    products.image = image;
    return;
  }
  if (products.image != image || begin < products.begin || begin > products.end) {
    products.image = image;
    products.begin = products.end = begin;
  }
  while (products.end < end) {
    const int64_t row = products.end % rows_;
    const int64_t count = std::min(end - products.end, rows_ - row);
    ConvOperands product;
    product.src = operands.src + (image * shape_.height + products.end) * shape_.width * operands.src_pitch;
    product.src_pitch = operands.src_pitch;
    product.dst = products.data + row * row_;
    product.dst_pitch = pixel_;
    product_->RunPixels(product, count * shape_.width, products.scratch);
    products.end += count;
  }
  products.begin = std::max(products.begin, products.end - rows_);
}

void TransposedConv::SumRow(const ConvOperands& operands, const Products& products, int64_t row) const {
  const int64_t y = row % shape_.out_height;
  const Row all{row, y / shape_.stride_h, vertical_[static_cast<size_t>(y % shape_.stride_h)]};
  for (const Span& span : spans_) {
    const int64_t most = finish_ ? kSumPixels : span.count;
    for (int64_t i = 0; i < span.count; i += most) {
      SumSpan(operands, products, all, span, i, std::min(most, span.count - i));
    }
  }
}

// `count` pixels of the span from `skip` on.
void TransposedConv::SumSpan(const ConvOperands& operands, const Products& products, const Row& row, const Span& span,
                             int64_t skip, int64_t count) const {
  const ConvShape& s = shape_;
  const int64_t pixel = row.row * s.out_width + span.x + skip * s.stride_w;
  float* dst = operands.dst + pixel * operands.dst_pitch;
  float* sums = finish_ ? products.sums : dst;
  SumTile tile;
  tile.term_stride = pixel_;
  tile.dst_stride = finish_ ? RoundUp(s.filters, kLineFloats) : s.stride_w * operands.dst_pitch;
  tile.pixels = count;
  tile.columns = s.group_filters();
  for (int64_t group = 0; group < s.groups; ++group) {
    tile.bias = bias_.data() + group * s.group_filters();
    tile.dst = sums + group * s.group_filters();
    SumGroup(products.data + skip * pixel_ + group * s.taps() * s.group_filters(), row, span, tile);
  }
  if (!finish_) return;
  FinishTile finish{sums, tile.dst_stride, dst, s.stride_w * operands.dst_pitch, nullptr, 0, count, s.filters};
  if (operands.residual != nullptr) {
    finish.residual = operands.residual + pixel * operands.residual_pitch;
    finish.residual_stride = s.stride_w * operands.residual_pitch;
  }
  ops_->finish(finish, epilogue_);
}

// `products`: of source row 0, and those of one group.
void TransposedConv::SumGroup(const float* products, const Row& row, const Span& span, SumTile& tile) const {
  int count = 0;
  BoundsOf(Epilogue{}, tile.lo, tile.hi);
  const auto flush = [&] {
    sum_ops_->sum[count](tile);
    tile.bias = nullptr;
    count = 0;
  };
  for (const TransposedTap& tap : row.taps) {
    const int64_t source = row.t + tap.first;
    if (source < 0 || source >= shape_.height) continue;
    const float* from = products + source % rows_ * row_ + tap.tap * shape_.kernel_w * shape_.group_filters();
    for (size_t i = span.first; i < span.end; ++i) {
      if (count == kMaxSumTerms) flush();
      tile.terms[count++] = from + offsets_[i];
    }
  }
  tile.lo = lo_;
  tile.hi = hi_;
  flush();
}

KernelResult MakeConvTranspose(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvTransposeRequest(request));
  TransposedConv::Options options{OptionsOf(request)};
  options.src_pitch = request.src[0].pitch;
  CREASE_ASSIGN_OR_RETURN(TransposedConv made, TransposedConv::Make(conv.shape, *conv.weights, conv.bias, options));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
