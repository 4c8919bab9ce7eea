// SPDX-License-Identifier: Apache-2.0
// Original against folded: in double by the operators' definitions, in float32 by sessions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/npz.h"
#include "graph/verify.h"
#include "tools/command.h"

namespace crease::tools {

// One comparison of all outputs on one set of inputs.
struct Verification {
  std::string inputs;     // "seed 1", or the file
  std::string precision;  // "float64" or "float32"
  double tolerance = 0;   // in standard deviations of each output
  std::vector<ValueDifference> outputs;
  std::vector<ValueDifference> layers;  // float64 only
  ValueDifference first;                // float64 only: where it begins, if past the tolerance

  double worst() const;
  bool ok() const { return worst() <= tolerance; }
};

struct VerifyRequest {
  int samples = 1;                  // random ones, seeds 1 to N
  NamedTensors given;               // the user's inputs instead, if any
  std::optional<double> tolerance;  // in place of LimitsOf
  bool in_float = true;             // besides float64
};

// For CLI11: what is wrong with the text as a tolerance, or nothing.
std::string CheckTolerance(const std::string& text);

// `a` and `b` as graphs; the files are what sessions load. Errors: what running them says; outputs without elements.
Result<std::vector<Verification>> Verify(const Graph& a, const Graph& b, const std::string& a_path,
                                         const std::string& b_path, const VerifyRequest& request);

// "; 3 values are NaN or infinite", or nothing for 0: equal ones are no difference, but they hide others.
std::string NotFiniteText(int64_t count);
std::string VerificationText(const std::vector<Verification>& verifications);
Json VerificationJson(const std::vector<Verification>& verifications);

}  // namespace crease::tools
