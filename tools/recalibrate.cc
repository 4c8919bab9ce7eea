// SPDX-License-Identifier: Apache-2.0
// Running statistics measured anew (Wu and Johnson, "Rethinking Batch in BatchNorm", 2021: precise batch-norm): batches
// run through the network with every batch-norm normalizing by the batch, and their statistics are averaged.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "graph/onnx/exporter.h"
#include "graph/onnx/importer.h"
#include "runtime/session_impl.h"
#include "tools/command.h"
#include "tools/feed.h"
#include "tools/recalibrate_batch.h"
#include "tools/recalibrate_data.h"
#include "tools/recalibrate_graph.h"

namespace crease::tools {
namespace {

constexpr int64_t kDefaultBatch = 32;

struct Arguments {
  std::string model, output, momentum = "none";
  DataOptions data;
  int64_t batches = 0, batch_size = 0;
  int threads = 0;
  bool json = false;
};

struct Report {
  std::vector<NormStatistics> norms;
  std::vector<int64_t> samples;  // a channel, of one batch
  int64_t batches = 0, batch_size = 0, left_out = 0;
  std::string why_files_batch;  // empty: batches are not the file's, or it would take others
  std::vector<Shape> shapes;    // of the last batch
  size_t dropouts = 0;          // taken out of training mode
};

// Why batches of another size than the file's will not do.
Error FixedBatchError(const StatisticsGraph& statistics, const Shape& shape, Error error) {
  error.message = fmt::format(
      "the file fixes its batch to {}, and batches of {} would be another computation: {}. Export the model with a "
      "dynamic batch, or give batches of {}",
      statistics.file_batch, shape[0], error.message, statistics.file_batch);
  return error;
}

// Rows of one batch: what was asked for; else the usual, unless the network only takes the batch that its file fixes.
Result<int64_t> BatchSize(const Arguments& arguments, const StatisticsGraph& statistics, BatchReader& reader,
                          Report& report) {
  const int64_t wanted = arguments.batch_size > 0 ? arguments.batch_size : kDefaultBatch;
  if (statistics.file_batch == Dim::kUnknown || statistics.file_batch == wanted) return wanted;
  CREASE_ASSIGN_OR_RETURN(std::vector<Shape> shapes, reader.NextShapes());
  for (Shape& shape : shapes) shape[0] = wanted;
  if (shapes.empty()) return wanted;
  const Result<void> sound = CheckBatch(statistics, shapes);
  if (sound.ok()) return wanted;
  if (arguments.batch_size > 0) return FixedBatchError(statistics, shapes[0], sound.error());
  report.why_files_batch = sound.error().ToString();
  return statistics.file_batch;
}

// What helps where batches are too small.
std::string Advice(const Report& report) {
  if (report.why_files_batch.empty()) return "give larger batches (--batch-size, and data to fill them)";
  return "export the model with a dynamic batch, for the file fixes it (" + report.why_files_batch + ")";
}

Result<void> RunBatch(const Session::Impl& session, const StatisticsGraph& statistics, const std::vector<Tensor>& batch,
                      std::optional<double> momentum, Report& report) {
  std::vector<Shape> shapes;
  std::vector<Input> inputs;
  for (size_t i = 0; i < batch.size(); ++i) {
    shapes.push_back(batch[i].shape());
    inputs.push_back({session.inputs()[i].name, batch[i].dtype(), batch[i].shape(), batch[i].bytes()});
  }
  if (shapes != report.shapes) {
    if (statistics.file_batch != Dim::kUnknown && statistics.file_batch != shapes[0][0]) {
      const Result<void> sound = CheckBatch(statistics, shapes);
      if (!sound.ok()) return FixedBatchError(statistics, shapes[0], sound.error());
    }
    CREASE_ASSIGN_OR_RETURN(report.samples, SamplesPerChannel(statistics, shapes, Advice(report)));
    report.shapes = std::move(shapes);
  }
  std::vector<Tensor> results;
  std::vector<Output> outputs;
  for (size_t i = 0; i < session.outputs().size(); ++i) {
    const auto channels = static_cast<int64_t>(report.norms[i / 2].mean.size());
    CREASE_ASSIGN_OR_RETURN(Tensor result, Tensor::Allocate(session.outputs()[i].dtype, {channels}));
    results.push_back(std::move(result));
    outputs.push_back({session.outputs()[i].name, results[i].dtype(), results[i].shape(),
                       const_cast<std::byte*>(results[i].bytes())});
  }
  CREASE_RETURN_IF_ERROR(session.Run(inputs, outputs));
  for (size_t i = 0; i < report.norms.size(); ++i) {
    report.norms[i].Update(results[2 * i], results[2 * i + 1], report.samples[i], momentum);
  }
  return {};
}

Result<Report> Recalibrate(const Arguments& arguments, std::optional<double> momentum) {
  ImportOptions import_options;
  import_options.allow_unknown_ops = true;  // behind the last batch-norm
  CREASE_ASSIGN_OR_RETURN(const Graph original, ImportOnnxFile(arguments.model, import_options));
  CREASE_ASSIGN_OR_RETURN(const StatisticsGraph statistics, MakeStatisticsGraph(original));
  if (momentum && *momentum < 1) CREASE_RETURN_IF_ERROR(CheckStored(original, statistics.norms));
  Options options;
  options.threads = arguments.threads;
  CREASE_ASSIGN_OR_RETURN(const auto session, Session::Impl::Create(statistics.graph, options));
  if (session->inputs().empty()) return Error{ErrorCode::kInvalidArgument, "the network has no input", arguments.model};
  CREASE_ASSIGN_OR_RETURN(BatchReader reader, BatchReader::Open(arguments.data, session->inputs()));
  CREASE_RETURN_IF_ERROR(CheckOutput(arguments.output, original, arguments.model, reader.files()));
  Report report;
  report.norms = statistics.norms;
  report.dropouts = statistics.dropouts.size();
  CREASE_ASSIGN_OR_RETURN(report.batch_size, BatchSize(arguments, statistics, reader, report));
  Progress progress("recalibrating, batch", arguments.batches);
  while (arguments.batches == 0 || report.batches < arguments.batches) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<Tensor> batch, reader.Next(report.batch_size));
    if (batch.empty()) break;
    // A shorter last batch would count as much as the others.
    if (batch[0].dim(0) < report.batch_size && report.batches > 0) {
      report.left_out = batch[0].dim(0);
      break;
    }
    report.batch_size = batch[0].dim(0);
    progress.Update(report.batches, fmt::format("{}", report.batches + 1));
    CREASE_RETURN_IF_ERROR(RunBatch(*session, statistics, batch, momentum, report));
    ++report.batches;
  }
  if (report.batches == 0) return Error{ErrorCode::kInvalidArgument, "no data", arguments.data.path};
  CREASE_ASSIGN_OR_RETURN(const Graph written, WithStatistics(original, report.norms, statistics.dropouts));
  CREASE_RETURN_IF_ERROR(WriteOnnxFile(written, arguments.output));
  return report;
}

void PrintText(const Arguments& arguments, const Report& report) {
  int64_t trained = 0;
  for (size_t i = 0; i < report.norms.size(); ++i) {
    const NormStatistics& norm = report.norms[i];
    const NormStatistics::Change change = norm.ChangeOfAll();
    const auto channels = static_cast<int64_t>(norm.mean.size());
    fmt::print("{}: {} channels, {} samples each a batch", Printable(norm.name), channels, report.samples[i]);
    if (change.channels > 0) {
      fmt::print("; mean moved by up to {:.3g} deviations, variance by {:.3g} to {:.3g} times", change.mean_shift,
                 change.least_variance, change.most_variance);
    }
    if (change.channels < channels) fmt::print("; no usable statistics in {} channels", channels - change.channels);
    fmt::print("{}\n", norm.was_training ? "; training mode taken off" : "");
    trained += norm.was_training;
  }
  fmt::print("{}: {} batch-norms recalibrated on {} batches of {}", arguments.output, report.norms.size(),
             report.batches, report.batch_size);
  if (report.left_out > 0) fmt::print(", the last {} samples left out", report.left_out);
  if (!report.why_files_batch.empty()) fmt::print("; the file fixes its batch ({})", report.why_files_batch);
  if (trained > 0) fmt::print("; {} were in training mode and are not now", trained);
  if (report.dropouts > 0) fmt::print("; {} dropouts in training mode set to inference", report.dropouts);
  fmt::print("\n");
}

void PrintJson(const Arguments& arguments, const Report& report, std::optional<double> momentum) {
  Json nodes = Json::array();
  for (size_t i = 0; i < report.norms.size(); ++i) {
    const NormStatistics& norm = report.norms[i];
    const NormStatistics::Change change = norm.ChangeOfAll();
    const bool any = change.channels > 0;
    nodes.push_back({{"node", Printable(norm.name)},
                     {"channels", norm.mean.size()},
                     {"samples", report.samples[i]},
                     {"was_training", norm.was_training},
                     {"unusable", static_cast<int64_t>(norm.mean.size()) - change.channels},
                     {"mean_shift", any ? Json(change.mean_shift) : Json()},
                     {"variance_ratios", any ? Json{change.least_variance, change.most_variance} : Json()}});
  }
  const Json all{{"model", arguments.model},    {"output", arguments.output},
                 {"batches", report.batches},   {"batch_size", report.batch_size},
                 {"left_out", report.left_out}, {"why_files_batch", report.why_files_batch},
                 {"dropouts", report.dropouts}, {"momentum", momentum ? Json(*momentum) : Json()},
                 {"nodes", std::move(nodes)}};
  fmt::print("{}\n", all.dump(2));
}

int Run(const Arguments& arguments) {
  std::optional<double> momentum;
  if (arguments.momentum != "none") {
    double value = 0;
    const char* end = arguments.momentum.data() + arguments.momentum.size();
    const auto [stop, error] = std::from_chars(arguments.momentum.data(), end, value);
    if (error != std::errc() || stop != end || !(value > 0 && value <= 1)) {
      return FailUsage(fmt::format("--momentum: expected none or a number in (0, 1], got '{}'", arguments.momentum));
    }
    momentum = value;
  }
  const Result<Report> report = Recalibrate(arguments, momentum);
  if (!report.ok()) return Fail(report.error());
  arguments.json ? PrintJson(arguments, *report, momentum) : PrintText(arguments, *report);
  return kOk;
}

}  // namespace

Action AddRecalibrate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("MODEL", arguments->model, "ONNX file, not folded")->required();
  app.add_option("--data", arguments->data.path,
                 "FILE.npz with arrays named as the inputs (or one that fits), FILE.npy, or a folder of these")
      ->required();
  app.add_option("-o,--output", arguments->output, "the model to write, all in inference mode")->required();
  app.add_option("--batches", arguments->batches, "stop after so many (default: all data)")->check(CheckPositive);
  app.add_option("--batch-size", arguments->batch_size,
                 "samples of a batch (default: 32, or what the file fixes if it takes no other)")
      ->check(CheckPositive);
  app.add_option("--momentum", arguments->momentum,
                 "none: the average over all batches; or the share of each new batch, from the stored statistics on")
      ->capture_default_str();
  app.add_option("--mean", arguments->data.mean, "of integer images: (x / 255 - mean) / std, by channel")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--std", arguments->data.std, "likewise (default: the file's arrays `mean` and `std`)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CheckPositive);
  app.add_option("--threads", arguments->threads, "Threads (default: what cpuset and cgroup allow)")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--json", arguments->json, "the report as JSON");
  AddQuiet(app);
  return [arguments] { return Run(*arguments); };
}

}  // namespace crease::tools
