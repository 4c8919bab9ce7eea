// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy and .npz files (format versions 1 to 3, numpy.lib.format).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/tensor.h"

namespace crease {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

struct NpzOptions {
  int64_t max_bytes = int64_t{8} << 30;  // of one array; beyond it reading fails before allocating
  // Which arrays to read, by name; none: all. Of the others nothing can be an error.
  std::function<bool(std::string_view)> wanted = {};
};

// Little-endian floats, integers and bools; arrays in Fortran order are brought into C order.
// Errors name the file and the array: not a zip or npy, truncated, a dtype or a compression that Crease has not.
Result<Tensor> ReadNpy(const std::string& path, const NpzOptions& options = {});
Result<NamedTensors> ReadNpz(const std::string& path, const NpzOptions& options = {});

// Written beside the target and renamed over it, so that a failure leaves the old file. bfloat16 is
// written as float32, which NumPy can read. .npz entries are stored, not compressed; their names are UTF-8 where they
// are valid as such.
Result<void> WriteNpy(const std::string& path, const Tensor& tensor);
Result<void> WriteNpz(const std::string& path, const NamedTensors& tensors);

}  // namespace crease
