// SPDX-License-Identifier: Apache-2.0
#include "runtime/file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "graph/graph.h"

namespace crease {
namespace {

Error SystemError(const char* what, const std::string& path) {
  return Error{ErrorCode::kIo, std::string(what) + ": " + std::generic_category().message(errno), Printable(path)};
}

}  // namespace

Result<std::shared_ptr<FileMap>> FileMap::Open(const std::string& path, int64_t max_bytes) {
  // Without O_NONBLOCK a FIFO that nobody writes would block here for ever.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError("cannot open", path);
  struct stat status {};
  const bool known = ::fstat(fd, &status) == 0;
  if (!known || !S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > max_bytes) {
    const Error stat_error = SystemError("cannot stat", path);
    ::close(fd);
    if (!known) return stat_error;
    if (!S_ISREG(status.st_mode)) return Error{ErrorCode::kInvalidModel, "not a regular file", Printable(path)};
    if (status.st_size <= 0) return Error{ErrorCode::kInvalidModel, "the file is empty", Printable(path)};
    return Error{ErrorCode::kLimitExceeded,
                 std::to_string(status.st_size) + " bytes, max_file_bytes is " + std::to_string(max_bytes),
                 Printable(path)};
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const Error map_error = SystemError("cannot map", path);
  ::close(fd);
  if (data == MAP_FAILED) return map_error;
  return std::shared_ptr<FileMap>(new FileMap(static_cast<const std::byte*>(data), size));
}

FileMap::~FileMap() { ::munmap(const_cast<std::byte*>(data_), size_); }

void FileMap::Release(std::span<const std::byte> part) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data()), end = begin + part.size();
  const auto first = reinterpret_cast<uintptr_t>(data_);
  if (part.empty() || begin < first || end > first + size_) return;
  const uintptr_t from = (begin + page - 1) / page * page, to = end / page * page;
  if (from < to) static_cast<void>(::madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED));
}

}  // namespace crease
