// SPDX-License-Identifier: Apache-2.0
#include "tools/feed.h"

#include <algorithm>
#include <cstring>

#include "graph/random_inputs.h"
#include "runtime/cpu_count.h"
#include "runtime/session_impl.h"
#include "runtime/tuning.h"

namespace crease::tools {
namespace {

Error InputError(const TensorSpec& spec, std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message), "input '" + spec.name + "'"};
}

// Whether values of one dtype may stand for the other without being asked.
bool Convertible(DType from, DType to) { return (IsFloat(from) && IsFloat(to)) || (IsInteger(from) && IsInteger(to)); }

std::string Names(const NamedTensors& arrays) {
  std::string text;
  for (const auto& [name, tensor] : arrays) text += (text.empty() ? "'" : ", '") + name + "'";
  return text.empty() ? "none" : text;
}

// Rows [begin, end) of the first axis, without a copy.
Result<Tensor> Rows(const Tensor& tensor, int64_t begin, int64_t end) {
  Shape shape = tensor.shape();
  const size_t row = tensor.byte_size() / static_cast<size_t>(shape[0]);
  shape[0] = end - begin;
  const std::span<const std::byte> bytes(tensor.bytes() + static_cast<size_t>(begin) * row,
                                         static_cast<size_t>(end - begin) * row);
  return Tensor::View(tensor.dtype(), std::move(shape), bytes, tensor.owner());
}

Result<Tensor> Join(const std::vector<Tensor>& pieces) {
  Shape shape = pieces.front().shape();
  shape[0] *= static_cast<int64_t>(pieces.size());
  CREASE_ASSIGN_OR_RETURN(Tensor joined, Tensor::Allocate(pieces.front().dtype(), shape));
  auto* dst = const_cast<std::byte*>(joined.bytes());
  for (const Tensor& piece : pieces) {
    std::memcpy(dst, piece.bytes(), piece.byte_size());
    dst += piece.byte_size();
  }
  return joined;
}

// What has another first axis than the batch may have the batch along another one, or none.
Result<void> CheckJoins(const Tensor& piece, int64_t batch, const std::string& output) {
  if (piece.rank() > 0 && piece.dim(0) == batch) return {};
  return Error{ErrorCode::kInvalidArgument,
               "its shape " + ToString(piece.shape()) + " does not begin with the file's batch, " +
                   std::to_string(batch) + ", so that a larger batch, run piece by piece, can't be joined",
               "output '" + output + "'"};
}

// How many times the file's fixed batch fits into the given one; 1 where it is not fixed.
int64_t PieceCount(const Session& session, const std::vector<Tensor>& inputs) {
  int64_t pieces = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& want = session.inputs()[i].shape;
    if (want.empty() || inputs[i].rank() != static_cast<int>(want.size()) || want[0] <= 0) return 1;
    if (inputs[i].dim(0) % want[0] != 0) return 1;
    const int64_t count = inputs[i].dim(0) / want[0];
    if (pieces != 0 && count != pieces) return 1;
    pieces = count;
  }
  return std::max<int64_t>(pieces, 1);
}

}  // namespace

void SessionArguments::AddTo(CLI::App& app) {
  app.add_option("--threads", threads, "Threads (default: what cpuset and cgroup allow)")->check(CLI::Range(1, 1024));
  app.add_option("--precision", precision, "Arithmetic of the kernels")
      ->check(CLI::IsMember({"f32"}))
      ->capture_default_str();
  app.add_flag("--no-fold", no_fold, "Run the batch-norms as they are");
  app.add_flag("--exact", exact, "Direct convolution in f32 only: no Winograd, no Strassen, no AMX");
  CLI::Option* file = app.add_option("--tuning", tuning, "What `crease tune` measured (default: this machine's cache)");
  app.add_flag("--no-tuning", no_tuning, "Choose kernels by the static rule, measured or not")->excludes(file);
}

Options SessionArguments::ToOptions() const {
  Options options;
  options.threads = threads;
  options.fold = !no_fold;
  options.exact = exact;
  if (!no_tuning) {
    options.tuning_file = tuning.empty() ? DefaultTuningFile(ThreadCount(threads)) : tuning;
  }
  return options;
}

Result<std::vector<Tensor>> MatchInputs(const Session& session, const NamedTensors& arrays) {
  std::vector<Tensor> inputs;
  for (const TensorSpec& spec : session.inputs()) {
    const auto found =
        std::find_if(arrays.begin(), arrays.end(), [&](const auto& entry) { return entry.first == spec.name; });
    if (found == arrays.end()) return InputError(spec, "no array has this name; given: " + Names(arrays));
    const Tensor& given = found->second;
    if (given.dtype() != spec.dtype && !Convertible(given.dtype(), spec.dtype)) {
      return InputError(spec, std::string("expected ") + Name(spec.dtype) + ", got " + Name(given.dtype()));
    }
    CREASE_ASSIGN_OR_RETURN(Tensor converted, given.ConvertedTo(spec.dtype));
    inputs.push_back(std::move(converted));
  }
  return inputs;
}

Result<std::vector<Tensor>> RandomInputs(const Session& session, int64_t batch, uint64_t seed) {
  RandomInputOptions options;
  options.seed = seed;
  options.batch = batch;
  options.extents = {224, 256, 128, 64};  // what most networks were trained for comes first
  options.advice = "fix them in the file";
  CREASE_ASSIGN_OR_RETURN(TensorMap made, RandomInputs(session.impl().graph(), options));
  std::vector<Tensor> inputs;
  for (const TensorSpec& spec : session.inputs()) inputs.push_back(std::move(made.at(spec.name)));
  return inputs;
}

std::vector<Input> InputsOf(const Session& session, const std::vector<Tensor>& tensors) {
  std::vector<Input> inputs;
  for (size_t i = 0; i < tensors.size(); ++i) {
    inputs.push_back({session.inputs()[i].name, tensors[i].dtype(), tensors[i].shape(), tensors[i].bytes()});
  }
  return inputs;
}

std::vector<Output> OutputsOf(const Session& session, std::vector<Tensor>& tensors) {
  std::vector<Output> outputs;
  for (size_t i = 0; i < tensors.size(); ++i) {
    outputs.push_back({session.outputs()[i].name, tensors[i].dtype(), tensors[i].shape(),
                       const_cast<std::byte*>(tensors[i].bytes())});
  }
  return outputs;
}

Result<std::vector<Tensor>> AllocateOutputs(const Session& session, const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  for (const Tensor& input : inputs) shapes.push_back(input.shape());
  CREASE_ASSIGN_OR_RETURN(const std::vector<Shape> output_shapes, session.output_shapes(shapes));
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < output_shapes.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(session.outputs()[i].dtype, output_shapes[i]));
    outputs.push_back(std::move(tensor));
  }
  return outputs;
}

Result<NamedTensors> RunOnce(const Session& session, const std::vector<Tensor>& inputs) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(session, inputs));
  CREASE_RETURN_IF_ERROR(session.run(InputsOf(session, inputs), OutputsOf(session, outputs)));
  NamedTensors named;
  for (size_t i = 0; i < outputs.size(); ++i) {
    named.emplace_back(session.outputs()[i].name, std::move(outputs[i]));
  }
  return named;
}

Result<NamedTensors> RunInPieces(const Session& session, const std::vector<Tensor>& inputs,
                                 const std::function<void(int64_t, int64_t)>& on_piece) {
  const int64_t pieces = PieceCount(session, inputs);
  if (pieces == 1) return RunOnce(session, inputs);
  std::vector<std::vector<Tensor>> by_output(session.outputs().size());
  for (int64_t piece = 0; piece < pieces; ++piece) {
    on_piece(piece, pieces);
    std::vector<Tensor> part;
    for (const Tensor& input : inputs) {
      const int64_t rows = input.dim(0) / pieces;
      CREASE_ASSIGN_OR_RETURN(Tensor slice, Rows(input, piece * rows, (piece + 1) * rows));
      part.push_back(std::move(slice));
    }
    CREASE_ASSIGN_OR_RETURN(NamedTensors outputs, RunOnce(session, part));
    for (size_t i = 0; i < outputs.size(); ++i) {
      auto& [name, tensor] = outputs[i];
      if (piece == 0) CREASE_RETURN_IF_ERROR(CheckJoins(tensor, part.front().dim(0), name));
      by_output[i].push_back(std::move(tensor));
    }
  }
  NamedTensors joined;
  for (size_t i = 0; i < by_output.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(Tensor whole, Join(by_output[i]));
    joined.emplace_back(session.outputs()[i].name, std::move(whole));
  }
  return joined;
}

}  // namespace crease::tools
