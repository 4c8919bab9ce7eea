// SPDX-License-Identifier: Apache-2.0
// Arithmetic with broadcasting: Add, Sub, Mul, Div, Pow, Mod, PRelu, and the variadic Sum, Mean, Min, Max.
#include <cmath>
#include <limits>
#include <type_traits>

#include "graph/ops/broadcast.h"
#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferArithmetic(InferContext& context) {
  for (int i = 0; i < context.input_count(); ++i) {
    CREASE_RETURN_IF_ERROR(RequireNumber(context, i));
    CREASE_RETURN_IF_ERROR(RequireSameDType(context, 0, i));
  }
  CREASE_ASSIGN_OR_RETURN(TensorType type, BroadcastType(context, 0));
  type.dtype = context.input(0).dtype;
  SetOutput(context, 0, std::move(type));
  return {};
}

// Integers wrap as two's complement; division truncates towards zero, as C does.
template <typename T>
T Wrapped(uint64_t value) {
  return static_cast<T>(value);
}

struct AddTerms {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, double>)
      return a + b;
    else
      return Wrapped<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
};
struct SubTerms {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, double>)
      return a - b;
    else
      return Wrapped<T>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
  }
};
struct MulTerms {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, double>)
      return a * b;
    else
      return Wrapped<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
};
struct DivTerms {  // b != 0 for integers
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_signed_v<T> && !std::is_same_v<T, double>) {
      if (b == T{-1}) return Wrapped<T>(uint64_t{0} - static_cast<uint64_t>(a));
    }
    return static_cast<T>(a / b);
  }
};
struct MinTerms {
  template <typename T>
  T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};
struct MaxTerms {
  template <typename T>
  T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct ModTerms {  // the sign of the divisor, as Python's %; b != 0
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, double>) {
      return std::fmod(a, b);
    } else {
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return 0;
      }
      const T rest = static_cast<T>(a % b);
      return rest != 0 && ((rest < 0) != (b < 0)) ? static_cast<T>(rest + b) : rest;
    }
  }
};
struct FmodTerms {  // the sign of the dividend, as C's %
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, double>) {
      return std::fmod(a, b);
    } else {
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return 0;
      }
      return static_cast<T>(a % b);
    }
  }
};
struct PReluTerms {
  template <typename T>
  T operator()(T x, T slope) const {
    return x < T{0} ? MulTerms{}(x, slope) : x;
  }
};

template <typename F>
void Combine(const Tensor& a, const Tensor& b, Tensor& dst, F f) {
  VisitNumber(dst.dtype(), [&](auto tag) {
    using T = decltype(tag);
    BroadcastInto<T, T>(a, b, dst, f);
  });
}

template <typename F>
Result<std::vector<Tensor>> EvalArithmetic(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferArithmetic, context));
  Combine(context.input(0), context.input(1), outputs[0], F{});
  return outputs;
}

Result<void> CheckDivisor(const Tensor& divisor) {
  if (IsFloat(divisor.dtype())) return {};
  for (int64_t i = 0; i < divisor.size(); ++i) {
    if (divisor.AsInt64(i) == 0) return InvalidModel("integer division by zero, element ", i, " of the divisor is 0");
  }
  return {};
}

Result<std::vector<Tensor>> EvalDiv(const EvalContext& context) {
  CREASE_RETURN_IF_ERROR(CheckDivisor(context.input(1)));
  return EvalArithmetic<DivTerms>(context);
}

Result<void> InferMod(InferContext& context) {
  CREASE_ASSIGN_OR_RETURN(const int64_t fmod, AttrInt(context.node, "fmod", 0));
  if (fmod == 0 && IsFloat(context.input(0).dtype)) {
    return InvalidModel("attribute 'fmod' must be 1 for floats, it is 0");
  }
  return InferArithmetic(context);
}

Result<std::vector<Tensor>> EvalMod(const EvalContext& context) {
  CREASE_RETURN_IF_ERROR(CheckDivisor(context.input(1)));
  CREASE_ASSIGN_OR_RETURN(const int64_t fmod, AttrInt(context.node, "fmod", 0));
  return fmod != 0 ? EvalArithmetic<FmodTerms>(context) : EvalArithmetic<ModTerms>(context);
}

template <typename F>
Result<std::vector<Tensor>> EvalVariadic(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferArithmetic, context));
  GatherStrided(context.input(0), 0, BroadcastStrides(context.input(0).shape(), outputs[0].shape()), outputs[0]);
  for (size_t i = 1; i < context.inputs.size(); ++i) {
    const Tensor so_far = outputs[0];
    Combine(so_far, *context.inputs[i], outputs[0], F{});  // element by element, so that in place is right
  }
  return outputs;
}

Result<void> InferMean(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  return InferArithmetic(context);
}

Result<std::vector<Tensor>> EvalMean(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, EvalVariadic<AddTerms>(context));
  double* y = outputs[0].mutable_data<double>();
  for (int64_t i = 0; i < outputs[0].size(); ++i) y[i] /= static_cast<double>(context.inputs.size());
  return outputs;
}

Result<void> InferPRelu(InferContext& context) {
  CREASE_RETURN_IF_ERROR(InferArithmetic(context));
  const TensorType &x = context.input(0), &slope = context.input(1);
  if (x.is_static() && slope.is_static() && context.output(0).shape() != x.shape()) {
    return InvalidModel("slope must broadcast to the input's shape ", ToString(x.shape()), ", its shape is ",
                        ToString(slope.shape()));
  }
  SetOutput(context, 0, x);
  return {};
}

// The exponent may have another dtype than the base.
Result<void> InferPow(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 1));
  CREASE_ASSIGN_OR_RETURN(TensorType type, BroadcastType(context, 0));
  type.dtype = context.input(0).dtype;
  SetOutput(context, 0, std::move(type));
  return {};
}

// By squaring; wraps. A negative exponent is 1 / base^|exponent| truncated.
int64_t IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 1) return 1;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
    return 0;
  }
  uint64_t result = 1, factor = static_cast<uint64_t>(base);
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= factor;
    factor *= factor;
  }
  return static_cast<int64_t>(result);
}

Result<std::vector<Tensor>> EvalPow(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferPow, context));
  const Tensor &base = context.input(0), &exponent = context.input(1);
  if (IsFloat(base.dtype())) {
    CREASE_ASSIGN_OR_RETURN(const Tensor converted, exponent.ConvertedTo(DType::kFloat64));
    BroadcastInto<double, double>(base, converted, outputs[0], [](double a, double b) { return std::pow(a, b); });
    return outputs;
  }
  Tensor result = outputs[0];
  if (IsFloat(exponent.dtype())) {
    CREASE_ASSIGN_OR_RETURN(const Tensor converted, base.ConvertedTo(DType::kFloat64));
    CREASE_ASSIGN_OR_RETURN(Tensor wide, Tensor::Allocate(DType::kFloat64, result.shape()));
    BroadcastInto<double, double>(converted, exponent, wide, [](double a, double b) { return std::pow(a, b); });
    CREASE_ASSIGN_OR_RETURN(result, wide.ConvertedTo(base.dtype()));
    return One(std::move(result));
  }
  CREASE_ASSIGN_OR_RETURN(const Tensor a, base.ConvertedTo(DType::kInt64));
  CREASE_ASSIGN_OR_RETURN(const Tensor b, exponent.ConvertedTo(DType::kInt64));
  CREASE_ASSIGN_OR_RETURN(Tensor wide, Tensor::Allocate(DType::kInt64, result.shape()));
  BroadcastInto<int64_t, int64_t>(a, b, wide, IntegerPower);
  CREASE_ASSIGN_OR_RETURN(result, wide.ConvertedTo(base.dtype()));
  return One(std::move(result));
}

}  // namespace

const OpDef kAdd = {"Add", "", 7, 2, 2, 1, 1, InferArithmetic, EvalArithmetic<AddTerms>};
const OpDef kSub = {"Sub", "", 7, 2, 2, 1, 1, InferArithmetic, EvalArithmetic<SubTerms>};
const OpDef kMul = {"Mul", "", 7, 2, 2, 1, 1, InferArithmetic, EvalArithmetic<MulTerms>};
const OpDef kDiv = {"Div", "", 7, 2, 2, 1, 1, InferArithmetic, EvalDiv};
const OpDef kMod = {"Mod", "", 10, 2, 2, 1, 1, InferMod, EvalMod};
const OpDef kPow = {"Pow", "", 7, 2, 2, 1, 1, InferPow, EvalPow};
const OpDef kPRelu = {"PRelu", "", 7, 2, 2, 1, 1, InferPRelu, EvalArithmetic<PReluTerms>};
const OpDef kSum = {"Sum", "", 7, 1, -1, 1, 1, InferArithmetic, EvalVariadic<AddTerms>};
const OpDef kMean = {"Mean", "", 7, 1, -1, 1, 1, InferMean, EvalMean};
const OpDef kMin = {"Min", "", 7, 1, -1, 1, 1, InferArithmetic, EvalVariadic<MinTerms>};
const OpDef kMax = {"Max", "", 7, 1, -1, 1, 1, InferArithmetic, EvalVariadic<MaxTerms>};

}  // namespace crease::ops
