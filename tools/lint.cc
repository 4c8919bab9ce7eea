// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>

#include "graph/onnx/exporter.h"
#include "graph/onnx/file_bytes.h"
#include "graph/onnx/importer.h"
#include "tools/command.h"
#include "tools/lint_checks.h"

namespace crease::tools {
namespace {

struct Arguments {
  std::string model, output;
  bool json = false, fix = false;
};

std::string_view FixOf(const Finding& finding) {
  const auto* row = std::find_if(std::begin(kLintCodes), std::end(kLintCodes),
                                 [&](const LintCode& code) { return code.code == finding.code; });
  return finding.fixable && row != std::end(kLintCodes) ? row->fix : "";
}

struct Found {
  std::vector<Finding> fixed, left;
};

// With `fix` repaired in `graph` as long as something can be: one finding may come up once another is repaired.
Result<Found> FindAndFix(Graph& graph, bool fix) {
  constexpr int kMaxRounds = 4;
  Found found;
  CREASE_ASSIGN_OR_RETURN(found.left, Lint(graph));
  for (int round = 0; fix && round < kMaxRounds; ++round) {
    const size_t before = found.fixed.size();
    std::copy_if(found.left.begin(), found.left.end(), std::back_inserter(found.fixed),
                 [](const Finding& f) { return !FixOf(f).empty(); });
    if (found.fixed.size() == before) break;
    CREASE_RETURN_IF_ERROR(FixLint(graph, found.left));
    CREASE_ASSIGN_OR_RETURN(found.left, Lint(graph));
  }
  return found;
}

Result<int> Run(const Arguments& arguments) {
  ImportOptions options;
  options.allow_unknown_ops = true;
  CREASE_ASSIGN_OR_RETURN(Graph graph, ImportOnnxFile(arguments.model, options));
  if (arguments.fix) CREASE_RETURN_IF_ERROR(CheckOutput(arguments.output, graph, arguments.model));
  const Result<Found> found = FindAndFix(graph, arguments.fix);
  if (!found.ok()) return onnx::InFile(arguments.model, found.error());
  const auto& [fixed, left] = *found;
  if (arguments.fix) CREASE_RETURN_IF_ERROR(WriteOnnxFile(graph, arguments.output));
  Json list = Json::array();
  const auto show = [&](const Finding& finding, bool is_fixed) {
    const std::string_view fix = FixOf(finding);
    if (arguments.json) {
      list.push_back({{"code", finding.code},
                      {"node", Printable(finding.node)},
                      {"message", finding.message},
                      {"fixable", !fix.empty()},
                      {"fixed", is_fixed}});
      return;
    }
    fmt::print("{}: {} '{}': {}", arguments.model, finding.code, Printable(finding.node), finding.message);
    if (!fix.empty()) fmt::print(" [{}: {}]", is_fixed ? "fixed" : "--fix", fix);
    fmt::print("\n");
  };
  for (const Finding& finding : fixed) show(finding, true);
  for (const Finding& finding : left) show(finding, false);
  if (arguments.json) fmt::print("{}\n", Json{{"model", arguments.model}, {"findings", std::move(list)}}.dump(2));
  if (!arguments.json && fixed.empty() && left.empty()) fmt::print("{}: nothing found\n", arguments.model);
  return left.empty() ? kOk : kFinding;
}

}  // namespace

Action AddLint(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file")->required();
  app.add_flag("--json", arguments->json, "the findings as JSON");
  CLI::Option* output = app.add_option("-o,--output", arguments->output, "where --fix writes the repaired model");
  app.add_flag("--fix", arguments->fix, "repair what can be repaired; each repair is printed")->needs(output);
  AddQuiet(app);
  return [arguments] {
    const Result<int> result = Run(*arguments);
    return result.ok() ? *result : Fail(result.error());
  };
}

}  // namespace crease::tools
