// SPDX-License-Identifier: Apache-2.0
// Weights that folding made, whose memory is given back once they are packed: what they were made of lies in the
// model's file, so that they can be made again.
#pragma once

#include <cstddef>
#include <unordered_map>

#include "graph/graph.h"
#include "graph/passes/unrounded.h"
#include "runtime/file_map.h"

namespace crease {

// Their tensors stay where they are, for packed weights are known by their source's address. Not thread-safe.
class FoldedWeights {
 public:
  FoldedWeights() = default;
  // The graph's constants that folds made of float32 in `file`, those worth it.
  FoldedWeights(const Graph& graph, const fold::Unrounded& made, const FileMap& file);

  // Gives back the memory of `tensor`, which nobody may read before Restore(). Nothing happens to tensors that are
  // none of these.
  void Release(const Tensor& tensor);
  // Makes what was given back again, the same bits, and gives nothing back from then on: whoever needs it twice may
  // need it often. Error: out of memory; then it can be tried again.
  Result<void> Restore();

  size_t released_bytes() const;

 private:
  struct Entry {
    Tensor tensor;
    fold::ScaledTensor exact;
    bool released = false;
  };
  std::unordered_map<const std::byte*, Entry> entries_;  // by the tensor's bytes
  bool stay_ = false;
};

}  // namespace crease
