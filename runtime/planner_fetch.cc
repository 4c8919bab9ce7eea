// SPDX-License-Identifier: Apache-2.0
// Which steps fetch what later steps read: a matrix times a vector waits for the matrix, which other steps could
// have brought into the caches while they computed.
#include <algorithm>

#include "kernels/cache_sizes.h"
#include "runtime/planner.h"

namespace crease {
namespace {

// What a worker has to fetch, those bytes first that are read first.
class Wanted {
 public:
  explicit Wanted(size_t limit) : limit_(limit) {}

  // What a step reads, before all that is there: of that, what is then too much for the caches is left out.
  void Add(ConstBytes bytes) {
    if (bytes.empty()) return;
    ranges_.insert(ranges_.begin(), bytes);
    size_t left = limit_;
    for (ConstBytes& range : ranges_) {
      range = range.first(std::min(range.size(), left));
      left -= range.size();
    }
    while (!ranges_.empty() && ranges_.back().empty()) ranges_.pop_back();
  }

  std::vector<ConstBytes> Take(size_t bytes) {
    std::vector<ConstBytes> taken;
    while (bytes > 0 && !ranges_.empty()) {
      ConstBytes& range = ranges_.front();
      const size_t count = std::min(bytes, range.size());
      taken.push_back(range.first(count));
      range = range.subspan(count);
      bytes -= count;
      if (range.empty()) ranges_.erase(ranges_.begin());
    }
    return taken;
  }

 private:
  size_t limit_;
  std::vector<ConstBytes> ranges_;
};

}  // namespace

// From the last step to the first: the nearest step that can fetches.
void Planner::PlanFetches() {
  const int workers = plan_->workers;
  // Half of the last cache: what steps between read goes through it, too.
  const size_t limit = GetCacheSizes().l3 / 2 / static_cast<size_t>(workers);
  for (int worker = 0; worker < workers; ++worker) {
    Wanted wanted(limit);
    for (size_t i = plan_->steps.size(); i-- > 0;) {
      PlanStep& step = plan_->steps[i];
      if (!step.run) continue;
      std::vector<ConstBytes> fetched = wanted.Take(static_cast<size_t>(step.run->FetchableBytes(workers)));
      if (!fetched.empty()) {
        step.fetch.resize(static_cast<size_t>(workers));
        step.fetch[static_cast<size_t>(worker)] = std::move(fetched);
      }
      wanted.Add(step.run->Streamed(worker, workers));
    }
  }
}

}  // namespace crease
