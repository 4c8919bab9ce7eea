// SPDX-License-Identifier: Apache-2.0
// Loading models that tests write byte by byte.
#pragma once

#include <gtest/gtest.h>

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

inline std::string ReadBack(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string ToText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace crease::test
