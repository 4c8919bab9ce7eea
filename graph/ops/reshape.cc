// SPDX-License-Identifier: Apache-2.0
// Other shape, same elements in the same order: Reshape, Flatten, Squeeze, Unsqueeze.
#include <algorithm>
#include <optional>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

// Elements of dims[begin, end), an unknown dimension where one is unknown. A single unknown dimension
// among ones stays itself. Errors: overflow.
Result<Dim> ProductOf(std::span<const Dim> dims) {
  Dim product{1, ""};
  bool unknown = false;
  for (const Dim& dim : dims) {
    if (dim.value == 0) return Dim{0, ""};
    if (dim.value == 1 || unknown) continue;
    if (product.value == 1 && !unknown) {
      product = dim;
    } else if (!dim.known() || !product.known()) {
      product = Dim{};
      unknown = true;
    } else if (!CheckedMul(product.value, dim.value, &product.value)) {
      return Error{ErrorCode::kLimitExceeded, "the shape has more than 2^63 elements", ""};
    }
  }
  return product;
}

// The target of Reshape: 0 copied from the input, -1 kept; unknown dimensions where only their symbol
// is known. Fails on what is wrong whatever the input is.
Result<std::vector<Dim>> ReshapeTarget(const InferContext& context, const Tensor& target) {
  CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, IntVector(target, "input shape"));
  CREASE_ASSIGN_OR_RETURN(const int64_t allow_zero, AttrInt(context.node, "allowzero", 0));
  const TensorType& input = context.input(0);
  if (values.size() > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", values.size());
  std::vector<Dim> dims;
  bool has_inferred = false, has_zero = false;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < -1) return InvalidModel("the new shape must hold no value below -1, it is ", ToString(values));
    if (values[i] == -1 && std::exchange(has_inferred, true)) {
      return InvalidModel("the new shape may have one -1, it is ", ToString(values));
    }
    has_zero = has_zero || values[i] == 0;
    if (values[i] == 0 && allow_zero == 0) {
      if (input.has_rank && i >= input.dims.size()) {
        return InvalidModel("0 at axis ", i, " of the new shape ", ToString(values),
                            " copies a dimension that the input ", input.ToString(), " does not have");
      }
      dims.push_back(input.has_rank ? input.dims[i] : Dim{});
    } else {
      dims.push_back(Dim{values[i], ""});
    }
  }
  if (has_inferred && has_zero && allow_zero != 0) {
    return InvalidModel("with allowzero the new shape may not have both 0 and -1, it is ", ToString(values));
  }
  return dims;
}

struct Split {
  int64_t known = 1;                 // product of the known dimensions
  std::vector<std::string> symbols;  // of the unknown ones
  bool nameless = false;             // one of those has no symbol
};
Result<Split> SplitDims(std::span<const Dim> dims, size_t skipped) {
  Split split;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i == skipped) continue;
    if (!dims[i].known()) {
      split.symbols.push_back(dims[i].symbol);
      split.nameless = split.nameless || dims[i].symbol.empty();
    } else if (!CheckedMul(split.known, dims[i].value, &split.known)) {
      return Error{ErrorCode::kLimitExceeded, "the shape has more than 2^63 elements", ""};
    }
  }
  std::sort(split.symbols.begin(), split.symbols.end());
  return split;
}

// The dimension at `hole` that makes the target have as many elements as the input; unknown if it
// cannot be told. Equal symbols on both sides cancel.
Result<Dim> FillHole(const TensorType& input, const std::vector<Dim>& target, size_t hole, bool may_be_unknown) {
  if (!input.has_rank) return Dim{};
  CREASE_ASSIGN_OR_RETURN(Split have, SplitDims(input.dims, input.dims.size()));
  CREASE_ASSIGN_OR_RETURN(const Split want, SplitDims(target, hole));
  const Dim fallback = may_be_unknown ? target[hole] : Dim{};
  if (have.nameless || want.nameless) {
    // (?, 64, 1, 1) to (0, -1): the unknown one stands at the same place on both sides.
    const bool copied = !input.dims.empty() && !input.dims[0].known() && !target[0].known() && hole != 0 &&
                        have.symbols.size() == 1 && want.symbols.size() == 1 && have.symbols == want.symbols;
    if (!copied || input.dims[0].symbol != target[0].symbol) return fallback;
  }
  for (const std::string& symbol : want.symbols) {
    const auto found = std::find(have.symbols.begin(), have.symbols.end(), symbol);
    if (found == have.symbols.end()) return fallback;
    have.symbols.erase(found);
  }
  if (want.known == 0 || have.known % want.known != 0) {
    if (!have.symbols.empty() || want.known == 0) return fallback;
    return InvalidModel("input ", input.ToString(), " does not divide into the new shape: ", have.known,
                        " elements by ", want.known);
  }
  const int64_t quotient = have.known / want.known;
  if (have.symbols.empty()) return Dim{quotient, ""};
  if (have.symbols.size() == 1 && quotient == 1) return Dim{Dim::kUnknown, have.symbols[0]};
  return fallback;
}

Result<void> CheckCounts(const TensorType& input, const TensorType& output) {
  if (!input.is_static() || !output.is_static()) return {};
  CREASE_ASSIGN_OR_RETURN(const int64_t from, ElementCount(input.shape()));
  CREASE_ASSIGN_OR_RETURN(const int64_t to, ElementCount(output.shape()));
  if (from == to) return {};
  return InvalidModel("input ", input.ToString(), " has ", from, " elements, the new shape ", ToString(output.shape()),
                      " has ", to);
}

Result<void> InferReshape(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 1, 1, 1));
  const TensorType& input = context.input(0);
  TensorType type;
  type.dtype = input.dtype;
  if (const Tensor* target = context.constant(1)) {
    CREASE_ASSIGN_OR_RETURN(std::vector<Dim> dims, ReshapeTarget(context, *target));
    for (size_t i = 0; i < dims.size(); ++i) {
      if (target->AsInt64(static_cast<int64_t>(i)) != -1) continue;
      dims[i] = Dim{};
      CREASE_ASSIGN_OR_RETURN(dims[i], FillHole(input, dims, i, false));
    }
    type = TypeOf(input.dtype, std::move(dims));
  } else if (const std::vector<Dim>* partial = context.shape_value(1)) {
    std::vector<Dim> dims = *partial;
    CREASE_ASSIGN_OR_RETURN(const int64_t allow_zero, AttrInt(context.node, "allowzero", 0));
    for (size_t i = 0; i < dims.size() && allow_zero == 0; ++i) {
      if (dims[i].value == 0) dims[i] = input.has_rank && i < input.dims.size() ? input.dims[i] : Dim{};
    }
    const auto unknown = [](const Dim& dim) { return !dim.known() && dim.symbol.empty(); };
    if (std::count_if(dims.begin(), dims.end(), unknown) == 1) {
      const auto hole = static_cast<size_t>(std::find_if(dims.begin(), dims.end(), unknown) - dims.begin());
      CREASE_ASSIGN_OR_RETURN(dims[hole], FillHole(input, dims, hole, true));
    }
    type = TypeOf(input.dtype, std::move(dims));
  } else if (context.input(1).is_static() && context.input(1).dims[0].value <= kMaxRank) {
    type = TensorType::OfRank(input.dtype, static_cast<int>(context.input(1).dims[0].value));
  }
  CREASE_RETURN_IF_ERROR(CheckCounts(input, type));
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<void> InferFlatten(InferContext& context) {
  const TensorType& input = context.input(0);
  TensorType type = TensorType::OfRank(input.dtype, 2);
  if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(int64_t axis, AttrInt(context.node, "axis", 1));
    const int rank = input.rank();
    if (axis < -rank || axis > rank) {
      return InvalidModel("axis must be in [", -rank, ", ", rank, "], it is ", axis);
    }
    if (axis < 0) axis += rank;
    const std::span<const Dim> dims = input.dims;
    CREASE_ASSIGN_OR_RETURN(type.dims[0], ProductOf(dims.first(static_cast<size_t>(axis))));
    CREASE_ASSIGN_OR_RETURN(type.dims[1], ProductOf(dims.subspan(static_cast<size_t>(axis))));
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

// The axes of Squeeze and Unsqueeze: an attribute before opset 13, input 1 from then on. `known` is
// false where that input is not.
struct AxesOption {
  bool known = true;
  std::optional<std::vector<int64_t>> axes;
};
Result<AxesOption> ReadAxes(const InferContext& context) {
  AxesOption option;
  if (context.opset < 13) {
    if (context.input_count() > 1) {
      return InvalidModel("expected 1 input before opset 13, found ", context.input_count());
    }
    if (!HasAttr(context.node, "axes")) return option;
    CREASE_ASSIGN_OR_RETURN(option.axes, AttrInts(context.node, "axes", {}));
    return option;
  }
  CREASE_RETURN_IF_ERROR(RequireIndex(context, 1));
  if (!context.has_input(1)) return option;
  option.known = context.constant(1) != nullptr;
  if (option.known) {
    CREASE_ASSIGN_OR_RETURN(option.axes, IntVector(*context.constant(1), "input axes"));
  }
  return option;
}

Result<void> InferSqueeze(InferContext& context) {
  const TensorType& input = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const AxesOption option, ReadAxes(context));
  SetOutput(context, 0, TensorType{input.dtype, false, {}});
  if (!input.has_rank || !option.known) return {};
  std::vector<bool> removed(input.dims.size(), false);
  if (option.axes) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int> axes, NormalizeAxes(*option.axes, input.rank()));
    for (int axis : axes) {
      const Dim& dim = input.dims[static_cast<size_t>(axis)];
      if (dim.known() && dim.value != 1) {
        return InvalidModel("axis ", axis, " must be 1 to be squeezed, it is ", dim.value, " in ", input.ToString());
      }
      removed[static_cast<size_t>(axis)] = true;
    }
  } else {
    for (size_t i = 0; i < removed.size(); ++i) {
      if (!input.dims[i].known()) return {};
      removed[i] = input.dims[i].value == 1;
    }
  }
  std::vector<Dim> dims;
  for (size_t i = 0; i < removed.size(); ++i) {
    if (!removed[i]) dims.push_back(input.dims[i]);
  }
  SetOutput(context, 0, TypeOf(input.dtype, std::move(dims)));
  return {};
}

Result<void> InferUnsqueeze(InferContext& context) {
  const TensorType& input = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const AxesOption option, ReadAxes(context));
  SetOutput(context, 0, TensorType{input.dtype, false, {}});
  if (option.known && !option.axes) return InvalidModel("axes are missing");
  if (!input.has_rank || !option.known) return {};
  const size_t rank = input.dims.size() + option.axes->size();
  if (rank > kMaxRank) return InvalidModel("expected at most rank ", kMaxRank, ", found ", rank);
  CREASE_ASSIGN_OR_RETURN(const std::vector<int> axes, NormalizeAxes(*option.axes, static_cast<int>(rank)));
  std::vector<Dim> dims(rank);
  for (int axis : axes) dims[static_cast<size_t>(axis)].value = 1;
  size_t next = 0;
  for (size_t i = 0; i < rank; ++i) {
    if (std::find(axes.begin(), axes.end(), static_cast<int>(i)) == axes.end()) dims[i] = input.dims[next++];
  }
  SetOutput(context, 0, TypeOf(input.dtype, std::move(dims)));
  return {};
}

template <InferFunction kInfer>
Result<std::vector<Tensor>> EvalReshape(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> outputs, AllocateOutputs(kInfer, context));
  return One(context.input(0).Reshaped(outputs[0].shape()));
}

}  // namespace

const OpDef kReshape = {"Reshape", "", 7, 2, 2, 1, 1, InferReshape, EvalReshape<InferReshape>};
const OpDef kFlatten = {"Flatten", "", 7, 1, 1, 1, 1, InferFlatten, EvalReshape<InferFlatten>};
const OpDef kSqueeze = {"Squeeze", "", 7, 1, 2, 1, 1, InferSqueeze, EvalReshape<InferSqueeze>};
const OpDef kUnsqueeze = {"Unsqueeze", "", 7, 1, 2, 1, 1, InferUnsqueeze, EvalReshape<InferUnsqueeze>};

}  // namespace crease::ops
