// SPDX-License-Identifier: Apache-2.0
#include "graph/passes/passes.h"

namespace crease {
namespace {

constexpr Pass kPreparation[] = {{"compose_activations", ComposeActivations}};

constexpr Pass kFolding[] = {
    {"eliminate_identity", EliminateIdentity}, {"fold_batchnorm", FoldBackward},
    {"fold_batchnorm", FoldForward},           {"merge_affine", MergeAffine},
    {"fold_batchnorm", ExplainUnfolded},       {"dead_code", EliminateDeadCode},
};

constexpr Pass kRuntime[] = {
    {"constant_fold", FoldConstants},
    {"eliminate_identity", EliminateIdentity},
    {"dead_code", EliminateDeadCode},
};

}  // namespace

std::span<const Pass> PreparationPasses() { return kPreparation; }
std::span<const Pass> FoldingPasses() { return kFolding; }
std::span<const Pass> RuntimePasses() { return kRuntime; }

}  // namespace crease
