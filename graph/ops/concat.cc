// SPDX-License-Identifier: Apache-2.0
// Concat and Split.
#include <algorithm>
#include <optional>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferConcat(InferContext& context) {
  if (!HasAttr(context.node, "axis")) return InvalidModel("attribute 'axis' is missing");
  TensorType type = context.input(0);
  for (int i = 0; i < context.input_count(); ++i) {
    CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
    if (!type.has_rank) type = WithDType(context.input(i), type.dtype);
  }
  SetOutput(context, 0, type);
  if (!type.has_rank) return {};
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, type.rank(), 0));
  const auto along = static_cast<size_t>(axis);
  Dim total{0, ""};
  for (int i = 0; i < context.input_count(); ++i) {
    const TensorType& input = context.input(i);
    CREASE_RETURN_IF_ERROR(RequireRank(context, i, type.rank(), type.rank()));
    for (size_t d = 0; d < type.dims.size() && input.has_rank; ++d) {
      if (d == along) continue;
      CREASE_ASSIGN_OR_RETURN(type.dims[d],
                              MergeDims(type.dims[d], input.dims[d], StrCat("dimensions ", d, " of inputs 0 and ", i)));
    }
    if (!input.has_rank || !input.dims[along].known()) {
      total = Dim{};
    } else if (total.known() && !CheckedAdd(total.value, input.dims[along].value, &total.value)) {
      return Error{ErrorCode::kLimitExceeded, "the output has more than 2^63 elements", ""};
    }
  }
  type.dims[along] = context.input_count() == 1 ? type.dims[along] : total;
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalConcat(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferConcat, context));
  Tensor& dst = outputs[0];
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, dst.rank(), 0));
  const std::vector<int64_t> strides = RowMajorStrides(dst.shape());
  const size_t bytes = ByteSize(dst.dtype());
  std::byte* position = dst.mutable_data<std::byte>();
  for (const Tensor* src : context.inputs) {
    CopyStrided(src->bytes(), RowMajorStrides(src->shape()), position, strides, src->shape(), bytes);
    position += static_cast<size_t>(src->dim(axis) * strides[static_cast<size_t>(axis)]) * bytes;
  }
  return outputs;
}

// Sizes that the file gives: an attribute before opset 13, input 1 from then on. `known` is false where
// that input is not.
struct SplitSizes {
  bool known = true;
  std::optional<std::vector<int64_t>> sizes;
};
Result<SplitSizes> ReadSizes(const InferContext& context) {
  SplitSizes result;
  if (context.opset < 13) {
    if (context.input_count() > 1) {
      return InvalidModel("expected 1 input before opset 13, found ", context.input_count());
    }
    if (!HasAttr(context.node, "split")) return result;
    CREASE_ASSIGN_OR_RETURN(result.sizes, AttrInts(context.node, "split", {}));
    return result;
  }
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  if (!context.has_input(1)) return result;
  result.known = context.constant(1) != nullptr;
  if (result.known) {
    CREASE_ASSIGN_OR_RETURN(result.sizes, IntVector(*context.constant(1), "input split"));
  }
  return result;
}

Result<void> CheckSizes(const std::vector<int64_t>& sizes, int outputs, const Dim& length) {
  if (sizes.size() != static_cast<size_t>(outputs)) {
    return InvalidModel("split must have one size for each of the ", outputs, " outputs, it is ", ToString(sizes));
  }
  int64_t total = 0;
  for (int64_t size : sizes) {
    if (size < 0 || !CheckedAdd(total, size, &total)) {
      return InvalidModel("split must hold sizes of 0 or more, it is ", ToString(sizes));
    }
  }
  if (length.known() && total != length.value) {
    return InvalidModel("split sizes must add up to ", length.value, ", they are ", ToString(sizes), " = ", total);
  }
  return {};
}

// Equal parts; from opset 18 on the last may be smaller.
Result<std::vector<int64_t>> EqualSizes(const InferContext& context, int64_t length) {
  const int64_t count = context.output_count();
  if (context.opset >= 18) {
    CREASE_ASSIGN_OR_RETURN(const int64_t asked, AttrInt(context.node, "num_outputs", count));
    if (asked != count) return InvalidModel("num_outputs is ", asked, ", the node has ", count, " outputs");
  } else if (length % count != 0) {
    return InvalidModel("the axis of ", length, " must divide into ", count, " equal outputs");
  }
  const int64_t part = CeilDiv(length, count);
  std::vector<int64_t> sizes(static_cast<size_t>(count), part);
  int64_t left = length;
  for (int64_t& size : sizes) {
    size = std::min(part, left);
    left -= size;
  }
  return sizes;
}

Result<void> InferSplit(InferContext& context) {
  const TensorType& input = context.input(0);
  for (int i = 0; i < context.output_count(); ++i) SetOutput(context, i, TensorType{input.dtype, false, {}});
  CREASE_ASSIGN_OR_RETURN(SplitSizes split, ReadSizes(context));
  if (!input.has_rank) return {};
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, input.rank(), 0));
  const Dim& length = input.dims[static_cast<size_t>(axis)];
  if (split.sizes) {
    CREASE_RETURN_IF_ERROR(CheckSizes(*split.sizes, context.output_count(), length));
  } else if (split.known && length.known()) {
    CREASE_ASSIGN_OR_RETURN(split.sizes, EqualSizes(context, length.value));
  }
  for (int i = 0; i < context.output_count(); ++i) {
    TensorType type = input;
    type.dims[static_cast<size_t>(axis)] = split.sizes ? Dim{(*split.sizes)[static_cast<size_t>(i)], ""} : Dim{};
    SetOutput(context, i, std::move(type));
  }
  return {};
}

Result<std::vector<Tensor>> EvalSplit(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferSplit, context));
  const Tensor& src = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, src.rank(), 0));
  const std::vector<int64_t> strides = RowMajorStrides(src.shape());
  int64_t offset = 0;
  for (Tensor& dst : outputs) {
    GatherStrided(src, offset, strides, dst);
    offset += dst.dim(axis) * strides[static_cast<size_t>(axis)];
  }
  return outputs;
}

}  // namespace

const OpDef kConcat = {"Concat", "", 7, 1, -1, 1, 1, InferConcat, EvalConcat};
const OpDef kSplit = {"Split", "", 7, 1, 2, 1, -1, InferSplit, EvalSplit};

}  // namespace crease::ops
