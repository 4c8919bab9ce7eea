// SPDX-License-Identifier: Apache-2.0
// Model files and the external data beside them, read with the care that untrusted names need.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "graph/status.h"

namespace crease::onnx {

struct OwnedBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Closes its descriptor.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

struct ModelFile {
  FileDescriptor fd;
  int64_t size = 0;
};

// Opens a model. Regular files only (a link to one is fine: the caller chose the path).
// Errors: kIo, kLimitExceeded past max_bytes, kInvalidModel if it is empty.
Result<ModelFile> OpenModelFile(const std::string& path, int64_t max_bytes);

// The whole file in one buffer. Errors: those of OpenModelFile, kOutOfMemory.
Result<OwnedBytes> ReadWholeFile(const std::string& path, int64_t max_bytes);

// The error of a file's content, with the file's name before the place.
Error InFile(const std::string& path, Error error);

// The folder of a path, "." if it names none.
std::string FolderOf(const std::string& path);

// The files that tensors of one model name as external data. Every name is taken relative to one
// folder; absolute names, "..", links in any component, hard links and everything but regular files
// are refused. Not thread-safe; what it returned is.
class ExternalFiles {
 public:
  // An empty folder: every request fails (a model from memory may name no file).
  // `map`: files are mapped read-only, else each tensor is read into memory. A file that another
  // process truncates while it is mapped raises SIGBUS on the next touch; reading has no such risk
  // and costs memory of the tensor's size.
  ExternalFiles(std::string folder, bool map) : folder_(std::move(folder)), map_(map) {}

  // `length` bytes at `offset`. Errors: kInvalidModel for a refused name and for bytes that the file
  // does not have; kIo.
  Result<OwnedBytes> Get(std::string_view location, int64_t offset, int64_t length);

 private:
  struct OpenFile;
  Result<std::shared_ptr<OpenFile>> Open(std::string_view location);

  std::string folder_;
  bool map_;
  std::map<std::string, std::shared_ptr<OpenFile>, std::less<>> files_;
};

}  // namespace crease::onnx
