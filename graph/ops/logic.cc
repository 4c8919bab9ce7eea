// SPDX-License-Identifier: Apache-2.0
// Comparisons, boolean operators and Where.
#include "graph/ops/broadcast.h"
#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferBool(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(TensorType type, BroadcastType(context, 0));
  type.dtype = DType::kBool;
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<void> InferEqual(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, 1));
  return InferBool(context);
}

Result<void> InferOrder(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  return InferEqual(context);
}

Result<void> InferLogical(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 0, DType::kBool));
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kBool));
  return InferBool(context);
}

struct EqualTo {
  template <typename T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct GreaterThan {
  template <typename T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct GreaterOrEqualTo {
  template <typename T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct LessThan {
  template <typename T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessOrEqualTo {
  template <typename T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct BothTrue {
  bool operator()(uint8_t a, uint8_t b) const { return a != 0 && b != 0; }
};
struct AnyTrue {
  bool operator()(uint8_t a, uint8_t b) const { return a != 0 || b != 0; }
};
struct OneTrue {
  bool operator()(uint8_t a, uint8_t b) const { return (a != 0) != (b != 0); }
};

template <InferFunction kInfer, typename F>
Result<std::vector<Tensor>> EvalComparison(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(kInfer, context));
  VisitNumber(context.input(0).dtype(), [&](auto tag) {
    using T = decltype(tag);
    BroadcastInto<T, uint8_t>(context.input(0), context.input(1), outputs[0], F{});
  });
  return outputs;
}

template <typename F>
Result<std::vector<Tensor>> EvalLogical(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferLogical, context));
  BroadcastInto<uint8_t, uint8_t>(context.input(0), context.input(1), outputs[0], F{});
  return outputs;
}

Result<void> InferWhere(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 0, DType::kBool));
  CREASE_RETURN_IF_ERROR(RequireSameDType(context, 1, 2));
  CREASE_ASSIGN_OR_RETURN(TensorType type, BroadcastType(context, 0));
  type.dtype = context.input(1).dtype;
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalWhere(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferWhere, context));
  const Shape& shape = outputs[0].shape();
  const uint8_t* condition = context.input(0).data<uint8_t>();
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *yes = context.input(1).data<T>(), *no = context.input(2).data<T>();
    T* dst = outputs[0].mutable_data<T>();
    ForEachIndex<3>(
        shape,
        {BroadcastStrides(context.input(0).shape(), shape), BroadcastStrides(context.input(1).shape(), shape),
         BroadcastStrides(context.input(2).shape(), shape)},
        [&](const std::array<int64_t, 3>& offsets) {
          *dst++ = condition[offsets[0]] ? yes[offsets[1]] : no[offsets[2]];
        });
  });
  return outputs;
}

}  // namespace

const OpDef kEqual = {"Equal", "", 7, 2, 2, 1, 1, InferEqual, EvalComparison<InferEqual, EqualTo>};
const OpDef kGreater = {"Greater", "", 7, 2, 2, 1, 1, InferOrder, EvalComparison<InferOrder, GreaterThan>};
const OpDef kGreaterOrEqual = {
    "GreaterOrEqual", "", 12, 2, 2, 1, 1, InferOrder, EvalComparison<InferOrder, GreaterOrEqualTo>};
const OpDef kLess = {"Less", "", 7, 2, 2, 1, 1, InferOrder, EvalComparison<InferOrder, LessThan>};
const OpDef kLessOrEqual = {"LessOrEqual", "", 12, 2, 2, 1, 1, InferOrder, EvalComparison<InferOrder, LessOrEqualTo>};
const OpDef kAnd = {"And", "", 7, 2, 2, 1, 1, InferLogical, EvalLogical<BothTrue>};
const OpDef kOr = {"Or", "", 7, 2, 2, 1, 1, InferLogical, EvalLogical<AnyTrue>};
const OpDef kXor = {"Xor", "", 7, 2, 2, 1, 1, InferLogical, EvalLogical<OneTrue>};
const OpDef kWhere = {"Where", "", 9, 3, 3, 1, 1, InferWhere, EvalWhere};

}  // namespace crease::ops
