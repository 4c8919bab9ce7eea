// SPDX-License-Identifier: Apache-2.0
// Every function that makes a kernel, by family; kernels/table.cc says which operator asks which.
//
// Operators of Crease's own, which the planner makes (domain kInternalDomain):
//   Silu(X)                    x / (1 + exp(-x))
//   Affine(X, scale, shift)    scale[c] * x + shift[c]; scale, shift: (C), channel axis 1
//   ChannelShuffle(X)          attribute groups: channel g * (C/groups) + i goes to i * groups + g
//   Reorder(X)                 the same values in the destination's layout
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "kernels/kernel.h"

namespace crease {

// The candidate that every operator has, asked last.
inline constexpr std::string_view kReferenceName = "reference";

inline constexpr std::string_view kInternalDomain = "crease";

using KernelResult = Result<std::unique_ptr<Kernel>>;

// kernels/reference.cc: any operator that graph/ops defines; slow, allocates.
KernelResult MakeReference(const KernelRequest& request);

// kernels/affine.cc: BatchNormalization at inference and Affine, f32, constant parameters.
KernelResult MakeAffine(const KernelRequest& request);

// kernels/batch_norm_kernel.cc: BatchNormalization by the batch's statistics, and at inference with
// parameters that are not constant or another float type.
KernelResult MakeBatchNorm(const KernelRequest& request);

// kernels/elementwise.cc: f32 activations, unary and binary operators with broadcasting.
KernelResult MakeElementwise(const KernelRequest& request);

// kernels/move.cc: data movement, any dtype, any layout unless table.cc says otherwise.
KernelResult MakeCopy(const KernelRequest& request);  // same elements, in row-major logical order
KernelResult MakeConcat(const KernelRequest& request);
KernelResult MakeSplit(const KernelRequest& request);
KernelResult MakeSlice(const KernelRequest& request);  // constant bounds
KernelResult MakeTranspose(const KernelRequest& request);
KernelResult MakeExpand(const KernelRequest& request);
KernelResult MakeTile(const KernelRequest& request);
KernelResult MakePad(const KernelRequest& request);  // constant mode, constant pads
KernelResult MakeChannelShuffle(const KernelRequest& request);
KernelResult MakeDepthSpace(const KernelRequest& request);  // DepthToSpace, SpaceToDepth
KernelResult MakeGather(const KernelRequest& request);      // constant indices

// kernels/pool.cc: MaxPool, AveragePool; kernels/resize.cc: Resize, Upsample with constant scales or
// sizes; kernels/reduce.cc: global pools, ReduceSum, Mean, Max, Min; kernels/softmax.cc. All f32.
KernelResult MakePool(const KernelRequest& request);
KernelResult MakeResize(const KernelRequest& request);
KernelResult MakeReduce(const KernelRequest& request);
KernelResult MakeSoftmax(const KernelRequest& request);

// kernels/depthwise.cc: f32 channels-last convolutions of as many groups as channels and filters.
KernelResult MakeDepthwise(const KernelRequest& request);

// kernels/conv_chain.cc: one kernel for 1x1 and depthwise convolutions of which each reads the one before; src of Run
// are the first one's source and all parameters, then the last one's residual.
KernelResult MakeConvChain(std::span<const KernelRequest> requests);
// How many of the requests, from the first on, run faster as one chain; less than 2: none.
size_t ConvChainLength(std::span<const KernelRequest> requests);

// kernels/winograd_kernel.cc: f32 channels-last convolutions of one group, 3x3 of stride 1 or 2, 4x4, 5x5, and rows or
// columns of 3, 5 or 7 taps of stride 1, where it pays.
KernelResult MakeWinogradF4(const KernelRequest& request);
KernelResult MakeWinogradF3(const KernelRequest& request);
KernelResult MakeWinogradF2(const KernelRequest& request);

// kernels/conv_group.cc: f32 channels-last convolutions with groups of 2, 4 or 8 channels and filters.
KernelResult MakeGroupConv(const KernelRequest& request);

// kernels/conv_kernel.cc: f32 channels-last convolutions of any shape as matrix products; 1x1 ones by AMX
// (kernels/amx.h).
KernelResult MakeConvGemm(const KernelRequest& request);
KernelResult MakeConvAmx(const KernelRequest& request);
KernelResult MakeConvPlanes(const KernelRequest& request);

// kernels/conv_space_to_depth.cc: the same of a plain source of few channels at a stride, where it pays.
KernelResult MakeConvSpaceToDepth(const KernelRequest& request);

// kernels/conv_sparse.cc: f32 channels-last 1x1 convolutions of one group behind a ReLU, where it pays.
KernelResult MakeConvSparse(const KernelRequest& request);

// kernels/conv_strassen.cc: f32 channels-last 1x1 convolutions of one group, where it pays.
KernelResult MakeConvStrassen(const KernelRequest& request);

// kernels/conv_transpose.cc: f32 channels-last transposed convolutions as matrix products and sums.
KernelResult MakeConvTranspose(const KernelRequest& request);
// kernels/conv_transpose_phases.cc: the same of one group as convolutions, where that is faster.
KernelResult MakeConvTransposePhases(const KernelRequest& request);

// kernels/gemm.cc: products with a constant second matrix; 1x1 convolutions of one pixel.
KernelResult MakeConvVector(const KernelRequest& request);
KernelResult MakeGemm(const KernelRequest& request);
KernelResult MakeMatMul(const KernelRequest& request);

// kernels/onednn/: where the build has oneDNN (CREASE_HAS_ONEDNN).
KernelResult MakeOneDnnConv(const KernelRequest& request);
KernelResult MakeOneDnnConvTranspose(const KernelRequest& request);
KernelResult MakeOneDnnGemm(const KernelRequest& request);
KernelResult MakeOneDnnMatMul(const KernelRequest& request);

}  // namespace crease
