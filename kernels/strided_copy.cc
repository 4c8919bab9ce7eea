// SPDX-License-Identifier: Apache-2.0
#include "kernels/strided_copy.h"
#include "kernels/rounding.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace crease {
namespace {

constexpr int64_t kRowBlock = 8192;       // elements: long rows are split so that threads share them
constexpr int64_t kTransposeBlock = 256;  // columns of a transposed part

// Moves the loop in which the source is adjacent next to the innermost one; false if there is none.
bool PrepareTranspose(LoopNest* nest) {
  for (int i = 0; i + 1 < nest->loops; ++i) {
    if (nest->stride[1][static_cast<size_t>(i)] != 1) continue;
    for (int j = i; j + 2 < nest->loops; ++j) {
      const auto from = static_cast<size_t>(j);
      std::swap(nest->count[from], nest->count[from + 1]);
      for (auto& strides : nest->stride) std::swap(strides[from], strides[from + 1]);
    }
    return true;
  }
  return false;
}

}  // namespace

StridedCopy::StridedCopy(LoopNest nest, int64_t dst_offset, int64_t src_offset, size_t element_size)
    : nest_(nest), dst_offset_(dst_offset), src_offset_(src_offset), element_size_(element_size) {
  nest_.Simplify();
  const bool dst_adjacent = nest_.inner_stride(0) == 1 || nest_.inner() == 1;
  if (dst_adjacent && (nest_.inner_stride(1) == 1 || nest_.inner() == 1)) {
    mode_ = Mode::kRows;
  } else if (dst_adjacent && nest_.inner_stride(1) == 0) {
    mode_ = Mode::kFill;
  } else if (dst_adjacent && element_size == 4 && PrepareTranspose(&nest_)) {
    mode_ = Mode::kTranspose;
    transpose_ = FindTransposeTile();
  } else {
    mode_ = Mode::kScalar;
  }
  const bool transposed = mode_ == Mode::kTranspose;
  block_size_ = transposed ? kTransposeBlock : kRowBlock;
  const int64_t length = transposed ? nest_.count[static_cast<size_t>(nest_.loops - 2)] : nest_.inner();
  blocks_ = std::max<int64_t>(1, DivideUp(length, block_size_));
}

std::string StridedCopy::Describe() const {
  constexpr const char* kNames[] = {"rows", "fill", "transpose", "scalar"};
  return std::string("copy ") + kNames[static_cast<size_t>(mode_)];
}

void StridedCopy::Run(const RunContext& context, const void* src, void* dst) const {
  const int64_t total = nest_.total();
  if (total == 0) return;
  const int64_t outer = mode_ == Mode::kTranspose
                            ? total / nest_.inner() / nest_.count[static_cast<size_t>(nest_.loops - 2)]
                            : nest_.outer_total();
  const auto size = static_cast<int64_t>(element_size_);
  const auto* from = static_cast<const std::byte*>(src) + src_offset_ * size;
  auto* to = static_cast<std::byte*>(dst) + dst_offset_ * size;
  ParallelForCost(context, outer * blocks_, total, [&](int64_t begin, int64_t end) { RunItems(from, to, begin, end); });
}

void StridedCopy::RunItems(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const {
  if (mode_ == Mode::kRows) return RunRows(src, dst, begin, end);
  if (mode_ == Mode::kTranspose) return RunTranspose(src, dst, begin, end);
  if (element_size_ == 1) return RunScalar<uint8_t>(src, dst, begin, end);
  if (element_size_ == 2) return RunScalar<uint16_t>(src, dst, begin, end);
  if (element_size_ == 4) return RunScalar<uint32_t>(src, dst, begin, end);
  RunScalar<uint64_t>(src, dst, begin, end);
}

void StridedCopy::RunRows(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const {
  const auto size = static_cast<int64_t>(element_size_);
  LoopWalker walker(nest_, 1, begin / blocks_);
  int64_t block = begin % blocks_;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = block * block_size_;
    const int64_t n = std::min(block_size_, nest_.inner() - first);
    std::memcpy(dst + (walker.offset(0) + first) * size, src + (walker.offset(1) + first) * size,
                static_cast<size_t>(n * size));
    if (++block == blocks_) {
      block = 0;
      walker.Next();
    }
  }
}

void StridedCopy::RunTranspose(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const {
  const auto inner = static_cast<size_t>(nest_.loops - 1);
  const size_t second = inner - 1;
  const auto* from = reinterpret_cast<const float*>(src);
  auto* to = reinterpret_cast<float*>(dst);
  LoopWalker walker(nest_, 2, begin / blocks_);
  int64_t block = begin % blocks_;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = block * block_size_;
    const int64_t n = std::min(block_size_, nest_.count[second] - first);
    transpose_(from + walker.offset(1) + first, nest_.stride[1][inner],
               to + walker.offset(0) + first * nest_.stride[0][second], nest_.stride[0][second], nest_.count[inner], n);
    if (++block == blocks_) {
      block = 0;
      walker.Next();
    }
  }
}

template <typename T>
void StridedCopy::RunScalar(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const {
  const int64_t src_step = nest_.inner_stride(1);
  const int64_t dst_step = nest_.inner_stride(0);
  LoopWalker walker(nest_, 1, begin / blocks_);
  int64_t block = begin % blocks_;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = block * block_size_;
    const int64_t n = std::min(block_size_, nest_.inner() - first);
    const T* from = reinterpret_cast<const T*>(src) + walker.offset(1) + first * src_step;
    T* to = reinterpret_cast<T*>(dst) + walker.offset(0) + first * dst_step;
    for (int64_t k = 0; k < n; ++k) to[k * dst_step] = from[k * src_step];
    if (++block == blocks_) {
      block = 0;
      walker.Next();
    }
  }
}

}  // namespace crease
