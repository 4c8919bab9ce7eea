// SPDX-License-Identifier: Apache-2.0
// 1x1 convolutions with an eighth fewer multiplications: one level of Strassen's algorithm in Winograd's form
// (V. Strassen, "Gaussian elimination is not optimal", 1969; 7 products and 15 sums: S. Winograd, 1971).
//
// Pixels, channels and filters are halved: A = [a11 a12; a21 a22] has even pixels of each image above odd ones, B =
// [b11 b12; b21 b22] the weights. With
//   s1 = a21 + a22, s2 = s1 - a11, s3 = a11 - a21, s4 = a12 - s2
//   t1 = b12 - b11, t2 = b22 - t1, t3 = b22 - b12, t4 = b21 - t2
//   u  = a11 b11 + s2 t2, v = u + s1 t1, p = s3 t3
// the product is
//   c11 = a11 b11 + a12 b21    c12 = v + s4 b22
//   c21 = u + p + a22 t4       c22 = v + p
//
// Sums mix numbers of different pixels, channels and filters, so that a small one would take over the rounding errors
// of a large one. Filters are therefore scaled to like weights, and channels to like weights of all filters, by powers
// of two, which is exact; a pixel's errors are those of the larger of its pair. Largest error for inputs and weights of
// like size: 1e-5 of the outputs' root mean square for 1,024 channels, 1e-6 on average, two to three times that of
// plain sums. An infinite number makes NaN of what it is paired with: another pixel's results, or another filter's.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/conv_shape.h"
#include "kernels/conv_wrapper.h"
#include "kernels/fetch_cursor.h"
#include "kernels/gemm_pack.h"
#include "kernels/gemm_tile.h"
#include "kernels/strassen_sums.h"

namespace crease {

// Panel by panel of the first half of the columns seven matrices of channels / 2 rows, in the order of the products:
// b11, b21, t2, t1, b22, t3, t4.
struct StrassenWeights {
  StrassenWeights(std::vector<GemmPanel> all, int64_t channels, int64_t filters, size_t count);

  std::vector<GemmPanel> panels;  // offsets are those of one matrix: the seven lie at 7 times that
  std::vector<float> channel_scale;
  std::vector<float> filter_scale, bias;
  FloatBuffer values;
};

class StrassenConv {
 public:
  using Options = ConvOptions;

  static bool CanRun(const ConvShape& shape);
  // Whether that is faster than plain products, and by enough to be worth 7/4 of the weights' memory.
  static bool Pays(const ConvShape& shape);

  // For a shape that CanRun. Error: out of memory.
  static Result<StrassenConv> Make(const ConvShape& shape, const Tensor& weights, const Tensor* bias,
                                   const Options& options);

  std::string Describe() const;
  size_t scratch_bytes(int workers) const;
  int64_t fetchable_bytes(int workers) const;
  // Thread-safe. The same bits at any number of workers.
  void Run(const RunContext& context, const ConvOperands& operands) const;

 private:
  struct Range {
    int64_t begin, end;
    int64_t count() const { return end - begin; }
  };
  // A worker's memory: left factors, a row of seven for each pair of pixels, and sums of one panel.
  struct Scratch {
    float* left;
    float *u, *v, *p, *c;
    float* pixels;  // two, after the prologue
  };
  // Of dst: even or odd pixels, the first or the second half of the filters.
  struct Quarter {
    bool odd, second;
  };

  StrassenConv() = default;
  void Plan(int workers);
  Scratch ScratchOf(float* scratch, int worker) const;
  // Pixels are counted over all images.
  int64_t FirstPixel(int64_t pair) const { return pair / image_pairs_ * image_pixels_ + pair % image_pairs_ * 2; }
  RowPair RowsOf(const ConvOperands& operands, int64_t pair) const;
  void RunPairs(const ConvOperands& operands, Range pairs, Range panels, FetchCursor& later,
                const Scratch& scratch) const;
  void PackLeft(const ConvOperands& operands, Range pairs, const Scratch& scratch) const;
  void RunPanel(const ConvOperands& operands, Range pairs, const GemmPanel& panel, FetchCursor& later,
                const Scratch& scratch) const;
  // dst = product `index` of a panel + addend (null: zero), `rows` rows as wide as the panel; dst may be addend.
  void Multiply(const GemmPanel& panel, int64_t index, int64_t rows, const float* left, const float* addend, float* dst,
                FetchCursor& later) const;
  // Of pairs of one image.
  FinishTile TileOf(const ConvOperands& operands, Range pairs, const GemmPanel& panel, Quarter quarter) const;
  // The quarter from sums + more (null: zero); sums are overwritten.
  void Store(const ConvOperands& operands, Range pairs, const GemmPanel& panel, Quarter quarter, float* sums,
             const float* more) const;

  ConvShape shape_;
  Epilogue epilogue_;
  Prologue prologue_;
  const GemmOps* gemm_ = nullptr;
  const StrassenOps* ops_ = nullptr;
  std::shared_ptr<const StrassenWeights> weights_;
  int64_t half_ = 0;                            // of the channels
  int64_t image_pixels_ = 0, image_pairs_ = 0;  // the second pixel of an image's last pair may not exist
  int64_t pairs_ = 0;                           // of all images
  int64_t block_ = 0;                           // pairs whose left factors L2 holds
  int64_t left_pitch_ = 0;                      // floats from one pair's left factors to the next
  int64_t sums_floats_ = 0;                     // of each of the sums in Scratch
  size_t worker_floats_ = 0;
  bool by_columns_ = false;  // workers share the panels, not the pixels
  bool finish_ = false;      // the activation is more than bounds
  float lo_ = 0, hi_ = 0;
};

}  // namespace crease
