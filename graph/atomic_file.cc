// SPDX-License-Identifier: Apache-2.0
#include "graph/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "graph/graph.h"

namespace crease {
namespace {

Error SystemError(const char* doing, const std::string& path) {
  return {ErrorCode::kIo, std::string(doing) + ": " + std::strerror(errno), Printable(path)};
}

std::string Join(const std::string& folder, const std::string& name) {
  return folder.back() == '/' ? folder + name : folder + "/" + name;
}

// Unique among threads and live processes; O_EXCL settles the rest.
std::string TemporaryName() {
  static std::atomic<uint32_t> counter{0};
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return ".crease-" + std::to_string(getpid()) + "-" + std::to_string(counter.fetch_add(1)) + "-" +
         std::to_string(now.tv_nsec) + ".tmp";
}

// The path with a link at its end followed, so that the link stays and its file is replaced.
Result<std::string> ResolveTarget(const std::string& target, uint32_t* mode) {
  if (target.empty() || target.find('\0') != std::string::npos || target.back() == '/') {
    return Error{ErrorCode::kInvalidArgument, "this names no file to write", Printable(target)};
  }
  struct stat info;
  if (stat(target.c_str(), &info) != 0) {
    if (errno != ENOENT) return SystemError("cannot examine the file to replace", target);
    if (lstat(target.c_str(), &info) != 0) return target;
    return Error{ErrorCode::kIo, "the file to replace is a symbolic link to nothing", Printable(target)};
  }
  if (!S_ISREG(info.st_mode)) {
    return Error{ErrorCode::kIo, "only a regular file can be replaced; this is none", Printable(target)};
  }
  *mode = info.st_mode & 07777;
  const std::unique_ptr<char, void (*)(void*)> real(realpath(target.c_str(), nullptr), std::free);
  if (real == nullptr) return SystemError("cannot resolve the file to replace", target);
  return std::string(real.get());
}

Result<void> SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot open the folder to sync it", folder);
  // EINVAL: a file system that cannot sync folders.
  const bool synced = fsync(fd) == 0 || errno == EINVAL;
  const int code = errno;
  close(fd);
  errno = code;
  if (!synced) return SystemError("cannot sync the folder", folder);
  return {};
}

}  // namespace

Result<AtomicFile> AtomicFile::Create(const std::string& target) {
  AtomicFile file;
  CREASE_ASSIGN_OR_RETURN(const std::string path, ResolveTarget(target, &file.mode_));
  const size_t slash = path.find_last_of('/');
  file.folder_ = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  file.file_name_ = slash == std::string::npos ? path : path.substr(slash + 1);
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string temporary = Join(file.folder_, TemporaryName());
    file.fd_ = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file.fd_ < 0 && errno == EEXIST) continue;
    if (file.fd_ < 0) return SystemError("cannot create a file", file.folder_);
    file.temporary_ = std::move(temporary);
    return file;
  }
  return Error{ErrorCode::kIo, "cannot find a free name for a temporary file", Printable(file.folder_)};
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      folder_(std::move(other.folder_)),
      file_name_(std::move(other.file_name_)),
      temporary_(std::exchange(other.temporary_, {})),
      mode_(other.mode_) {}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Result<void> AtomicFile::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError("writing failed", Join(folder_, file_name_));
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Result<void> AtomicFile::Commit() { return CommitAs(file_name_); }

Result<void> AtomicFile::CommitAs(const std::string& file_name) {
  const std::string target = Join(folder_, file_name);
  if (mode_ != 0 && fchmod(fd_, mode_) != 0) return SystemError("cannot set the permissions", target);
  if (fsync(fd_) != 0) return SystemError("cannot sync", target);
  if (close(std::exchange(fd_, -1)) != 0) return SystemError("cannot close", target);
  if (rename(temporary_.c_str(), target.c_str()) != 0) return SystemError("cannot rename to", target);
  temporary_.clear();
  return SyncFolder(folder_);
}

}  // namespace crease
