// SPDX-License-Identifier: Apache-2.0
// Values that other nodes read besides the map: nodes that look at no element of theirs do not stand in its way.
#include "tests/support/fold_net.h"

namespace crease {
namespace {

using testing::FoldAndCompare;
using testing::FoldNet;
using testing::FoldResult;
using testing::IntList;

// torch.onnx.export's bias of a convolution without one.
TEST(FoldReaders, ABiasCastLikeTheImageIsConstant) {
  FoldNet n;
  const ValueId x = n.Input({2, 4, 8, 8});
  const ValueId zero = n.builder.AddConstant("zero", Tensor::From<float>({}, {0.25f}));
  const ValueId bias = n.Op("Expand", {n.Op("CastLike", {zero, x}), n.Ints({6})});
  const ValueId y = n.Bn(n.Op("Conv", {x, n.Constant({6, 4, 3, 3}), bias}), 6);
  const FoldResult result = FoldAndCompare(std::move(n), {y});
  EXPECT_EQ(result.after.topological_order().size(), 1u);
}

TEST(FoldReaders, AnImageCastLikeAConstantIsNone) {
  FoldNet n;
  const ValueId x = n.Input({2, 6, 8, 8});
  const ValueId y = n.Bn(n.Op("CastLike", {x, n.Given({}, {1})}), 6);
  EXPECT_EQ(FoldAndCompare(std::move(n), {y}).Maps(), 1);
}

}  // namespace
}  // namespace crease
