// SPDX-License-Identifier: Apache-2.0
// Expand and Tile: the same elements several times.
#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> CheckTarget(const std::vector<int64_t>& target) {
  if (target.size() > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", target.size());
  return ElementCount(target).ok() ? Result<void>() : Result<void>(ElementCount(target).error());
}

Result<void> InferExpand(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 1, 1));
  const TensorType& input = context.input(0);
  SetOutput(context, 0, TensorType{input.dtype, false, {}});
  std::vector<Dim> target;
  if (const Tensor* shape = context.constant(1)) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, IntVector(*shape, "input shape"));
    CREASE_RETURN_IF_ERROR(CheckTarget(values));
    target = DimsOf(values);
  } else if (const std::vector<Dim>* partial = context.shape_value(1)) {
    target = *partial;
  } else {
    return {};
  }
  if (!input.has_rank) return {};
  const std::vector<const std::vector<Dim>*> operands = {&input.dims, &target};
  CREASE_ASSIGN_OR_RETURN(std::vector<Dim> dims, BroadcastDims(operands));
  SetOutput(context, 0, TypeOf(input.dtype, std::move(dims)));
  if (context.output(0).is_static()) CREASE_RETURN_IF_ERROR(ElementCount(context.output(0).shape()));
  return {};
}

Result<std::vector<Tensor>> EvalExpand(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferExpand, context));
  GatherStrided(context.input(0), 0, BroadcastStrides(context.input(0).shape(), outputs[0].shape()), outputs[0]);
  return outputs;
}

Result<void> InferTile(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 1, 1));
  const TensorType& input = context.input(0);
  TensorType type = input;
  const Tensor* repeats = context.constant(1);
  for (size_t i = 0; i < type.dims.size(); ++i) {
    Dim& dim = type.dims[i];
    if (!repeats) {
      dim = Dim{};
      continue;
    }
    if (repeats->size() != input.rank()) {
      return InvalidModel("repeats must have ", input.rank(), " elements, it has ", repeats->size());
    }
    const int64_t count = repeats->AsInt64(static_cast<int64_t>(i));
    if (count < 0) return InvalidModel("repeats must not be negative, at axis ", i, " it is ", count);
    if (count == 1) continue;
    if (!dim.known()) {
      dim = Dim{};
    } else if (!CheckedMul(dim.value, count, &dim.value)) {
      return Error{ErrorCode::kLimitExceeded, StrCat("axis ", i, " times ", count, " exceeds 2^63"), ""};
    }
  }
  SetOutput(context, 0, std::move(type));
  if (context.output(0).is_static()) CREASE_RETURN_IF_ERROR(ElementCount(context.output(0).shape()));
  return {};
}

// Seen as (repeat, dim) pairs of axes, where the repeats have stride 0.
Result<std::vector<Tensor>> EvalTile(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferTile, context));
  const Tensor& src = context.input(0);
  const std::vector<int64_t> src_dense = RowMajorStrides(src.shape());
  const std::vector<int64_t> dst_dense = RowMajorStrides(outputs[0].shape());
  Shape shape;
  std::vector<int64_t> src_strides, dst_strides;
  for (size_t i = 0; i < src.shape().size(); ++i) {
    shape.insert(shape.end(), {context.input(1).AsInt64(static_cast<int64_t>(i)), src.shape()[i]});
    src_strides.insert(src_strides.end(), {0, src_dense[i]});
    dst_strides.insert(dst_strides.end(), {dst_dense[i] * src.shape()[i], dst_dense[i]});
  }
  CopyStrided(src.bytes(), src_strides, outputs[0].mutable_data<std::byte>(), dst_strides, shape,
              ByteSize(src.dtype()));
  return outputs;
}

}  // namespace

const OpDef kExpand = {"Expand", "", 8, 2, 2, 1, 1, InferExpand, EvalExpand};
const OpDef kTile = {"Tile", "", 7, 2, 2, 1, 1, InferTile, EvalTile};

}  // namespace crease::ops
