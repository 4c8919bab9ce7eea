// SPDX-License-Identifier: Apache-2.0
// The lists of passes, and each of them.
#pragma once

#include <span>

#include "graph/passes/pass.h"

namespace crease {

// What `crease fold` does to a file: batch-norms and per-channel maps into weights, then what became
// useless is taken out. The graph stays valid ONNX.
std::span<const Pass> FoldingPasses();

// What a session does to a graph before folding: activations in parts become one node.
std::span<const Pass> PreparationPasses();

// What a session does to a graph after folding: constants evaluated, nodes without effect taken out.
std::span<const Pass> RuntimePasses();

// graph/passes/fold_batchnorm.cc
Result<Patch> FoldBackward(const Graph& graph, PassContext& context);
Result<Patch> FoldForward(const Graph& graph, PassContext& context);
Result<Patch> MergeAffine(const Graph& graph, PassContext& context);
// No edits: a refusal for every batch-norm that is left.
Result<Patch> ExplainUnfolded(const Graph& graph, PassContext& context);

// graph/passes/eliminate_identity.cc: Identity, inference Dropout, Cast, Reshape, Transpose, Pad, Slice,
// arithmetic and others that change nothing.
Result<Patch> EliminateIdentity(const Graph& graph, PassContext& context);
// graph/passes/compose_activations.cc: Div(Clip(x + b, 0, d), d) to HardSigmoid, also inside a hard swish.
Result<Patch> ComposeActivations(const Graph& graph, PassContext& context);
// graph/passes/dead_code.cc: nodes whose outputs nothing uses.
Result<Patch> EliminateDeadCode(const Graph& graph, PassContext& context);
// graph/passes/constant_fold.cc: nodes whose inputs are all constant, up to kMaxFoldedElements.
Result<Patch> FoldConstants(const Graph& graph, PassContext& context);
inline constexpr int64_t kMaxFoldedElements = int64_t{1} << 26;

}  // namespace crease
