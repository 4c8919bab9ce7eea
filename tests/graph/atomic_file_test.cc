// SPDX-License-Identifier: Apache-2.0
#include "graph/atomic_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/graph/onnx_test_util.h"
#include "tests/support/temporary_folder.h"

namespace crease::test {
namespace {

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

Result<void> WriteAll(const std::string& path, const std::string& text) {
  CREASE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  CREASE_RETURN_IF_ERROR(file.Write(Bytes(text)));
  return file.Commit();
}

TEST(AtomicFile, NothingIsSeenBeforeCommit) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("f", "old");
  Result<AtomicFile> file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write(Bytes("new ")).ok());
  ASSERT_TRUE(file->Write(Bytes("content")).ok());
  EXPECT_EQ(ReadBack(path), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(ReadBack(path), "new content");
  EXPECT_EQ(folder.List(), (std::vector<std::string>{"f"}));
}

TEST(AtomicFile, WithoutCommitNothingStays) {
  const TemporaryFolder folder;
  {
    Result<AtomicFile> file = AtomicFile::Create(folder / "f");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(Bytes("new")).ok());
    EXPECT_EQ(folder.List().size(), 1u);
  }
  EXPECT_TRUE(folder.List().empty());
}

TEST(AtomicFile, AnotherNameInTheSameFolder) {
  const TemporaryFolder folder;
  Result<AtomicFile> file = AtomicFile::Create(folder / "f");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write(Bytes("data")).ok());
  ASSERT_TRUE(file->CommitAs("f.data").ok());
  EXPECT_EQ(folder.List(), (std::vector<std::string>{"f.data"}));
}

// A file that may not grow stands for a full disk: write(2) is short, then fails.
TEST(AtomicFile, AFailedWriteLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder.Write("f", "old");
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Result<void> written = WriteAll(path, std::string(5000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kIo);
  EXPECT_EQ(ReadBack(path), "old");
  EXPECT_EQ(folder.List(), (std::vector<std::string>{"f"}));
}

// A writer that is killed at any moment leaves the one content or the other.
TEST(AtomicFile, KilledWritersLeaveAWholeFile) {
  const TemporaryFolder folder;
  const std::string first(200'000, 'a'), second(300'000, 'b');
  const std::string path = folder.Write("f", first);
  for (int round = 0; round < 10; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) {
        if (!WriteAll(path, second).ok() || !WriteAll(path, first).ok()) _exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 3 * round));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself";
    const std::string now = ReadBack(path);
    EXPECT_TRUE(now == first || now == second) << "a mixture of " << now.size() << " bytes";
  }
}

}  // namespace
}  // namespace crease::test
