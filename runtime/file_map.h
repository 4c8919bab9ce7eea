// SPDX-License-Identifier: Apache-2.0
// A model file as memory whose pages can be given back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "graph/status.h"

namespace crease {

// A regular file, mapped read-only. Pages are read when they are first touched.
class FileMap {
 public:
  // Errors: kIo (with the system's words), kInvalidModel if it is empty or no regular file, kLimitExceeded.
  static Result<std::shared_ptr<FileMap>> Open(const std::string& path, int64_t max_bytes);
  ~FileMap();
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Gives back the whole pages inside `part`, where that lies in the map; they are read from the file
  // again if someone touches them.
  void Release(std::span<const std::byte> part) const;

 private:
  FileMap(const std::byte* data, size_t size) : data_(data), size_(size) {}
  const std::byte* data_;
  size_t size_;
};

}  // namespace crease
