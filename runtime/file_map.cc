// SPDX-License-Identifier: Apache-2.0
#include "runtime/file_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "graph/graph.h"
#include "graph/memory_block.h"
#include "graph/onnx/file_bytes.h"

namespace crease {

Result<std::shared_ptr<FileMap>> FileMap::Open(const std::string& path, int64_t max_bytes) {
  // Before there is a mapping that it must undo.
  std::shared_ptr<FileMap> map(new FileMap);
  CREASE_ASSIGN_OR_RETURN(const onnx::ModelFile file, onnx::OpenModelFile(path, max_bytes));
  const auto size = static_cast<size_t>(file.size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (data == MAP_FAILED) {
    return Error{ErrorCode::kIo, "cannot map the model: " + std::generic_category().message(errno), Printable(path)};
  }
  map->data_ = static_cast<const std::byte*>(data);
  map->size_ = size;
  return map;
}

FileMap::~FileMap() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<MappedModel> ImportMapped(const std::string& path, ImportOptions options) {
  CREASE_ASSIGN_OR_RETURN(std::shared_ptr<FileMap> file, FileMap::Open(path, options.limits.max_file_bytes));
  if (options.external_data_folder.empty()) options.external_data_folder = onnx::FolderOf(path);
  Result<Graph> graph = ImportOnnx(file->bytes(), file, options);
  if (!graph.ok()) return onnx::InFile(path, std::move(graph).error());
  return MappedModel{std::move(file), std::move(graph).value()};
}

bool FileMap::Holds(std::span<const std::byte> part) const {
  const auto begin = reinterpret_cast<uintptr_t>(part.data()), first = reinterpret_cast<uintptr_t>(data_);
  return begin >= first && begin + part.size() <= first + size_;
}

void FileMap::Release(std::span<const std::byte> part) const {
  if (Holds(part)) DropPages(part);
}

}  // namespace crease
