// SPDX-License-Identifier: Apache-2.0
// Transposed convolution, channels-last: what every source pixel adds through every tap is one matrix product, pixels x
// channels times channels x (taps * filters); a dst pixel is then the sum of the products that fall on it, which are a
// run of `filters` floats each. Any kernel, stride, dilation, padding and groups.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/conv_gemm.h"
#include "kernels/conv_shape.h"
#include "kernels/conv_transpose_tile.h"
#include "kernels/conv_wrapper.h"

namespace crease {

// A kernel row or column, and the source row or column, t + first, from which it adds to dst row or column t * stride +
// phase.
struct TransposedTap {
  int64_t tap = 0, first = 0;
};
// Of each phase below `stride` and `out`, along one axis: taps upwards.
std::vector<std::vector<TransposedTap>> TransposedTaps(int64_t stride, int64_t kernel, int64_t dilation, int64_t pad,
                                                       int64_t out);

class TransposedConv {
 public:
  struct Options : ConvOptions {
    int64_t src_pitch = 0;
  };

  // `shape`, `weights` and `bias` (null: none) as ReadConvTransposeRequest gives them. Errors: a refusal's reason, out
  // of memory.
  static Result<TransposedConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                     const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const;
  // Thread-safe. The same bits at any number of workers: no sum is split. Workers share the dst rows; where products of
  // one source row fall on rows of two of them, both compute these, unless the product is done before as a whole.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  // Dst pixels x, x + stride_w, ... of any row, on which products of the same taps fall along the width.
  struct Span {
    int64_t x = 0, count = 0;
    size_t first = 0, end = 0;  // of offsets_
  };
  // The products of some source rows of one image: source row r is row r % rows_ of `data`.
  struct Products {
    float* data = nullptr;
    int64_t image = 0, begin = 0, end = 0;
    float* scratch = nullptr;  // of the matrix product
    float* sums = nullptr;     // before the epilogue
  };

  // A dst row: of all; its t, and the taps of its phase.
  struct Row {
    int64_t row = 0, t = 0;
    const std::vector<TransposedTap>& taps;
  };

  TransposedConv() = default;
  void PlanSpans();
  Result<void> PlanRows(int workers);
  size_t product_floats() const;
  size_t worker_floats() const;
  int64_t FirstSource(int64_t row) const;
  int64_t EndSource(int64_t row) const;
  int64_t RowAt(int64_t share) const;
  Products ProductsOf(int worker, float* scratch) const;
  void RunRows(const ConvOperands& operands, int64_t begin, int64_t end, Products& products) const;
  void Multiply(const ConvOperands& operands, int64_t image, int64_t begin, int64_t end, Products& products) const;
  void SumRow(const ConvOperands& operands, const Products& products, int64_t row) const;
  void SumSpan(const ConvOperands& operands, const Products& products, const Row& row, const Span& span, int64_t skip,
               int64_t count) const;
  void SumGroup(const float* products, const Row& row, const Span& span, SumTile& tile) const;

  ConvShape shape_;
  Epilogue epilogue_;
  const GemmOps* ops_ = nullptr;
  const SumOps* sum_ops_ = nullptr;
  std::optional<GemmConv> product_;
  std::vector<float> bias_;
  std::vector<std::vector<TransposedTap>> vertical_;
  std::vector<Span> spans_;
  std::vector<int64_t> offsets_;  // of a tap's products from those of row 0, column 0 and tap row 0
  int64_t pixel_ = 0, row_ = 0;   // floats of the products of a source pixel, of a row
  int64_t reach_ = 0;             // source rows from the first to the last that add to a dst row
  int64_t rows_ = 0;              // source rows whose products are held at once
  int64_t shares_ = 0;            // of an image
  bool whole_ = false;            // all products first, then all sums
  bool finish_ = false;           // the epilogue is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
