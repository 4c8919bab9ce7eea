// SPDX-License-Identifier: Apache-2.0
// What the constants that folds make were before they were rounded. A second fold of the same weights
// starts there, so that each is rounded once, from the file's values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/patch.h"

namespace crease::fold {

// How channels lie in a weight tensor, seen as (rows, columns, inner) with rows = its first axis (or
// more), inner the product of what follows. The channel of an element:
//   kRow: its row, in each of `batches` equal groups of rows; kColumn: its column;
//   kGroupedColumn: (row / (rows / groups)) * columns + column.
// Conv W (O, I/g, k...): output channels kRow, input channels kGroupedColumn. ConvTranspose W (I,
// O/g, k...): input channels kRow, output channels kGroupedColumn.
struct WeightView {
  enum class Channel { kRow, kColumn, kGroupedColumn };
  int64_t rows = 1, columns = 1, inner = 1, groups = 1, batches = 1;
  Channel channel = Channel::kRow;

  int64_t channels() const;
  int64_t ChannelOf(int64_t row, int64_t column) const;
};

// A scale for each channel of a weight tensor, or one for all.
struct Factor {
  WeightView view;
  std::vector<double> scale;

  double At(int64_t row, int64_t column) const {
    return scale.size() == 1 ? scale[0] : scale[static_cast<size_t>(view.ChannelOf(row, column))];
  }
};

// base[i] * every factor's scale there, in double. All views differ in their channels only.
struct ScaledTensor {
  Tensor base;
  std::vector<Factor> factors;
};

// A constant in its dtype, and what it was rounded from.
struct Rounded {
  Tensor tensor;
  ScaledTensor exact;
};

// By value. Of one graph; ids of a patch count from its application.
class Unrounded {
 public:
  // Told of the base of each constant once it has been read and rounded.
  using OnRead = std::function<void(const Tensor& base)>;

  Unrounded() = default;
  explicit Unrounded(OnRead on_read) : on_read_(std::move(on_read)) {}

  // Null: nothing is known but the constant itself.
  const ScaledTensor* Find(ValueId id) const {
    const auto found = exact_.find(id);
    return found == exact_.end() ? nullptr : &found->second;
  }
  ValueId AddConstant(Patch& patch, std::string_view name, const Rounded& constant) {
    const ValueId id = patch.AddConstant(name, constant.tensor);
    exact_[id] = constant.exact;
    if (on_read_) on_read_(constant.exact.base);
    return id;
  }
  const std::map<ValueId, ScaledTensor>& all() const { return exact_; }

 private:
  std::map<ValueId, ScaledTensor> exact_;
  OnRead on_read_;
};

}  // namespace crease::fold
