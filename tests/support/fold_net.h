// SPDX-License-Identifier: Apache-2.0
// Small networks for the folding tests, in float64 so that exactness shows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "graph/interpreter.h"
#include "graph/op.h"
#include "graph/passes/passes.h"

namespace crease::testing {

using Attributes = std::vector<Attribute>;
using IntList = std::vector<int64_t>;

class FoldNet {
 public:
  GraphBuilder builder;

  ValueId Input(const Shape& shape, const std::string& name = "x") {
    std::vector<double> values = Values(shape, 1.0, 0.4);
    inputs[name] = Tensor::From<double>(shape, std::span<const double>(values));
    return builder.AddInput(name, TensorType::Of(DType::kFloat64, shape));
  }
  // Numbers around `centre`, none of which repeats soon.
  ValueId Constant(const Shape& shape, double spread = 1.0, double centre = 0.0) {
    const std::vector<double> values = Values(shape, spread, centre);
    return Given(shape, values);
  }
  ValueId Given(const Shape& shape, const std::vector<double>& values) {
    return builder.AddConstant("c" + std::to_string(++names_),
                               Tensor::From<double>(shape, std::span<const double>(values)));
  }
  ValueId Ints(const IntList& values) {
    return builder.AddConstant(
        "i" + std::to_string(++names_),
        Tensor::From<int64_t>({static_cast<int64_t>(values.size())}, std::span<const int64_t>(values)));
  }
  ValueId Op(const std::string& op, std::vector<ValueId> operands, Attributes attributes = {}) {
    return builder.Add(op, std::move(operands), op + std::to_string(++names_), std::move(attributes));
  }
  ValueId Conv(ValueId x, int64_t in, int64_t out, int64_t kernel = 3, Attributes attributes = {}) {
    return Op("Conv", {x, Constant({out, in, kernel, kernel}), Constant({out})}, std::move(attributes));
  }
  // Scales in [0.5, 1.5], times `sign` of the channel's parity where mixed.
  ValueId Bn(ValueId x, int64_t channels, bool shift = true, bool mixed = false) {
    std::vector<double> gamma = Values({channels}, 0.5, 1.0);
    for (size_t c = 1; mixed && c < gamma.size(); c += 2) gamma[c] = -gamma[c];
    const double s = shift ? 0.7 : 0.0;
    return Op("BatchNormalization", {x, Given({channels}, gamma), Constant({channels}, s), Constant({channels}, s),
                                     Constant({channels}, 0.5, 1.2)});
  }

  std::map<std::string, Tensor> inputs;

 private:
  std::vector<double> Values(const Shape& shape, double spread, double centre) {
    int64_t count = 1;
    for (int64_t d : shape) count *= d;
    std::vector<double> values(static_cast<size_t>(count));
    for (double& v : values) v = centre + spread * std::sin(1.0 + 2.7 * ++phase_);
    return values;
  }
  int names_ = 0;
  double phase_ = 0;
};

struct FoldResult {
  Graph before, after;
  PassLog log;

  int Count(std::string_view op) const {
    const auto& order = after.topological_order();
    return static_cast<int>(
        std::count_if(order.begin(), order.end(), [&](NodeId id) { return after.node(id).op_type == op; }));
  }
  // Batch-norms and arithmetic with constants.
  int Maps() const { return Count("BatchNormalization") + Count("Mul") + Count("Add") + Count("Sub") + Count("Div"); }
  bool Has(std::string_view code) const {
    return std::any_of(log.begin(), log.end(), [&](const LogEntry& entry) { return entry.code == code; });
  }
};

// Folds and checks that the function is the same to 1e-12 of its largest output.
inline FoldResult FoldAndCompare(FoldNet net, const std::vector<ValueId>& outputs) {
  for (ValueId id : outputs) net.builder.AddOutput(id);
  Result<Graph> built = std::move(net.builder).Build();
  EXPECT_TRUE(built.ok()) << built.error().ToString();
  FoldResult result{*built, *built, {}};
  Result<PassLog> log = RunPasses(result.after, FoldingPasses());
  EXPECT_TRUE(log.ok()) << (log.ok() ? "" : log.error().ToString());
  if (!log.ok()) return result;
  result.log = *log;
  Result<std::vector<Tensor>> want = Interpret(result.before, net.inputs), got = Interpret(result.after, net.inputs);
  EXPECT_TRUE(want.ok()) << (want.ok() ? "" : want.error().ToString());
  EXPECT_TRUE(got.ok()) << (got.ok() ? "" : got.error().ToString());
  if (!want.ok() || !got.ok()) return result;
  for (size_t i = 0; i < want->size(); ++i) {
    EXPECT_EQ((*want)[i].shape(), (*got)[i].shape());
    double largest = 0, worst = 0;
    for (int64_t k = 0; k < (*want)[i].size() && (*want)[i].shape() == (*got)[i].shape(); ++k) {
      largest = std::max(largest, std::abs((*want)[i].AsDouble(k)));
      worst = std::max(worst, std::abs((*want)[i].AsDouble(k) - (*got)[i].AsDouble(k)));
    }
    EXPECT_LE(worst, 1e-12 * std::max(largest, 1.0)) << "output " << i;
    EXPECT_EQ(result.before.value(result.before.outputs()[i]).name, result.after.value(result.after.outputs()[i]).name);
  }
  return result;
}

}  // namespace crease::testing
