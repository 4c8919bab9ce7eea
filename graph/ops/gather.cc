// SPDX-License-Identifier: Apache-2.0
// Gather, GatherElements, GatherND: elements picked by indices; negative indices count from the end.
#include <algorithm>
#include <cstring>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<int64_t> CheckedIndex(int64_t index, int64_t size) {
  if (index < -size || index >= size) {
    return InvalidModel("index must be in [", -size, ", ", size - 1, "], it is ", index);
  }
  return index < 0 ? index + size : index;
}

Result<void> CheckConstantIndices(const InferContext& context, const Dim& length) {
  const Tensor* indices = context.constant(1);
  if (!indices || !length.known()) return {};
  for (int64_t i = 0; i < indices->size(); ++i) {
    CREASE_RETURN_IF_ERROR(CheckedIndex(indices->AsInt64(i), length.value));
  }
  return {};
}

Result<void> InferGather(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireIndex(context, 1));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  const TensorType &data = context.input(0), &indices = context.input(1);
  SetOutput(context, 0, TensorType{data.dtype, false, {}});
  if (!data.has_rank) return {};
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, data.rank(), 0));
  CREASE_RETURN_IF_ERROR(CheckConstantIndices(context, data.dims[static_cast<size_t>(axis)]));
  if (!indices.has_rank) return {};
  std::vector<Dim> dims(data.dims.begin(), data.dims.begin() + axis);
  dims.insert(dims.end(), indices.dims.begin(), indices.dims.end());
  dims.insert(dims.end(), data.dims.begin() + axis + 1, data.dims.end());
  if (dims.size() > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", dims.size());
  SetOutput(context, 0, TypeOf(data.dtype, std::move(dims)));
  return {};
}

Result<std::vector<Tensor>> EvalGather(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGather, context));
  const Tensor &data = context.input(0), &indices = context.input(1);
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, data.rank(), 0));
  const auto along = static_cast<size_t>(axis);
  const int64_t outer = Product(data.shape(), 0, along);
  const auto row = static_cast<size_t>(Product(data.shape(), along + 1, data.shape().size())) * ByteSize(data.dtype());
  std::byte* dst = outputs[0].mutable_data<std::byte>();
  if (outputs[0].size() == 0) return outputs;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < indices.size(); ++i) {
      CREASE_ASSIGN_OR_RETURN(const int64_t index, CheckedIndex(indices.AsInt64(i), data.dim(axis)));
      std::memcpy(dst, data.bytes() + static_cast<size_t>(o * data.dim(axis) + index) * row, row);
      dst += row;
    }
  }
  return outputs;
}

Result<void> InferGatherElements(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireIndex(context, 1));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  const TensorType &data = context.input(0), &indices = context.input(1);
  if (data.has_rank) {
    CREASE_RETURN_IF_ERROR(RequireRank(context, 1, data.rank(), data.rank()));
    CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, data.rank(), 0));
    for (int i = 0; i < data.rank() && indices.has_rank; ++i) {
      const Dim &from = data.dims[static_cast<size_t>(i)], &to = indices.dims[static_cast<size_t>(i)];
      if (i != axis && from.known() && to.known() && to.value > from.value) {
        return InvalidModel("indices ", indices.ToString(), " must not exceed data ", data.ToString(), " on axis ", i);
      }
    }
  }
  SetOutput(context, 0, WithDType(indices, data.dtype));
  return {};
}

Result<std::vector<Tensor>> EvalGatherElements(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGatherElements, context));
  const Tensor &data = context.input(0), &indices = context.input(1);
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, data.rank(), 0));
  std::vector<int64_t> strides = RowMajorStrides(data.shape());
  const int64_t step = strides[static_cast<size_t>(axis)];
  strides[static_cast<size_t>(axis)] = 0;
  const size_t bytes = ByteSize(data.dtype());
  std::byte* dst = outputs[0].mutable_data<std::byte>();
  for (int64_t i = 0; i < indices.size(); ++i) {
    CREASE_RETURN_IF_ERROR(CheckedIndex(indices.AsInt64(i), data.dim(axis)));
  }
  ForEachIndex<2>(indices.shape(), {strides, RowMajorStrides(indices.shape())},
                  [&](const std::array<int64_t, 2>& offsets) {
                    const int64_t given = indices.AsInt64(offsets[1]);
                    const int64_t index = given < 0 ? given + data.dim(axis) : given;
                    std::memcpy(dst + static_cast<size_t>(offsets[1]) * bytes,
                                data.bytes() + static_cast<size_t>(offsets[0] + index * step) * bytes, bytes);
                  });
  return outputs;
}

Result<void> InferGatherND(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 1));
  const TensorType &data = context.input(0), &indices = context.input(1);
  CREASE_ASSIGN_OR_RETURN(const int64_t batch, AttrInt(context.node, "batch_dims", 0));
  SetOutput(context, 0, TensorType{data.dtype, false, {}});
  if (!data.has_rank || !indices.has_rank || !indices.dims.back().known()) return {};
  const int64_t depth = indices.dims.back().value;
  if (batch < 0 || batch >= std::min(data.rank(), indices.rank()) || depth < 1 || depth > data.rank() - batch) {
    return InvalidModel("batch_dims ", batch, " and indices ", indices.ToString(), " do not fit data ",
                        data.ToString());
  }
  std::vector<Dim> dims(indices.dims.begin(), indices.dims.end() - 1);
  for (size_t i = 0; i < static_cast<size_t>(batch); ++i) {
    CREASE_ASSIGN_OR_RETURN(dims[i], MergeDims(data.dims[i], indices.dims[i], StrCat("batch dimensions ", i)));
  }
  dims.insert(dims.end(), data.dims.begin() + batch + depth, data.dims.end());
  if (dims.size() > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", dims.size());
  SetOutput(context, 0, TypeOf(data.dtype, std::move(dims)));
  return {};
}

Result<std::vector<Tensor>> EvalGatherND(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGatherND, context));
  const Tensor &data = context.input(0), &indices = context.input(1);
  CREASE_ASSIGN_OR_RETURN(const int64_t batch, AttrInt(context.node, "batch_dims", 0));
  const auto batched = static_cast<size_t>(batch);
  const int64_t depth = indices.shape().back();
  if (outputs[0].size() == 0) return outputs;
  const std::vector<int64_t> strides = RowMajorStrides(data.shape());
  const int64_t per_batch = Product(indices.shape(), batched, indices.shape().size() - 1);
  const int64_t row = strides[batched + static_cast<size_t>(depth) - 1];
  const auto row_bytes = static_cast<size_t>(row) * ByteSize(data.dtype());
  const int64_t batch_stride = Product(data.shape(), batched, data.shape().size());
  std::byte* dst = outputs[0].mutable_data<std::byte>();
  for (int64_t tuple = 0; tuple < indices.size() / depth; ++tuple) {
    int64_t offset = tuple / per_batch * batch_stride;
    for (int64_t i = 0; i < depth; ++i) {
      const size_t axis = batched + static_cast<size_t>(i);
      CREASE_ASSIGN_OR_RETURN(const int64_t index,
                              CheckedIndex(indices.AsInt64(tuple * depth + i), data.shape()[axis]));
      offset += index * strides[axis];
    }
    std::memcpy(dst, data.bytes() + static_cast<size_t>(offset) * ByteSize(data.dtype()), row_bytes);
    dst += row_bytes;
  }
  return outputs;
}

}  // namespace

const OpDef kGather = {"Gather", "", 7, 2, 2, 1, 1, InferGather, EvalGather};
const OpDef kGatherElements = {"GatherElements", "", 11, 2, 2, 1, 1, InferGatherElements, EvalGatherElements};
const OpDef kGatherND = {"GatherND", "", 11, 2, 2, 1, 1, InferGatherND, EvalGatherND};

}  // namespace crease::ops
