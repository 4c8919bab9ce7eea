// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "graph/graph.h"
#include "graph/memory_block.h"

namespace crease::onnx {
namespace {

Error SystemError(const char* doing, std::string_view path) {
  return {ErrorCode::kIo, std::string(doing) + ": " + std::strerror(errno), Printable(path)};
}

Error Refused(std::string message, std::string_view path) {
  return {ErrorCode::kInvalidModel, std::move(message), Printable(path)};
}

const char* FileKind(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "no regular file";
}

// Reads exactly bytes [offset, offset + length) into a fresh buffer.
Result<OwnedBytes> ReadRange(int fd, std::string_view path, int64_t offset, int64_t length) {
  const size_t size = static_cast<size_t>(length);
  const std::shared_ptr<std::byte> buffer = AllocateBlock(size);
  if (buffer == nullptr) {
    return Error{ErrorCode::kOutOfMemory, "no memory for " + std::to_string(size) + " bytes of the file",
                 Printable(path)};
  }
  size_t done = 0;
  while (done < size) {
    const size_t chunk = std::min(size - done, size_t{1} << 30);  // read(2) takes at most 2 GiB
    const ssize_t got = pread(fd, buffer.get() + done, chunk, static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("reading failed", path);
    if (got == 0) return Error{ErrorCode::kIo, "the file became shorter while it was read", Printable(path)};
    done += static_cast<size_t>(got);
  }
  return OwnedBytes{{buffer.get(), size}, buffer};
}

// The components of a relative name; "." and empty ones dropped.
Result<std::vector<std::string>> SplitLocation(std::string_view location) {
  const auto refuse = [&](const char* why) {
    return Refused(std::string("the external data's location ") + why, location);
  };
  if (location.empty()) return refuse("is empty");
  if (location.size() >= 4096) return refuse("is longer than a path may be");
  if (location.find('\0') != std::string_view::npos) return refuse("has a NUL character");
  if (location.front() == '/') return refuse("is an absolute path; it must lie in the model's folder");
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    const std::string_view part = location.substr(begin, end - begin);
    if (part == "..") return refuse("has '..'; it must lie in the model's folder");
    if (!part.empty() && part != ".") parts.emplace_back(part);
    begin = end + 1;
  }
  if (parts.empty() || location.back() == '/') return refuse("names no file");
  return parts;
}

}  // namespace

struct ExternalFiles::OpenFile {
  FileDescriptor fd;
  int64_t size = 0;
  std::shared_ptr<const void> mapping;  // null if the file is read instead
};

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

Result<ModelFile> OpenModelFile(const std::string& path, int64_t max_bytes) {
  if (path.find('\0') != std::string::npos) {
    return Error{ErrorCode::kInvalidArgument, "the path has a NUL character", Printable(path)};
  }
  // O_NONBLOCK: opening a FIFO would wait for its writer.
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.ok()) return SystemError("cannot open the model", path);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return SystemError("cannot examine the model", path);
  if (!S_ISREG(info.st_mode)) {
    return Error{ErrorCode::kIo, std::string("the model must be a regular file, this is ") + FileKind(info.st_mode),
                 Printable(path)};
  }
  if (info.st_size > max_bytes) {
    return Error{ErrorCode::kLimitExceeded,
                 "the file has " + std::to_string(info.st_size) + " bytes, the limit is " + std::to_string(max_bytes) +
                     " (max_file_bytes, at most 2 GiB)",
                 Printable(path)};
  }
  if (info.st_size == 0) return Error{ErrorCode::kInvalidModel, "the file is empty", Printable(path)};
  return ModelFile{std::move(fd), info.st_size};
}

Result<OwnedBytes> ReadWholeFile(const std::string& path, int64_t max_bytes) {
  CREASE_ASSIGN_OR_RETURN(const ModelFile file, OpenModelFile(path, max_bytes));
  return ReadRange(file.fd.get(), path, 0, file.size);
}

Error InFile(const std::string& path, Error error) {
  error.where = Printable(path) + (error.where.empty() ? "" : ": " + error.where);
  return error;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<std::shared_ptr<ExternalFiles::OpenFile>> ExternalFiles::Open(std::string_view location) {
  if (const auto found = files_.find(location); found != files_.end()) return found->second;
  if (folder_.empty()) {
    return Refused("a model from memory may name no external data unless external_data_folder is set", location);
  }
  CREASE_ASSIGN_OR_RETURN(const std::vector<std::string> parts, SplitLocation(location));
  FileDescriptor at(open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at.ok()) return SystemError("cannot open the folder of external data", folder_);
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (last ? 0 : O_DIRECTORY);
    FileDescriptor next(openat(at.get(), parts[i].c_str(), flags));
    if (!next.ok()) {
      const int code = errno;
      // A link gives ELOOP, or ENOTDIR where O_DIRECTORY is asked for as well.
      struct stat link;
      if (fstatat(at.get(), parts[i].c_str(), &link, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(link.st_mode)) {
        return Refused("the external data lies behind a symbolic link", location);
      }
      errno = code;
      if (code == ENOENT) return Refused("the external data file does not exist", location);
      return SystemError("cannot open the external data", location);
    }
    at = std::move(next);
  }
  struct stat info;
  if (fstat(at.get(), &info) != 0) return SystemError("cannot examine the external data", location);
  if (!S_ISREG(info.st_mode)) {
    return Refused(std::string("the external data must be a regular file, this is ") + FileKind(info.st_mode),
                   location);
  }
  if (info.st_nlink > 1) return Refused("the external data is a hard link to another file", location);
  // Some exporters write a file for every tensor: more than a process may hold open.
  constexpr size_t kMaxOpen = 16;
  if (!map_ && files_.size() >= kMaxOpen) files_.clear();
  auto file = std::make_shared<OpenFile>();
  file->fd = std::move(at);
  file->size = info.st_size;
  if (map_ && file->size > 0) {
    const auto size = static_cast<size_t>(file->size);
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file->fd.get(), 0);
    if (mapped == MAP_FAILED) return SystemError("cannot map the external data", location);
    file->mapping = std::shared_ptr<const void>(mapped, [size](void* p) { munmap(p, size); });
    file->fd = FileDescriptor();  // the mapping does not need it
  }
  files_.emplace(std::string(location), file);
  return file;
}

Result<OwnedBytes> ExternalFiles::Get(std::string_view location, int64_t offset, int64_t length) {
  CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<OpenFile> file, Open(location));
  if (offset < 0 || length < 0 || offset > file->size || length > file->size - offset) {
    return Refused("the external data file has " + std::to_string(file->size) + " bytes, the tensor needs " +
                       std::to_string(length) + " at offset " + std::to_string(offset),
                   location);
  }
  if (length == 0) return OwnedBytes{};
  if (file->mapping == nullptr) return ReadRange(file->fd.get(), location, offset, length);
  const auto* begin = static_cast<const std::byte*>(file->mapping.get()) + offset;
  return OwnedBytes{{begin, static_cast<size_t>(length)}, file->mapping};
}

}  // namespace crease::onnx
