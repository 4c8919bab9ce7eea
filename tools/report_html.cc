// SPDX-License-Identifier: Apache-2.0
#include "tools/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "graph/passes/reason_codes.h"

namespace crease::tools {
namespace {

constexpr std::string_view kStyle = R"(
body{font:14px/1.45 system-ui,sans-serif;margin:24px;color:#1b1f24;background:#fff}
h1{font-size:20px;margin:0 0 4px}h2{font-size:15px;margin:28px 0 8px}p{margin:2px 0;color:#57606a}
.cols{display:flex;gap:28px;align-items:flex-start}.cols>div{min-width:0;overflow-x:auto}
table{border-collapse:collapse}td,th{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eaeef2}
th{color:#57606a;font-weight:600}.num{text-align:right;font-variant-numeric:tabular-nums}
.key span{display:inline-block;padding:1px 8px;border-radius:4px;margin-right:8px;color:#fff}
svg text{font:11px system-ui,sans-serif}.ok{color:#1a7f37}.bad{color:#cf222e;font-weight:600}
)";

// Fates of batch-norms, by colour.
constexpr std::string_view kFolded = "#1a7f37", kPartly = "#9a6700", kKept = "#cf222e", kMerged = "#8250df";
constexpr int kRow = 22, kWidth = 330;
constexpr size_t kLabel = 46;  // characters of operator and name that fit kWidth

std::string Escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string Shortened(const std::string& text, size_t length) {
  // From the end: names differ there. Printable names are valid UTF-8; a cut inside a sequence moves on.
  if (text.size() <= length) return text;
  size_t begin = text.size() - length;
  while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) ++begin;
  return "…" + text.substr(begin);
}

std::string_view ColourOf(const LogEntry& entry) {
  if (!entry.applied) return kKept;
  if (entry.code == "folded-partly") return kPartly;
  return entry.code == "merged" ? kMerged : kFolded;
}

struct Drawing {
  const Graph& graph;
  std::map<std::string, const LogEntry*> fates;  // by node name
  const std::map<std::string, double>& errors;   // by value name
};

std::string NodeName(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  return node.name.empty() ? "#" + std::to_string(id) : node.name;
}

// One row a node, in running order; lines for what it reads: straight from the row before, bows else.
std::string Draw(const Drawing& drawing) {
  const Graph& graph = drawing.graph;
  std::vector<NodeId> rows;
  std::map<NodeId, int> row_of;
  for (NodeId id : graph.topological_order()) {
    if (graph.node(id).op_type == "Constant") continue;
    row_of[id] = static_cast<int>(rows.size());
    rows.push_back(id);
  }
  constexpr int kLeft = 90;
  std::string svg =
      fmt::format("<svg width=\"{}\" height=\"{}\">", kLeft + kWidth + 90, static_cast<int>(rows.size()) * kRow + 8);
  for (size_t row = 0; row < rows.size(); ++row) {
    const Node& node = graph.node(rows[row]);
    const int y = static_cast<int>(row) * kRow + kRow / 2;
    for (ValueId input : node.inputs) {
      const NodeId producer = input == kNone ? kNone : graph.producer(input);
      const auto from = row_of.find(producer);
      if (from == row_of.end()) continue;
      const int y0 = from->second * kRow + kRow / 2, distance = static_cast<int>(row) - from->second;
      if (distance == 1) {
        svg += fmt::format("<path d=\"M{} {}V{}\" stroke=\"#afb8c1\"/>", kLeft + 12, y0, y);
      } else {
        const int bow = std::min(80, static_cast<int>(12 * std::log2(static_cast<double>(distance) + 1)));
        svg += fmt::format("<path d=\"M{0} {1}C{2} {1} {2} {3} {0} {3}\" fill=\"none\" stroke=\"#afb8c1\"/>", kLeft, y0,
                           kLeft - bow, y);
      }
    }
  }
  for (size_t row = 0; row < rows.size(); ++row) {
    const Node& node = graph.node(rows[row]);
    const int y = static_cast<int>(row) * kRow + 2;
    const auto fate = drawing.fates.find(NodeName(graph, rows[row]));
    const bool coloured = fate != drawing.fates.end() && fate->second->op_type == node.op_type;
    const std::string_view fill = coloured ? ColourOf(*fate->second) : std::string_view("#f6f8fa");
    std::string tip = graph.Describe(rows[row]);
    if (coloured) tip += "\n" + fate->second->code + " " + fate->second->target + "\n" + fate->second->message;
    svg += fmt::format(
        "<g><title>{}</title><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\" fill=\"{}\" "
        "stroke=\"#d0d7de\"/>",
        Escape(tip), kLeft, y, kWidth, kRow - 4, fill);
    svg += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"{}\"><tspan font-weight=\"600\">{}</tspan> {}</text></g>",
                       kLeft + 7, y + 13, coloured ? "#fff" : "#1b1f24", Escape(Printable(node.op_type)),
                       Escape(Shortened(Printable(node.name), kLabel - std::min(kLabel - 8, node.op_type.size()))));
    const ValueId output = node.outputs.empty() ? kNone : node.outputs[0];
    const auto error = output == kNone ? drawing.errors.end() : drawing.errors.find(graph.value(output).name);
    if (error != drawing.errors.end()) {
      svg += fmt::format("<text x=\"{}\" y=\"{}\" fill=\"#57606a\">{:.1e}</text>", kLeft + kWidth + 8, y + 13,
                         error->second);
    }
  }
  return svg + "</svg>";
}

std::string FateTable(const FoldReport& report) {
  std::string html =
      "<table><tr><th>node</th><th>fate</th><th>where, or what stands in the way</th><th>to fold "
      "it</th><th>multiply-adds saved</th></tr>";
  for (const LogEntry* entry : report.Fates()) {
    const ReasonCode* row = FindReasonCode(entry->code);
    html += fmt::format(
        "<tr><td>{} {}</td><td style=\"color:{}\">{}</td><td>{}<br><small>{}</small></td><td>{}</td><td "
        "class=num>{}</td></tr>",
        Escape(entry->op_type), Escape(Printable(entry->node)), ColourOf(*entry), Escape(entry->code),
        Escape(entry->target), Escape(entry->message), row == nullptr ? "" : Escape(row->remedy), entry->macs_saved);
  }
  return html + "</table>";
}

std::string VerificationTable(const FoldReport& report) {
  std::string html =
      "<table><tr><th>inputs</th><th>precision</th><th>output</th><th>error, in standard "
      "deviations</th><th>tolerance</th></tr>";
  for (const Verification& v : report.verifications) {
    for (const ValueDifference& output : v.outputs) {
      html += fmt::format(
          "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"num {}\">{:.1e}{}</td><td class=num>{:.1e}</td></tr>",
          Escape(v.inputs), v.precision, Escape(Printable(output.name)), output.error <= v.tolerance ? "ok" : "bad",
          output.error, NotFiniteText(output.not_finite), v.tolerance);
    }
    if (!v.first.name.empty()) {
      html += fmt::format("<tr><td colspan=5 class=bad>begins at {} ({}): {:.1e}</td></tr>",
                          Escape(Printable(v.first.name)), Escape(v.first.node), v.first.error);
    }
  }
  return html + "</table>";
}

}  // namespace

Result<void> WriteFoldHtml(const std::string& path, const Graph& before, const Graph& after, const FoldReport& report) {
  std::map<std::string, double> errors;
  for (const Verification& v : report.verifications) {
    for (const ValueDifference& layer : v.layers) errors[layer.name] = std::max(errors[layer.name], layer.error);
  }
  std::map<std::string, const LogEntry*> fates;
  for (const LogEntry* entry : report.Fates()) fates[entry->node] = entry;
  std::string html =
      fmt::format("<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><style>{1}</style><h1>{0}</h1>",
                  Escape(Printable(report.input)), kStyle);
  html += fmt::format(
      "<p>{} of {} batch-norms folded, {} left. {} nodes, {} before. {} multiply-adds saved in one run.</p>",
      report.Folded(), report.before.batchnorms, report.after.batchnorms, report.after.nodes, report.before.nodes,
      report.MacsSaved());
  html += fmt::format(
      "<p class=key>Batch-norms: <span style=\"background:{}\">folded</span><span style=\"background:{}\">folded "
      "partly</span>"
      "<span style=\"background:{}\">merged</span><span style=\"background:{}\">kept</span></p>",
      kFolded, kPartly, kMerged, kKept);
  html += "<h2>Outputs</h2>" + VerificationTable(report) + "<h2>Fates</h2>" + FateTable(report);
  html +=
      "<h2>Graph</h2><p>Right of a node: the largest error of its value in float64, in standard deviations. Between "
      "weights that took a "
      "map and the place where it was, values differ on purpose.</p><div class=cols>";
  html += "<div><p>before</p>" + Draw({before, fates, {}}) + "</div><div><p>after</p>" + Draw({after, fates, errors}) +
          "</div></div></html>\n";
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << html;
  file.close();
  if (!file) return Error{ErrorCode::kIo, "could not write the report", path};
  return {};
}

}  // namespace crease::tools
