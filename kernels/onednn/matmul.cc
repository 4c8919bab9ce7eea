// SPDX-License-Identifier: Apache-2.0
// Gemm and MatMul on oneDNN: f32, plain. A constant second matrix is packed.
#include "graph/ops/gemm.h"
#include "kernels/kernels.h"
#include "kernels/onednn/primitive.h"

namespace crease {
namespace {

using onednn::KernelBuilder;
using From = onednn::PrimitiveKernel::Source::From;
using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;
constexpr auto kF32 = dnnl::memory::data_type::f32;

struct Product {
  Desc a, b, bias, dst;  // b as the model has it
  const Tensor* bias_tensor = nullptr;
};

Result<std::unique_ptr<Kernel>> Make(const KernelRequest& request, const Product& product) {
  CREASE_ASSIGN_OR_RETURN(const onednn::PostOps post_ops, onednn::MakePostOps(request));
  const onednn::BlockedFor blocked(request.workers);
  const Tensor* constant = request.src[1].constant;
  const Desc b = constant ? Desc(product.b.get_dims(), kF32, dnnl::memory::format_tag::any) : product.b;
  const dnnl::matmul::primitive_desc desc(onednn::CpuEngine(), product.a, b, product.bias, product.dst,
                                          post_ops.attributes);
  CREASE_ASSIGN_OR_RETURN(std::string name, onednn::Implementation(desc));
  KernelBuilder builder;
  builder.Add(DNNL_ARG_SRC, product.a, From::kSrc, 0);
  if (constant) {
    CREASE_ASSIGN_OR_RETURN(std::shared_ptr<const void> packed,
                            onednn::PackWeights(request, *constant, product.b, desc.weights_desc()));
    builder.AddOwned(DNNL_ARG_WEIGHTS, desc.weights_desc(), std::move(packed));
  } else {
    builder.Add(DNNL_ARG_WEIGHTS, product.b, From::kSrc, 1);
  }
  if (product.bias_tensor) builder.AddOwned(DNNL_ARG_BIAS, product.bias, onednn::CopyFloats(*product.bias_tensor));
  builder.Add(DNNL_ARG_DST, product.dst, From::kDst);
  if (post_ops.residual_argument != 0) {
    builder.Add(post_ops.residual_argument, onednn::DescOf(request.src.back()), From::kResidual);
  }
  builder.Add(DNNL_ARG_SCRATCHPAD, desc.scratchpad_desc(), From::kScratch);
  return std::move(builder).Build(std::move(name), dnnl::matmul(desc));
}

Result<void> CheckOperands(const KernelRequest& request) {
  if (request.prologue.scale) return Refuse("a prologue");
  for (size_t i = 0; i < 2; ++i) {
    if (request.src[i].dtype != DType::kFloat32)
      return Refuse(std::string("element type ") + Name(request.src[i].dtype));
    if (request.src[i].layout != Layout::kPlain) return Refuse("layout");
  }
  return request.src[0].constant ? Result<void>(Refuse("constant first matrix")) : Result<void>();
}

Result<std::unique_ptr<Kernel>> MakeGemmProduct(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  CREASE_ASSIGN_OR_RETURN(const ops::GemmAttributes attributes, ops::ParseGemm(request.node));
  if (attributes.alpha != 1) return Refuse("alpha is not 1");
  const bool has_bias = request.node.inputs.size() > 2 && request.src[2].present;
  const Shape* c = has_bias ? &request.src[2].shape : nullptr;
  CREASE_ASSIGN_OR_RETURN(const ops::GemmShape shape,
                          ops::ResolveGemm(attributes, request.src[0].shape, request.src[1].shape, c));
  Product product;
  product.a = Desc({shape.m, shape.k}, kF32, attributes.trans_a ? Dims{1, shape.m} : Dims{shape.k, 1});
  product.b = Desc({shape.k, shape.n}, kF32, attributes.trans_b ? Dims{1, shape.k} : Dims{shape.n, 1});
  product.dst = Desc({shape.m, shape.n}, kF32, Dims{shape.n, 1});
  if (has_bias) {
    const Tensor* bias = request.src[2].constant;
    if (!bias || attributes.beta != 1 || bias->size() != shape.n || c->back() != shape.n) {
      return Refuse("bias is not a constant row");
    }
    product.bias = Desc({1, shape.n}, kF32, Dims{shape.n, 1});
    product.bias_tensor = bias;
  }
  return Make(request, product);
}

// Ranks of 2 and more on both sides; oneDNN broadcasts leading dimensions of 1.
Result<std::unique_ptr<Kernel>> MakeMatMulProduct(const KernelRequest& request) {
  CREASE_RETURN_IF_ERROR(CheckOperands(request));
  const size_t rank = std::max(request.src[0].shape.size(), request.src[1].shape.size());
  if (std::min(request.src[0].shape.size(), request.src[1].shape.size()) < 2) return Refuse("a vector operand");
  const auto with_rank = [&](Operand operand) {
    operand.shape.insert(operand.shape.begin(), rank - operand.shape.size(), 1);
    return onednn::DescOf(operand);
  };
  Product product;
  product.a = with_rank(request.src[0]);
  product.b = with_rank(request.src[1]);
  product.dst = with_rank(request.dst[0]);
  return Make(request, product);
}

}  // namespace

KernelResult MakeOneDnnGemm(const KernelRequest& request) {
  return onednn::Guarded([&] { return MakeGemmProduct(request); });
}

KernelResult MakeOneDnnMatMul(const KernelRequest& request) {
  return onednn::Guarded([&] { return MakeMatMulProduct(request); });
}

}  // namespace crease
