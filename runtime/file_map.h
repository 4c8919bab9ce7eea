// SPDX-License-Identifier: Apache-2.0
// A model file as memory whose pages can be given back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "graph/onnx/importer.h"

namespace crease {

// A regular file, mapped read-only. Pages are read when they are first touched.
class FileMap {
 public:
  // Errors: those of onnx::OpenModelFile; kIo if it can't be mapped.
  static Result<std::shared_ptr<FileMap>> Open(const std::string& path, int64_t max_bytes);
  ~FileMap();
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  bool Holds(std::span<const std::byte> part) const;
  // Gives back the whole pages inside `part`, where that lies in the map; they are read from the file
  // again if someone touches them.
  void Release(std::span<const std::byte> part) const;

 private:
  FileMap() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The graph of a model file, its weights as views of the map. External data lies in the file's folder unless the
// options name another. Errors: those of FileMap::Open and ImportOnnx; they name the file.
struct MappedModel {
  std::shared_ptr<FileMap> file;
  Graph graph;
};
Result<MappedModel> ImportMapped(const std::string& path, ImportOptions options);

}  // namespace crease
