// SPDX-License-Identifier: Apache-2.0
#include "tools/profile_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "graph/graph.h"
#include "kernels/peak.h"
#include "runtime/session_impl.h"

namespace crease::tools {
namespace {

double MeanMs(const NodeProfile& node) { return node.runs > 0 ? node.total_ms / static_cast<double>(node.runs) : 0; }

std::string Cut(const std::string& text, size_t width) {
  return text.size() <= width ? text : text.substr(0, width - 2) + "..";
}

struct KernelSum {
  double ms = 0, flops = 0;
  int nodes = 0;
};

}  // namespace

std::string ProfileTable(const Session& session, int threads) {
  const std::vector<NodeProfile> nodes = session.profile();
  const double peak = PeakFlops() * std::max(threads, 1) * 1e-9;
  double total = 0;
  for (const NodeProfile& node : nodes) total += MeanMs(node);
  std::string text = fmt::format("\n{:28} {:16} {:34} {:20} {:>8} {:>6} {:>8} {:>7} {:>7}\n", "node", "operator",
                                 "kernel", "output", "ms", "share", "GFLOP/s", "of peak", "GB/s");
  std::map<std::string, KernelSum> sums;
  for (const NodeProfile& node : nodes) {
    const double ms = MeanMs(node);
    const double gflops = ms > 0 ? node.flops / ms / 1e6 : 0;
    text +=
        fmt::format("{:28} {:16} {:34} {:20} {:8.4f} {:5.1f}% {:8.1f} {:6.1f}% {:7.1f}\n",
                    Cut(Printable(node.name), 28), Cut(node.op_type, 16), Cut(node.kernel, 34), Cut(node.shape, 20), ms,
                    total > 0 ? 100 * ms / total : 0, gflops, 100 * gflops / peak, ms > 0 ? node.bytes / ms / 1e6 : 0);
    KernelSum& sum = sums[node.op_type + " " + node.kernel.substr(0, node.kernel.find(' '))];
    sum.ms += ms;
    sum.flops += node.flops;
    ++sum.nodes;
  }
  std::vector<std::pair<std::string, KernelSum>> sorted(sums.begin(), sums.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  text +=
      fmt::format("\n{:46} {:>6} {:>9} {:>6} {:>8} {:>7}\n", "by kernel", "nodes", "ms", "share", "GFLOP/s", "of peak");
  for (const auto& [name, sum] : sorted) {
    const double gflops = sum.ms > 0 ? sum.flops / sum.ms / 1e6 : 0;
    text += fmt::format("{:46} {:6} {:9.4f} {:5.1f}% {:8.1f} {:6.1f}%\n", Cut(name, 46), sum.nodes, sum.ms,
                        total > 0 ? 100 * sum.ms / total : 0, gflops, 100 * gflops / peak);
  }
  return text + fmt::format("{:46} {:6} {:9.4f}\n", "sum", nodes.size(), total);
}

Json ProfileJson(const Session& session) {
  Json array = Json::array();
  for (const NodeProfile& node : session.profile()) {
    const double ms = MeanMs(node);
    Json entry;
    entry["name"] = node.name;
    entry["op_type"] = node.op_type;
    entry["kernel"] = node.kernel;
    entry["layout"] = node.layout;
    entry["shape"] = node.shape;
    entry["ms"] = ms;
    entry["best_ms"] = node.best_ms;
    entry["flops"] = node.flops;
    entry["bytes"] = node.bytes;
    entry["gflops"] = ms > 0 ? node.flops / ms / 1e6 : 0;
    array.push_back(std::move(entry));
  }
  return array;
}

Result<void> WriteTrace(const Session& session, const std::string& path) {
  Json events = Json::array();
  double at_us = 0;
  for (const NodeProfile& node : session.profile()) {
    const double us = MeanMs(node) * 1e3;
    Json event;
    event["name"] = node.name;
    event["cat"] = node.op_type;
    event["ph"] = "X";  // a complete event: start and duration
    event["ts"] = at_us;
    event["dur"] = us;
    event["pid"] = 1;
    event["tid"] = 1;
    event["args"] = {{"kernel", node.kernel}, {"shape", node.shape}, {"layout", node.layout}};
    events.push_back(std::move(event));
    at_us += us;
  }
  std::ofstream file(path);
  file << Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump(1);
  file.close();
  if (!file) return Error{ErrorCode::kIo, "cannot write the trace", path};
  return {};
}

double FlopsOf(const Session& session, const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  for (const Tensor& input : inputs) shapes.push_back(input.shape());
  const auto plan = session.impl().PlanFor(shapes);
  return plan.ok() ? (*plan)->flops() : 0;
}

}  // namespace crease::tools
