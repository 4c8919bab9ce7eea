// SPDX-License-Identifier: Apache-2.0
// Every operator that Crease knows, one line each, in the order of their names.
#pragma once

#include "graph/op.h"

#define CREASE_FOR_EACH_OP(X) \
  X(Abs)                      \
  X(Add)                      \
  X(And)                      \
  X(ArgMax)                   \
  X(ArgMin)                   \
  X(AveragePool)              \
  X(BatchNormalization)       \
  X(Cast)                     \
  X(CastLike)                 \
  X(Ceil)                     \
  X(Celu)                     \
  X(Clip)                     \
  X(Concat)                   \
  X(Constant)                 \
  X(ConstantOfShape)          \
  X(Conv)                     \
  X(ConvTranspose)            \
  X(Cos)                      \
  X(CumSum)                   \
  X(DepthToSpace)             \
  X(Div)                      \
  X(Dropout)                  \
  X(Elu)                      \
  X(Equal)                    \
  X(Erf)                      \
  X(Exp)                      \
  X(Expand)                   \
  X(Flatten)                  \
  X(Floor)                    \
  X(Gather)                   \
  X(GatherElements)           \
  X(GatherND)                 \
  X(Gelu)                     \
  X(Gemm)                     \
  X(GlobalAveragePool)        \
  X(GlobalMaxPool)            \
  X(Greater)                  \
  X(GreaterOrEqual)           \
  X(GroupNormalization)       \
  X(HardSigmoid)              \
  X(HardSwish)                \
  X(Hardmax)                  \
  X(Identity)                 \
  X(InstanceNormalization)    \
  X(LRN)                      \
  X(LayerNormalization)       \
  X(LeakyRelu)                \
  X(Less)                     \
  X(LessOrEqual)              \
  X(Log)                      \
  X(LogSoftmax)               \
  X(LpNormalization)          \
  X(MatMul)                   \
  X(Max)                      \
  X(MaxPool)                  \
  X(Mean)                     \
  X(Min)                      \
  X(Mish)                     \
  X(Mod)                      \
  X(Mul)                      \
  X(Neg)                      \
  X(Not)                      \
  X(Or)                       \
  X(PRelu)                    \
  X(Pad)                      \
  X(Pow)                      \
  X(Range)                    \
  X(Reciprocal)               \
  X(ReduceL1)                 \
  X(ReduceL2)                 \
  X(ReduceLogSum)             \
  X(ReduceLogSumExp)          \
  X(ReduceMax)                \
  X(ReduceMean)               \
  X(ReduceMin)                \
  X(ReduceProd)               \
  X(ReduceSum)                \
  X(ReduceSumSquare)          \
  X(Relu)                     \
  X(Reshape)                  \
  X(Resize)                   \
  X(Round)                    \
  X(Selu)                     \
  X(Shape)                    \
  X(Sigmoid)                  \
  X(Sign)                     \
  X(Sin)                      \
  X(Size)                     \
  X(Slice)                    \
  X(Softmax)                  \
  X(Softplus)                 \
  X(Softsign)                 \
  X(SpaceToDepth)             \
  X(Split)                    \
  X(Sqrt)                     \
  X(Squeeze)                  \
  X(Sub)                      \
  X(Sum)                      \
  X(Swish)                    \
  X(Tanh)                     \
  X(ThresholdedRelu)          \
  X(Tile)                     \
  X(TopK)                     \
  X(Transpose)                \
  X(Unsqueeze)                \
  X(Upsample)                 \
  X(Where)                    \
  X(Xor)

namespace crease::ops {

#define CREASE_DECLARE_OP(name) extern const OpDef k##name;
CREASE_FOR_EACH_OP(CREASE_DECLARE_OP)
#undef CREASE_DECLARE_OP

}  // namespace crease::ops
