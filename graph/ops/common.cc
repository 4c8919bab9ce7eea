// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/common.h"

#include <algorithm>

namespace crease::ops {

Result<int> NormalizeAxis(int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) {
    return InvalidModel("axis must be in [", -rank, ", ", rank - 1, "] for rank ", rank, ", it is ", axis);
  }
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Result<std::vector<int>> NormalizeAxes(std::span<const int64_t> axes, int rank) {
  std::vector<int> result;
  for (int64_t axis : axes) {
    CREASE_ASSIGN_OR_RETURN(const int normal, NormalizeAxis(axis, rank));
    if (std::find(result.begin(), result.end(), normal) != result.end()) {
      return InvalidModel("axes must differ, axis ", axis, " is there twice");
    }
    result.push_back(normal);
  }
  return result;
}

Result<int> ParseAxis(const Node& node, int rank, int64_t fallback) {
  CREASE_ASSIGN_OR_RETURN(const int64_t axis, AttrInt(node, "axis", fallback));
  return NormalizeAxis(axis, rank);
}

Result<std::vector<int64_t>> IntVector(const Tensor& tensor, std::string_view what) {
  if (tensor.dtype() != DType::kInt64 && tensor.dtype() != DType::kInt32) {
    return InvalidModel(what, " must be int64 or int32, it is ", Name(tensor.dtype()));
  }
  if (tensor.rank() > 1) return InvalidModel(what, " must have rank 0 or 1, its shape is ", ToString(tensor.shape()));
  std::vector<int64_t> values(static_cast<size_t>(tensor.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = tensor.AsInt64(static_cast<int64_t>(i));
  return values;
}

Result<int64_t> IntScalar(const Tensor& tensor, std::string_view what) {
  CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, IntVector(tensor, what));
  if (values.size() != 1) return InvalidModel(what, " must be one element, it has ", values.size());
  return values[0];
}

Result<std::vector<Dim>> BroadcastDims(std::span<const std::vector<Dim>* const> operands) {
  size_t rank = 0;
  for (const auto* dims : operands) rank = std::max(rank, dims->size());
  std::vector<Dim> result(rank, Dim{1, ""});
  for (size_t axis = 0; axis < rank; ++axis) {
    Dim& merged = result[axis];
    for (const auto* dims : operands) {
      if (axis + dims->size() < rank) continue;
      const Dim& dim = (*dims)[axis + dims->size() - rank];
      if (dim.value == 1 || dim == merged) continue;
      if (merged.value == 1) {
        merged = dim;
      } else if (!dim.known() && !merged.known()) {
        merged = Dim{};  // one of them may be 1
      } else if (dim.known() && merged.known()) {
        return InvalidModel("shapes do not broadcast: dimension ", axis, " is both ", merged.value, " and ", dim.value);
      } else if (dim.known()) {
        merged = dim;  // the unknown one must be 1 or the same
      }
    }
  }
  return result;
}

Result<Shape> BroadcastShapes(std::span<const Shape> operands) {
  std::vector<std::vector<Dim>> dims;
  std::vector<const std::vector<Dim>*> pointers;
  for (const Shape& shape : operands) dims.push_back(DimsOf(shape));
  for (const auto& entry : dims) pointers.push_back(&entry);
  CREASE_ASSIGN_OR_RETURN(const std::vector<Dim> result, BroadcastDims(pointers));
  Shape shape;
  for (const Dim& dim : result) shape.push_back(dim.value);
  return shape;
}

std::vector<int64_t> RowMajorStrides(std::span<const int64_t> shape) {
  std::vector<int64_t> strides(shape.size());
  uint64_t step = 1;  // wraps where a dimension of 0 lets the others be as large as they like
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = static_cast<int64_t>(step);
    step *= static_cast<uint64_t>(std::max<int64_t>(shape[i], 1));
  }
  return strides;
}

std::vector<int64_t> BroadcastStrides(std::span<const int64_t> operand, std::span<const int64_t> result) {
  const std::vector<int64_t> dense = RowMajorStrides(operand);
  std::vector<int64_t> strides(result.size(), 0);
  const size_t skipped = result.size() - operand.size();
  for (size_t i = 0; i < operand.size(); ++i) {
    if (operand[i] != 1) strides[i + skipped] = dense[i];
  }
  return strides;
}

int64_t Product(std::span<const int64_t> shape, size_t begin, size_t end) {
  uint64_t product = 1;
  for (size_t i = begin; i < end; ++i) product *= static_cast<uint64_t>(shape[i]);
  return static_cast<int64_t>(product);
}

std::vector<Dim> DimsOf(std::span<const int64_t> shape) {
  std::vector<Dim> dims;
  for (int64_t dim : shape) dims.push_back(Dim{dim, ""});
  return dims;
}

namespace {

bool DTypeKnown(const InferContext& context, int input) {
  return context.has_input(input) && context.input(input).dtype != DType::kUndefined;
}

Error WrongDType(const InferContext& context, int input, std::string_view expected) {
  return InvalidModel("input ", input, " must be ", expected, ", it is ", Name(context.input(input).dtype));
}

}  // namespace

Result<void> RequireFloat(const InferContext& context, int input) {
  if (!DTypeKnown(context, input) || IsFloat(context.input(input).dtype)) return {};
  return WrongDType(context, input, "of a float type");
}

Result<void> RequireNumber(const InferContext& context, int input) {
  if (!DTypeKnown(context, input) || context.input(input).dtype != DType::kBool) return {};
  return WrongDType(context, input, "a number");
}

Result<void> RequireDType(const InferContext& context, int input, DType dtype) {
  if (!DTypeKnown(context, input) || context.input(input).dtype == dtype) return {};
  return WrongDType(context, input, Name(dtype));
}

Result<void> RequireIndex(const InferContext& context, int input) {
  if (!DTypeKnown(context, input)) return {};
  const DType dtype = context.input(input).dtype;
  if (dtype == DType::kInt32 || dtype == DType::kInt64) return {};
  return WrongDType(context, input, "int64 or int32");
}

Result<void> RequireSameDType(const InferContext& context, int first, int second) {
  if (!DTypeKnown(context, first) || !DTypeKnown(context, second)) return {};
  const DType a = context.input(first).dtype, b = context.input(second).dtype;
  if (a == b) return {};
  return InvalidModel("inputs ", first, " and ", second, " must have one dtype, they are ", Name(a), " and ", Name(b));
}

Result<void> RequireRank(const InferContext& context, int input, int min_rank, int max_rank) {
  if (!context.has_input(input) || !context.input(input).has_rank) return {};
  const int rank = context.input(input).rank();
  if (rank >= min_rank && rank <= max_rank) return {};
  const std::string expected = min_rank == max_rank ? StrCat(min_rank) : StrCat(min_rank, " to ", max_rank);
  return InvalidModel("input ", input, " must have rank ", expected, ", its type is ", context.input(input).ToString());
}

TensorType WithDType(const TensorType& type, DType dtype) {
  TensorType result = type;
  result.dtype = dtype;
  return result;
}

TensorType TypeOf(DType dtype, std::vector<Dim> dims) {
  TensorType result;
  result.dtype = dtype;
  result.has_rank = true;
  result.dims = std::move(dims);
  return result;
}

void SetOutput(InferContext& context, int i, TensorType type) {
  if (i < context.output_count()) context.output(i) = std::move(type);
}

bool ReadsTypeAlone(const Node& node, size_t input) {
  return node.domain.empty() && node.op_type == "CastLike" && input == 1;
}

bool ReadsElements(const Node& node, size_t input) {
  const bool shape_alone = node.domain.empty() && (node.op_type == "Shape" || node.op_type == "Size") && input == 0;
  return !shape_alone && !ReadsTypeAlone(node, input);
}

Result<Dim> MergeDims(const Dim& a, const Dim& b, std::string_view what) {
  if (a.known() && b.known() && a.value != b.value) {
    return InvalidModel(what, " must be equal, they are ", a.value, " and ", b.value);
  }
  if (a.known()) return a;
  if (b.known()) return b;
  return a.symbol.empty() ? b : a;
}

}  // namespace crease::ops
