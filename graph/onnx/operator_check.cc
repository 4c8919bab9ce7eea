// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/operator_check.h"

#include <algorithm>

#include "graph/onnx/schema.h"
#include "graph/op.h"

namespace crease::onnx {
namespace {

// More kinds than any real model has; keeps a crafted one from a message of gigabytes.
constexpr size_t kMaxListed = 200;

Error NodeError(const ReadNodeResult& node, std::string message) {
  std::string where = Printable(node.op_type);
  if (!node.name.empty()) where += " '" + Printable(node.name) + "'";
  if (!node.outputs.empty()) where += " (makes '" + Printable(node.outputs.front()) + "')";
  return {ErrorCode::kInvalidModel, std::move(message), std::move(where)};
}

std::string Expected(int least, int most, const char* what) {
  std::string text = std::to_string(least);
  if (most < 0) {
    text += " or more";
  } else if (most != least) {
    text += " to " + std::to_string(most);
  }
  return text + " " + what;
}

Result<void> CheckArity(const ReadNodeResult& node, const std::vector<std::string_view>& names, int least, int most,
                        const char* what) {
  const auto count = static_cast<int64_t>(names.size());
  if (count < least || (most >= 0 && count > most)) {
    return NodeError(node,
                     "it has " + std::to_string(count) + " " + what + ", expected " + Expected(least, most, what));
  }
  // A variadic list of inputs has no absent ones; of outputs some may be unwanted.
  const bool all = most < 0 && &names == &node.inputs;
  const size_t required = all ? names.size() : static_cast<size_t>(least);
  for (size_t i = 0; i < required; ++i) {
    if (names[i].empty()) {
      return NodeError(node, "number " + std::to_string(i) + " of its " + what + " is required, but absent");
    }
  }
  return {};
}

}  // namespace

std::string OperatorCheck::WhyUnknown(const ReadNodeResult& node, int64_t opset) const {
  if (opset == 0) return "its domain is in no opset_import";
  if (!node.domain.empty()) return "unknown domain, opset " + std::to_string(opset);
  if (opset < kOldestOpset || opset > kNewestOpset) {
    return "opset " + std::to_string(opset) + ", Crease knows " + std::to_string(kOldestOpset) + " to " +
           std::to_string(kNewestOpset);
  }
  return "unknown at opset " + std::to_string(opset);
}

Result<void> OperatorCheck::Check(const ReadNodeResult& node) {
  const std::string domain(node.domain), op_type(node.op_type);
  const auto opset_at = opsets_->find(domain);
  const int64_t opset = opset_at == opsets_->end() ? 0 : opset_at->second;
  const bool is_function = functions_.contains({domain, op_type});
  const bool known_opset = !domain.empty() || (opset >= kOldestOpset && opset <= kNewestOpset);
  if (is_function && domain.empty()) {
    return NodeError(node, "the model replaces this standard operator by a function of its own");
  }
  const OpDef* def = nullptr;
  if (!is_function && opset > 0 && known_opset) {
    def = FindOp(domain, op_type, static_cast<int>(std::min<int64_t>(opset, 1'000'000)));
  }
  if (def != nullptr) {
    CREASE_RETURN_IF_ERROR(CheckArity(node, node.inputs, def->min_inputs, def->max_inputs, "inputs"));
    return CheckArity(node, node.outputs, def->min_outputs, def->max_outputs, "outputs");
  }
  if (allow_unknown_ && (known_opset || opset == 0)) return {};
  Unknown& unknown = unknown_[{domain, op_type}];
  if (++unknown.nodes > 1) return {};
  unknown.reason = is_function ? "a function of the model, which Crease does not inline" : WhyUnknown(node, opset);
  unknown.first = !node.name.empty() ? node.name : node.outputs.empty() ? "" : node.outputs.front();
  return {};
}

Result<void> OperatorCheck::Finish() const {
  if (unknown_.empty()) return {};
  std::string text = std::to_string(unknown_.size()) + (unknown_.size() == 1 ? " operator" : " operators") +
                     " that Crease cannot run: ";
  size_t listed = 0;
  for (const auto& [key, unknown] : unknown_) {
    if (listed > 0) text += "; ";
    if (++listed > kMaxListed) {
      text += "and " + std::to_string(unknown_.size() - kMaxListed) + " more";
      break;
    }
    text += (key.first.empty() ? "" : Printable(key.first) + ".") + Printable(key.second) + " (" + unknown.reason +
            ", " + std::to_string(unknown.nodes) + (unknown.nodes == 1 ? " node" : " nodes") + ", first '" +
            Printable(unknown.first) + "')";
  }
  return Error{ErrorCode::kUnsupported, std::move(text), ""};
}

}  // namespace crease::onnx
