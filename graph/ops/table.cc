// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/table.h"

#include <algorithm>
#include <array>

namespace crease {
namespace {

#define CREASE_ADDRESS(name) &ops::k##name,
constexpr std::array kAllOps = {CREASE_FOR_EACH_OP(CREASE_ADDRESS)};
#undef CREASE_ADDRESS

}  // namespace

std::span<const OpDef* const> AllOps() { return kAllOps; }

const OpDef* FindOp(std::string_view domain, std::string_view op_type, int opset) {
  if (!domain.empty() && domain != "ai.onnx") return nullptr;
  const auto found = std::lower_bound(kAllOps.begin(), kAllOps.end(), op_type,
                                      [](const OpDef* op, std::string_view name) { return op->name < name; });
  if (found == kAllOps.end() || (*found)->name != op_type || opset < (*found)->min_opset) return nullptr;
  return *found;
}

}  // namespace crease
