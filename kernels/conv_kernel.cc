// SPDX-License-Identifier: Apache-2.0
// Conv by implicit matrix product, as a kernel.
#include <memory>
#include <utility>

#include "kernels/conv_gemm.h"
#include "kernels/kernels.h"

namespace crease {
namespace {

class ConvGemmKernel final : public Kernel {
 public:
  ConvGemmKernel(GemmConv conv, Epilogue epilogue) : conv_(std::move(conv)), epilogue_(epilogue) {}
  std::string Describe() const override { return conv_.Describe(); }
  size_t scratch_bytes(int workers) const override { return conv_.scratch_bytes(workers); }
  bool ReadsConstant(size_t src) const override { return src == 0; }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    conv_.Run(context, ReadConvOperands(epilogue_, src, dst));
  }

 private:
  GemmConv conv_;
  Epilogue epilogue_;
};

}  // namespace

KernelResult MakeConvGemm(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  GemmConv::Options options;
  options.epilogue = request.epilogue;
  options.prologue = request.prologue;
  options.src_pitch = request.src[0].pitch;
  options.workers = request.workers;
  options.cache = request.packs;
  options.executor = request.executor;
  CREASE_ASSIGN_OR_RETURN(GemmConv made,
                          GemmConv::Make(conv.shape, ConvMatrix(conv.shape, *conv.weights, conv.bias), options));
  return std::unique_ptr<Kernel>(std::make_unique<ConvGemmKernel>(std::move(made), request.epilogue));
}

KernelResult MakeConvPlanes(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadPlanarConvRequest(request));
  GemmConv::Options options;
  options.epilogue = request.epilogue;
  options.workers = request.workers;
  options.cache = request.packs;
  options.executor = request.executor;
  options.planar = true;
  CREASE_ASSIGN_OR_RETURN(GemmConv made,
                          GemmConv::Make(conv.shape, PlanarMatrix(conv.shape, *conv.weights, conv.bias), options));
  return std::unique_ptr<Kernel>(std::make_unique<ConvGemmKernel>(std::move(made), request.epilogue));
}

}  // namespace crease
