// SPDX-License-Identifier: Apache-2.0
// Loading a network and running it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "crease/limits.h"
#include "crease/status.h"
#include "crease/tensor.h"

#pragma GCC visibility push(default)
namespace crease {

// Threads that the host owns. Crease calls `parallel_for` with a count and a task; the host calls
// task(i) once for every i in [0, count), on any threads, and returns when all are done.
struct HostExecutor {
  int workers = 1;
  std::function<void(int count, const std::function<void(int)>& task)> parallel_for;
};

struct Options {
  int threads = 0;        // 0: what cpuset and cgroup quota allow
  HostExecutor executor;  // used instead of own threads if parallel_for is set
  bool fold = true;       // fold batch-norms and run graph passes
  bool exact = false;     // direct convolution in f32 only: no Winograd, Strassen or AMX, which make NaN of infinities
  bool profile = false;   // keep per-node times (Session::profile)
  // Map the model's files instead of reading them: pages go once weights are packed, and what folding made of them
  // until a second input shape asks for it again. The files must stay as they are while the session lives: a mapped
  // file that someone truncates raises SIGBUS when it is touched; hosts that cannot trust the folder turn it off.
  bool map_files = true;
  // What `crease tune` measured: which kernel is fastest for which operator on this machine at this number
  // of threads. Empty, or a file of another machine, version or thread count: a static rule decides.
  std::string tuning_file;
  std::string external_data_folder;  // for models from memory; a file's own folder otherwise
  Limits limits;
};

// Where an input lies or an output goes: dense, row-major, in the caller's memory, which must stay
// valid during run().
struct Input {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;
  const void* data = nullptr;
};
struct Output {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;  // as Session::output_shapes says for these inputs
  void* data = nullptr;
};

// One node's share of a profiled run; see Session::profile.
struct NodeProfile {
  std::string name, op_type, kernel, layout;
  std::string shape;    // of the first output, "(1, 64, 56, 56)"
  double total_ms = 0;  // over all runs
  double best_ms = 0;   // of the fastest run
  int64_t runs = 0;
  double flops = 0;  // of one run: 2 for a multiply-add
  double bytes = 0;  // of one run: sources and destinations, read or written once
};

// A loaded network: immutable, safe to run from many threads at once. Copies share everything. The environment variable
// CREASE_TARGET (avx3, avx2, sse2) caps the instruction set of the whole process; load() refuses what is no target.
class Session {
 public:
  static Result<Session> load(const std::string& path, const Options& options = {});
  // `bytes` are copied unless `keep_alive` owns them.
  static Result<Session> load(std::span<const std::byte> bytes, const Options& options = {},
                              std::shared_ptr<const void> keep_alive = nullptr);

  const std::vector<TensorSpec>& inputs() const;
  const std::vector<TensorSpec>& outputs() const;

  // Shapes of every output for inputs of these shapes (in inputs()'s order). Plans for them.
  Result<std::vector<Shape>> output_shapes(std::span<const Shape> input_shapes) const;

  // Runs the network. Inputs and outputs by name, in any order; every input must be given, outputs
  // that are not wanted may be left out, and none may be given twice. The first call for new shapes plans and
  // allocates; later ones allocate nothing but in layers that `crease inspect` shows on "onednn" (small blocks, freed
  // at once) or "reference". Same input, same bits, at any thread count (with the same choice of kernels: a tuning file
  // is made for one count), but for layers on "onednn", which is blocked for a count: those may differ in their last
  // bits.
  Result<void> run(std::span<const Input> inputs, std::span<const Output> outputs) const;

  // Per-node times since loading; empty unless Options::profile.
  std::vector<NodeProfile> profile() const;

  class [[gnu::visibility("hidden")]] Impl;  // for the tools of this repository
  const Impl& impl() const { return *impl_; }

 private:
  explicit Session(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace crease
#pragma GCC visibility pop
