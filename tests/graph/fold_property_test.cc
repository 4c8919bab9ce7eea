// SPDX-License-Identifier: Apache-2.0
// Random networks, folded and not, are the same function. CREASE_FOLD_GRAPHS sets how many,
// CREASE_FOLD_SEED the first seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "graph/interpreter.h"
#include "graph/passes/passes.h"
#include "tests/support/magnitude.h"
#include "tests/support/random_graph.h"

namespace crease {
namespace {

using testing::MagnitudeGraph;
using testing::Magnitudes;
using testing::RandomGraph;
using testing::RandomGraphOptions;

int64_t FromEnvironment(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoll(text);
}

// Largest difference of an element over the sum of the magnitudes of the terms that it is made of, which is
// what rounding in a sum is relative to: the terms may cancel.
double Difference(const Tensor& want, const Tensor& got, const Tensor& magnitude) {
  if (want.shape() != got.shape() || want.shape() != magnitude.shape()) return INFINITY;
  double worst = 0;
  for (int64_t i = 0; i < want.size(); ++i) {
    const double difference = std::abs(want.AsDouble(i) - got.AsDouble(i));
    if (std::isnan(difference)) return INFINITY;
    if (difference > 0) worst = std::max(worst, difference / magnitude.AsDouble(i));
  }
  return worst;
}

struct Outcome {
  double error = 0;
  int64_t before = 0, after = 0;
};

int64_t BatchNorms(const Graph& graph) {
  const auto& order = graph.topological_order();
  return std::count_if(order.begin(), order.end(),
                       [&](NodeId id) { return graph.node(id).op_type == "BatchNormalization"; });
}

std::string Dump(const Graph& graph) {
  std::string text;
  for (NodeId id : graph.topological_order()) {
    text += "  " + graph.Describe(id) + " <-";
    for (ValueId input : graph.node(id).inputs)
      text += " " + (input == kNone ? std::string("-") : graph.value(input).name);
    text += "\n";
  }
  return text;
}

void CheckSeed(uint64_t seed, const RandomGraphOptions& options, double tolerance, Outcome* total) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomGraph random(seed, options);
  Result<Graph> graph = random.Build();
  ASSERT_TRUE(graph.ok()) << graph.error().ToString();
  Graph folded = *graph;
  Result<PassLog> log = RunPasses(folded, FoldingPasses());
  ASSERT_TRUE(log.ok()) << log.error().ToString() << "\n" << Dump(*graph);
  Result<std::vector<Tensor>> want = Interpret(*graph, random.Inputs());
  ASSERT_TRUE(want.ok()) << want.error().ToString() << "\n" << Dump(*graph);
  Result<std::vector<Tensor>> got = Interpret(folded, random.Inputs());
  ASSERT_TRUE(got.ok()) << got.error().ToString() << "\n" << Dump(*graph) << "to\n" << Dump(folded);
  Result<Graph> terms = MagnitudeGraph(*graph);
  ASSERT_TRUE(terms.ok()) << terms.error().ToString();
  Result<std::vector<Tensor>> magnitude = Interpret(*terms, Magnitudes(random.Inputs()));
  ASSERT_TRUE(magnitude.ok()) << magnitude.error().ToString();
  ASSERT_EQ(want->size(), got->size());
  for (size_t i = 0; i < want->size(); ++i) {
    const double error = Difference((*want)[i], (*got)[i], (*magnitude)[i]);
    total->error = std::max(total->error, error);
    ASSERT_LE(error, tolerance) << "output " << graph->value(graph->outputs()[i]).name << "\n"
                                << Dump(*graph) << "to\n"
                                << Dump(folded);
  }
  total->before += BatchNorms(*graph);
  total->after += BatchNorms(folded);
  Result<PassLog> again = RunPasses(folded, FoldingPasses());
  ASSERT_TRUE(again.ok());
  for (const LogEntry& entry : *again) {
    ASSERT_FALSE(entry.applied) << "folding again: " << entry.code << " " << entry.node << "\n" << Dump(folded);
  }
}

void CheckMany(const RandomGraphOptions& options, int64_t count, double tolerance) {
  const int64_t first = FromEnvironment("CREASE_FOLD_SEED", 1);
  Outcome total;
  for (int64_t i = 0; i < count && !::testing::Test::HasFatalFailure(); ++i) {
    CheckSeed(static_cast<uint64_t>(first + i), options, tolerance, &total);
  }
  ::testing::Test::RecordProperty("worst_error", std::to_string(total.error));
  std::printf("%lld graphs: worst error %.2e; %lld of %lld batch-norms left\n", static_cast<long long>(count),
              total.error, static_cast<long long>(total.after), static_cast<long long>(total.before));
}

// In float64 weights the folded graph is the original up to rounding in double.
TEST(FoldProperty, ExactInDouble) {
  CheckMany({DType::kFloat64, true}, FromEnvironment("CREASE_FOLD_GRAPHS", 10000), 1e-13);
}

// In float32 every weight and bias of the folded graph is rounded once, by at most 2^-24 of itself: ten
// operators in a row make less than 1e-6.
TEST(FoldProperty, BoundedInFloat) {
  CheckMany({DType::kFloat32, false}, FromEnvironment("CREASE_FOLD_GRAPHS", 10000) / 4, 1e-6);
}

}  // namespace
}  // namespace crease
