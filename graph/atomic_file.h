// SPDX-License-Identifier: Apache-2.0
// Files that are there whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "graph/status.h"

namespace crease {

// Writes to a uniquely named file in the target's folder; Commit() makes it the target. Whatever
// happens before (an error, a full disk, kill -9), the target's old content stays; a temporary file
// `.crease-*.tmp` may be left only if the process is killed. A symbolic link as target keeps being
// one: the file it points to is replaced. Anything but a regular file (a device, a folder) is refused.
class AtomicFile {
 public:
  static Result<AtomicFile> Create(const std::string& target);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();  // without Commit() the temporary file is removed

  Result<void> Write(std::span<const std::byte> bytes);

  // Syncs the file, renames it to the target, or to another name in the same folder (then nothing
  // about that name was checked; it is replaced if it is there), and syncs the folder.
  Result<void> Commit();
  Result<void> CommitAs(const std::string& file_name);

  const std::string& folder() const { return folder_; }        // of the target, links resolved
  const std::string& file_name() const { return file_name_; }  // likewise

 private:
  AtomicFile() = default;

  int fd_ = -1;
  std::string folder_, file_name_, temporary_;
  uint32_t mode_ = 0;  // permissions of the file that is replaced; 0: the process's usual ones
};

}  // namespace crease
