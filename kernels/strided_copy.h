// SPDX-License-Identifier: Apache-2.0
// Copies between tensors whose elements lie differently: the engine of every operator that only moves
// data. Planned once, then run on threads.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/kernel.h"
#include "kernels/loop_nest.h"

namespace crease {

// A tile: dst[t * dst_stride + i] = src[i * src_stride + t], i in [0, rows),
// t in [0, columns).
using TransposeTile = void (*)(const float* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows,
                               int64_t columns);
TransposeTile FindTransposeTile();

class StridedCopy {
 public:
  StridedCopy() = default;
  // Operand 0 of the nest is the destination, 1 the source; offsets and strides in elements of
  // `element_size` bytes (1, 2, 4 or 8).
  StridedCopy(LoopNest nest, int64_t dst_offset, int64_t src_offset, size_t element_size);

  void Run(const RunContext& context, const void* src, void* dst) const;
  std::string Describe() const;

 private:
  enum class Mode : uint8_t {
    kRows,       // both adjacent in the innermost loop
    kFill,       // one source element for a row
    kTranspose,  // 4-byte elements; the source is adjacent in the second loop from the inside
    kScalar,
  };
  void RunRows(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const;
  void RunTranspose(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const;
  template <typename T>
  void RunScalar(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const;
  void RunItems(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const;

  LoopNest nest_;
  int64_t dst_offset_ = 0, src_offset_ = 0;
  size_t element_size_ = 4;
  Mode mode_ = Mode::kRows;
  int64_t blocks_ = 1;      // parts of the innermost loop (kTranspose: of the second)
  int64_t block_size_ = 0;  // iterations of a part
  TransposeTile transpose_ = nullptr;
};

}  // namespace crease
