// SPDX-License-Identifier: Apache-2.0
// Values that other nodes read besides the map: nodes that look at no element of theirs, or at others than the map
// changes, do not stand in its way. And channels that a Gather picks.
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

// They read the value that the weights make, one between two maps, and the maps' result.
TEST(FoldReaders, ShapesOnTheWayBackAreNone) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6), pool = n.Op("GlobalAveragePool", {conv});
  const ValueId mul = n.Op("Mul", {pool, n.Constant({6, 1, 1})}), bn = n.Bn(mul, 6);
  std::vector<ValueId> outputs = {bn, n.Op("Size", {pool}), n.Op("CastLike", {n.Input({2}, "z"), mul})};
  for (ValueId value : {conv, pool, mul, bn}) outputs.push_back(n.Op("Shape", {value}));
  const FoldResult result = FoldAndCompare(std::move(n), outputs);
  EXPECT_EQ(result.Maps(), 0);
  EXPECT_EQ(result.Count("Shape"), 4);
}

TEST(FoldReaders, AShapeBesideAReaderIsNoneToo) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6), y = n.Bn(conv, 6);
  const FoldResult result =
      FoldAndCompare(std::move(n), {y, n.Op("Shape", {conv}), n.Op("CastLike", {n.Op("Sigmoid", {conv}), conv})});
  EXPECT_EQ(result.Maps(), 1);
  EXPECT_TRUE(result.Has("other-consumers"));
}

TEST(FoldReaders, ShapesOnTheWayForwardAreNone) {
  FoldNet n;
  const ValueId x = n.Op("Relu", {n.Input({2, 4, 8, 8})}), mul = n.Op("Mul", {x, n.Constant({4, 1, 1})});
  const ValueId bn = n.Bn(mul, 4), pool = n.Op("GlobalAveragePool", {bn}), y = n.Conv(pool, 4, 6, 1);
  std::vector<ValueId> outputs = {y};
  for (ValueId value : {x, mul, bn, pool}) outputs.push_back(n.Op("Shape", {value}));
  outputs.push_back(n.Op("CastLike", {n.Op("Sigmoid", {x}), bn}));
  const FoldResult result = FoldAndCompare(std::move(n), outputs);
  EXPECT_EQ(result.Maps(), 0);
  EXPECT_TRUE(result.Has("folded-forward"));
}

TEST(FoldReaders, ShapesBetweenMergedMapsAreNone) {
  FoldNet n;
  const ValueId first = n.Bn(n.Input({2, 4, 8, 8}), 4), second = n.Bn(first, 4);
  const FoldResult result = FoldAndCompare(std::move(n), {n.Op("Shape", {first}), n.Op("Sigmoid", {second})});
  EXPECT_TRUE(result.Has("merged"));
  EXPECT_EQ(result.Maps(), 1);
}

// Flattened for the batch-norm, and given its shape back: torch's linear layers with dynamic batches.
TEST(FoldReaders, TheShapeThatAReshapeGivesBack) {
  FoldNet n;
  const ValueId product = n.Op("MatMul", {n.Input({2, 7, 5}), n.Constant({5, 6})});
  const ValueId bn = n.Bn(n.Op("Reshape", {product, n.Ints({-1, 6})}), 6, false);
  const ValueId y = n.Op("Reshape", {bn, n.Op("Shape", {product})});
  EXPECT_EQ(FoldAndCompare(std::move(n), {y}).Maps(), 0);
}

// A residual branch before its training: all channels have scale 0. That is no map along the axis of 7.
TEST(FoldReaders, EqualChannelsAreNoOtherAxisChannels) {
  FoldNet n;
  const ValueId product = n.Op("MatMul", {n.Input({2, 7, 5}), n.Constant({5, 6})});
  const ValueId flat = n.Op("Flatten", {product}, {MakeAttr("axis", int64_t{2})});
  const ValueId y = n.Op("Mul", {flat, n.Given({1, 6}, {3, 3, 3, 3, 3, 3})});
  EXPECT_EQ(FoldAndCompare(std::move(n), {y}).Maps(), 0);
}

ValueId SliceOf(FoldNet& n, ValueId x, int64_t begin, int64_t end) {
  return n.Op("Slice", {x, n.Ints({begin}), n.Ints({end}), n.Ints({1})});
}

TEST(FoldReaders, SlicesApartHaveAMapEach) {
  FoldNet n;
  const ValueId conv = n.Op("Relu", {n.Conv(n.Input({2, 4, 8, 8}), 4, 6)});
  const ValueId a = n.Op("Mul", {SliceOf(n, conv, 0, 2), n.Constant({2, 1, 1}, 0.3, 1)});
  const ValueId b = n.Op("Mul", {SliceOf(n, conv, 2, 6), n.Constant({4, 1, 1}, 0.3, 1)});
  const FoldResult result = FoldAndCompare(std::move(n), {a, b});
  EXPECT_EQ(result.Maps(), 0);
}

TEST(FoldReaders, SlicesThatShareAChannelKeepTheirMaps) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6);
  const ValueId a = n.Bn(SliceOf(n, conv, 0, 3), 3), b = n.Bn(SliceOf(n, conv, 2, 6), 4);
  const FoldResult result = FoldAndCompare(std::move(n), {a, b});
  EXPECT_EQ(result.Maps(), 2);
  EXPECT_TRUE(result.Has("other-consumers"));
}

TEST(FoldReaders, ASliceOfTheMapsInputKeepsIt) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6);
  const ValueId a = n.Op("Mul", {conv, n.Given({6, 1, 1}, {1, 1, 2, 3, 4, 5})});
  EXPECT_EQ(FoldAndCompare(std::move(n), {a, SliceOf(n, conv, 0, 2)}).Maps(), 1);
}

// Backward and forward, by indices that count from the end too.
TEST(FoldGather, OfChannels) {
  FoldNet n;
  const auto pick = [&](ValueId x) {
    return n.Op("Gather", {x, n.Ints({3, 1, 0, -1, 4})}, {MakeAttr("axis", int64_t{1})});
  };
  const ValueId back = n.Bn(pick(n.Conv(n.Input({2, 4, 8, 8}), 4, 6)), 5);
  const ValueId forward = n.Conv(pick(n.Bn(n.Op("Relu", {back}), 5)), 5, 3);
  const FoldResult result = FoldAndCompare(std::move(n), {forward});
  EXPECT_EQ(result.Maps(), 0);
  EXPECT_TRUE(result.Has("folded-into-conv"));
  EXPECT_TRUE(result.Has("folded-forward"));
}

TEST(FoldGather, OfOneChannelTwiceKeepsTheMap) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6);
  const ValueId y = n.Bn(n.Op("Gather", {conv, n.Ints({3, 1, -3})}, {MakeAttr("axis", int64_t{1})}), 3);
  const FoldResult result = FoldAndCompare(std::move(n), {y});
  EXPECT_EQ(result.Maps(), 1);
  EXPECT_TRUE(result.Has("uneven-channels"));
}

TEST(FoldGather, OfRowsLeavesTheChannelsAlone) {
  FoldNet n;
  const ValueId conv = n.Conv(n.Input({2, 4, 8, 8}), 4, 6);
  const ValueId y = n.Bn(n.Op("Gather", {conv, n.Ints({3, 1, 1})}, {MakeAttr("axis", int64_t{-2})}), 6);
  EXPECT_EQ(FoldAndCompare(std::move(n), {y}).Maps(), 0);
}

}  // namespace
}  // namespace crease
