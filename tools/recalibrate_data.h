// SPDX-License-Identifier: Apache-2.0
// Batches for recalibration, from files of arrays.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "crease/session.h"
#include "graph/graph.h"
#include "graph/npz.h"

namespace crease::tools {

struct DataOptions {
  std::string path;  // .npz, .npy, or a folder of these, which are read in sorted order
  // What is made of integer arrays, images of 0 to 255: (x / 255 - mean) / std, one value or one a channel. Empty: the
  // arrays `mean` and `std` of the file, if it has them.
  std::vector<double> mean, std;
};

// Rows of the inputs, one file in memory at a time.
class BatchReader {
 public:
  // `inputs`: what the network wants; the first axis is the batch.
  static Result<BatchReader> Open(const DataOptions& options, const std::vector<TensorSpec>& inputs);

  const std::vector<std::string>& files() const { return files_; }

  // What Next(1) would give, its shapes only; none at the end.
  Result<std::vector<Shape>> NextShapes();

  // Up to `rows` rows, in the inputs' order, joined across files; fewer only at the end, none then. Errors name the
  // file and the array: no array for an input, another shape, dtype, or row count; an element that the input's dtype
  // does not hold.
  Result<std::vector<Tensor>> Next(int64_t rows);

 private:
  struct Block {  // of one file
    std::vector<Tensor> arrays;
    int64_t done = 0, rows = 0;
  };
  Result<Block> ReadFile(const std::string& file) const;
  Result<bool> Fill();  // whether there are rows left
  Result<Tensor> Prepare(const std::string& file, const NamedTensors& arrays, size_t input) const;

  DataOptions options_;
  std::vector<TensorSpec> inputs_;
  std::vector<std::string> files_;
  size_t next_file_ = 0;
  Block block_;
};

}  // namespace crease::tools
