// SPDX-License-Identifier: Apache-2.0
#include "runtime/folded_weights.h"

#include <cstring>
#include <utility>

#include "graph/memory_block.h"
#include "graph/passes/weights.h"

namespace crease {
namespace {

// Less is not worth the call that gives it back.
constexpr size_t kLeastBytes = size_t{16} << 10;

std::span<const std::byte> BytesOf(const Tensor& tensor) { return {tensor.bytes(), tensor.byte_size()}; }

}  // namespace

FoldedWeights::FoldedWeights(const Graph& graph, const fold::Unrounded& made, const FileMap& file) {
  for (const auto& [id, exact] : made.all()) {
    const Tensor* tensor = graph.constant(id);
    if (tensor == nullptr || exact.factors.empty() || tensor->byte_size() < kLeastBytes) continue;
    if (tensor->dtype() != DType::kFloat32 || exact.base.dtype() != DType::kFloat32) continue;
    if (!file.Holds(BytesOf(exact.base))) continue;
    entries_.try_emplace(tensor->bytes(), Entry{*tensor, exact});
  }
}

void FoldedWeights::Release(const Tensor& tensor) {
  const auto found = entries_.find(tensor.bytes());
  if (stay_ || found == entries_.end() || found->second.released) return;
  DropPages(BytesOf(found->second.tensor));
  found->second.released = true;
}

Result<void> FoldedWeights::Restore() {
  stay_ = true;
  for (auto& [bytes, entry] : entries_) {
    if (!entry.released) continue;
    const fold::Outcome<Tensor> made = fold::RoundAgain(entry.exact);
    if (!made.ok()) return Error{ErrorCode::kOutOfMemory, made.refusal().message, "folded weights"};
    std::memcpy(const_cast<std::byte*>(bytes), (*made).bytes(), entry.tensor.byte_size());
    entry.released = false;
  }
  entries_.clear();
  return {};
}

size_t FoldedWeights::released_bytes() const {
  size_t bytes = 0;
  for (const auto& [at, entry] : entries_) bytes += entry.released ? entry.tensor.byte_size() : 0;
  return bytes;
}

}  // namespace crease
