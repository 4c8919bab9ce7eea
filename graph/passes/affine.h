// SPDX-License-Identifier: Apache-2.0
// The map that travels through a graph: y = scale[c] * x + shift[c] along one axis, in double.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/graph.h"
#include "graph/op.h"
#include "graph/passes/const_eval.h"
#include "graph/passes/unrounded.h"

namespace crease::fold {

// A refusal: a code of graph/passes/reason_codes.h, what stands in the way, and a sentence.
struct Refusal {
  std::string_view code;
  std::string target;
  std::string message;
};

// A value, or why there is none.
template <typename T>
class Outcome {
 public:
  Outcome(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Outcome(Refusal refusal) : state_(std::in_place_index<1>, std::move(refusal)) {}
  bool ok() const { return state_.index() == 0; }
  T& operator*() { return *std::get_if<0>(&state_); }
  const T& operator*() const { return *std::get_if<0>(&state_); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  const Refusal& refusal() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Refusal> state_;
};

struct Done {};

// One entry means the same map for every channel; `axis` (>= 0) has no meaning then. Else the axis of
// the value has as many channels as there are entries. Both vectors have the same length.
struct Affine {
  int axis = 1;
  std::vector<double> scale, shift;

  static Affine Identity() { return {1, {1.0}, {0.0}}; }
  static Affine Identity(int axis, size_t channels) {
    return {axis, std::vector<double>(channels, 1.0), std::vector<double>(channels, 0.0)};
  }

  size_t size() const { return scale.size(); }
  bool uniform() const { return scale.size() == 1; }
  double scale_at(size_t c) const { return uniform() ? scale[0] : scale[c]; }
  double shift_at(size_t c) const { return uniform() ? shift[0] : shift[c]; }
  bool has_scale() const;  // some scale is not 1
  bool has_shift() const;  // some shift is not 0
  bool identity() const { return !has_scale() && !has_shift(); }
  bool finite() const;
  double min_scale() const;
  int zero_scales() const;
  // Uniform maps with as many entries as there are channels; others must have `channels` already.
  Affine Broadcast(int to_axis, size_t channels) const;
};

// Whether the two maps can follow each other on one value as one map.
bool Composable(const Affine& a, const Affine& b);
// second(first(x)); needs Composable.
Affine Compose(const Affine& first, const Affine& second);

// A node that is such a map of one of its inputs.
struct AffineNode {
  NodeId node = kNone;
  int slot = 0;  // of the data input
  ValueId data = kNone, out = kNone;
  Affine affine;
  DType dtype = DType::kUndefined;  // of the data: what parameters of a node in its place must be of
  int64_t parameter_bytes = 0;
};

// What passes ask of a graph while they fold.
struct FoldContext {
  const Graph& graph;
  const InferredTypes& types;
  ConstEval& constants;
  Unrounded& unrounded;

  const TensorType& type(ValueId id) const { return types.types[static_cast<size_t>(id)]; }
  int rank(ValueId id) const { return id == kNone ? -1 : type(id).rank(); }  // -1: unknown
  int64_t dim(ValueId id, int axis) const;                                   // -1: unknown
  int opset() const { return graph.info().opset(); }
  // Whether the node takes an element of the value: a Shape does not, nor a CastLike that wants its type.
  bool LooksAt(NodeId node, ValueId value) const;
  // Uses of the value, but for nodes that do not look at it: a map of it changes nothing for them.
  int LookingUses(ValueId value) const;
};

// The node as a map: BatchNormalization in its inference form; Add, Sub, Mul, Div, Sum with constants
// that vary along one axis at most; Neg. A refusal with an empty code: it is nothing of the kind.
Outcome<AffineNode> MatchAffine(const FoldContext& context, NodeId id);

}  // namespace crease::fold
