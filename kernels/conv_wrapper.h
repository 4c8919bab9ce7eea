// SPDX-License-Identifier: Apache-2.0
// A convolution as a kernel.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "kernels/conv_shape.h"
#include "kernels/kernels.h"

namespace crease {

// What kernels of convolutions are made with, beside shape, weights and bias.
struct ConvOptions {
  Epilogue epilogue;
  Prologue prologue;
  int workers = 1;
  PackCache* cache = nullptr;
  Executor* executor = nullptr;
};

inline ConvOptions OptionsOf(const KernelRequest& request) {
  return {request.epilogue, request.prologue, request.workers, request.packs, request.executor};
}

// Whether the source, after the prologue, comes from what makes zeros.
inline bool HasRectifiedSource(const KernelRequest& request) {
  if (request.prologue.scale != nullptr) return request.prologue.activation == Activation::kRelu;
  return request.src[0].rectified;
}

// `Conv` has Describe(), scratch_bytes(workers) and Run(context, operands); its weights and bias are packed.
template <typename Conv>
class ConvWrapper final : public Kernel {
 public:
  ConvWrapper(Conv conv, const Epilogue& epilogue) : conv_(std::move(conv)), epilogue_(epilogue) {}
  std::string Describe() const override { return conv_.Describe(); }
  size_t scratch_bytes(int workers) const override { return conv_.scratch_bytes(workers); }
  bool ReadsConstant(size_t src) const override { return src == 0; }
  int64_t FetchableBytes([[maybe_unused]] int workers) const override {
    if constexpr (requires { conv_.fetchable_bytes(workers); }) return conv_.fetchable_bytes(workers);
    return 0;
  }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    conv_.Run(context, ReadConvOperands(epilogue_, src, dst));
  }

 private:
  Conv conv_;
  Epilogue epilogue_;
};

template <typename Conv>
KernelResult WrapConv(Conv conv, const Epilogue& epilogue) {
  return std::unique_ptr<Kernel>(std::make_unique<ConvWrapper<Conv>>(std::move(conv), epilogue));
}

}  // namespace crease
