// SPDX-License-Identifier: Apache-2.0
// Whether Crease knows a model's operators, at the opsets that the model states.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "graph/onnx/reader.h"

namespace crease::onnx {

class OperatorCheck {
 public:
  explicit OperatorCheck(bool allow_unknown) : allow_unknown_(allow_unknown) {}

  void AddFunction(std::string_view domain, std::string_view name) {
    functions_.emplace(std::string(domain), std::string(name));
  }
  // Before the first Check(); `opsets` must outlive this.
  void SetOpsets(const std::map<std::string, int64_t>* opsets) { opsets_ = opsets; }

  // Notes an operator that is unknown, for Finish. Errors: a known one has too few or too many inputs
  // or outputs, or a required one is absent.
  Result<void> Check(const ReadNodeResult& node);

  // kUnsupported with every unknown operator, domain and opset, all at once.
  Result<void> Finish() const;

 private:
  struct Unknown {
    int64_t nodes = 0;
    std::string first;  // node that was met first
    std::string reason;
  };
  std::string WhyUnknown(const ReadNodeResult& node, int64_t opset) const;

  bool allow_unknown_;
  const std::map<std::string, int64_t>* opsets_ = nullptr;
  std::set<std::pair<std::string, std::string>> functions_;
  std::map<std::pair<std::string, std::string>, Unknown> unknown_;
};

}  // namespace crease::onnx
