// SPDX-License-Identifier: Apache-2.0
// What a kernel sees of a tensor: a pointer, logical dimensions, and where the elements lie.
#pragma once

#include <array>
#include <cstdint>

#include "graph/tensor.h"

namespace crease {

enum class Layout : uint8_t {
  kPlain,         // dense, row-major in the logical order of the axes
  kChannelsLast,  // (N, C, spatial...) stored as N, spatial..., C; pixels `pitch` elements apart
};

const char* Name(Layout layout);

// Logical dimensions are always ONNX's (N, C, H, W). A channels-last view may be a channel slice of a
// wider tensor: its pixels are dense rows of `pitch` >= C elements, images H*W*pitch apart.
template <typename Void>
struct BasicView {
  Void* data = nullptr;
  DType dtype = DType::kFloat32;
  Layout layout = Layout::kPlain;
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{};
  int64_t pitch = 0;  // channels-last only: elements from one pixel to the next

  int64_t size() const {
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= dims[static_cast<size_t>(i)];
    return count;
  }
  int64_t dim(int axis) const { return dims[static_cast<size_t>(axis)]; }
  int64_t batch() const { return dims[0]; }
  int64_t channels() const { return dims[1]; }
  // Product of the dimensions after the channel axis.
  int64_t spatial() const {
    int64_t count = 1;
    for (int i = 2; i < rank; ++i) count *= dims[static_cast<size_t>(i)];
    return count;
  }
  bool dense() const { return layout == Layout::kPlain || pitch == channels(); }

  operator BasicView<const void>() const requires(!std::is_const_v<Void>) {
    return {data, dtype, layout, rank, dims, pitch};
  }
};

using TensorView = BasicView<void>;
using ConstTensorView = BasicView<const void>;

}  // namespace crease
