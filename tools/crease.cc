// SPDX-License-Identifier: Apache-2.0
// The program `crease`: a table of subcommands.
#include <exception>
#include <new>

#include "tools/command.h"

namespace {

using crease::tools::Command;

constexpr Command kCommands[] = {
    {"fold", "Fold every batch-norm that can be folded exactly; write standard ONNX",
     "crease fold resnet50.onnx -o folded.onnx --verify", crease::tools::AddFold},
    {"run", "Run a network on arrays", "crease run resnet50.onnx --input in.npz --output out.npz",
     crease::tools::AddRun},
    {"bench", "Time a network", "crease bench resnet50.onnx --threads 2 --profile", crease::tools::AddBench},
    {"tune", "Measure which kernel is fastest for each layer, and remember it", "crease tune resnet50.onnx --threads 2",
     crease::tools::AddTune},
    {"inspect", "Show what a network is and how it will run", "crease inspect resnet50.onnx",
     crease::tools::AddInspect},
    {"lint", "Find what people get wrong about batch-norms; exit 1 if anything is found", "crease lint resnet50.onnx",
     crease::tools::AddLint},
    {"diff", "Tell whether two models are the same function", "crease diff a.onnx b.onnx", crease::tools::AddDiff},
    {"recalibrate", "Measure the running statistics of every batch-norm anew, on data",
     "crease recalibrate resnet50.onnx --data images.npz -o recalibrated.onnx", crease::tools::AddRecalibrate},
};

int Run(int argc, char** argv) {
  CLI::App app{"Crease folds batch-norms and runs convolutional networks on the CPU."};
  app.set_version_flag("--version", std::string("crease ") + CREASE_VERSION);
  app.require_subcommand(1);
  crease::tools::Action action;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
    sub->footer("Example:\n  " + std::string(command.example));
    sub->callback([&action, run = command.add(*sub)] { action = run; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? crease::tools::kOk : crease::tools::kUsage;
  }
  return action();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("crease: error: out of memory\n", stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crease: internal error: %s\n", error.what());
  }
  return crease::tools::kFault;
}
