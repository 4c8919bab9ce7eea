// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>

#include "runtime/file_map.h"
#include "runtime/session_impl.h"
#include "tools/command.h"
#include "tools/feed.h"

namespace crease::tools {
namespace {

struct Arguments {
  std::string model;
  SessionArguments session;
  int64_t batch = 0;
  bool json = false;
  bool refusals = false;
  std::string dot;
};

// What the file holds, before any pass.
struct FileSummary {
  std::map<std::string, int> operators;
  int64_t parameters = 0, parameter_bytes = 0;
  std::vector<std::string> batch_norms;  // names of the nodes
};

FileSummary Summarise(const Graph& graph) {
  FileSummary summary;
  for (NodeId id : graph.topological_order()) {
    const Node& node = graph.node(id);
    ++summary.operators[node.domain.empty() ? node.op_type : node.domain + "." + node.op_type];
    if (node.op_type == "BatchNormalization") summary.batch_norms.push_back(graph.Describe(id));
  }
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Tensor* tensor = graph.constant(id);
    if (tensor == nullptr || !IsFloat(tensor->dtype())) continue;
    summary.parameters += tensor->size();
    summary.parameter_bytes += static_cast<int64_t>(tensor->byte_size());
  }
  return summary;
}

std::string DescribeSpec(const TensorSpec& spec) {
  std::string text;
  for (size_t i = 0; i < spec.shape.size(); ++i) {
    if (i > 0) text += ", ";
    const std::string& symbol = i < spec.symbols.size() ? spec.symbols[i] : std::string();
    text += spec.shape[i] >= 0 ? std::to_string(spec.shape[i]) : symbol.empty() ? "?" : symbol;
  }
  return fmt::format("{} {} ({})", Printable(spec.name), Name(spec.dtype), Printable(text));
}

Json SpecsJson(const std::vector<TensorSpec>& specs) {
  Json array = Json::array();
  for (const TensorSpec& spec : specs) {
    Json shape = Json::array();
    for (size_t i = 0; i < spec.shape.size(); ++i) {
      if (spec.shape[i] >= 0) {
        shape.push_back(spec.shape[i]);
      } else {
        shape.push_back(i < spec.symbols.size() && !spec.symbols[i].empty() ? Json(spec.symbols[i]) : Json());
      }
    }
    array.push_back({{"name", spec.name}, {"dtype", Name(spec.dtype)}, {"shape", std::move(shape)}});
  }
  return array;
}

bool AboutBatchNorm(const LogEntry& entry) { return entry.pass.starts_with("fold_"); }

Json LogJson(const PassLog& log) {
  Json array = Json::array();
  for (const LogEntry& entry : log) {
    if (!AboutBatchNorm(entry)) continue;
    array.push_back({{"node", entry.node},
                     {"folded", entry.applied},
                     {"code", entry.code},
                     {"target", entry.target},
                     {"message", entry.message}});
  }
  return array;
}

Json PlanJson(const Plan& plan) {
  Json steps = Json::array();
  for (const PlanStep& step : plan.steps) {
    Json refusals = Json::array();
    for (const Refusal& refusal : step.refusals) {
      refusals.push_back({{"kernel", refusal.kernel}, {"reason", refusal.reason}});
    }
    const Shape shape =
        step.dst.empty() || step.dst[0] < 0 ? Shape{} : plan.tensors[static_cast<size_t>(step.dst[0])].shape;
    steps.push_back({{"name", step.name},
                     {"op_type", step.op_type},
                     {"kernel", step.kernel},
                     {"detail", step.detail},
                     {"layout", step.layout},
                     {"shape", shape},
                     {"fused", step.fused},
                     {"refusals", std::move(refusals)},
                     {"flops", step.flops},
                     {"bytes", step.bytes}});
  }
  return {{"steps", std::move(steps)}, {"arena_bytes", plan.arena_bytes}, {"macs", plan.flops() / 2}};
}

void PrintText(const Session& session, const FileSummary& summary, const Plan& plan, bool refusals) {
  for (const TensorSpec& spec : session.inputs()) fmt::print("input   {}\n", DescribeSpec(spec));
  for (const TensorSpec& spec : session.outputs()) fmt::print("output  {}\n", DescribeSpec(spec));
  fmt::print("parameters {:.3f} M ({:.1f} MiB)   MACs {:.3f} G   activations {:.1f} MiB\n",
             static_cast<double>(summary.parameters) * 1e-6, static_cast<double>(summary.parameter_bytes) / (1 << 20),
             plan.flops() * 0.5e-9, static_cast<double>(plan.arena_bytes) / (1 << 20));
  fmt::print("operators  ");
  for (const auto& [name, count] : summary.operators) fmt::print("{} {}  ", count, name);
  fmt::print("\n\nbatch-norms and affine chains ({} BatchNormalization)\n", summary.batch_norms.size());
  for (const LogEntry& entry : session.impl().pass_log()) {
    if (AboutBatchNorm(entry)) {
      fmt::print("  {} {}: {}\n", entry.applied ? "folded" : "kept  ", Printable(entry.node), entry.message);
    }
  }
  fmt::print("\nplan ({} steps)\n", plan.steps.size());
  for (const PlanStep& step : plan.steps) {
    const std::string shape =
        step.dst.empty() || step.dst[0] < 0 ? "" : ToString(plan.tensors[static_cast<size_t>(step.dst[0])].shape);
    fmt::print("  {:32} {:16} {:20} {:22} {}", Printable(step.name), step.op_type, shape, step.layout,
               step.detail.empty() ? step.kernel : step.detail);
    for (const std::string& fused : step.fused) fmt::print(" + {}", Printable(fused));
    fmt::print("\n");
    if (!refusals) continue;
    for (const Refusal& refusal : step.refusals) fmt::print("      {} refused: {}\n", refusal.kernel, refusal.reason);
  }
}

std::string DotQuoted(const std::string& text) {
  std::string quoted = "\"";
  for (char c : Printable(text)) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

// The plan as a Graphviz graph: a box a step, an edge a tensor.
Result<void> WriteDot(const Plan& plan, const std::string& path) {
  std::ofstream file(path);
  file << "digraph plan {\n  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n";
  std::map<int, size_t> made_by;  // tensor -> step
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const PlanStep& step = plan.steps[i];
    file << "  s" << i << " [label=" << DotQuoted(step.op_type + ": " + step.name + " [" + step.kernel + "]") << "];\n";
    for (int tensor : step.dst) made_by[tensor] = i;
  }
  std::map<int, std::vector<size_t>> writers;  // buffer -> steps, in order
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    for (int src : plan.steps[i].src) {
      if (src < 0) continue;
      const PlanTensor& tensor = plan.tensors[static_cast<size_t>(src)];
      const std::string label = " [label=" + DotQuoted(ToString(tensor.shape)) + ", fontsize=8];\n";
      const auto found = made_by.find(src);
      if (found != made_by.end()) {
        file << "  s" << found->second << " -> s" << i << label;
      } else {
        for (size_t writer : writers[tensor.buffer]) file << "  s" << writer << " -> s" << i << label;
      }
    }
    for (int dst : plan.steps[i].dst) {
      if (dst >= 0) writers[plan.tensors[static_cast<size_t>(dst)].buffer].push_back(i);
    }
  }
  file << "}\n";
  file.close();
  if (!file) return Error{ErrorCode::kIo, "cannot write the graph", path};
  return {};
}

Result<void> Run(const Arguments& arguments) {
  FileSummary summary;
  {
    CREASE_ASSIGN_OR_RETURN(const MappedModel model, ImportMapped(arguments.model, {}));
    summary = Summarise(model.graph);
  }
  CREASE_ASSIGN_OR_RETURN(const Session session, Session::load(arguments.model, arguments.session.ToOptions()));
  CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs, RandomInputs(session, arguments.batch, 0));
  std::vector<Shape> shapes;
  for (const Tensor& input : inputs) shapes.push_back(input.shape());
  CREASE_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, session.impl().PlanFor(shapes));
  if (arguments.json) {
    Json json;
    json["model"] = arguments.model;
    json["inputs"] = SpecsJson(session.inputs());
    json["outputs"] = SpecsJson(session.outputs());
    json["operators"] = summary.operators;
    json["parameters"] = summary.parameters;
    json["parameter_bytes"] = summary.parameter_bytes;
    json["macs"] = plan->flops() / 2;
    json["batchnorm"] = summary.batch_norms.size();
    json["folding"] = LogJson(session.impl().pass_log());
    json["plan"] = PlanJson(*plan);
    fmt::print("{}\n", json.dump(2));
  } else {
    PrintText(session, summary, *plan, arguments.refusals);
  }
  return arguments.dot.empty() ? Result<void>() : WriteDot(*plan, arguments.dot);
}

}  // namespace

Action AddInspect(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file")->required();
  arguments->session.AddTo(app);
  app.add_option("--batch", arguments->batch, "First axis of every input (default: the file's, or 1)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_flag("--json", arguments->json, "Print JSON");
  app.add_flag("--refusals", arguments->refusals, "Say for each step why the other kernels refused");
  app.add_option("--dot", arguments->dot, "Write the plan as a Graphviz graph");
  AddQuiet(app);
  return [arguments] {
    const Result<void> result = Run(*arguments);
    return result.ok() ? static_cast<int>(kOk) : Fail(result.error());
  };
}

}  // namespace crease::tools
