// SPDX-License-Identifier: Apache-2.0
#include "tools/fold_report.h"

#include <fmt/format.h>

#include "graph/onnx/inner_batch_norms.h"
#include "graph/passes/reason_codes.h"
#include "runtime/lower.h"

namespace crease::tools {
namespace {

bool IsBatchNorm(const LogEntry& entry) { return entry.op_type == "BatchNormalization"; }

std::string Remedy(const LogEntry& entry) {
  const ReasonCode* row = FindReasonCode(entry.code);
  return row == nullptr ? "" : std::string(row->remedy);
}

std::string Bytes(int64_t bytes) {
  const double size = static_cast<double>(bytes);
  if (std::abs(size) < 10e3) return fmt::format("{} B", bytes);
  if (std::abs(size) < 10e6) return fmt::format("{:.0f} kB", size / 1e3);
  return fmt::format("{:.1f} MB", size / 1e6);
}

std::string FateLine(const LogEntry& entry) {
  std::string line =
      fmt::format("  {:6s} {} {}: ", entry.applied ? "folded" : "kept", entry.op_type, Printable(entry.node));
  if (!entry.applied) {
    return line + fmt::format("{}: {}. {}\n         to fold it: {}\n", entry.code,
                              FindReasonCode(entry.code) ? FindReasonCode(entry.code)->meaning : "", entry.message,
                              Remedy(entry));
  }
  line += fmt::format("{} {}", entry.code, entry.target);
  if (!entry.message.empty()) line += " (" + entry.message + ")";
  if (entry.macs_saved != 0) line += fmt::format(", {} MACs", entry.macs_saved);
  return line + fmt::format(", {} saved\n", Bytes(entry.bytes_saved));
}

}  // namespace

GraphSize SizeOf(const Graph& graph) {
  GraphSize size;
  for (NodeId id : graph.topological_order()) {
    ++size.nodes;
    size.batchnorms += graph.node(id).op_type == "BatchNormalization";
  }
  size.batchnorms += static_cast<int64_t>(InnerBatchNorms(graph).size());
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Tensor* tensor = graph.use_count(id) > 0 ? graph.constant(id) : nullptr;
    if (tensor != nullptr) size.constant_bytes += static_cast<int64_t>(tensor->byte_size());
  }
  return size;
}

void LogInnerBatchNorms(const Graph& graph, PassLog& log) {
  for (const InnerBatchNorm& inner : InnerBatchNorms(graph)) {
    LogEntry entry;
    entry.code = "in-subgraph";
    entry.node = inner.name;
    entry.target = inner.inside;
    entry.message = "it lies in " + inner.inside;
    entry.op_type = "BatchNormalization";
    log.push_back(std::move(entry));
  }
}

InputDefaults DefaultsOf(const Graph& before, const Graph& after) {
  InputDefaults defaults;
  for (ValueId id : InputsWithDefaults(before)) {
    ++defaults.count;
    defaults.gone += before.use_count(id) > 0 && after.use_count(id) == 0;
  }
  return defaults;
}

std::vector<const LogEntry*> FoldReport::Fates() const {
  std::vector<const LogEntry*> fates;
  for (const LogEntry& entry : log) {
    const bool housekeeping = entry.code == "removed" || entry.code == "evaluated";
    if (!housekeeping || IsBatchNorm(entry)) fates.push_back(&entry);
  }
  return fates;
}

int64_t FoldReport::Folded() const { return std::max<int64_t>(0, before.batchnorms - after.batchnorms); }

int64_t FoldReport::MacsSaved() const {
  int64_t sum = 0;
  for (const LogEntry& entry : log) sum += entry.macs_saved;
  return sum;
}

int64_t FoldReport::BytesSaved() const { return before.constant_bytes - after.constant_bytes; }

std::string FoldText(const FoldReport& report, bool explain) {
  std::string text =
      fmt::format("{}: {} of {} batch-norms folded, {} left; {} nodes, {} before; ", report.input, report.Folded(),
                  report.before.batchnorms, report.after.batchnorms, report.after.nodes, report.before.nodes);
  text += fmt::format("{} multiply-adds and {} of constants saved, {:.2f} s\n", report.MacsSaved(),
                      Bytes(report.BytesSaved()), report.seconds);
  if (report.defaults.gone > 0) {
    text +=
        fmt::format("  note   {} initializers are also graph inputs; folded as constants: {} are no inputs any more\n",
                    report.defaults.count, report.defaults.gone);
  }
  for (const LogEntry* entry : report.Fates()) {
    if (explain || !entry->applied) text += FateLine(*entry);
  }
  if (explain) {
    for (const LogEntry& entry : report.log) {
      if (entry.code == "removed" && !IsBatchNorm(entry)) {
        text += fmt::format("  removed {} {}: {}\n", entry.op_type, Printable(entry.node), entry.message);
      }
    }
  }
  return text + VerificationText(report.verifications);
}

Json FoldJson(const FoldReport& report) {
  Json entries = Json::array();
  for (const LogEntry* entry : report.Fates()) {
    Json row = {{"node", Printable(entry->node)},  {"op_type", entry->op_type},
                {"folded", entry->applied},        {"code", entry->code},
                {"target", entry->target},         {"message", entry->message},
                {"macs_saved", entry->macs_saved}, {"bytes_saved", entry->bytes_saved}};
    if (!entry->applied) row["remedy"] = Remedy(*entry);
    entries.push_back(std::move(row));
  }
  return {{"input", report.input},
          {"output", report.output},
          {"batchnorms_before", report.before.batchnorms},
          {"batchnorms_left", report.after.batchnorms},
          {"nodes_before", report.before.nodes},
          {"nodes_after", report.after.nodes},
          {"macs_saved", report.MacsSaved()},
          {"bytes_saved", report.BytesSaved()},
          {"input_defaults", report.defaults.count},
          {"input_defaults_gone", report.defaults.gone},
          {"seconds", report.seconds},
          {"entries", std::move(entries)},
          {"verify", VerificationJson(report.verifications)}};
}

}  // namespace crease::tools
