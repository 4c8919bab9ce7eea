// SPDX-License-Identifier: Apache-2.0
// Conv by Winograd's minimal filtering, as a kernel, where an estimate says that it pays.
#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/conv_winograd.h"
#include "kernels/kernels.h"

namespace crease {
namespace {

class WinogradKernel final : public Kernel {
 public:
  WinogradKernel(WinogradConv conv, Epilogue epilogue) : conv_(std::move(conv)), epilogue_(epilogue) {}
  std::string Describe() const override { return conv_.Describe(); }
  size_t scratch_bytes(int workers) const override { return conv_.scratch_bytes(workers); }
  bool ReadsConstant(size_t src) const override { return src == 0; }
  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    conv_.Run(context, ReadConvOperands(epilogue_, src, dst));
  }

 private:
  WinogradConv conv_;
  Epilogue epilogue_;
};

// Costs in vector multiply-adds of one worker. Measured where two issue a cycle: a transform of one tile and one vector
// of channels takes about 100 cycles, a micro-kernel call 10 for each row and panel. Weights are cold in a network of
// more than a few layers, and their bytes come on top: 4 to 6 arrive in a cycle.
constexpr double kTransform = 200;
constexpr double kCallRow = 10;
constexpr double kBytesPerMultiplyAdd = 3;

double Vectors(int64_t channels) { return static_cast<double>((channels + kMaxLanes - 1) / kMaxLanes); }

double WithWeights(const ConvShape& s, double multiply_adds, int64_t points) {
  const double bytes = 4.0 * static_cast<double>(points * s.channels * s.filters);
  return multiply_adds + bytes / kBytesPerMultiplyAdd;
}

double DirectCost(const ConvShape& s) {
  return WithWeights(s, static_cast<double>(s.out_pixels() * s.channels * 9) * Vectors(s.filters), 9);
}

double WinogradCost(const ConvShape& s, WinogradKind kind) {
  const int64_t outputs = WinogradOutputs(kind), points = WinogradPoints(kind);
  // Reduced tiles have fewer points: count outputs, each of which costs points / outputs along an axis.
  const double rows = static_cast<double>(s.out_height + (s.out_height + outputs - 1) / outputs * 2);
  const double columns = static_cast<double>(s.out_width + (s.out_width + outputs - 1) / outputs * 2);
  const double tiles =
      static_cast<double>(s.batch * ((s.out_height + outputs - 1) / outputs) * ((s.out_width + outputs - 1) / outputs));
  const double rows_by_point = static_cast<double>(s.batch) * rows * columns;
  const double products =
      rows_by_point * (static_cast<double>(s.channels) * Vectors(s.filters) + kCallRow * (Vectors(s.filters) + 1) / 2);
  const double scale = static_cast<double>(points * points) / 36.0;
  return WithWeights(s, products, points * points) +
         tiles * scale * kTransform * (Vectors(s.channels) + Vectors(s.filters));
}

KernelResult Make(const KernelRequest& request, WinogradKind kind) {
  if (request.exact) return Refuse("exact results asked for");
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  const ConvShape& s = conv.shape;
  if (s.kernel_h != 3 || s.kernel_w != 3) return Refuse("kernel other than 3x3");
  if (s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1)
    return Refuse("strides or dilations");
  if (s.groups != 1) return Refuse("groups > 1");
  if (!request.measured) {
    const double f2 = WinogradCost(s, WinogradKind::kF2), f4 = WinogradCost(s, WinogradKind::kF4);
    if (std::min(f2, f4) > 0.9 * DirectCost(s)) return Refuse("too few channels or pixels to gain");
    if (kind != (f2 < f4 ? WinogradKind::kF2 : WinogradKind::kF4)) return Refuse("the other tile size costs less");
  }
  WinogradConv::Options options;
  options.kind = kind;
  options.epilogue = request.epilogue;
  options.prologue = request.prologue;
  options.workers = request.workers;
  options.cache = request.packs;
  options.executor = request.executor;
  CREASE_ASSIGN_OR_RETURN(WinogradConv made, WinogradConv::Make(s, *conv.weights, conv.bias, options));
  return std::unique_ptr<Kernel>(std::make_unique<WinogradKernel>(std::move(made), request.epilogue));
}

}  // namespace

KernelResult MakeWinogradF4(const KernelRequest& request) { return Make(request, WinogradKind::kF4); }

KernelResult MakeWinogradF2(const KernelRequest& request) { return Make(request, WinogradKind::kF2); }

}  // namespace crease
