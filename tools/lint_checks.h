// SPDX-License-Identifier: Apache-2.0
// What people get wrong about batch-norms, found in a graph; and the repairs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/passes/const_eval.h"
#include "graph/passes/pass.h"
#include "graph/patch.h"

namespace crease::tools {

struct Finding {
  std::string code;  // stable, see kLintCodes
  std::string node;  // or the initializer
  std::string message;
  bool fixable = false;
};

struct LintCode {
  std::string_view code, meaning, fix;  // fix: empty where --fix does nothing
};
inline constexpr LintCode kLintCodes[] = {
    {"training-mode", "a BatchNormalization normalises by the batch's own statistics, or a Dropout drops at random",
     "set to inference, unless stored statistics were never trained"},
    {"few-samples", "batch statistics over fewer than 4 samples a channel", ""},
    {"redundant-bias", "a bias that only a BatchNormalization reads: its mean takes it out again",
     "merged into the mean"},
    {"bad-variance", "var + epsilon is not positive and finite", ""},
    {"untrained-statistics", "mean 0 and variance 1 in every channel: never trained, or folded before", ""},
    {"denormal-weights", "weights below the normal range, which are slow and mean nothing", "set to zero"},
    {"input-defaults",
     "initializers that are graph inputs, too: a caller may replace them, a fold makes them constants", ""},
    {"unfolded", "a batch-norm that `crease fold` would keep", ""},
};

// Batch statistics over fewer samples a channel are noise.
inline constexpr int64_t kFewSamples = 4;

// A BatchNormalization or Dropout without what training mode adds to it: an attribute and further outputs; an input.
Node InferenceForm(const Node& node);

bool IsDropout(const Node& node);
inline constexpr size_t kDropoutTraining = 2;  // its input that says whether it drops
// Whether a Dropout drops at random: it has a training_mode, which is a constant true, and no ratio that is a constant
// 0.
bool DropsAtRandom(const Node& node, ConstEval& constants);

// Findings in the file's order. Errors: those of type inference and of the passes.
Result<std::vector<Finding>> Lint(const Graph& graph);

// Repairs what `findings` call fixable. Errors: out of memory.
Result<void> FixLint(Graph& graph, const std::vector<Finding>& findings);

}  // namespace crease::tools
