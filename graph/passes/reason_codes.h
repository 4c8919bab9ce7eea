// SPDX-License-Identifier: Apache-2.0
// The stable codes of LogEntry, one row each: the table that `--explain`, `lint` and docs/folding.md print.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace crease {

struct ReasonCode {
  std::string_view code;
  bool applied;  // of a rewrite, or of a refusal
  std::string_view meaning;
  std::string_view remedy;  // what would make it foldable; empty for rewrites
};

// Rewrites first, then refusals, each sorted by code.
std::span<const ReasonCode> ReasonCodes();

// The row, or null.
const ReasonCode* FindReasonCode(std::string_view code);

// The table as docs/folding.md has it, between its "reason codes" marks.
std::string ReasonCodesMarkdown();

}  // namespace crease
