// SPDX-License-Identifier: Apache-2.0
// Maps that pass through operators without weights: when op(map(x)) = map'(op(x)), and what map' is.
#pragma once

#include <optional>

#include "graph/passes/affine.h"

namespace crease::fold {

enum class Direction {
  kBackward,  // the map is on the node's output, wanted is the one on its input
  kForward,   // the map is on the node's input, wanted is the one on its output
};

// The map on the other side of `node`, whose data input is `data_slot` and whose data output is
// `output` (Split has several). Exact in real arithmetic; refuses where it is not. Handles operators
// with one data input: activations that are positively homogeneous, pools, Resize, Upsample, Pad,
// Slice, Gather, Split, Transpose, the reshaping family, DepthToSpace, SpaceToDepth, ReduceMean, Identity,
// Dropout, Cast. The refusal's code is "unsupported-producer" for others. `rounded_to`: where `node` makes
// the map's input, the type that the map's result is cast to at once, if any; a Cast asks for it.
Outcome<Affine> Commute(const FoldContext& context, NodeId node, int output, const Affine& map, Direction direction,
                        DType rounded_to = DType::kUndefined);

// Whether every value of float type `narrow` is one of `wide`: its precision and its range.
bool HoldsEvery(DType wide, DType narrow);

// Whether Commute has a rule for the operator: its data input is input 0 then.
bool HasCommuteRule(const Node& node);

// The map on a row-major reshape's other side. Refuses with "shape-unknown" or "uneven-channels".
Outcome<Affine> CommuteReshape(const FoldContext& context, ValueId from, ValueId to, const Affine& map);

// Reshape, Transpose, Reshape with nothing else reading between them, that reorder axis 1 and nothing
// else. `id` is the last of them for a map on its way back, the first for one on its way forward.
struct Shuffled {
  Affine map;  // on the other side
  NodeId cut, transpose, join;
};
std::optional<Shuffled> CommuteShuffle(const FoldContext& context, NodeId id, const Affine& map, Direction direction);

}  // namespace crease::fold
