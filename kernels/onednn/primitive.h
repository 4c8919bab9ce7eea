// SPDX-License-Identifier: Apache-2.0
// oneDNN behind Crease's interfaces: its primitives on our executor, its exceptions as refusals.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace crease::onednn {

// The CPU engine of the process.
const dnnl::engine& CpuEngine();

// Calls f; an exception of oneDNN becomes a refusal that says what oneDNN said.
template <typename F>
auto Guarded(const F& f) -> decltype(f()) {
  try {
    return f();
  } catch (const dnnl::error& error) {
    return Refuse(std::string("oneDNN: ") + error.what());
  }
}

// While it lives, primitives that this thread makes are blocked for that many threads.
class BlockedFor {
 public:
  explicit BlockedFor(int workers);
  ~BlockedFor();
  BlockedFor(const BlockedFor&) = delete;
  BlockedFor& operator=(const BlockedFor&) = delete;

 private:
  int before_ = 0;
};

// Strides of a view with these dimensions.
dnnl::memory::desc DescOf(const Operand& operand);

// Operations after the product: residual as `sum` where it lies in dst already, else as a binary add of
// argument DNNL_ARG_ATTR_MULTIPLE_POST_OP(index). Fails on activations oneDNN has not.
struct PostOps {
  dnnl::primitive_attr attributes;  // post-ops, user scratchpad, f32 throughout
  int residual_argument = 0;        // 0: none, or in place
};
Result<PostOps> MakePostOps(const KernelRequest& request);

// Packed as `wanted`, from a tensor described by `given`; once for the cache's life. `given_data` is
// aligned or not.
Result<std::shared_ptr<const void>> PackWeights(const KernelRequest& request, const Tensor& tensor,
                                                const dnnl::memory::desc& given, const dnnl::memory::desc& wanted);

// A bias or an absent one, as an aligned copy.
std::shared_ptr<const void> CopyFloats(const Tensor& tensor);

// "brgconv:avx512_core" from a primitive descriptor; refuses the slow reference implementations.
Result<std::string> Implementation(const dnnl::primitive_desc_base& desc);

// A primitive and what calls of it need: streams, memory objects. These are made once for each call that
// runs at the same time and used again. Scratchpads lie in the plan's arena. What is left is oneDNN's own: every
// execution allocates its map of arguments, a handle of the scratchpad and the closures of its loops, 6 to 20 blocks
// of less than 4 KiB in all (without AVX-512, products take packing buffers of some 20 KB a thread), and frees them
// before it returns; its interface has no way around that.
class Primitive {
 public:
  struct Argument {
    int id = 0;  // DNNL_ARG_...
    dnnl::memory::desc desc;
  };
  Primitive(dnnl::primitive primitive, std::vector<Argument> arguments)
      : primitive_(std::move(primitive)), arguments_(std::move(arguments)) {}

  // `data`: one pointer an argument. Throws std::bad_alloc, as oneDNN itself does.
  void Run(const RunContext& context, std::span<void* const> data) const;

 private:
  struct State;
  struct StateDeleter {
    void operator()(State* state) const;
  };
  std::unique_ptr<State, StateDeleter> NewState() const;

  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<State, StateDeleter>> idle_;
};

// A kernel over one primitive: constant arguments are its own, the others come with the call.
class PrimitiveKernel final : public Kernel {
 public:
  struct Source {
    enum class From : uint8_t { kSrc, kResidual, kDst, kOwned, kScratch };
    From from = From::kSrc;
    size_t index = 0;                   // kSrc
    std::shared_ptr<const void> owned;  // kOwned
  };
  PrimitiveKernel(std::string description, dnnl::primitive primitive, std::vector<Primitive::Argument> arguments,
                  std::vector<Source> sources, size_t scratch)
      : description_(std::move(description)),
        primitive_(std::move(primitive), std::move(arguments)),
        sources_(std::move(sources)),
        scratch_(scratch) {}
  std::string Describe() const override { return description_; }
  size_t scratch_bytes(int) const override { return scratch_; }
  bool ReadsConstant(size_t) const override { return false; }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override;

 private:
  std::string description_;
  Primitive primitive_;
  std::vector<Source> sources_;
  size_t scratch_;
};

// Collects arguments and makes the kernel.
class KernelBuilder {
 public:
  void Add(int id, dnnl::memory::desc desc, PrimitiveKernel::Source::From from, size_t index = 0);
  void AddOwned(int id, dnnl::memory::desc desc, std::shared_ptr<const void> data);
  std::unique_ptr<Kernel> Build(std::string description, dnnl::primitive primitive) &&;

 private:
  std::vector<Primitive::Argument> arguments_;
  std::vector<PrimitiveKernel::Source> sources_;
  size_t scratch_ = 0;
};

}  // namespace crease::onednn
