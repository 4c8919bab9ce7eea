// SPDX-License-Identifier: Apache-2.0
// Conv by Winograd's minimal filtering, as a kernel, where an estimate says that it pays.
#include <algorithm>
#include <utility>

#include "kernels/conv_gemm.h"
#include "kernels/conv_winograd.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// Costs in vector multiply-adds of one worker, whatever the number of workers: the choice decides the bits, which must
// not depend on it. Measured where two issue a cycle: a transform of one tile of 36 points and one vector of channels
// takes about 100 cycles, a micro-kernel call 10 for each row and panel. Weights are cold in a network of more than a
// few layers, and their bytes come on top: 6 arrive in a cycle of Sapphire Rapids, which does two multiply-adds of 16
// floats in it. Others do one (Zen 4; 256 -> 256 channels at 14x14 there: F4 0.67 ms, F2 0.96; 512 -> 512 at 7x7 1.80,
// 1.11) or half of one (Zen 1: 1.86, 2.69).
constexpr double kTransform = 200;
constexpr double kAmxMachineBytes = 3, kBytes = 8;  // for a multiply-add
constexpr double kCallRow = 10;
// A float that a convolution by AMX gathers into its patch.
constexpr double kGatherNs = 0.1;
// Products of few channels wait for their sums: what an estimate gives 2.1 is 1.1 for 64 channels at 56x56, 1.97 is
// 0.97 for 96 at 35x35.
constexpr double kLeastAmxGain = 2;

double Vectors(int64_t channels) { return static_cast<double>(DivideUp(channels, kMaxLanes)); }

double MultiplyAdds(double nanoseconds) { return nanoseconds / VectorNanoseconds(1, 1, kMaxLanes); }

double WithWeights(const ConvShape& s, double multiply_adds, int64_t weights, bool amx) {
  const double bytes = (amx ? kAmxDigits : 4.0) * static_cast<double>(weights * s.channels * s.filters);
  return multiply_adds + bytes / (GetAmxOps() != nullptr ? kAmxMachineBytes : kBytes);
}

int64_t Tiles(const ConvShape& s, const WinogradOps& ops) {
  const auto along = [](int64_t size, int outputs) { return DivideUp(size, outputs); };
  return s.batch * along(s.out_height, ops.height.outputs) * along(s.out_width, ops.width.outputs);
}

bool ByAmx(const ConvShape& s, const WinogradOps& ops) {
  return GetAmxOps() != nullptr && AmxPays(Tiles(s, ops), s.channels, s.filters, kLeastAmxGain);
}

// Points of all tiles along one axis, as WinogradConv splits it.
int64_t AxisPoints(const WinogradAxis& axis, int64_t size) {
  const int64_t tiles = DivideUp(size, axis.outputs);
  const int64_t reduced = std::min(tiles, tiles * axis.outputs - size);
  return tiles * axis.points - reduced * (axis.points - axis.reduced_points);
}

}  // namespace

double DirectConvCost(const ConvShape& s, bool may_use_amx) {
  const int64_t depth = s.channels * s.taps();
  if (may_use_amx && CanUseAmx(s)) {
    const double gather = static_cast<double>(s.out_pixels() * depth) * kGatherNs;
    return WithWeights(s, MultiplyAdds(AmxNanoseconds(s.out_pixels(), depth, s.filters) + gather), s.taps(), true);
  }
  return WithWeights(s, static_cast<double>(s.out_pixels() * depth) * Vectors(s.filters), s.taps(), false);
}

double WinogradCost(const ConvShape& s, const WinogradOps& ops, bool may_use_amx) {
  const int64_t rows = AxisPoints(ops.height, s.out_height), columns = AxisPoints(ops.width, s.out_width);
  const double points = static_cast<double>(s.batch * rows * columns);
  const bool amx = may_use_amx && ByAmx(s, ops);
  const double products =
      amx ? MultiplyAdds(AmxNanoseconds(Tiles(s, ops), s.channels, s.filters)) * points /
                static_cast<double>(Tiles(s, ops))
          : points * (static_cast<double>(s.channels) * Vectors(s.filters) + kCallRow * (Vectors(s.filters) + 1) / 2);
  // Each point is a sum over others of its row, then of its column.
  const double transforms = points / 36 * kTransform * (ops.height.points + ops.width.points) / 12 *
                            (Vectors(s.channels) + Vectors(s.filters));
  return WithWeights(s, products + transforms, ops.distinct_weights(), amx);
}

namespace {

// The cheapest of all kinds, null if none beats the direct way.
const WinogradOps* Cheapest(const ConvShape& s) {
  const WinogradOps* best = nullptr;
  double least = 0.95 * DirectConvCost(s);
  for (const WinogradKind kind : {WinogradKind::kF2, WinogradKind::kF3, WinogradKind::kF4}) {
    const WinogradOps* ops = FindWinogradOps(kind, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w);
    if (ops == nullptr) continue;
    const double cost = WinogradCost(s, *ops);
    if (cost > least) continue;
    least = cost;
    best = ops;
  }
  return best;
}

KernelResult Make(const KernelRequest& request, WinogradKind kind) {
  if (request.exact) return Refuse("exact results asked for");
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  const ConvShape& s = conv.shape;
  if (s.dilation_h != 1 || s.dilation_w != 1) return Refuse("dilations");
  if (s.groups != 1) return Refuse("groups > 1");
  const WinogradOps* ops = FindWinogradOps(kind, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w);
  if (ops == nullptr) return Refuse("no transform for this kernel and stride");
  if (!request.measured) {
    const WinogradOps* cheapest = Cheapest(s);
    if (cheapest == nullptr) return Refuse("too few channels or pixels to gain");
    if (cheapest != ops) return Refuse("another tile size costs less");
  }
  WinogradConv::Options options{OptionsOf(request)};
  options.kind = kind;
  options.amx = ByAmx(s, *ops);
  options.rectified = HasRectifiedSource(request);
  CREASE_ASSIGN_OR_RETURN(WinogradConv made, WinogradConv::Make(s, *conv.weights, conv.bias, options));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace

KernelResult MakeWinogradF4(const KernelRequest& request) { return Make(request, WinogradKind::kF4); }

KernelResult MakeWinogradF3(const KernelRequest& request) { return Make(request, WinogradKind::kF3); }

KernelResult MakeWinogradF2(const KernelRequest& request) { return Make(request, WinogradKind::kF2); }

}  // namespace crease
