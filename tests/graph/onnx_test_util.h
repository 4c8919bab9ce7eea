// SPDX-License-Identifier: Apache-2.0
// Loading models that tests write byte by byte, and folders to put them in.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "graph/onnx/exporter.h"
#include "graph/onnx/importer.h"
#include "tests/support/onnx_builder.h"

namespace crease::test {

inline Result<Graph> Load(std::string_view bytes, const ImportOptions& options = {}) {
  const SharedBytes shared(bytes);
  return ImportOnnx(shared.bytes, shared.owner, options);
}

inline Result<Graph> Load(const OnnxModel& model, const ImportOptions& options = {}) {
  return Load(model.Bytes(), options);
}

// The error of loading `bytes`; fails the test if they load. The text has "where: message".
inline Error LoadError(std::string_view bytes, const ImportOptions& options = {}) {
  Result<Graph> graph = Load(bytes, options);
  EXPECT_FALSE(graph.ok()) << "a broken model was loaded";
  return graph.ok() ? Error{} : graph.error();
}
inline Error LoadError(const OnnxModel& model, const ImportOptions& options = {}) {
  return LoadError(model.Bytes(), options);
}

// That loading fails with this code, and that the text names every one of `parts`.
inline void ExpectRejected(std::string_view bytes, ErrorCode code, const std::vector<std::string>& parts,
                           const ImportOptions& options = {}) {
  const Error error = LoadError(bytes, options);
  EXPECT_STREQ(Name(error.code), Name(code)) << error.ToString();
  for (const std::string& part : parts) {
    EXPECT_NE(error.ToString().find(part), std::string::npos) << "no '" << part << "' in: " << error.ToString();
  }
}
inline void ExpectRejected(const OnnxModel& model, ErrorCode code, const std::vector<std::string>& parts,
                           const ImportOptions& options = {}) {
  ExpectRejected(model.Bytes(), code, parts, options);
}

// x (1, 4) -> Add w -> y, with the initializer given.
inline OnnxModel ModelWith(const Proto& initializer, std::string_view name = "w") {
  OnnxModel model;
  model.Node("Add", {"x", std::string(name)}, {"y"}, "sum").Initializer(initializer);
  model.Input("x", {1, 4}).Output("y", {1, 4});
  return model;
}

// A folder that is removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "crease-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data()) != nullptr ? pattern : "";
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

  std::string Write(std::string_view name, std::string_view content) const {
    const std::string path = *this / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  // Names of what lies in it, sorted.
  std::vector<std::string> List() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::string path_;
};

inline std::string ReadBack(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace crease::test
