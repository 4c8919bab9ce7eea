// SPDX-License-Identifier: Apache-2.0
// Builds a Plan from a Program, op by op in order. Private to runtime/planner*.cc.
//
// A value has at most one tensor for each layout; the second one is made by a Reorder step when an op
// first asks for it. Ops that only rename bytes (Reshape, channel slices, Transposes that change nothing
// but the layout's name, ...) make tensors and no step.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "runtime/plan.h"

namespace crease {

class Planner {
 public:
  Planner(Program program, const PlanOptions& options);
  Result<std::shared_ptr<const Plan>> Run();

 private:
  // What was found for an op: a kernel, the layout of its activations, where its result goes.
  struct Choice {
    int rank = 0;  // index among the candidates
    const KernelEntry* entry = nullptr;
    std::unique_ptr<Kernel> kernel;
    Layout layout = Layout::kPlain;  // of results, and of sources unless these stay as they are
    bool mixed = false;              // sources stay as they are
    int in_place = kNone;            // tensor that the destination shares
    std::vector<Refusal> refusals;
  };
  struct StageRequests {  // of convolutions after each other
    std::vector<std::vector<Operand>> operands;
    std::vector<KernelRequest> requests;
  };
  struct Slice {         // a value that is written straight into a Concat's result
    int concat = kNone;  // op
    int64_t channel = 0;
  };

  // planner.cc
  Result<void> AddOp(const ProgramOp& op);
  Result<void> Emit(const ProgramOp& op, Choice choice, double flops);
  Result<void> BindOutputs();
  void FinishUses(const ProgramOp& op);
  Result<void> PlaceBuffers();
  int AddBuffer(PlanBuffer::Kind kind, int64_t bytes, int index);
  int AddTensor(ValueId value, Layout layout, int64_t pitch, int buffer, int64_t offset);
  int AddDenseTensor(ValueId value, Layout layout);   // in a new buffer of the arena
  int tensor_of(ValueId value, Layout layout) const;  // or kNone
  void SetTensor(ValueId value, int tensor);
  // The value's tensor in that layout; a Reorder step makes it if there is none. Rank < 3: plain.
  Result<int> TensorIn(ValueId value, Layout layout);
  Result<void> AddReorder(int src, int dst, const std::string& name);
  int ScratchBuffer(const Kernel& kernel);
  int64_t dim(ValueId value, size_t axis) const { return program_.value(value).shape[axis]; }
  bool fits_channels_last(ValueId value) const { return program_.value(value).rank() >= 3; }

  // planner_choose.cc
  Result<Choice> Choose(const ProgramOp& op);
  std::optional<Choice> Try(const ProgramOp& op, const KernelEntry& entry, Layout layout,
                            std::vector<Refusal>& refusals);
  std::optional<Choice> TryWithSlices(const ProgramOp& op, const KernelEntry& entry, Layout layout,
                                      std::vector<Refusal>& refusals);
  Layout PreferredLayout(const ProgramOp& op) const;
  Operand OperandFor(ValueId value, Layout layout) const;
  // The layout in which the choice reads the value.
  Layout SourceLayout(ValueId value, const Choice& choice) const;
  int FindInPlace(const ProgramOp& op, const KernelEntry& entry, Layout layout) const;
  int ShareableTensor(const ProgramOp& op, ValueId id, Layout layout, bool element_wise) const;
  bool DeadAfter(int buffer, const ProgramOp& op) const;
  // The op without parts of its fusions, and the ops that do these instead. Empty: nothing to take off.
  std::vector<std::vector<ProgramOp>> Unfused(const ProgramOp& op);
  std::array<ProgramOp, 2> WithoutPrologue(const ProgramOp& op);
  ValueId AddTemporary(const std::string& name, DType dtype, const Shape& shape);  // read once
  Result<void> AddFusedOp(const ProgramOp& op);
  Result<void> AddTunedOp(const ProgramOp& op);

  // planner_chains.cc
  void AssignChains();
  std::vector<int> RunOfConvs(int first) const;
  StageRequests RequestsFor(const std::vector<int>& ops, Layout source) const;
  std::vector<Layout> ChainSourceLayouts(int first) const;
  Result<void> AddChain(const std::vector<int>& ops);

  // planner_fetch.cc
  void PlanFetches();

  // planner_views.cc
  void AssignSlices();
  std::vector<Layout> PredictLayouts() const;
  Result<bool> AddView(const ProgramOp& op);  // true: done, no kernel needed
  bool AliasSameShape(const ProgramOp& op);
  Result<bool> AliasReshape(const ProgramOp& op);
  bool AliasTranspose(const ProgramOp& op);
  bool AliasChannels(const ProgramOp& op);
  Result<bool> ConcatInPlace(const ProgramOp& op);
  bool ViewRange(ValueId src, ValueId dst, size_t axis, int64_t start);
  bool CanViewRange(ValueId src, size_t axis) const;
  int SliceTensor(ValueId value);  // for a value with a Slice: its tensor there
  int ConcatTensor(int concat);    // channels-last result of a Concat with slices

  Program program_;
  const PlanOptions& options_;
  std::shared_ptr<Plan> plan_;
  std::vector<std::array<int, 2>> versions_;  // by value and Layout
  std::vector<int> uses_left_;                // by value: ops to come, and graph outputs
  // Bytes of constants that some step reads when it runs, or that several values show.
  std::unordered_set<const std::byte*> read_later_;
  std::vector<std::vector<ValueId>> values_in_;  // by buffer: values with a tensor in it
  std::vector<Slice> slice_of_;                  // by value
  std::vector<bool> rectified_;                  // by value: see FindRectified
  std::vector<int> concat_tensor_;               // by op of the program: kNone, or its tensor
  std::vector<bool> concat_in_place_;            // by op of the program
  std::vector<std::vector<int>> chains_;         // ops that run as one step
  std::vector<int> chain_of_;                    // by op of the program: kNone, or its chain
  int current_op_ = kNone;
  std::string_view wanted_kernel_;  // what the tuning has for the current op
};

inline size_t Index(Layout layout) { return layout == Layout::kPlain ? 0 : 1; }

}  // namespace crease
