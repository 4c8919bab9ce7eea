// SPDX-License-Identifier: Apache-2.0
// Where tests find files. ctest sets the environment; run by hand from the repository's root, the defaults do.
#ifndef CREASE_TESTS_SUPPORT_PATHS_H_
#define CREASE_TESTS_SUPPORT_PATHS_H_

#include <cstdlib>
#include <filesystem>

namespace crease::test {

inline std::filesystem::path PathFromEnvironment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

// The repository's root.
inline std::filesystem::path SourceDir() { return PathFromEnvironment("CREASE_SOURCE_DIR", "."); }

// Networks and expected outputs that come beside a checkout. May not exist: tests that need it are then skipped.
inline std::filesystem::path SharedDir() { return PathFromEnvironment("CREASE_SHARED", "../shared"); }

// The crease program under test.
inline std::filesystem::path CreaseBinary() { return PathFromEnvironment("CREASE_BIN", "build/dev/crease"); }

}  // namespace crease::test

#endif  // CREASE_TESTS_SUPPORT_PATHS_H_
