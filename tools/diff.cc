// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "graph/onnx/importer.h"
#include "runtime/lower.h"
#include "tools/fold_report.h"

namespace crease::tools {
namespace {

struct Arguments {
  std::string a, b;
  std::vector<std::string> inputs;
  int samples = 1;
  std::optional<double> tolerance;
  bool json = false, structure_only = false;
};

// What differs without running: operators by count, interface, weights of the same name.
struct Structure {
  std::vector<std::string> lines;
  bool interface_differs = false;
};

std::map<std::string, int> OperatorCounts(const Graph& graph) {
  std::map<std::string, int> counts;
  for (NodeId id : graph.topological_order()) ++counts[graph.node(id).op_type];
  return counts;
}

std::string Signature(const Graph& graph, ValueId id) {
  return fmt::format("'{}' {}", Printable(graph.value(id).name), graph.value(id).type.ToString());
}

void CompareInterface(const Graph& a, const Graph& b, Structure& structure) {
  const auto compare = [&](const std::vector<ValueId>& left, const std::vector<ValueId>& right, const char* what) {
    if (left.size() != right.size()) {
      structure.lines.push_back(fmt::format("{}s: {} and {}", what, left.size(), right.size()));
      structure.interface_differs = true;
    }
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      const std::string l = Signature(a, left[i]), r = Signature(b, right[i]);
      if (l == r) continue;
      structure.lines.push_back(fmt::format("{} {}: {} and {}", what, i, l, r));
      if (a.value(left[i]).name != b.value(right[i]).name) structure.interface_differs = true;
    }
  };
  compare(RequiredInputs(a), RequiredInputs(b), "input");
  const size_t l = InputsWithDefaults(a).size(), r = InputsWithDefaults(b).size();
  if (l != r) structure.lines.push_back(fmt::format("inputs with defaults: {} and {}", l, r));
  compare(a.outputs(), b.outputs(), "output");
}

void CompareWeights(const Graph& a, const Graph& b, Structure& structure) {
  int same = 0, only_a = 0, only_b = 0;
  for (ValueId id = 0; id < a.value_count(); ++id) {
    const Tensor* left = a.value(id).constant ? a.constant(id) : nullptr;
    if (left == nullptr || a.use_count(id) == 0) continue;
    const ValueId there = b.FindValue(a.value(id).name);
    const Tensor* right = there == kNone ? nullptr : b.constant(there);
    if (right == nullptr) {
      ++only_a;
      continue;
    }
    const double difference = left->dtype() == right->dtype() ? DifferenceInDeviations(*left, *right) : INFINITY;
    if (difference == 0) {
      ++same;
    } else {
      structure.lines.push_back(
          fmt::format("weights '{}': {:.1e} standard deviations apart", Printable(a.value(id).name), difference));
    }
  }
  for (ValueId id = 0; id < b.value_count(); ++id) {
    if (!b.value(id).constant || b.use_count(id) == 0) continue;
    const ValueId there = a.FindValue(b.value(id).name);
    only_b += there == kNone || a.constant(there) == nullptr;
  }
  structure.lines.push_back(
      fmt::format("weights: {} equal by name, {} only in the first, {} only in the second", same, only_a, only_b));
}

Structure CompareStructure(const Graph& a, const Graph& b) {
  Structure structure;
  CompareInterface(a, b, structure);
  const std::map<std::string, int> left = OperatorCounts(a), right = OperatorCounts(b);
  std::map<std::string, int> all = left;
  all.insert(right.begin(), right.end());
  for (const auto& [op, ignored] : all) {
    const int l = left.count(op) ? left.at(op) : 0, r = right.count(op) ? right.at(op) : 0;
    if (l != r) structure.lines.push_back(fmt::format("{}: {} and {}", Printable(op), l, r));
  }
  CompareWeights(a, b, structure);
  return structure;
}

Result<int> Run(const Arguments& arguments) {
  ImportOptions options;
  options.allow_unknown_ops = true;
  CREASE_ASSIGN_OR_RETURN(const Graph a, ImportOnnxFile(arguments.a, options));
  CREASE_ASSIGN_OR_RETURN(const Graph b, ImportOnnxFile(arguments.b, options));
  const Structure structure = CompareStructure(a, b);
  std::vector<Verification> verifications;
  if (!structure.interface_differs && !arguments.structure_only) {
    VerifyRequest request;
    request.samples = arguments.samples;
    request.tolerance = arguments.tolerance;
    request.in_float = false;
    CREASE_ASSIGN_OR_RETURN(request.given, ReadTensorArguments(a, arguments.inputs));
    CREASE_RETURN_IF_ERROR(CheckConstants(b, request.given));
    CREASE_ASSIGN_OR_RETURN(verifications, Verify(a, b, arguments.a, arguments.b, request));
  }
  bool same = !structure.interface_differs;
  for (const Verification& v : verifications) same = same && v.ok();
  if (arguments.json) {
    fmt::print("{}\n", Json{{"a", arguments.a},
                            {"b", arguments.b},
                            {"same", same},
                            {"structure", structure.lines},
                            {"verify", VerificationJson(verifications)}}
                           .dump(2));
  } else {
    fmt::print("{}\n",
               same ? arguments.structure_only ? "the interfaces are the same" : "the same function on these inputs"
                    : "the models differ");
    for (const std::string& line : structure.lines) fmt::print("  {}\n", line);
    fmt::print("{}", VerificationText(verifications));
  }
  return same ? kOk : kFinding;
}

}  // namespace

Action AddDiff(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("A", arguments->a, "ONNX file")->required();
  app.add_option("B", arguments->b, "ONNX file")->required();
  app.add_option("--input", arguments->inputs, "compare on these: FILE.npz, or NAME=FILE.npy (may be repeated)")
      ->allow_extra_args(false);
  app.add_option("--samples", arguments->samples, "random inputs to compare on (seeds 1 to N)")
      ->capture_default_str()
      ->check(CheckPositive);
  app.add_option("--tolerance", arguments->tolerance,
                 "largest difference, in standard deviations of each output (1e-3, more for float16 and bfloat16)")
      ->check(CheckTolerance);
  app.add_flag("--structure", arguments->structure_only, "compare without running");
  app.add_flag("--json", arguments->json, "the comparison as JSON");
  AddQuiet(app);
  return [arguments] {
    const Result<int> result = Run(*arguments);
    return result.ok() ? *result : Fail(result.error());
  };
}

}  // namespace crease::tools
