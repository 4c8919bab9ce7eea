// SPDX-License-Identifier: Apache-2.0
// Gemm and MatMul with a constant second matrix, as a 1x1 convolution of one row of pixels.
#include <memory>
#include <utility>

#include "graph/ops/gemm.h"
#include "kernels/conv_gemm.h"
#include "kernels/gemm_vector.h"
#include "kernels/kernels.h"

namespace crease {
namespace {

// The product's rows are pixels, k its channels, n its filters.
class GemmKernel final : public Kernel {
 public:
  GemmKernel(GemmConv conv, int64_t k, int64_t n, bool residual)
      : conv_(std::move(conv)), k_(k), n_(n), residual_(residual) {}
  std::string Describe() const override { return conv_.Describe(); }
  size_t scratch_bytes(int workers) const override { return conv_.scratch_bytes(workers); }
  bool ReadsConstant(size_t src) const override { return src == 0; }
  int64_t FetchableBytes(int workers) const override { return conv_.fetchable_bytes(workers); }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    ConvOperands operands{static_cast<const float*>(src[0].data), k_, static_cast<float*>(dst[0].data), n_};
    if (residual_) {
      operands.residual = static_cast<const float*>(src.back().data);
      operands.residual_pitch = n_;
    }
    conv_.Run(context, operands);
  }

 private:
  GemmConv conv_;
  int64_t k_, n_;
  bool residual_;
};

class MatrixVectorKernel final : public Kernel {
 public:
  explicit MatrixVectorKernel(MatrixVector product) : product_(std::move(product)) {}
  std::string Describe() const override { return "matrix times vector, in place"; }
  // The matrix is read where it lies, through a tensor of its own: no aligned copy of it is wanted.
  bool ReadsConstant(size_t src) const override { return src == 0; }
  bool KeepsConstant(size_t src) const override { return src != 0; }
  ConstBytes Streamed(int worker, int workers) const override { return MatrixShare(product_, worker, workers); }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const bool residual = product_.epilogue.residual != Residual::kNone;
    Multiply(product_, context, static_cast<const float*>(src[0].data), static_cast<float*>(dst[0].data),
             residual ? static_cast<const float*>(src.back().data) : nullptr);
  }

 private:
  MatrixVector product_;
};

Result<void> CheckOperands(const KernelRequest& request) {
  for (const Operand& operand : request.src) {
    if (operand.present && operand.dtype != DType::kFloat32) return Refuse("not f32");
    if (operand.layout != Layout::kPlain && operand.shape.size() > 2) return Refuse("not plain");
  }
  if (request.src[1].constant == nullptr) return Refuse("second matrix not constant");
  if (request.src[1].shape.size() != 2) return Refuse("second matrix of another rank than 2");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  return {};
}

KernelResult MakeProduct(const KernelRequest& request, int64_t rows, const MatrixSource& matrix) {
  ConvShape shape;
  shape.width = shape.out_width = rows;
  shape.channels = matrix.channels;
  shape.filters = matrix.columns;
  if (rows == 0 || shape.channels == 0 || shape.filters == 0) return Refuse("empty");
  const bool dense_rows = matrix.channel_stride == 1 && matrix.column_stride == matrix.channels;
  if (rows == 1 && dense_rows) {
    MatrixVector product{*matrix.values,  matrix.bias == nullptr ? Tensor() : *matrix.bias,
                         matrix.scale,    matrix.bias_scale,
                         shape.filters,   shape.channels,
                         request.epilogue};
    return std::unique_ptr<Kernel>(std::make_unique<MatrixVectorKernel>(std::move(product)));
  }
  GemmConv::Options options;
  options.epilogue = request.epilogue;
  options.src_pitch = shape.channels;
  options.workers = request.workers;
  options.cache = request.packs;
  options.executor = request.executor;
  CREASE_ASSIGN_OR_RETURN(GemmConv made, GemmConv::Make(shape, matrix, options));
  return std::unique_ptr<Kernel>(std::make_unique<GemmKernel>(std::move(made), shape.channels, shape.filters,
                                                              request.epilogue.residual != Residual::kNone));
}

}  // namespace

KernelResult MakeConvVector(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (!conv.shape.pointwise() || conv.shape.groups != 1) return Refuse("not 1x1");
  if (conv.shape.out_pixels() != 1) return Refuse("more than one pixel");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  MatrixVector product{
      *conv.weights,   conv.bias == nullptr ? Tensor() : *conv.bias, 1, 1, conv.shape.filters, conv.shape.channels,
      request.epilogue};
  return std::unique_ptr<Kernel>(std::make_unique<MatrixVectorKernel>(std::move(product)));
}

KernelResult MakeGemm(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  CREASE_ASSIGN_OR_RETURN(const ops::GemmAttributes attributes, ops::ParseGemm(request.node));
  if (attributes.trans_a) return Refuse("transA");
  const size_t own = request.src.size() - (request.epilogue.residual == Residual::kNone ? 0 : 1);
  const bool has_c = own > 2 && request.src[2].present;
  CREASE_ASSIGN_OR_RETURN(const ops::GemmShape shape,
                          ops::ResolveGemm(attributes, request.src[0].shape, request.src[1].shape,
                                           has_c ? &request.src[2].shape : nullptr));
  MatrixSource matrix;
  matrix.values = request.src[1].constant;
  matrix.scale = attributes.alpha;
  matrix.columns = shape.n;
  matrix.channels = shape.k;
  matrix.column_stride = attributes.trans_b ? shape.k : 1;
  matrix.channel_stride = attributes.trans_b ? 1 : shape.n;
  if (has_c) {
    const Operand& c = request.src[2];
    if (c.constant == nullptr) return Refuse("C not constant");
    const bool by_column =
        c.constant->size() == 1 || (!c.shape.empty() && c.shape.back() == shape.n && c.constant->size() == shape.n);
    if (!by_column) return Refuse("C with a value for each row");
    matrix.bias = c.constant;
    matrix.bias_scale = attributes.beta;
  }
  return MakeProduct(request, shape.m, matrix);
}

KernelResult MakeMatMul(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  const Shape& a = request.src[0].shape;
  const Shape& b = request.src[1].shape;
  if (a.empty() || a.back() != b[0]) return Refuse("shapes do not agree");
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < a.size(); ++i) rows *= a[i];
  MatrixSource matrix;
  matrix.values = request.src[1].constant;
  matrix.columns = b[1];
  matrix.channels = b[0];
  matrix.column_stride = 1;
  matrix.channel_stride = b[1];
  return MakeProduct(request, rows, matrix);
}

}  // namespace crease
