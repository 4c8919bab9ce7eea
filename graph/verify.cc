// SPDX-License-Identifier: Apache-2.0
#include "graph/verify.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "graph/interpreter.h"
#include "graph/op.h"

namespace crease {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A network's rounding in half types.
struct HalfRounding {
  double unit = 0;  // unit roundoff of the coarsest half type that it computes in; 0: none
  int depth = 0;    // values of half types on the longest way through it
};

double HalfUnit(DType dtype) {
  if (dtype == DType::kFloat16) return 0x1p-11;
  return dtype == DType::kBFloat16 ? 0x1p-8 : 0.0;
}

// What constants are made of does not count: they have the same values in every network.
HalfRounding HalfRoundingOf(const Graph& graph) {
  HalfRounding result;
  const Result<InferredTypes> types = InferTypes(graph, {}, false);
  if (!types.ok()) return result;
  std::vector<int> depth(static_cast<size_t>(graph.value_count()), -1);  // -1: made of constants alone
  for (ValueId input : graph.inputs()) depth[static_cast<size_t>(input)] = graph.constant(input) == nullptr ? 0 : -1;
  for (NodeId id : graph.topological_order()) {
    int before = -1;
    for (ValueId input : graph.node(id).inputs) {
      if (input != kNone) before = std::max(before, depth[static_cast<size_t>(input)]);
    }
    if (before < 0) continue;
    for (ValueId output : graph.node(id).outputs) {
      if (output == kNone) continue;
      const double unit = HalfUnit(types->types[static_cast<size_t>(output)].dtype);
      const int here = before + (unit > 0 ? 1 : 0);
      depth[static_cast<size_t>(output)] = here;
      result.unit = std::max(result.unit, unit);
      result.depth = std::max(result.depth, here);
    }
  }
  return result;
}

// Of the finite values.
double DeviationOf(const Tensor& tensor) {
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const double v = tensor.AsDouble(i);
    if (!std::isfinite(v)) continue;
    sum += v;
    ++count;
  }
  const double mean = count > 0 ? sum / static_cast<double>(count) : 0;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const double d = tensor.AsDouble(i) - mean;
    if (std::isfinite(d)) squares += d * d;
  }
  return count > 0 ? std::sqrt(squares / static_cast<double>(count)) : 0;
}

// The first value past the tolerance on the way to `output` whose makers' inputs are all within it.
ValueDifference FirstDivergence(const Graph& graph, ValueId output, double output_error,
                                const std::map<ValueId, double>& errors, double tolerance) {
  ValueId at = output;
  double error = output_error;
  std::set<ValueId> seen;
  while (seen.insert(at).second && graph.producer(at) != kNone) {
    ValueId next = kNone;
    double next_error = 0;
    for (ValueId input : graph.node(graph.producer(at)).inputs) {
      const auto found = errors.find(input);
      if (found == errors.end() || !(found->second > tolerance)) continue;
      if (next == kNone || found->second > next_error) {
        next = input;
        next_error = found->second;
      }
    }
    if (next == kNone) break;
    at = next;
    error = next_error;
  }
  const NodeId producer = graph.producer(at);
  return {graph.value(at).name, producer == kNone ? "" : graph.Describe(producer), error};
}

}  // namespace

VerifyLimits LimitsOf(const Graph& a, const Graph& b) {
  // Measured: errors grow by the root of the depth, and past some size no error would be found.
  constexpr double kPerRounding = 24, kMost = 0.5, kHalfLeastUnit = 0.125;
  const HalfRounding x = HalfRoundingOf(a), y = HalfRoundingOf(b);
  const double unit = std::max(x.unit, y.unit);
  VerifyLimits limits;
  if (unit == 0) return limits;
  limits.tolerance = std::min(kMost, kPerRounding * unit * std::sqrt(std::max(x.depth, y.depth)));
  limits.least_unit = kHalfLeastUnit;
  return limits;
}

double DifferenceInDeviations(const Tensor& want, const Tensor& got, double least_unit) {
  if (want.shape() != got.shape()) return kInfinity;
  const double least = want.size() == 1 ? 1 : least_unit;
  double deviation = -1, worst = 0;
  for (int64_t i = 0; i < want.size(); ++i) {
    const double a = want.AsDouble(i), b = got.AsDouble(i);
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    const double difference = std::abs(a - b);
    if (!std::isfinite(difference)) return kInfinity;
    if (deviation < 0) deviation = DeviationOf(want);
    const double unit = std::max(deviation, least * std::abs(a));
    worst = std::max(worst, difference / (unit > 0 ? unit : 1.0));
  }
  return worst;
}

int64_t CountNotFinite(const Tensor& tensor) {
  int64_t count = 0;
  for (int64_t i = 0; i < tensor.size(); ++i) count += std::isfinite(tensor.AsDouble(i)) ? 0 : 1;
  return count;
}

double Comparison::worst() const {
  double error = 0;
  for (const ValueDifference& output : outputs) error = std::max(error, output.error);
  return error;
}

Result<Comparison> CompareInDouble(const Graph& a, const Graph& b, const TensorMap& inputs,
                                   const VerifyLimits& limits) {
  if (a.outputs().size() != b.outputs().size()) {
    return Error{ErrorCode::kInvalidArgument,
                 "the models have " + std::to_string(a.outputs().size()) + " and " +
                     std::to_string(b.outputs().size()) + " outputs",
                 ""};
  }
  std::map<std::string, Tensor> values;  // of `a`, where `b` makes one of the same name
  InterpretOptions keep;
  keep.on_value = [&](ValueId id, const Tensor& tensor) {
    const ValueId there = b.FindValue(a.value(id).name);
    if (there != kNone && b.producer(there) != kNone && tensor.dtype() == DType::kFloat64) {
      values[a.value(id).name] = tensor;
    }
  };
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> want, Interpret(a, inputs, keep));
  if (std::all_of(want.begin(), want.end(), [](const Tensor& output) { return output.size() == 0; })) {
    return Error{ErrorCode::kInvalidArgument, "no output has elements on these inputs, so that nothing is compared",
                 ""};
  }
  std::map<ValueId, double> errors;  // by a's ids
  InterpretOptions compare;
  compare.on_value = [&](ValueId id, const Tensor& tensor) {
    const auto found = values.find(b.value(id).name);
    if (found == values.end() || tensor.dtype() != DType::kFloat64) return;
    errors[a.FindValue(found->first)] = DifferenceInDeviations(found->second, tensor, limits.least_unit);
    values.erase(found);
  };
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> got, Interpret(b, inputs, compare));

  Comparison result;
  size_t worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const ValueId id = a.outputs()[i];
    const NodeId producer = a.producer(id);
    result.outputs.push_back({a.value(id).name, producer == kNone ? "" : a.Describe(producer),
                              DifferenceInDeviations(want[i], got[i], limits.least_unit), CountNotFinite(want[i])});
    if (result.outputs[i].error > result.outputs[worst].error) worst = i;
  }
  for (NodeId id : a.topological_order()) {
    for (ValueId value : a.node(id).outputs) {
      const auto found = errors.find(value);
      if (found != errors.end()) result.layers.push_back({a.value(value).name, a.Describe(id), found->second});
    }
  }
  if (!result.outputs.empty() && result.outputs[worst].error > limits.tolerance) {
    result.first = FirstDivergence(a, a.outputs()[worst], result.outputs[worst].error, errors, limits.tolerance);
  }
  return result;
}

}  // namespace crease
