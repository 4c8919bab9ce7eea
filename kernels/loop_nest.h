// SPDX-License-Identifier: Apache-2.0
// Element-wise work and data movement as a nest of loops over strided operands: whatever the layouts,
// it is planned once into as few loops as can be, the innermost one long and contiguous.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernel.h"

namespace crease {

inline constexpr int kMaxLoops = 16;
inline constexpr int kMaxLoopOperands = 4;

// Elements from one index to the next, by logical axis, of a tensor stored so.
std::vector<int64_t> StorageStrides(const Shape& shape, Layout layout, int64_t pitch);
std::vector<int64_t> StorageStrides(const Operand& operand);

// The same as seen inside `result` by NumPy's broadcasting: axes aligned at the last, stride 0 where
// the operand has 1. The operand must be broadcastable.
std::vector<int64_t> BroadcastStorageStrides(const Operand& operand, const Shape& result);

// Loops, outermost first; operand 0 is the destination. Elements, not bytes.
struct LoopNest {
  int loops = 0;
  int operands = 0;
  std::array<int64_t, kMaxLoops> count{};
  std::array<std::array<int64_t, kMaxLoops>, kMaxLoopOperands> stride{};  // [operand][loop]

  // Adds a loop inside the others.
  void Add(int64_t n, std::span<const int64_t> strides);
  // Iterations in all; 0 for an empty tensor.
  int64_t total() const;
  // Drops loops of one iteration, sorts by the destination's stride, widest outside, and merges
  // neighbours that step as one. Keeps at least one loop.
  void Simplify();
  int64_t inner() const { return count[static_cast<size_t>(loops - 1)]; }
  int64_t inner_stride(int operand) const {
    return stride[static_cast<size_t>(operand)][static_cast<size_t>(loops - 1)];
  }
  int64_t outer_total() const;  // iterations of all loops but the innermost
};

// The nest over every element of `result`: a loop an axis; strides in logical order, one list an
// operand, destination first.
LoopNest MakeLoopNest(const Shape& result, std::span<const std::vector<int64_t>> strides);

// Walks the outer loops of a nest (all but the last `skip`), keeping an offset for every operand.
class LoopWalker {
 public:
  // Starts at iteration `start` of the outer loops.
  LoopWalker(const LoopNest& nest, int skip, int64_t start);
  int64_t offset(int operand) const { return offset_[static_cast<size_t>(operand)]; }
  void Next();

 private:
  const LoopNest& nest_;
  int outer_;
  std::array<int64_t, kMaxLoops> index_{};
  std::array<int64_t, kMaxLoopOperands> offset_{};
};

// Waking a worker takes some 5 us, in which a core moves about this many floats.
inline constexpr int64_t kWorthwhile = 16384;

// Runs f(begin, end) over [0, count): on the executor's workers if `cost` (elements, roughly) is worth
// the hand-over, else on the caller.
template <typename F>
void ParallelForCost(const RunContext& context, int64_t count, int64_t cost, const F& f) {
  if (count <= 1 || cost < kWorthwhile || context.workers() == 1) {
    if (count > 0) f(int64_t{0}, count);
    return;
  }
  context.ParallelFor(count, f);
}

}  // namespace crease
