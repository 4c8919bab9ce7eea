// SPDX-License-Identifier: Apache-2.0
#include "runtime/program.h"

#include <algorithm>
#include <cstring>

namespace crease {
namespace {

uint64_t Hash(const Tensor& tensor) {
  uint64_t hash = 14695981039346656037u ^ static_cast<uint64_t>(tensor.dtype());  // FNV-1a
  const auto mix = [&hash](const std::byte* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      hash = (hash ^ static_cast<uint64_t>(bytes[i])) * 1099511628211u;
    }
  };
  mix(reinterpret_cast<const std::byte*>(tensor.shape().data()), tensor.shape().size() * sizeof(int64_t));
  mix(tensor.bytes(), tensor.byte_size());
  return hash;
}

bool SameContents(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.byte_size() == 0 || std::memcmp(a.bytes(), b.bytes(), a.byte_size()) == 0);
}

}  // namespace

Tensor ConstantPool::Intern(const Tensor& tensor) {
  const uint64_t hash = Hash(tensor);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (SameContents(it->second, tensor)) return it->second;
  }
  return by_hash_.emplace(hash, tensor)->second;
}

Result<Tensor> ConstantPool::Aligned(const Tensor& tensor) {
  if (reinterpret_cast<uintptr_t>(tensor.bytes()) % ByteSize(tensor.dtype()) == 0) return tensor;
  const std::lock_guard<std::mutex> lock(mutex_);
  Tensor& slot = aligned_[tensor.bytes()];
  if (!slot.defined() || slot.shape() != tensor.shape() || slot.dtype() != tensor.dtype()) {
    CREASE_ASSIGN_OR_RETURN(slot, Tensor::Allocate(tensor.dtype(), tensor.shape()));
    if (tensor.byte_size() > 0) {
      std::memcpy(const_cast<std::byte*>(slot.bytes()), tensor.bytes(), tensor.byte_size());
    }
  }
  return slot;
}

int64_t ProgramValue::size() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

std::string ProgramOp::Describe() const {
  std::string text(node.op_type);
  if (!node.name.empty()) text += " '" + Printable(node.name) + "'";
  return text;
}

const Tensor* Program::constant(ValueId id) const {
  return id != kNone && value(id).is_constant() ? &value(id).constant : nullptr;
}

int Program::OnlyUser(ValueId id) const { return users(id).size() == 1 && !is_output(id) ? users(id)[0] : kNone; }

int Program::PrivateProducer(ValueId id, std::string_view op_type) const {
  if (id == kNone || producer(id) == kNone || OnlyUser(id) == kNone) return kNone;
  const ProgramOp& made_by = op(producer(id));
  return made_by.type() == op_type && made_by.output() == id ? producer(id) : kNone;
}

ValueId Program::AddValue(std::string name, DType dtype, Shape shape) {
  values.push_back({std::move(name), dtype, std::move(shape), {}});
  producer_.push_back(kNone);
  users_.emplace_back();
  is_output_.push_back(false);
  return static_cast<ValueId>(values.size() - 1);
}

ValueId Program::AddConstant(std::string name, Tensor tensor) {
  const ValueId id = AddValue(std::move(name), tensor.dtype(), tensor.shape());
  values.back().constant = std::move(tensor);
  return id;
}

void Program::Reindex() {
  producer_.assign(values.size(), kNone);
  users_.assign(values.size(), {});
  is_output_.assign(values.size(), false);
  for (const ValueId id : outputs) is_output_[static_cast<size_t>(id)] = true;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (!ops[i].alive) continue;
    for (const ValueId id : ops[i].node.inputs) {
      if (id != kNone) users_[static_cast<size_t>(id)].push_back(static_cast<int>(i));
    }
    if (ops[i].residual != kNone) {
      users_[static_cast<size_t>(ops[i].residual)].push_back(static_cast<int>(i));
    }
    for (const ValueId id : ops[i].node.outputs) {
      if (id != kNone) producer_[static_cast<size_t>(id)] = static_cast<int>(i);
    }
  }
}

void Program::RemoveUser(ValueId id, int op_id) {
  if (id == kNone) return;
  std::vector<int>& list = users_[static_cast<size_t>(id)];
  const auto found = std::find(list.begin(), list.end(), op_id);
  if (found != list.end()) list.erase(found);
}

void Program::SetInput(int op_id, size_t slot, ValueId id) {
  std::vector<ValueId>& slots = op(op_id).node.inputs;
  if (slot >= slots.size()) slots.resize(slot + 1, kNone);
  RemoveUser(slots[slot], op_id);
  slots[slot] = id;
  if (id != kNone) users_[static_cast<size_t>(id)].push_back(op_id);
}

void Program::SetResidual(int op_id, ValueId id, Residual kind) {
  RemoveUser(op(op_id).residual, op_id);
  op(op_id).residual = id;
  op(op_id).epilogue.residual = kind;
  if (id != kNone) users_[static_cast<size_t>(id)].push_back(op_id);
}

void Program::SetOutput(int op_id, ValueId id) {
  const ValueId before = op(op_id).output();
  if (before != kNone && producer(before) == op_id) producer_[static_cast<size_t>(before)] = kNone;
  op(op_id).node.outputs[0] = id;
  producer_[static_cast<size_t>(id)] = op_id;
}

void Program::Kill(int op_id) {
  ProgramOp& dead = op(op_id);
  dead.alive = false;
  for (const ValueId id : dead.node.inputs) RemoveUser(id, op_id);
  RemoveUser(dead.residual, op_id);
  for (const ValueId id : dead.node.outputs) {
    if (id != kNone && producer(id) == op_id) producer_[static_cast<size_t>(id)] = kNone;
  }
}

void Program::ReplaceUses(ValueId from, ValueId to) {
  const std::vector<int> readers = users(from);
  for (const int reader : readers) {
    for (size_t slot = 0; slot < op(reader).node.inputs.size(); ++slot) {
      if (op(reader).node.inputs[slot] == from) SetInput(reader, slot, to);
    }
    if (op(reader).residual == from) SetResidual(reader, to, op(reader).epilogue.residual);
  }
}

void Program::MoveTo(int op_id, int dead_slot) {
  std::swap(op(op_id), op(dead_slot));
  const ProgramOp& moved = op(dead_slot);
  const auto rename = [&](ValueId id) {
    if (id == kNone) return;
    for (int& user : users_[static_cast<size_t>(id)]) {
      if (user == op_id) user = dead_slot;
    }
  };
  for (const ValueId id : moved.node.inputs) rename(id);
  rename(moved.residual);
  for (const ValueId id : moved.node.outputs) {
    if (id != kNone) producer_[static_cast<size_t>(id)] = dead_slot;
  }
}

void Program::Compact() {
  Reindex();
  for (size_t i = ops.size(); i-- > 0;) {
    if (!ops[i].alive) continue;
    const auto needed = [&](ValueId id) { return id != kNone && (!users(id).empty() || is_output(id)); };
    if (std::none_of(ops[i].node.outputs.begin(), ops[i].node.outputs.end(), needed)) {
      Kill(static_cast<int>(i));
    }
  }
  std::erase_if(ops, [](const ProgramOp& candidate) { return !candidate.alive; });
  Reindex();
}

}  // namespace crease
