// SPDX-License-Identifier: Apache-2.0
// Writing tensors: into the model, or into a data file beside it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/atomic_file.h"
#include "graph/graph.h"
#include "graph/onnx/byte_rope.h"

namespace crease::onnx {

// Tensors that lie in one external data file, in order of first use. The same bytes are laid once.
class ExternalLayout {
 public:
  // Where the tensor's bytes begin in the file.
  int64_t Place(const Tensor& tensor);
  bool empty() const { return tensors_.empty(); }

  // Writes them all and gives the checksum of what was written.
  Result<uint64_t> WriteTo(AtomicFile* file) const;

 private:
  std::vector<std::pair<Tensor, int64_t>> tensors_;
  std::map<std::pair<const std::byte*, size_t>, int64_t> placed_;
  int64_t end_ = 0;
};

enum class Placement {
  kInline,      // every tensor lies in the model
  kAsInput,     // tensors that were external stay so, and new ones join them
  kAllExternal  // every tensor of some size lies in the data file
};

struct TensorWriter {
  Placement placement = Placement::kInline;
  std::string location;              // name of the data file
  ExternalLayout* layout = nullptr;  // unless kInline

  // A TensorProto for `tensor`. `raw`: its bytes in the old file, from which all is kept but the data;
  // empty for a new tensor, which gets `name` if that is not empty.
  void Append(const Tensor& tensor, std::string_view name, ByteSpan raw, ByteRope* dst) const;
};

// Whether a TensorProto says that its bytes lie in another file.
bool IsExternal(ByteSpan tensor_message);

}  // namespace crease::onnx
