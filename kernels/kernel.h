// SPDX-License-Identifier: Apache-2.0
// How one operator runs. A kernel is made for one node at one set of shapes, immutable once made, and
// run by many threads' calls at once; it allocates nothing in Run.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "graph/op.h"
#include "kernels/epilogue.h"
#include "kernels/view.h"

namespace crease {

// A reference to a callable void(begin, end, worker) or void(begin, end); does not own it. Not to be called before it
// has one.
class RangeFunction {
 public:
  RangeFunction() = default;
  template <typename F>
  RangeFunction(const F& f)  // NOLINT: implicit on purpose, like a function_ref
      : object_(&f), call_([](const void* object, int64_t begin, int64_t end, [[maybe_unused]] int worker) {
          if constexpr (std::is_invocable_v<const F&, int64_t, int64_t, int>) {
            (*static_cast<const F*>(object))(begin, end, worker);
          } else {
            (*static_cast<const F*>(object))(begin, end);
          }
        }) {}
  void operator()(int64_t begin, int64_t end, int worker) const { call_(object_, begin, end, worker); }

 private:
  const void* object_ = nullptr;
  void (*call_)(const void*, int64_t, int64_t, int) = nullptr;
};

// Runs ranges on threads. One parallel loop at a time for one executor; a loop inside a loop runs on
// the calling worker alone.
class Executor {
 public:
  virtual ~Executor() = default;
  // Workers that a loop may use, the caller included: 1 and up.
  virtual int workers() const = 0;
  // Calls f over a static partition of [0, count): contiguous ranges, at most one for each worker,
  // worker in [0, workers()). Returns when all are done. f must not throw.
  virtual void ParallelFor(int64_t count, RangeFunction f) = 0;
};

// The calling thread alone.
class SerialExecutor final : public Executor {
 public:
  int workers() const override { return 1; }
  void ParallelFor(int64_t count, RangeFunction f) override {
    if (count > 0) f(0, count, 0);
  }
};

// Bytes of a constant.
using ConstBytes = std::span<const std::byte>;

// One call's means. `scratch` has Kernel::scratch_bytes(workers) bytes, 64-byte aligned, uninitialised.
struct RunContext {
  Executor& executor;
  std::byte* scratch = nullptr;
  // By worker: what it will stream in later steps. A kernel that computes more than it reads brings it into the caches.
  std::span<const std::vector<ConstBytes>> fetch = {};

  int workers() const { return executor.workers(); }
  void ParallelFor(int64_t count, RangeFunction f) const { executor.ParallelFor(count, f); }
  std::span<const ConstBytes> fetch_for(int worker) const {
    return static_cast<size_t>(worker) < fetch.size() ? fetch[static_cast<size_t>(worker)]
                                                      : std::span<const ConstBytes>();
  }
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // For `inspect` and profiles, with the choices made: "winograd f4x4 t14 k64".
  virtual std::string Describe() const = 0;
  virtual size_t scratch_bytes(int /*workers*/) const { return 0; }
  // Whether Run reads the data of constant source `src`. Where it does not (packed, or copied, when the
  // kernel was made) the view's data is null and the file's pages need not stay in memory.
  virtual bool ReadsConstant(size_t /*src*/) const { return true; }
  // Whether the kernel has kept the tensor of constant source `src`, to read it in Run though not through the view.
  virtual bool KeepsConstant(size_t /*src*/) const { return false; }
  // What worker `worker` of `workers` reads once from beginning to end while it computes little, so that it waits for
  // memory unless a step before has fetched it.
  virtual ConstBytes Streamed(int /*worker*/, int /*workers*/) const { return {}; }
  // How many bytes of RunContext::fetch a worker can fetch in a Run without being slower for it.
  virtual int64_t FetchableBytes(int /*workers*/) const { return 0; }
  // src and dst are as in the request, with data; the residual, if any, is the last src. A constant
  // input's view may have null data where the kernel packed it at creation. The same inputs give the
  // same bits at any number of workers: work is split by output, no reduction by thread.
  // Element-wise kernels (LayoutRule::kAny) allow dst to be exactly one of their sources (same pointer,
  // shape and pitch), as every kernel does for the residual; no other overlap occurs.
  virtual void Run(const RunContext& context, std::span<const ConstTensorView> src,
                   std::span<const TensorView> dst) const = 0;
};

// One input or output of a kernel request. Shapes are known; data is known for constants only.
struct Operand {
  bool present = false;
  DType dtype = DType::kFloat32;
  Shape shape;  // logical, (N, C, H, W)
  Layout layout = Layout::kPlain;
  int64_t pitch = 0;                 // channels-last: of the view it will get
  const Tensor* constant = nullptr;  // the value, if known
  bool rectified = false;            // comes from what makes zeros, such as a ReLU
};

// Packed weights, shared by every plan and every session of one model: packed once.
class PackCache {
 public:
  using Packed = std::shared_ptr<const void>;
  // What `make` returned for this key the first time. The key names the source tensor (its bytes'
  // address), the kernel and the packing. Thread-safe; null from `make` (out of memory) is not kept.
  Packed GetOrMake(const std::string& key, const std::function<Packed()>& make);
  // How many nothing else holds. Thread-safe.
  size_t unused() const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Packed> entries_;
};

// The key of what `kind` of packing makes of weights and bias (null: none): where they lie, the weights' shape, as
// tensors may share their bytes, and all `choices` that the packing depends on.
std::string PackKey(std::string_view kind, const Tensor& weights, const Tensor* bias,
                    std::initializer_list<int64_t> choices);

// All that is known when a kernel is chosen.
struct KernelRequest {
  const Node& node;
  int opset;
  std::span<const Operand> src;  // the node's inputs, then the residual if the epilogue has one
  std::span<const Operand> dst;
  Epilogue epilogue;
  Prologue prologue;
  bool residual_in_place = false;  // Run will always get the residual in dst's own memory
  int workers = 1;                 // threads that will run it, for blocking choices that keep the bits
  bool exact = false;              // Options::exact: no Winograd, no Strassen, no AMX
  PackCache* packs = nullptr;      // may be null: pack for yourself
  Executor* executor = nullptr;    // may be null; for packing in parallel
  bool measured = false;           // asked for by name: refuse what can't be done, not what an estimate calls slow
};

// How a kernel wants its activations (inputs that are not constant, and outputs) laid out.
enum class LayoutRule : uint8_t {
  kPlain,         // all plain
  kChannelsLast,  // all that have rank >= 3 channels-last, pitches allowed
  kAny,           // all of rank >= 3 the same, plain or channels-last with pitches (element-wise)
  kMixed,         // any combination (reorders)
};

// One way to run an operator. `make` returns a kernel, or an Error whose message is the refusal's
// reason ("groups > 1"), shown by `inspect`.
struct KernelEntry {
  std::string_view op_type;
  std::string_view name;  // "winograd", "onednn", "reference"
  LayoutRule layout;
  Result<std::unique_ptr<Kernel>> (*make)(const KernelRequest& request);
};

// Candidates for an operator, best first. The tables are explicit (kernels/table.cc), one row a kernel.
std::span<const KernelEntry> KernelsFor(std::string_view op_type);

// A refusal, for `make`.
inline Error Refuse(std::string reason) { return Error{ErrorCode::kUnsupported, std::move(reason), ""}; }

}  // namespace crease
