// SPDX-License-Identifier: Apache-2.0
// Conv by implicit matrix product, as a kernel.
#include <utility>

#include "kernels/conv_gemm.h"

namespace crease {
namespace {

KernelResult MakeChannelsLast(const KernelRequest& request, const ConvRequest& conv, bool amx) {
  GemmConv::Options options{OptionsOf(request)};
  options.src_pitch = request.src[0].pitch;
  options.amx = amx;
  CREASE_ASSIGN_OR_RETURN(GemmConv made,
                          GemmConv::Make(conv.shape, ConvMatrix(conv.shape, *conv.weights, conv.bias), options));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace

KernelResult MakeConvGemm(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  return MakeChannelsLast(request, conv, false);
}

KernelResult MakeConvAmx(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadConvRequest(request));
  if (request.exact) return Refuse("exact results asked for");
  if (GetAmxOps() == nullptr) return Refuse("no AMX");
  if (!CanUseAmx(conv.shape)) return Refuse("groups, or too few channels or pixels to gain");
  return MakeChannelsLast(request, conv, true);
}

KernelResult MakeConvPlanes(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(const ConvRequest conv, ReadPlanarConvRequest(request));
  GemmConv::Options options{OptionsOf(request)};
  options.planar = true;
  CREASE_ASSIGN_OR_RETURN(GemmConv made,
                          GemmConv::Make(conv.shape, PlanarMatrix(conv.shape, *conv.weights, conv.bias), options));
  return WrapConv(std::move(made), request.epilogue);
}

}  // namespace crease
