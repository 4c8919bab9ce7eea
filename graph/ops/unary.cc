// SPDX-License-Identifier: Apache-2.0
// Element-wise operators of one input.
#include <cmath>
#include <type_traits>

#include "graph/ops/activation.h"
#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

using Parameters = ActivationParameters;

Result<void> InferFloatUnary(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(ParseActivation(context.node));
  SetOutput(context, 0, context.input(0));
  return {};
}

template <UnaryFunction kFunction>
Result<std::vector<Tensor>> EvalFloatUnary(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferFloatUnary, context));
  CREASE_ASSIGN_OR_RETURN(const Parameters parameters, ParseActivation(context.node));
  const double* x = context.input(0).data<double>();
  double* y = outputs[0].mutable_data<double>();
  for (int64_t i = 0; i < outputs[0].size(); ++i) y[i] = kFunction(x[i], parameters);
  return outputs;
}

double Logistic(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double SoftplusOf(double x) { return std::log1p(std::exp(-std::fabs(x))) + (x < 0 ? 0 : x); }
double Clamp01(double x) { return x < 0 ? 0 : (x > 1 ? 1 : x); }

double Relu(double x, const Parameters&) { return x < 0 ? 0 : x; }
double LeakyRelu(double x, const Parameters& p) { return x < 0 ? p.alpha * x : x; }
double Elu(double x, const Parameters& p) { return x < 0 ? p.alpha * std::expm1(x) : x; }
double Selu(double x, const Parameters& p) { return p.beta * (x > 0 ? x : p.alpha * std::expm1(x)); }
double Celu(double x, const Parameters& p) { return x < 0 ? p.alpha * std::expm1(x / p.alpha) : x; }
double ThresholdedRelu(double x, const Parameters& p) { return x <= p.alpha ? 0 : x; }
double Sigmoid(double x, const Parameters&) { return Logistic(x); }
double HardSigmoid(double x, const Parameters& p) { return Clamp01(p.alpha * x + p.beta); }
double HardSwish(double x, const Parameters&) { return x * Clamp01(x / 6 + 0.5); }
double Swish(double x, const Parameters& p) { return x * Logistic(p.alpha * x); }
double Tanh(double x, const Parameters&) { return std::tanh(x); }
double Exp(double x, const Parameters&) { return std::exp(x); }
double Log(double x, const Parameters&) { return std::log(x); }
double Sqrt(double x, const Parameters&) { return std::sqrt(x); }
double Reciprocal(double x, const Parameters&) { return 1 / x; }
double Floor(double x, const Parameters&) { return std::floor(x); }
double Ceil(double x, const Parameters&) { return std::ceil(x); }
double Round(double x, const Parameters&) { return std::nearbyint(x); }  // halves to even
double Erf(double x, const Parameters&) { return std::erf(x); }
double Softplus(double x, const Parameters&) { return SoftplusOf(x); }
double Softsign(double x, const Parameters&) { return x / (1 + std::fabs(x)); }
double Mish(double x, const Parameters&) { return x * std::tanh(SoftplusOf(x)); }
double Sin(double x, const Parameters&) { return std::sin(x); }
double Cos(double x, const Parameters&) { return std::cos(x); }
double Abs(double x, const Parameters&) { return std::fabs(x); }
double Neg(double x, const Parameters&) { return -x; }
double Sign(double x, const Parameters&) { return x > 0 ? 1 : (x < 0 ? -1 : x); }

double Gelu(double x, const Parameters& p) {
  if (p.alpha == 0) return 0.5 * x * (1 + std::erf(x * 0.70710678118654752440));
  return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

struct UnaryEntry {
  std::string_view name;
  UnaryFunction function;
};
constexpr UnaryEntry kFunctions[] = {
    {"Abs", Abs},
    {"Ceil", Ceil},
    {"Celu", Celu},
    {"Cos", Cos},
    {"Elu", Elu},
    {"Erf", Erf},
    {"Exp", Exp},
    {"Floor", Floor},
    {"Gelu", Gelu},
    {"HardSigmoid", HardSigmoid},
    {"HardSwish", HardSwish},
    {"LeakyRelu", LeakyRelu},
    {"Log", Log},
    {"Mish", Mish},
    {"Neg", Neg},
    {"Reciprocal", Reciprocal},
    {"Relu", Relu},
    {"Round", Round},
    {"Selu", Selu},
    {"Sigmoid", Sigmoid},
    {"Sign", Sign},
    {"Sin", Sin},
    {"Softplus", Softplus},
    {"Softsign", Softsign},
    {"Sqrt", Sqrt},
    {"Swish", Swish},
    {"Tanh", Tanh},
    {"ThresholdedRelu", ThresholdedRelu},
};

Result<void> InferNumberUnary(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  SetOutput(context, 0, context.input(0));
  return {};
}

// Abs, Neg, Sign and Relu of an integer; two's complement wraps.
template <typename T>
T IntegerUnary(std::string_view op, T x) {
  const bool negative = x < T{0};
  if (op == "Sign") return negative ? static_cast<T>(-1) : static_cast<T>(x > T{0});
  if (op == "Relu") return negative ? T{0} : x;
  const T negated = static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x));
  return op == "Neg" || negative ? negated : x;
}

template <UnaryFunction kFunction>
Result<std::vector<Tensor>> EvalNumberUnary(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferNumberUnary, context));
  VisitNumber(outputs[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = context.input(0).data<T>();
    T* y = outputs[0].mutable_data<T>();
    for (int64_t i = 0; i < outputs[0].size(); ++i) {
      if constexpr (std::is_same_v<T, double>) {
        y[i] = kFunction(x[i], Parameters{});
      } else {
        y[i] = IntegerUnary<T>(context.node.op_type, x[i]);
      }
    }
  });
  return outputs;
}

Result<void> InferNot(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireDType(context, 0, DType::kBool));
  SetOutput(context, 0, context.input(0));
  return {};
}

Result<std::vector<Tensor>> EvalNot(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferNot, context));
  const uint8_t* x = context.input(0).data<uint8_t>();
  for (int64_t i = 0; i < outputs[0].size(); ++i) outputs[0].mutable_data<uint8_t>()[i] = x[i] == 0;
  return outputs;
}

// Defaults of alpha and of beta (Selu: gamma), as the ONNX operator pages state them.
struct Defaults {
  std::string_view name;
  float alpha;
  std::string_view second;
  float beta;
};
constexpr Defaults kDefaults[] = {
    {"LeakyRelu", 0.01f, "", 0},
    {"Elu", 1.0f, "", 0},
    {"Celu", 1.0f, "", 0},
    {"ThresholdedRelu", 1.0f, "", 0},
    {"Swish", 1.0f, "", 0},
    {"Selu", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {"HardSigmoid", 0.2f, "beta", 0.5f},
};

}  // namespace

Result<ActivationParameters> ParseActivation(const Node& node) {
  ActivationParameters parameters;
  if (node.op_type == "Gelu") {
    CREASE_ASSIGN_OR_RETURN(const std::string approximate, AttrString(node, "approximate", "none"));
    const std::string_view form = approximate;  // a view: gcc 12 warns of the string's own comparison
    if (form != "none" && form != "tanh") {
      return InvalidModel("attribute 'approximate' must be none or tanh, it is '", Printable(approximate), "'");
    }
    parameters.alpha = form == "tanh" ? 1 : 0;
    return parameters;
  }
  for (const Defaults& defaults : kDefaults) {
    if (defaults.name != node.op_type) continue;
    CREASE_ASSIGN_OR_RETURN(parameters.alpha, AttrFloat(node, "alpha", defaults.alpha));
    if (!defaults.second.empty()) {
      CREASE_ASSIGN_OR_RETURN(parameters.beta, AttrFloat(node, defaults.second, defaults.beta));
    }
    if (defaults.name == "Celu" && parameters.alpha == 0) return InvalidModel("attribute 'alpha' must not be 0");
  }
  return parameters;
}

UnaryFunction FindUnaryFunction(std::string_view op_type) {
  for (const UnaryEntry& entry : kFunctions) {
    if (entry.name == op_type) return entry.function;
  }
  return nullptr;
}

#define CREASE_FLOAT_UNARY(name, opset) \
  const OpDef k##name = {#name, "", opset, 1, 1, 1, 1, InferFloatUnary, EvalFloatUnary<name>}
CREASE_FLOAT_UNARY(Ceil, 7);
CREASE_FLOAT_UNARY(Celu, 12);
CREASE_FLOAT_UNARY(Cos, 7);
CREASE_FLOAT_UNARY(Elu, 7);
CREASE_FLOAT_UNARY(Erf, 9);
CREASE_FLOAT_UNARY(Exp, 7);
CREASE_FLOAT_UNARY(Floor, 7);
CREASE_FLOAT_UNARY(Gelu, 20);
CREASE_FLOAT_UNARY(HardSigmoid, 7);
CREASE_FLOAT_UNARY(HardSwish, 14);
CREASE_FLOAT_UNARY(LeakyRelu, 7);
CREASE_FLOAT_UNARY(Log, 7);
CREASE_FLOAT_UNARY(Mish, 18);
CREASE_FLOAT_UNARY(Reciprocal, 7);
CREASE_FLOAT_UNARY(Round, 11);
CREASE_FLOAT_UNARY(Selu, 7);
CREASE_FLOAT_UNARY(Sigmoid, 7);
CREASE_FLOAT_UNARY(Sin, 7);
CREASE_FLOAT_UNARY(Softplus, 7);
CREASE_FLOAT_UNARY(Softsign, 7);
CREASE_FLOAT_UNARY(Sqrt, 7);
CREASE_FLOAT_UNARY(Swish, 24);
CREASE_FLOAT_UNARY(Tanh, 7);
CREASE_FLOAT_UNARY(ThresholdedRelu, 10);
#undef CREASE_FLOAT_UNARY

#define CREASE_NUMBER_UNARY(name, opset) \
  const OpDef k##name = {#name, "", opset, 1, 1, 1, 1, InferNumberUnary, EvalNumberUnary<name>}
CREASE_NUMBER_UNARY(Abs, 7);
CREASE_NUMBER_UNARY(Neg, 7);
CREASE_NUMBER_UNARY(Relu, 7);
CREASE_NUMBER_UNARY(Sign, 9);
#undef CREASE_NUMBER_UNARY

const OpDef kNot = {"Not", "", 7, 1, 1, 1, 1, InferNot, EvalNot};

}  // namespace crease::ops
