// SPDX-License-Identifier: Apache-2.0
// What a fold would change: gathered while the graph is searched, written into a patch if it pays.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "graph/passes/affine.h"
#include "graph/patch.h"

namespace crease::fold {

class FoldPlan {
 public:
  // An edit runs when the plan is applied. `name_of` gives the value that now has the meaning which
  // `v` had in the old graph's place: `v`, or the value that takes its name.
  using Edit = std::function<void(Patch& patch, const FoldPlan& plan)>;

  void Add(Edit edit) { edits_.push_back(std::move(edit)); }
  // A node on the way: no other plan may use it in the same patch, and this plan only once. False if it
  // was visited before, or the search has taken too many steps.
  bool Visit(NodeId id);
  // An operator that took the map: "conv", "gemm", ... and its description.
  void Absorbed(std::string_view kind, std::string target) { absorbed_.emplace_back(kind, std::move(target)); }

  // The value `from` is to be made under the name of `to`: its producer writes `to`.
  void Rename(ValueId from, ValueId to) { renamed_[from] = to; }
  ValueId NameOf(ValueId value) const {
    const auto found = renamed_.find(value);
    return found == renamed_.end() ? value : found->second;
  }
  // The node reads another value in this slot than in the old graph; for edits that make the node anew.
  void Rewire(NodeId node, int slot, ValueId value) { rewired_[{node, slot}] = value; }
  ValueId InputOf(NodeId node, int slot, ValueId before) const {
    const auto found = rewired_.find({node, slot});
    return found == rewired_.end() ? before : found->second;
  }
  // The plan makes `value` by a new node; its old producer must not be renamed.
  void Remade(ValueId value) { remade_.push_back(value); }
  bool IsRemade(ValueId value) const;

  struct Mark {
    size_t edits, visited, absorbed, remade;
    int new_nodes;
    int64_t added_bytes;
    int dead;
  };
  Mark Save() const;
  void Restore(const Mark& mark);

  void Apply(Patch& patch) const {
    for (const Edit& edit : edits_) edit(patch, *this);
  }
  const std::vector<NodeId>& visited() const { return visited_; }
  const std::vector<std::pair<std::string_view, std::string>>& absorbed() const { return absorbed_; }

  int new_nodes = 0;                              // that the plan adds to what was there, not counting the folded chain
  int64_t added_bytes = 0;                        // of constants, new minus those that nothing else uses
  int dead_channels = 0;                          // scale zero
  int64_t left_channels = 0, total_channels = 0;  // of Concat branches that keep a node
  DType rounded_to = DType::kUndefined;           // what every reader casts the map's result to, if they do

 private:
  int steps_ = 0;  // of the search, given up ones included: nested sums could take 2^depth
  std::vector<Edit> edits_;
  std::vector<NodeId> visited_;
  std::vector<std::pair<std::string_view, std::string>> absorbed_;
  std::vector<ValueId> remade_;
  std::map<ValueId, ValueId> renamed_;
  std::map<std::pair<NodeId, int>, ValueId> rewired_;
};

// Adds nodes that compute `map` of `data` into `out`: one Mul, one Add, one BatchNormalization (axis
// 1; mean 0, variance 1, epsilon 0), or a Mul and an Add. `rank` of the data, or -1.
// AffineNodeCount tells how many, 0 where the rank is missing; an identity map counts as one Mul.
int AffineNodeCount(const Affine& map, int rank);
void EmitAffine(const FoldContext& context, Patch& patch, const Affine& map, int rank, DType dtype, ValueId data,
                ValueId out, std::string_view name);
// Whether the parameters of such nodes fit `dtype`.
Outcome<Done> CheckAffine(const Affine& map, DType dtype);

// Takes `map` on node input (user, slot) back into what makes the value. On success the plan has all
// edits except for removing the nodes whose map it is. `depth` counts operators on the way.
Outcome<Done> PushBackward(const FoldContext& context, NodeId user, int slot, const Affine& map, FoldPlan& plan,
                           int depth = 0);

// Takes `map` of the value into all its consumers, as they read `value` now. They will read `source`
// instead if it is not kNone.
Outcome<Done> PushForward(const FoldContext& context, ValueId value, ValueId source, const Affine& map, FoldPlan& plan,
                          int depth = 0);

// The operators with weights. Backward: the map is on the node's output; forward: on input `slot`.
bool AbsorbsBackward(const Node& node);
Outcome<Done> AbsorbBackward(const FoldContext& context, NodeId id, const Affine& map, FoldPlan& plan);
bool AbsorbsForward(const Node& node);
Outcome<Done> AbsorbForward(const FoldContext& context, NodeId id, int slot, const Affine& map, FoldPlan& plan);

inline constexpr int kMaxFoldDepth = 200;
inline constexpr int kMaxFoldSteps = 4000;

}  // namespace crease::fold
