// SPDX-License-Identifier: Apache-2.0
// A graph at one set of input shapes, as the runtime sees it: a list of operators in the order of
// their execution, with what was fused into them. Everything constant has been computed already.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph.h"
#include "kernels/epilogue.h"
#include "kernels/kernel.h"

namespace crease {

// Constants that lowering makes (computed shapes, merged biases, aligned copies), shared by the plans
// of a session and alive as long as it, so that a PackCache key that names one stays unique. Equal
// contents are kept once: the pool does not grow when shapes come again. Thread-safe.
class ConstantPool {
 public:
  Tensor Intern(const Tensor& tensor);
  // The tensor itself if its bytes are aligned for vector code's element loads, else the interned copy.
  Result<Tensor> Aligned(const Tensor& tensor);

 private:
  std::mutex mutex_;
  std::unordered_multimap<uint64_t, Tensor> by_hash_;
  std::unordered_map<const std::byte*, Tensor> aligned_;
};

struct ProgramValue {
  std::string name;
  DType dtype = DType::kUndefined;
  Shape shape;
  Tensor constant;  // defined() if the value is known

  bool is_constant() const { return constant.defined(); }
  int rank() const { return static_cast<int>(shape.size()); }
  int64_t size() const;
  int64_t bytes() const { return size() * static_cast<int64_t>(ByteSize(dtype)); }
};

// A prologue whose parameters are values; see Prologue.
struct FusedPrologue {
  Tensor scale, shift;  // float32 (C); undefined: no prologue
  Activation activation = Activation::kNone;
  float a = 0, b = 0;
};

struct ProgramOp {
  Node node;                 // a copy; inputs and outputs are ids of the program's values
  ValueId residual = kNone;  // the residual of the epilogue
  Epilogue epilogue;
  FusedPrologue prologue;
  std::vector<std::string> fused;  // what was fused into it: "Relu 'relu_1'"
  bool alive = true;

  std::string_view type() const { return node.op_type; }
  ValueId input(size_t i) const { return i < node.inputs.size() ? node.inputs[i] : kNone; }
  ValueId output() const { return node.outputs.empty() ? kNone : node.outputs[0]; }
  // "Conv 'layer1.0'", with the first output's name where the node has none.
  std::string Describe() const;
};

// Ids of values below the graph's value_count() are the graph's own.
class Program {
 public:
  int opset = 0;
  std::vector<ProgramValue> values;
  std::vector<ProgramOp> ops;  // dead ones are skipped, and removed by Compact()
  std::vector<ValueId> inputs, outputs;

  const ProgramValue& value(ValueId id) const { return values[static_cast<size_t>(id)]; }
  ProgramOp& op(int id) { return ops[static_cast<size_t>(id)]; }
  const ProgramOp& op(int id) const { return ops[static_cast<size_t>(id)]; }

  // The constant, or null for kNone and for values that are computed.
  const Tensor* constant(ValueId id) const;
  int producer(ValueId id) const { return producer_[static_cast<size_t>(id)]; }  // op, or kNone
  // Ops that read the value, once for each slot; graph outputs do not count.
  const std::vector<int>& users(ValueId id) const { return users_[static_cast<size_t>(id)]; }
  bool is_output(ValueId id) const { return is_output_[static_cast<size_t>(id)]; }
  // The only reader of the value, by one slot, if it is not a graph output; else kNone.
  int OnlyUser(ValueId id) const;
  // The alive producer of `id` if its op_type is `op_type`, the value is its first output, and nothing
  // but one slot of one op reads it; else kNone.
  int PrivateProducer(ValueId id, std::string_view op_type) const;

  ValueId AddValue(std::string name, DType dtype, Shape shape);
  ValueId AddConstant(std::string name, Tensor tensor);

  void Reindex();
  void SetInput(int op, size_t slot, ValueId value);
  void SetResidual(int op, ValueId value, Residual kind);
  // Makes `op` the producer of `value`, which an op that is killed now (or earlier) produced.
  void SetOutput(int op, ValueId value);
  void Kill(int op);
  // Every op that reads `from` reads `to`; graph outputs stay.
  void ReplaceUses(ValueId from, ValueId to);
  // Moves an op into the slot of a dead one, later in the order.
  void MoveTo(int op, int dead_slot);

  // Removes dead ops and ops whose outputs nothing reads.
  void Compact();

 private:
  void RemoveUser(ValueId value, int op);
  std::vector<int> producer_;
  std::vector<std::vector<int>> users_;
  std::vector<bool> is_output_;
};

}  // namespace crease
