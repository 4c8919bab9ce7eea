// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "graph/onnx/exporter.h"
#include "graph/onnx/file_bytes.h"
#include "graph/onnx/importer.h"
#include "graph/passes/passes.h"
#include "graph/passes/reason_codes.h"
#include "runtime/file_map.h"
#include "tools/fold_report.h"
#include "tools/report_html.h"

namespace crease::tools {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> models;
  std::string output, html;
  std::vector<std::string> inputs, fail_on;
  int verify = 0;
  std::optional<double> tolerance;
  bool explain = false, json = false;
};

// What a pattern like 'models/*.onnx' names, sorted: for callers without a shell, or who quote it.
std::vector<std::string> Glob(const std::string& pattern) {
  std::vector<std::string> files;
  glob_t found = {};
  if (::glob(pattern.c_str(), GLOB_ERR, nullptr, &found) == 0)
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return files;
}

// Files to fold: those named, those that patterns name, and the .onnx files of folders, sorted.
std::vector<std::string> Expand(const std::vector<std::string>& names) {
  std::vector<std::string> files;
  for (const std::string& name : names) {
    std::error_code ignored;
    if (!fs::is_directory(name, ignored)) {
      const bool pattern = name.find_first_of("*?[") != std::string::npos && !fs::exists(name, ignored);
      const std::vector<std::string> matches = pattern ? Glob(name) : std::vector<std::string>{name};
      files.insert(files.end(), matches.begin(), matches.end());
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(name, ignored)) {
      if (entry.path().extension() == ".onnx") found.push_back(entry.path().string());
    }
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

double Since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Result<FoldReport> FoldOne(const Arguments& arguments, const std::string& input, const std::string& output) {
  FoldReport report;
  report.input = input;
  report.output = output;
  const auto start = std::chrono::steady_clock::now();
  ImportOptions options;
  options.allow_unknown_ops = true;
  // Weights stay in the file until they are asked for: those that no fold touches go from one file to the other
  // without a copy in memory.
  CREASE_ASSIGN_OR_RETURN(const MappedModel mapped, ImportMapped(input, options));
  const Graph& original = mapped.graph;
  std::vector<std::string> read;
  for (const std::string& argument : arguments.inputs) read.push_back(FileOfTensorArgument(argument));
  CREASE_RETURN_IF_ERROR(CheckOutput(output, original, input, read));
  if (!arguments.html.empty()) {
    read.push_back(input);
    CREASE_RETURN_IF_ERROR(CheckOutput(arguments.html, original, input, read));
  }
  Graph folded = original;
  Result<PassLog> log = RunPasses(folded, FoldingPasses());
  if (!log.ok()) return onnx::InFile(input, std::move(log).error());
  report.log = std::move(log).value();
  LogInnerBatchNorms(folded, report.log);
  CREASE_RETURN_IF_ERROR(WriteOnnxFile(folded, output));
  report.seconds = Since(start);
  report.before = SizeOf(original);
  report.after = SizeOf(folded);
  report.defaults = DefaultsOf(original, folded);
  const bool verify = arguments.verify > 0 || !arguments.inputs.empty() || !arguments.html.empty();
  if (verify) {
    VerifyRequest request;
    request.samples = std::max(1, arguments.verify);
    request.tolerance = arguments.tolerance;
    CREASE_ASSIGN_OR_RETURN(request.given, ReadTensorArguments(original, arguments.inputs));
    // What was written, not what was meant.
    CREASE_ASSIGN_OR_RETURN(const Graph written, ImportOnnxFile(output, options));
    CREASE_ASSIGN_OR_RETURN(report.verifications, Verify(original, written, input, output, request));
  }
  if (!arguments.html.empty()) CREASE_RETURN_IF_ERROR(WriteFoldHtml(arguments.html, original, folded, report));
  return report;
}

// Whether the report holds what --fail-on names.
bool Fails(const Arguments& arguments, const FoldReport& report) {
  for (const std::string& code : arguments.fail_on) {
    if (code == "unfolded" && report.after.batchnorms > 0) return true;
    for (const LogEntry& entry : report.log) {
      if (!entry.applied && entry.code == code) return true;
    }
  }
  return std::any_of(report.verifications.begin(), report.verifications.end(),
                     [](const Verification& v) { return !v.ok(); });
}

int Run(const Arguments& arguments) {
  for (const std::string& code : arguments.fail_on) {
    const ReasonCode* row = FindReasonCode(code);
    if (code != "unfolded" && (row == nullptr || row->applied)) {
      return FailUsage(
          fmt::format("--fail-on: '{}' is no reason for keeping a batch-norm; docs/folding.md lists them", code));
    }
  }
  const std::vector<std::string> files = Expand(arguments.models);
  std::error_code ignored;
  const bool into_folder = files.size() != 1 || fs::is_directory(arguments.output, ignored);
  if (files.empty()) {
    return Fail({ErrorCode::kInvalidArgument, "no .onnx file there", Printable(arguments.models.front())});
  }
  if (into_folder && !arguments.html.empty()) return FailUsage("--html takes one model");
  std::vector<std::string> outputs;
  for (const std::string& file : files) {
    outputs.push_back(into_folder ? (fs::path(arguments.output) / fs::path(file).filename()).string()
                                  : arguments.output);
    if (std::count(outputs.begin(), outputs.end(), outputs.back()) > 1) {
      return FailUsage(fmt::format("two models would be written to '{}'", Printable(outputs.back())));
    }
  }
  if (into_folder) fs::create_directories(arguments.output, ignored);
  Progress progress("folding", static_cast<int64_t>(files.size()));
  Json all = Json::array();
  int exit_code = kOk;
  for (size_t i = 0; i < files.size(); ++i) {
    progress.Update(static_cast<int64_t>(i), files[i]);
    Result<FoldReport> report = FoldOne(arguments, files[i], outputs[i]);
    if (!report.ok()) {
      if (files.size() == 1) return Fail(report.error());
      exit_code = std::max(exit_code, Fail(report.error()));
      continue;
    }
    if (arguments.json) {
      all.push_back(FoldJson(*report));
    } else {
      fmt::print("{}", FoldText(*report, arguments.explain));
    }
    if (Fails(arguments, *report)) exit_code = std::max<int>(exit_code, kFinding);
  }
  if (arguments.json) fmt::print("{}\n", (into_folder ? all : all[0]).dump(2));
  return exit_code;
}

}  // namespace

Action AddFold(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->models, "ONNX files, folders of them, or patterns like 'models/*.onnx'")
      ->required();
  app.add_option("-o,--output", arguments->output, "what to write: a file, or a folder for several models")->required();
  app.add_flag("--verify{1}", arguments->verify,
               "compare with the original in float64 and float32; --verify=N: on N random inputs (seeds 1 to N)");
  app.add_option("--tolerance", arguments->tolerance,
                 "largest difference, in standard deviations of each output (1e-3, more for float16 and bfloat16)")
      ->check(CheckTolerance);
  app.add_option("--input", arguments->inputs, "verify on these: FILE.npz, or NAME=FILE.npy (may be repeated)")
      ->allow_extra_args(false);
  app.add_flag("--explain", arguments->explain, "a line for every node, folded ones too");
  app.add_flag("--json", arguments->json, "the report as JSON");
  app.add_option("--html", arguments->html,
                 "write a page with the graph before and after, and the error of each layer");
  app.add_option("--fail-on", arguments->fail_on,
                 "exit 1 if a batch-norm is kept for one of these reasons, or 'unfolded' for any")
      ->delimiter(',')
      ->allow_extra_args(false);
  AddQuiet(app);
  return [arguments] { return Run(*arguments); };
}

}  // namespace crease::tools
