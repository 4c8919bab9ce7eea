// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferReduce(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireNumber(context, 0));
  const bool as_input = ReduceAxesAreInput(context.node, context.opset);
  if (!as_input && context.input_count() > 1) {
    return InvalidModel("expected 1 input at opset ", context.opset, ", found ", context.input_count());
  }
  CREASE_RETURN_IF_ERROR(RequireDType(context, 1, DType::kInt64));
  const TensorType& input = context.input(0);
  SetOutput(context, 0, TensorType{input.dtype, false, {}});
  if (!input.has_rank) return {};
  CREASE_ASSIGN_OR_RETURN(const int64_t keepdims, AttrInt(context.node, "keepdims", 1));
  if (as_input && context.has_input(1) && !context.constant(1)) {
    if (keepdims != 0) SetOutput(context, 0, TensorType::OfRank(input.dtype, input.rank()));
    return {};
  }
  const Shape ones(input.dims.size(), 1);  // the rank alone counts
  CREASE_ASSIGN_OR_RETURN(const ReducePlan plan, ResolveReduce(context.node, context.opset, ones, context.constant(1)));
  std::vector<Dim> dims;
  for (size_t i = 0; i < input.dims.size(); ++i) {
    if (!plan.reduced[i]) dims.push_back(input.dims[i]);
    if (plan.reduced[i] && plan.keepdims) dims.push_back(Dim{1, ""});
  }
  SetOutput(context, 0, TypeOf(input.dtype, std::move(dims)));
  return {};
}

struct Folder {
  double start = 0;
  double (*add)(double total, double x);
  double (*finish)(double total, double count);
};

double Same(double total, double) { return total; }
constexpr double kInfinity = std::numeric_limits<double>::infinity();
double LargerOf(double a, double b) { return b > a || b != b ? b : a; }
double SmallerOf(double a, double b) { return b < a || b != b ? b : a; }

Folder FolderOf(std::string_view op) {
  if (op == "ReduceMax") return {-kInfinity, LargerOf, Same};
  if (op == "ReduceMin") return {kInfinity, SmallerOf, Same};
  if (op == "ReduceProd") return {1, [](double t, double x) { return t * x; }, Same};
  if (op == "ReduceL1") return {0, [](double t, double x) { return t + std::fabs(x); }, Same};
  if (op == "ReduceSumSquare") return {0, [](double t, double x) { return t + x * x; }, Same};
  if (op == "ReduceL2") {
    return {0, [](double t, double x) { return t + x * x; }, [](double t, double) { return std::sqrt(t); }};
  }
  const auto add = [](double t, double x) { return t + x; };
  if (op == "ReduceMean") return {0, add, [](double t, double count) { return t / count; }};
  if (op == "ReduceLogSum") return {0, add, [](double t, double) { return std::log(t); }};
  return {0, add, Same};
}

// Strides of the output as the input's index sees it: 0 on reduced axes.
std::vector<int64_t> OutputStrides(const ReducePlan& plan, const Shape& input) {
  std::vector<int64_t> strides(input.size(), 0);
  int64_t step = 1;
  for (size_t i = input.size(); i-- > 0;) {
    if (plan.reduced[i]) continue;
    strides[i] = step;
    step *= input[i];
  }
  return strides;
}

template <typename F>
void ForEachReduced(const ReducePlan& plan, const Shape& input, F f) {
  ForEachIndex<2>(input, {RowMajorStrides(input), OutputStrides(plan, input)},
                  [&](const std::array<int64_t, 2>& offsets) { f(offsets[0], offsets[1]); });
}

void ReduceDoubles(const Folder& folder, const ReducePlan& plan, const Tensor& src, Tensor& dst) {
  const double* x = src.data<double>();
  double* y = dst.mutable_data<double>();
  std::fill_n(y, dst.size(), folder.start);
  ForEachReduced(plan, src.shape(), [&](int64_t from, int64_t to) { y[to] = folder.add(y[to], x[from]); });
  const double count = dst.size() == 0 ? 0 : static_cast<double>(src.size() / dst.size());
  for (int64_t i = 0; i < dst.size(); ++i) y[i] = folder.finish(y[i], count);
}

// log(sum(exp(x))), shifted by the maximum so that it cannot overflow.
void ReduceLogSumExp(const ReducePlan& plan, const Tensor& src, Tensor& dst) {
  std::vector<double> top(static_cast<size_t>(dst.size()), -kInfinity);
  const double* x = src.data<double>();
  double* y = dst.mutable_data<double>();
  ForEachReduced(plan, src.shape(), [&](int64_t from, int64_t to) {
    top[static_cast<size_t>(to)] = LargerOf(top[static_cast<size_t>(to)], x[from]);
  });
  for (double& shift : top) {
    if (std::isinf(shift)) shift = 0;
  }
  ForEachReduced(plan, src.shape(),
                 [&](int64_t from, int64_t to) { y[to] += std::exp(x[from] - top[static_cast<size_t>(to)]); });
  for (int64_t i = 0; i < dst.size(); ++i) y[i] = std::log(y[i]) + top[static_cast<size_t>(i)];
}

// Sum, mean, maximum, minimum, product and sum of squares of integers, exact while in int64.
Result<void> ReduceIntegers(std::string_view op, const ReducePlan& plan, const Tensor& src, Tensor& dst) {
  std::vector<int64_t> total(static_cast<size_t>(dst.size()));
  const bool max = op == "ReduceMax", min = op == "ReduceMin", product = op == "ReduceProd";
  const bool square = op == "ReduceSumSquare", mean = op == "ReduceMean", l1 = op == "ReduceL1";
  if (!max && !min && !product && !square && !mean && !l1 && op != "ReduceSum") {
    return Unsupported(op, " of integers is not supported");
  }
  if (dst.size() > 0 && src.size() == 0 && (max || min)) return InvalidModel("the extremum of no elements");
  std::fill(total.begin(), total.end(), max ? INT64_MIN : min ? INT64_MAX : product ? 1 : 0);
  ForEachReduced(plan, src.shape(), [&](int64_t from, int64_t to) {
    int64_t& t = total[static_cast<size_t>(to)];
    const int64_t x = src.AsInt64(from);
    const auto wide = static_cast<uint64_t>(x), so_far = static_cast<uint64_t>(t);
    if (max || min) {
      t = max ? std::max(t, x) : std::min(t, x);
    } else if (product) {
      t = static_cast<int64_t>(so_far * wide);
    } else {
      t = static_cast<int64_t>(so_far + (square ? wide * wide : l1 && x < 0 ? uint64_t{0} - wide : wide));
    }
  });
  const int64_t count = dst.size() == 0 ? 1 : std::max<int64_t>(1, src.size() / dst.size());
  VisitNumber(dst.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for (int64_t i = 0; i < dst.size(); ++i) {
      const int64_t t = total[static_cast<size_t>(i)];
      dst.mutable_data<T>()[i] = static_cast<T>(mean ? t / count : t);
    }
  });
  return {};
}

Result<std::vector<Tensor>> EvalReduce(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferReduce, context));
  const Tensor& src = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const ReducePlan plan, ResolveReduce(context.node, context.opset, src.shape(),
                                                               context.has(1) ? &context.input(1) : nullptr));
  if (!IsFloat(src.dtype())) {
    CREASE_RETURN_IF_ERROR(ReduceIntegers(context.node.op_type, plan, src, outputs[0]));
  } else if (context.node.op_type == "ReduceLogSumExp") {
    ReduceLogSumExp(plan, src, outputs[0]);
  } else {
    ReduceDoubles(FolderOf(context.node.op_type), plan, src, outputs[0]);
  }
  return outputs;
}

}  // namespace

bool ReduceAxesAreInput(const Node& node, int opset) { return opset >= (node.op_type == "ReduceSum" ? 13 : 18); }

Result<ReducePlan> ResolveReduce(const Node& node, int opset, const Shape& input, const Tensor* axes) {
  ReducePlan plan;
  CREASE_ASSIGN_OR_RETURN(const int64_t keepdims, AttrInt(node, "keepdims", 1));
  plan.keepdims = keepdims != 0;
  std::vector<int64_t> values;
  bool noop = false;
  if (!ReduceAxesAreInput(node, opset)) {
    CREASE_ASSIGN_OR_RETURN(values, AttrInts(node, "axes", {}));
  } else {
    if (axes) {
      CREASE_ASSIGN_OR_RETURN(values, IntVector(*axes, "input axes"));
    }
    CREASE_ASSIGN_OR_RETURN(const int64_t noop_attribute, AttrInt(node, "noop_with_empty_axes", 0));
    noop = noop_attribute != 0;
  }
  CREASE_ASSIGN_OR_RETURN(const std::vector<int> normal, NormalizeAxes(values, static_cast<int>(input.size())));
  plan.reduced.assign(input.size(), values.empty() && !noop);
  for (int axis : normal) plan.reduced[static_cast<size_t>(axis)] = true;
  for (size_t i = 0; i < input.size(); ++i) {
    if (!plan.reduced[i]) plan.output.push_back(input[i]);
    if (plan.reduced[i] && plan.keepdims) plan.output.push_back(1);
  }
  return plan;
}

#define CREASE_REDUCE(name) const OpDef k##name = {#name, "", 7, 1, 2, 1, 1, InferReduce, EvalReduce}
CREASE_REDUCE(ReduceL1);
CREASE_REDUCE(ReduceL2);
CREASE_REDUCE(ReduceLogSum);
CREASE_REDUCE(ReduceLogSumExp);
CREASE_REDUCE(ReduceMax);
CREASE_REDUCE(ReduceMean);
CREASE_REDUCE(ReduceMin);
CREASE_REDUCE(ReduceProd);
CREASE_REDUCE(ReduceSum);
CREASE_REDUCE(ReduceSumSquare);
#undef CREASE_REDUCE

}  // namespace crease::ops
