// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/gemm.h"

#include <algorithm>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferGemm(InferContext& context) {
  for (int i = 0; i < 3; ++i) {
    CREASE_RETURN_IF_ERROR(RequireFloat(context, i));
    CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
  }
  if (context.opset < 11 && context.input_count() < 3) {
    return InvalidModel("expected 3 inputs before opset 11, found ", context.input_count());
  }
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 2, 2));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 2, 2));
  CREASE_ASSIGN_OR_RETURN(const GemmAttributes attributes, ParseGemm(context.node));
  const TensorType &a = context.input(0), &b = context.input(1);
  TensorType type = TensorType::OfRank(a.dtype, 2);
  if (a.has_rank) type.dims[0] = a.dims[attributes.trans_a ? 1 : 0];
  if (b.has_rank) type.dims[1] = b.dims[attributes.trans_b ? 0 : 1];
  if (a.has_rank && b.has_rank) {
    CREASE_RETURN_IF_ERROR(MergeDims(a.dims[attributes.trans_a ? 0 : 1], b.dims[attributes.trans_b ? 1 : 0],
                                     "the inner dimensions of A and B"));
  }
  const bool has_c = context.has_input(2);
  if (a.is_static() && b.is_static() && (!has_c || context.input(2).is_static())) {
    const Shape c = has_c ? context.input(2).shape() : Shape{};
    CREASE_RETURN_IF_ERROR(ResolveGemm(attributes, a.shape(), b.shape(), has_c ? &c : nullptr));
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalGemm(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGemm, context));
  CREASE_ASSIGN_OR_RETURN(const GemmAttributes attributes, ParseGemm(context.node));
  const Tensor &a = context.input(0), &b = context.input(1);
  CREASE_ASSIGN_OR_RETURN(const GemmShape shape, ResolveGemm(attributes, a.shape(), b.shape(), nullptr));
  double* y = outputs[0].mutable_data<double>();
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t k = 0; k < shape.k; ++k) {
      const double left = a.data<double>()[attributes.trans_a ? k * shape.m + i : i * shape.k + k];
      for (int64_t j = 0; j < shape.n; ++j) {
        y[i * shape.n + j] += left * b.data<double>()[attributes.trans_b ? j * shape.k + k : k * shape.n + j];
      }
    }
  }
  for (int64_t i = 0; i < outputs[0].size(); ++i) y[i] *= attributes.alpha;
  if (!context.has(2)) return outputs;
  const Tensor& c = context.input(2);
  int64_t i = 0;
  ForEachIndex<1>(
      outputs[0].shape(), {BroadcastStrides(c.shape(), outputs[0].shape())},
      [&](const std::array<int64_t, 1>& offsets) { y[i++] += attributes.beta * c.data<double>()[offsets[0]]; });
  return outputs;
}

// The batch axes of MatMul: all but the last two.
std::vector<Dim> BatchDims(const TensorType& type) {
  if (type.rank() <= 2) return {};
  return std::vector<Dim>(type.dims.begin(), type.dims.end() - 2);
}

Result<void> InferMatMul(InferContext& context) {
  for (int i = 0; i < 2; ++i) {
    CREASE_RETURN_IF_ERROR(RequireNumber(context, i));
    CREASE_RETURN_IF_ERROR(RequireRank(context, i, 1));
  }
  CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, 1));
  const TensorType &a = context.input(0), &b = context.input(1);
  SetOutput(context, 0, TensorType{a.dtype, false, {}});
  if (!a.has_rank || !b.has_rank) return {};
  const Dim& a_inner = a.dims.back();
  const Dim& b_inner = b.rank() == 1 ? b.dims[0] : b.dims[b.dims.size() - 2];
  CREASE_RETURN_IF_ERROR(MergeDims(a_inner, b_inner, "the inner dimensions of A and B"));
  const std::vector<Dim> a_batch = BatchDims(a), b_batch = BatchDims(b);
  const std::vector<const std::vector<Dim>*> operands = {&a_batch, &b_batch};
  CREASE_ASSIGN_OR_RETURN(std::vector<Dim> dims, BroadcastDims(operands));
  if (a.rank() > 1) dims.push_back(a.dims[a.dims.size() - 2]);
  if (b.rank() > 1) dims.push_back(b.dims.back());
  SetOutput(context, 0, TypeOf(a.dtype, std::move(dims)));
  return {};
}

template <typename T>
void Multiply(const T* a, const T* b, T* y, int64_t m, int64_t n, int64_t inner) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t k = 0; k < inner; ++k) {
      for (int64_t j = 0; j < n; ++j) {
        if constexpr (std::is_same_v<T, double>) {
          y[i * n + j] += a[i * inner + k] * b[k * n + j];
        } else {
          const uint64_t term = static_cast<uint64_t>(a[i * inner + k]) * static_cast<uint64_t>(b[k * n + j]);
          y[i * n + j] = static_cast<T>(static_cast<uint64_t>(y[i * n + j]) + term);
        }
      }
    }
  }
}

// A vector stands for a row as A and for a column as B.
Result<std::vector<Tensor>> EvalMatMul(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferMatMul, context));
  Shape a = context.input(0).shape(), b = context.input(1).shape();
  if (a.size() == 1) a.insert(a.begin(), 1);
  if (b.size() == 1) b.push_back(1);
  const int64_t m = a[a.size() - 2], inner = a.back(), n = b.back();
  const Shape a_batch(a.begin(), a.end() - 2), b_batch(b.begin(), b.end() - 2);
  const std::vector<Shape> batches = {a_batch, b_batch};
  CREASE_ASSIGN_OR_RETURN(const Shape batch, BroadcastShapes(batches));
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* y = outputs[0].mutable_data<T>();
    ForEachIndex<2>(batch, {BroadcastStrides(a_batch, batch), BroadcastStrides(b_batch, batch)},
                    [&](const std::array<int64_t, 2>& offsets) {
                      Multiply(context.input(0).data<T>() + offsets[0] * m * inner,
                               context.input(1).data<T>() + offsets[1] * inner * n, y, m, n, inner);
                      y += m * n;
                    });
  });
  return outputs;
}

}  // namespace

Result<GemmAttributes> ParseGemm(const Node& node) {
  GemmAttributes attributes;
  CREASE_ASSIGN_OR_RETURN(attributes.alpha, AttrFloat(node, "alpha", 1));
  CREASE_ASSIGN_OR_RETURN(attributes.beta, AttrFloat(node, "beta", 1));
  CREASE_ASSIGN_OR_RETURN(const int64_t trans_a, AttrInt(node, "transA", 0));
  CREASE_ASSIGN_OR_RETURN(const int64_t trans_b, AttrInt(node, "transB", 0));
  attributes.trans_a = trans_a != 0;
  attributes.trans_b = trans_b != 0;
  return attributes;
}

Result<GemmShape> ResolveGemm(const GemmAttributes& attributes, const Shape& a, const Shape& b, const Shape* c) {
  if (a.size() != 2 || b.size() != 2) {
    return InvalidModel("A and B must have rank 2, their shapes are ", ToString(a), " and ", ToString(b));
  }
  GemmShape shape;
  shape.m = a[attributes.trans_a ? 1 : 0];
  shape.k = a[attributes.trans_a ? 0 : 1];
  shape.n = b[attributes.trans_b ? 0 : 1];
  const int64_t other = b[attributes.trans_b ? 1 : 0];
  if (shape.k != other) {
    return InvalidModel("the inner dimensions of A and B must be equal, they are ", shape.k, " and ", other);
  }
  if (!c) return shape;
  const Shape y = {shape.m, shape.n};
  bool fits = c->size() <= 2;
  for (size_t i = 0; fits && i < c->size(); ++i) {
    const int64_t dim = (*c)[c->size() - 1 - i];
    fits = dim == 1 || dim == y[1 - i];
  }
  if (!fits) return InvalidModel("C must broadcast to ", ToString(y), ", its shape is ", ToString(*c));
  return shape;
}

const OpDef kGemm = {"Gemm", "", 7, 2, 3, 1, 1, InferGemm, EvalGemm};
const OpDef kMatMul = {"MatMul", "", 7, 2, 2, 1, 1, InferMatMul, EvalMatMul};

}  // namespace crease::ops
