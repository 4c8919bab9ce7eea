// SPDX-License-Identifier: Apache-2.0
// Which kernels an operator has, best first. One section a family; where two families serve an
// operator, the earlier section of kSections is asked first, and the reference kernel last.
#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <vector>

#include "kernels/kernels.h"

namespace crease {
namespace {

using Section = std::span<const KernelEntry>;

constexpr std::string_view kReferenceName = "reference";

// Rows in the order of the sections, grouped by operator, a reference row at the end of each group.
class Table {
 public:
  explicit Table(std::span<const Section> sections) {
    std::map<std::string_view, std::vector<KernelEntry>> by_op;
    for (const Section section : sections) {
      for (const KernelEntry& entry : section) by_op[entry.op_type].push_back(entry);
    }
    for (auto& [op_type, entries] : by_op) {
      entries.push_back({op_type, kReferenceName, LayoutRule::kPlain, MakeReference});
    }
    by_op_ = std::move(by_op);
  }

  std::span<const KernelEntry> Find(std::string_view op_type) const {
    const auto found = by_op_.find(op_type);
    if (found != by_op_.end()) return found->second;
    static constexpr KernelEntry kReferenceOnly[] = {
        {"*", kReferenceName, LayoutRule::kPlain, MakeReference}};
    return kReferenceOnly;
  }

 private:
  std::map<std::string_view, std::vector<KernelEntry>> by_op_;
};

}  // namespace

std::span<const KernelEntry> KernelsFor(std::string_view op_type) {
  static const Table table(std::span<const Section>{});
  return table.Find(op_type);
}

}  // namespace crease
