// SPDX-License-Identifier: Apache-2.0
#include "kernels/loop_nest.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace crease {

std::vector<int64_t> StorageStrides(const Shape& shape, Layout layout, int64_t pitch) {
  const size_t rank = shape.size();
  std::vector<int64_t> strides(rank);
  if (layout == Layout::kPlain || rank < 2) {
    int64_t step = 1;
    for (size_t i = rank; i-- > 0;) {
      strides[i] = step;
      step *= shape[i];
    }
    return strides;
  }
  strides[1] = 1;
  int64_t step = pitch;
  for (size_t i = rank; i-- > 2;) {
    strides[i] = step;
    step *= shape[i];
  }
  strides[0] = step;
  return strides;
}

std::vector<int64_t> StorageStrides(const Operand& operand) {
  return StorageStrides(operand.shape, operand.layout, operand.pitch);
}

std::vector<int64_t> BroadcastStorageStrides(const Operand& operand, const Shape& result) {
  const std::vector<int64_t> own = StorageStrides(operand);
  std::vector<int64_t> strides(result.size(), 0);
  const size_t lead = result.size() - operand.shape.size();
  for (size_t i = 0; i < own.size(); ++i) {
    if (operand.shape[i] != 1) strides[lead + i] = own[i];
  }
  return strides;
}

void LoopNest::Add(int64_t n, std::span<const int64_t> strides) {
  assert(loops < kMaxLoops && strides.size() <= kMaxLoopOperands);
  operands = static_cast<int>(strides.size());
  count[static_cast<size_t>(loops)] = n;
  for (size_t k = 0; k < strides.size(); ++k) stride[k][static_cast<size_t>(loops)] = strides[k];
  ++loops;
}

int64_t LoopNest::total() const {
  int64_t product = 1;
  for (int i = 0; i < loops; ++i) product *= count[static_cast<size_t>(i)];
  return product;
}

int64_t LoopNest::outer_total() const {
  int64_t product = 1;
  for (int i = 0; i + 1 < loops; ++i) product *= count[static_cast<size_t>(i)];
  return product;
}

void LoopNest::Simplify() {
  std::array<int, kMaxLoops> order{};
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.begin() + loops, [this](int a, int b) {
    return stride[0][static_cast<size_t>(a)] > stride[0][static_cast<size_t>(b)];
  });
  LoopNest result;
  result.operands = operands;
  for (int i = 0; i < loops; ++i) {
    const auto from = static_cast<size_t>(order[static_cast<size_t>(i)]);
    if (count[from] == 1) continue;
    bool merges = result.loops > 0;
    const auto last = static_cast<size_t>(std::max(result.loops - 1, 0));
    for (size_t k = 0; merges && k < static_cast<size_t>(operands); ++k) {
      merges = result.stride[k][last] == stride[k][from] * count[from];
    }
    if (merges) {
      result.count[last] *= count[from];
      for (size_t k = 0; k < static_cast<size_t>(operands); ++k) {
        result.stride[k][last] = stride[k][from];
      }
    } else {
      std::array<int64_t, kMaxLoopOperands> steps{};
      for (size_t k = 0; k < static_cast<size_t>(operands); ++k) steps[k] = stride[k][from];
      result.Add(count[from], {steps.data(), static_cast<size_t>(operands)});
    }
  }
  if (result.loops == 0) {
    const std::array<int64_t, kMaxLoopOperands> steps = {1, 1, 1, 1};
    result.Add(1, {steps.data(), static_cast<size_t>(operands)});
  }
  *this = result;
}

LoopNest MakeLoopNest(const Shape& result, std::span<const std::vector<int64_t>> strides) {
  LoopNest nest;
  nest.operands = static_cast<int>(strides.size());
  for (size_t axis = 0; axis < result.size(); ++axis) {
    std::array<int64_t, kMaxLoopOperands> steps{};
    size_t k = 0;
    for (const std::vector<int64_t>& list : strides) steps[k++] = list[axis];
    nest.Add(result[axis], {steps.data(), strides.size()});
  }
  nest.Simplify();
  return nest;
}

LoopWalker::LoopWalker(const LoopNest& nest, int skip, int64_t start) : nest_(nest), outer_(nest.loops - skip) {
  for (int i = outer_; i-- > 0;) {
    const auto loop = static_cast<size_t>(i);
    index_[loop] = start % nest.count[loop];
    start /= nest.count[loop];
    for (size_t k = 0; k < static_cast<size_t>(nest.operands); ++k) {
      offset_[k] += index_[loop] * nest.stride[k][loop];
    }
  }
}

void LoopWalker::Next() {
  for (int i = outer_; i-- > 0;) {
    const auto loop = static_cast<size_t>(i);
    const bool wraps = ++index_[loop] == nest_.count[loop];
    const int64_t steps = wraps ? 1 - nest_.count[loop] : 1;
    for (size_t k = 0; k < static_cast<size_t>(nest_.operands); ++k) {
      offset_[k] += steps * nest_.stride[k][loop];
    }
    if (!wraps) return;
    index_[loop] = 0;
  }
}

}  // namespace crease
