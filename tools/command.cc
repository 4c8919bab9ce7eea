// SPDX-License-Identifier: Apache-2.0
#include "tools/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "graph/onnx/file_bytes.h"
#include "graph/onnx/graph_writer.h"

namespace crease::tools {
namespace {

bool g_quiet = false;  // set while options are parsed, before any thread starts

std::string InputNames(const Graph& graph) {
  std::string names;
  for (ValueId id : graph.inputs()) {
    if (graph.constant(id) == nullptr)
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", Printable(graph.value(id).name));
  }
  return names.empty() ? "none" : names;
}

}  // namespace

// Nobody's data is left out without a word.
Result<void> CheckConstants(const Graph& graph, const NamedTensors& tensors) {
  for (const auto& [name, ignored] : tensors) {
    const ValueId id = graph.FindValue(name);
    if (id == kNone || !graph.value(id).is_input || graph.constant(id) == nullptr) continue;
    return Error{ErrorCode::kInvalidArgument,
                 "the file has an initializer of that name, so that it is a constant here; to give it, take the "
                 "initializer out of the file",
                 "input '" + Printable(name) + "'"};
  }
  return {};
}

int Fail(const Error& error) {
  fmt::print(stderr, "crease: error: {}\n", error.ToString());
  switch (error.code) {
    case ErrorCode::kInternal:
    case ErrorCode::kOutOfMemory:
      return kFault;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kInvalidModel:
    case ErrorCode::kUnsupported:
    case ErrorCode::kLimitExceeded:
    case ErrorCode::kIo:
      break;
  }
  return kBadInput;
}

int FailUsage(const std::string& message) {
  fmt::print(stderr, "crease: {}\nRun with --help for more information.\n", message);
  return kUsage;
}

std::string CheckPositive(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool good = error == std::errc() && end == text.data() + text.size() && value > 0 && std::isfinite(value);
  return good ? "" : "expected a number > 0, got " + text;
}

std::string FileOfTensorArgument(const std::string& argument) {
  const size_t equals = argument.find('=');
  return equals != std::string::npos && argument.ends_with(".npy") ? argument.substr(equals + 1) : argument;
}

Result<NamedTensors> ReadTensorArguments(const Graph& graph, const std::vector<std::string>& arguments) {
  NamedTensors tensors;
  const auto set = [&](std::string name, Tensor tensor) {
    const auto found =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& entry) { return entry.first == name; });
    if (found != tensors.end()) {
      found->second = std::move(tensor);
    } else {
      tensors.emplace_back(std::move(name), std::move(tensor));
    }
  };
  for (const std::string& argument : arguments) {
    const std::string path = FileOfTensorArgument(argument);
    if (path != argument) {
      const std::string name = argument.substr(0, argument.find('='));
      const ValueId id = graph.FindValue(name);
      if (id == kNone || !graph.value(id).is_input) {
        return Error{ErrorCode::kInvalidArgument, "the network has no such input; it has " + InputNames(graph),
                     "--input '" + Printable(name) + "'"};
      }
      CREASE_ASSIGN_OR_RETURN(Tensor tensor, ReadNpy(path));
      set(name, std::move(tensor));
      continue;
    }
    if (!argument.ends_with(".npz")) {
      return Error{ErrorCode::kInvalidArgument, "expected FILE.npz or NAME=FILE.npy", argument};
    }
    CREASE_ASSIGN_OR_RETURN(NamedTensors file, ReadNpz(argument));
    for (auto& [name, tensor] : file) set(std::move(name), std::move(tensor));
  }
  CREASE_RETURN_IF_ERROR(CheckConstants(graph, tensors));
  return tensors;
}

Result<void> CheckOutput(const std::string& output, const Graph& model, const std::string& path,
                         const std::vector<std::string>& inputs) {
  const auto same = [&](const std::string& file) {
    std::error_code none;  // one of them does not exist
    return std::filesystem::equivalent(output, file, none);
  };
  const auto refused = [&](const char* what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("it is {}, which would be gone: write to another file", what),
                 Printable(output)};
  };
  CREASE_ASSIGN_OR_RETURN(const std::set<std::string> external, onnx::ExternalLocations(model));
  for (const std::string& location : external) {
    if (same(onnx::FolderOf(path) + "/" + location)) return refused("the model's external data");
  }
  if (std::any_of(inputs.begin(), inputs.end(), same)) return refused("a file that is read");
  return {};
}

Progress::Progress(std::string_view what, int64_t total)
    : what_(what), total_(total), start_(std::chrono::steady_clock::now()), shown_(start_) {
  visible_ = !g_quiet && ::isatty(STDERR_FILENO) == 1;
}

Progress::~Progress() {
  if (visible_ && shown_ != start_) fmt::print(stderr, "\r\x1b[K");
}

void Progress::Update(int64_t done, std::string_view detail) {
  using std::chrono::milliseconds;
  const auto now = std::chrono::steady_clock::now();
  if (!visible_ || now - shown_ < milliseconds(100) || now - start_ < milliseconds(500)) return;
  shown_ = now;
  if (total_ > 0) {
    fmt::print(stderr, "\r\x1b[K{} {}/{} {}", what_, done, total_, detail);
  } else {
    fmt::print(stderr, "\r\x1b[K{} {}", what_, detail);
  }
  std::fflush(stderr);
}

void Progress::SetQuiet(bool quiet) { g_quiet = quiet; }

void AddQuiet(CLI::App& app) {
  app.add_flag_callback(
      "--quiet", [] { Progress::SetQuiet(true); }, "No progress on stderr");
}

}  // namespace crease::tools
