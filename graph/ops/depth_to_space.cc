// SPDX-License-Identifier: Apache-2.0
// DepthToSpace and SpaceToDepth: blocks of pixels to channels and back, as a strided copy of 6 axes.
#include <string>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

constexpr int64_t kMaxBlock = 1 << 20;  // its square must divide a channel count or fit an image

Result<int64_t> ReadBlock(const Node& node) {
  CREASE_ASSIGN_OR_RETURN(const int64_t block, AttrInt(node, "blocksize", 0));
  if (block < 1 || block > kMaxBlock) {
    return InvalidModel("attribute 'blocksize' must be in [1, ", kMaxBlock, "], it is ", block);
  }
  return block;
}

Result<bool> ColumnMajorChannels(const Node& node, int opset) {
  if (opset < 11) return false;
  CREASE_ASSIGN_OR_RETURN(const std::string mode, AttrString(node, "mode", "DCR"));
  if (mode != "DCR" && mode != "CRD") {
    return InvalidModel("attribute 'mode' must be DCR or CRD, it is '", Printable(mode), "'");
  }
  return mode == "CRD";
}

Result<Dim> Scaled(const Dim& dim, int64_t factor, bool up, const char* what) {
  if (!dim.known()) return factor == 1 ? dim : Dim{};
  Dim result;
  if (up && !CheckedMul(dim.value, factor, &result.value)) {
    return Error{ErrorCode::kLimitExceeded, StrCat(what, " ", dim.value, " times ", factor, " exceeds 2^63"), ""};
  }
  if (!up) {
    if (dim.value % factor != 0) return InvalidModel(what, " must be a multiple of ", factor, ", it is ", dim.value);
    result.value = dim.value / factor;
  }
  return result;
}

Result<void> InferBlocks(InferContext& context, bool to_space) {
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 4, 4));
  CREASE_ASSIGN_OR_RETURN(const int64_t block, ReadBlock(context.node));
  if (to_space) CREASE_RETURN_IF_ERROR(ColumnMajorChannels(context.node, context.opset));
  TensorType type = context.input(0);
  if (type.has_rank) {
    CREASE_ASSIGN_OR_RETURN(type.dims[1], Scaled(type.dims[1], block * block, !to_space, "the channel count"));
    CREASE_ASSIGN_OR_RETURN(type.dims[2], Scaled(type.dims[2], block, to_space, "the height"));
    CREASE_ASSIGN_OR_RETURN(type.dims[3], Scaled(type.dims[3], block, to_space, "the width"));
  }
  SetOutput(context, 0, std::move(type));
  return {};
}
Result<void> InferDepthToSpace(InferContext& context) { return InferBlocks(context, true); }
Result<void> InferSpaceToDepth(InferContext& context) { return InferBlocks(context, false); }

// Strides over (N, C, block row, block column, H, W) of the deep tensor (N, C * b * b, H, W); with
// `column_major` the channel is (C, row, column), else (row, column, C).
std::vector<int64_t> DeepStrides(const Shape& deep, int64_t block, bool column_major) {
  const int64_t plane = deep[2] * deep[3], channels = deep[1] / (block * block);
  const int64_t channel = column_major ? block * block * plane : plane;
  const int64_t column = column_major ? plane : channels * plane;
  return {deep[1] * plane, channel, column * block, column, deep[3], 1};
}

// The same over the wide tensor (N, C, H * b, W * b).
std::vector<int64_t> WideStrides(const Shape& wide, int64_t block) {
  const int64_t row = wide[3], plane = wide[2] * row;
  return {wide[1] * plane, plane, row, 1, row * block, block};
}

Result<std::vector<Tensor>> EvalDepthToSpace(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferDepthToSpace, context));
  CREASE_ASSIGN_OR_RETURN(const int64_t block, ReadBlock(context.node));
  CREASE_ASSIGN_OR_RETURN(const bool column_major, ColumnMajorChannels(context.node, context.opset));
  const Tensor& src = context.input(0);
  const Shape shape = {src.dim(0), outputs[0].dim(1), block, block, src.dim(2), src.dim(3)};
  CopyStrided(src.bytes(), DeepStrides(src.shape(), block, column_major), outputs[0].mutable_data<std::byte>(),
              WideStrides(outputs[0].shape(), block), shape, ByteSize(src.dtype()));
  return outputs;
}

Result<std::vector<Tensor>> EvalSpaceToDepth(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferSpaceToDepth, context));
  CREASE_ASSIGN_OR_RETURN(const int64_t block, ReadBlock(context.node));
  const Tensor& src = context.input(0);
  const Shape shape = {src.dim(0), src.dim(1), block, block, outputs[0].dim(2), outputs[0].dim(3)};
  CopyStrided(src.bytes(), WideStrides(src.shape(), block), outputs[0].mutable_data<std::byte>(),
              DeepStrides(outputs[0].shape(), block, false), shape, ByteSize(src.dtype()));
  return outputs;
}

}  // namespace

const OpDef kDepthToSpace = {"DepthToSpace", "", 7, 1, 1, 1, 1, InferDepthToSpace, EvalDepthToSpace};
const OpDef kSpaceToDepth = {"SpaceToDepth", "", 7, 1, 1, 1, 1, InferSpaceToDepth, EvalSpaceToDepth};

}  // namespace crease::ops
