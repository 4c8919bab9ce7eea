// SPDX-License-Identifier: Apache-2.0
// ArgMax, ArgMin, TopK, CumSum: along one axis.
#include <algorithm>
#include <numeric>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

// A tensor as (outer, length, inner) around an axis.
struct AxisView {
  int64_t outer = 1, length = 1, inner = 1;
};
AxisView ViewAround(const Shape& shape, int axis) {
  const auto along = static_cast<size_t>(axis);
  return {Product(shape, 0, along), shape[along], Product(shape, along + 1, shape.size())};
}

Result<void> InferArg(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  const TensorType& input = context.input(0);
  TensorType type = WithDType(input, DType::kInt64);
  CREASE_ASSIGN_OR_RETURN(const int64_t keepdims, AttrInt(context.node, "keepdims", 1));
  if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, input.rank(), 0));
    if (input.dims[static_cast<size_t>(axis)].value == 0) {
      return InvalidModel("axis ", axis, " must not be empty, the input is ", input.ToString());
    }
    type.dims[static_cast<size_t>(axis)] = Dim{1, ""};
    if (keepdims == 0) type.dims.erase(type.dims.begin() + axis);
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalArg(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferArg, context));
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, context.input(0).rank(), 0));
  CREASE_ASSIGN_OR_RETURN(const int64_t last, AttrInt(context.node, "select_last_index", 0));
  const AxisView view = ViewAround(context.input(0).shape(), axis);
  const bool max = context.node.op_type == "ArgMax";
  VisitNumber(context.input(0).dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = context.input(0).data<T>();
    int64_t* y = outputs[0].mutable_data<int64_t>();
    for (int64_t o = 0; o < view.outer; ++o) {
      for (int64_t i = 0; i < view.inner; ++i) {
        const T* vector = x + o * view.length * view.inner + i;
        int64_t best = 0;
        for (int64_t k = 1; k < view.length; ++k) {
          const T a = vector[k * view.inner], b = vector[best * view.inner];
          if ((max ? a > b : a < b) || (last != 0 && a == b)) best = k;
        }
        y[o * view.inner + i] = best;
      }
    }
  });
  return outputs;
}

// K: an attribute before opset 10, input 1 from then on.
Result<void> InferTopK(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  const TensorType& input = context.input(0);
  TensorType type = input;
  if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, input.rank(), -1));
    Dim& dim = type.dims[static_cast<size_t>(axis)];
    Dim count;
    if (context.opset < 10) {
      CREASE_ASSIGN_OR_RETURN(count.value, AttrInt(context.node, "k", -1));
    } else if (const Tensor* k = context.constant(1)) {
      CREASE_ASSIGN_OR_RETURN(count.value, IntScalar(*k, "input K"));
    }
    const bool given = context.opset < 10 || context.constant(1);
    if (given && (count.value < 0 || (dim.known() && count.value > dim.value))) {
      return InvalidModel("K must be in [0, the length of axis ", axis, "], it is ", count.value, " for ",
                          input.ToString());
    }
    dim = count;
  }
  SetOutput(context, 1, WithDType(type, DType::kInt64));
  SetOutput(context, 0, std::move(type));
  return {};
}

// A strict weak order with NaN above all numbers, as sorting needs one.
template <typename T>
bool Above(T a, T b) {
  return a > b || (a != a && b == b);
}

template <typename T>
void TopKVector(const T* x, int64_t length, int64_t step, bool largest, int64_t count, std::vector<int64_t>& order) {
  order.resize(static_cast<size_t>(length));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return largest ? Above(x[a * step], x[b * step]) : Above(x[b * step], x[a * step]);
  });
  order.resize(static_cast<size_t>(count));
}

Result<std::vector<Tensor>> EvalTopK(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferTopK, context));
  CREASE_ASSIGN_OR_RETURN(const int axis, ParseAxis(context.node, context.input(0).rank(), -1));
  CREASE_ASSIGN_OR_RETURN(const int64_t largest, AttrInt(context.node, "largest", 1));
  const AxisView view = ViewAround(context.input(0).shape(), axis);
  const int64_t count = outputs[0].dim(axis);
  VisitNumber(context.input(0).dtype(), [&](auto tag) {
    using T = decltype(tag);
    std::vector<int64_t> order;
    for (int64_t o = 0; o < view.outer; ++o) {
      for (int64_t i = 0; i < view.inner; ++i) {
        const T* x = context.input(0).data<T>() + o * view.length * view.inner + i;
        TopKVector(x, view.length, view.inner, largest != 0, count, order);
        for (int64_t k = 0; k < count; ++k) {
          const int64_t to = (o * count + k) * view.inner + i;
          outputs[0].mutable_data<T>()[to] = x[order[static_cast<size_t>(k)] * view.inner];
          if (outputs.size() > 1) outputs[1].mutable_data<int64_t>()[to] = order[static_cast<size_t>(k)];
        }
      }
    }
  });
  return outputs;
}

Result<void> InferCumSum(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 1));
  CREASE_RETURN_IF_ERROR(RequireIndex(context, 1));
  if (context.constant(1) && context.input(0).has_rank) {
    CREASE_ASSIGN_OR_RETURN(const int64_t axis, IntScalar(*context.constant(1), "input axis"));
    CREASE_RETURN_IF_ERROR(NormalizeAxis(axis, context.input(0).rank()));
  }
  SetOutput(context, 0, context.input(0));
  return {};
}

Result<std::vector<Tensor>> EvalCumSum(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferCumSum, context));
  CREASE_ASSIGN_OR_RETURN(const int64_t given, IntScalar(context.input(1), "input axis"));
  CREASE_ASSIGN_OR_RETURN(const int axis, NormalizeAxis(given, context.input(0).rank()));
  CREASE_ASSIGN_OR_RETURN(const int64_t exclusive, AttrInt(context.node, "exclusive", 0));
  CREASE_ASSIGN_OR_RETURN(const int64_t reverse, AttrInt(context.node, "reverse", 0));
  const AxisView view = ViewAround(context.input(0).shape(), axis);
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (int64_t vector = 0; vector < view.outer * view.inner; ++vector) {
      const int64_t first = vector / view.inner * view.length * view.inner + vector % view.inner;
      T total{0};
      for (int64_t k = 0; k < view.length; ++k) {
        const int64_t at = first + (reverse != 0 ? view.length - 1 - k : k) * view.inner;
        const T x = context.input(0).data<T>()[at];
        T next{0};
        if constexpr (std::is_same_v<T, double>) {
          next = total + x;
        } else {
          next = static_cast<T>(static_cast<uint64_t>(total) + static_cast<uint64_t>(x));
        }
        outputs[0].mutable_data<T>()[at] = exclusive != 0 ? total : next;
        total = next;
      }
    }
  });
  return outputs;
}

}  // namespace

const OpDef kArgMax = {"ArgMax", "", 7, 1, 1, 1, 1, InferArg, EvalArg};
const OpDef kArgMin = {"ArgMin", "", 7, 1, 1, 1, 1, InferArg, EvalArg};
const OpDef kTopK = {"TopK", "", 7, 1, 2, 1, 2, InferTopK, EvalTopK};
const OpDef kCumSum = {"CumSum", "", 11, 2, 2, 1, 1, InferCumSum, EvalCumSum};

}  // namespace crease::ops
