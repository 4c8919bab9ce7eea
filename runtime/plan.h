// SPDX-License-Identifier: Apache-2.0
// How a network runs at one set of input shapes: steps with their kernels, where every tensor lies, and
// one arena for all that lives inside a call.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "runtime/program.h"

namespace crease {

// Memory that tensors lie in. Every buffer of kind kArena has a place in the arena; one that is bound to
// a graph output lies in the caller's memory instead when the caller wants that output.
struct PlanBuffer {
  enum class Kind : uint8_t { kArena, kInput, kConstant };
  Kind kind = Kind::kArena;
  int64_t bytes = 0;
  int index = kNone;                          // kInput: which input; kConstant: index of Plan::constants
  int output = kNone;                         // kArena: the graph output that it is
  int first_step = kNone, last_step = kNone;  // kArena: it is written and read in these and between
  int64_t offset = kNone;                     // kArena: in the arena, 64-byte aligned
};

// A value's appearance in one layout at one place. Several may show the same bytes.
struct PlanTensor {
  ValueId value = kNone;
  int buffer = kNone;
  int64_t offset = 0;  // bytes from the buffer's start
  Layout layout = Layout::kPlain;
  int64_t pitch = 0;  // elements; channels-last only
  DType dtype = DType::kUndefined;
  Shape shape;

  int64_t size() const;
  int64_t spatial() const;  // product of the dimensions after the second
};

struct Refusal {
  std::string kernel, reason;
};

struct PlanStep {
  std::string name, op_type;
  std::string kernel;  // "onednn", "reference"; "copy" for a plain copy of bytes
  std::string detail;  // Kernel::Describe()
  std::string layout;  // of the first destination: "plain", "channels-last", "channels-last slice"
  std::vector<std::string> fused;
  std::vector<Refusal> refusals;
  std::shared_ptr<const Kernel> run;  // null: copy src[0]'s bytes
  std::vector<int> src, dst;          // tensors; kNone where absent
  std::vector<bool> reads;            // whether Run reads src[i]'s data
  int scratch = kNone;                // buffer
  bool in_place = false;              // dst[0] is one of src
  double flops = 0, bytes = 0;
  std::vector<std::vector<ConstBytes>> fetch;  // see RunContext
  std::string tuning_key;  // of the operator that the step is or is a part of; empty: no choice of kernels
};

class Plan {
 public:
  std::vector<Shape> input_shapes, output_shapes;
  std::vector<PlanBuffer> buffers;
  std::vector<PlanTensor> tensors;
  std::vector<PlanStep> steps;
  std::vector<Tensor> constants;         // aligned; undefined where no kernel reads them
  std::vector<int> output_buffers;       // by graph output
  std::vector<std::string> value_names;  // by ValueId, for messages
  int64_t arena_bytes = 0;
  int workers = 1;

  double flops() const;
};

class Tuning;

struct PlanOptions {
  int workers = 1;
  bool exact = false;
  int64_t max_arena_bytes = int64_t{16} << 30;
  PackCache* packs = nullptr;
  ConstantPool* constants = nullptr;  // never null
  Executor* executor = nullptr;       // for packing
  const Tuning* tuning = nullptr;     // may be null
  // Told of constants, each may be empty: one whose view no Run of a kernel reads, when that is made; one that nothing
  // in the plan reads any more in any way, no other constant of the same bytes either.
  std::function<void(const Tensor&)> packed, spent;
};

// Errors: an operator that no kernel takes (with every reason), an arena over the limit.
Result<std::shared_ptr<const Plan>> MakePlan(Program program, const PlanOptions& options);

// The shapes' flops of one operator: 2 for a multiply-add, 1 for an element of anything else.
double Flops(const Program& program, const ProgramOp& op);

}  // namespace crease
