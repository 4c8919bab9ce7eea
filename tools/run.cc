// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>

#include "runtime/session_impl.h"
#include "tools/command.h"
#include "tools/feed.h"

namespace crease::tools {
namespace {

struct Arguments {
  std::string model;
  std::vector<std::string> inputs;
  std::string output;
  SessionArguments session;
};

Result<void> Run(const Arguments& arguments) {
  Progress progress("running batch");
  CREASE_ASSIGN_OR_RETURN(const Session session, Session::load(arguments.model, arguments.session.ToOptions()));
  CREASE_ASSIGN_OR_RETURN(const NamedTensors arrays, ReadTensorArguments(session.impl().graph(), arguments.inputs));
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs, MatchInputs(session, arrays));
  CREASE_ASSIGN_OR_RETURN(const NamedTensors outputs, RunInPieces(session, inputs, [&](int64_t done, int64_t total) {
                            progress.Update(done, fmt::format("{}/{}", done, total));
                          }));
  if (!arguments.output.empty()) return WriteNpz(arguments.output, outputs);
  for (const auto& [name, tensor] : outputs) {
    fmt::print("{}: {} {}\n", name, Name(tensor.dtype()), ToString(tensor.shape()));
  }
  return {};
}

}  // namespace

Action AddRun(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file")->required();
  app.add_option("--input", arguments->inputs,
                 "FILE.npz with arrays named as the inputs, or NAME=FILE.npy (may be repeated). A batch "
                 "that is a multiple of the file's fixed one runs piece by piece")
      ->required()
      ->allow_extra_args(false);
  app.add_option("--output", arguments->output,
                 "FILE.npz for the outputs, named as in the model; without it their shapes are printed");
  arguments->session.AddTo(app);
  AddQuiet(app);
  return [arguments] {
    const Result<void> result = Run(*arguments);
    return result.ok() ? static_cast<int>(kOk) : Fail(result.error());
  };
}

}  // namespace crease::tools
