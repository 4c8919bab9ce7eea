// SPDX-License-Identifier: Apache-2.0
// Which kernel was measured to be the fastest for an operator at its shapes, on one machine with one
// number of threads, and the file that remembers it.
//
// The file is text: a header that names the machine, a line for each operator (key, tab, kernel), a
// checksum. One that is missing, damaged, or of another machine or version counts as empty, so that
// the static rule decides as if nothing had been measured.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "graph/status.h"
#include "runtime/program.h"

namespace crease {

class Tuning {
 public:
  // The kernel to ask first; empty: the table's order decides.
  std::string_view Find(std::string_view key) const;
  void Set(std::string key, std::string kernel) { kernels_[std::move(key)] = std::move(kernel); }
  // For operators that no key names: how candidates are tried.
  void SetDefault(std::string kernel) { default_ = std::move(kernel); }
  bool empty() const { return kernels_.empty() && default_.empty(); }
  size_t size() const { return kernels_.size(); }

  // What is not in `other` stays.
  void Merge(const Tuning& other);

  // `threads` is part of the header: other shares of the work favour other kernels.
  std::string Serialize(int threads) const;
  // Errors: what makes the text no tuning of this machine, version and thread count.
  static Result<Tuning> Parse(std::string_view text, int threads);

 private:
  std::map<std::string, std::string, std::less<>> kernels_;
  std::string default_;
};

// All that the time of an operator depends on: type, shapes, attributes, and what is fused into it.
std::string TuningKey(const Program& program, const ProgramOp& op);

// A file that can't be read or parsed gives an empty Tuning; `why`, if not null, says why.
Tuning LoadTuning(const std::string& path, int threads, std::string* why = nullptr);

// Adds to what the file holds, under a lock (PATH.lock) against other processes; the file is replaced
// whole. Folders are made as needed.
Result<void> UpdateTuning(const std::string& path, int threads, const Tuning& measured);

// $CREASE_CACHE_DIR, $XDG_CACHE_HOME/crease or ~/.cache/crease, and a name made of machine, version and
// threads. Empty where no folder can be found.
std::string DefaultTuningFile(int threads);

}  // namespace crease
