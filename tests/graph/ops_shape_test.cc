// SPDX-License-Identifier: Apache-2.0
// Shape, Constant, Reshape and their kin: what shape arithmetic is made of.
#include <gtest/gtest.h>

#include "tests/support/op_case.h"

namespace crease {
namespace {

using test::Counting;
using test::ExpectFailure;
using test::ExpectValues;
using test::Floats;
using test::InferOne;
using test::IntList;
using test::Ints;
using test::OpCase;

TensorType Symbolic(std::vector<Dim> dims) {
  TensorType type;
  type.dtype = DType::kFloat32;
  type.has_rank = true;
  type.dims = std::move(dims);
  return type;
}

TEST(OpsShape, WholeAndPart) {
  const Tensor x = Counting({2, 3, 4});
  ExpectValues({"Shape", 7, {x}, {}}, {3}, {2, 3, 4});
  ExpectValues({"Shape", 15, {x}, {MakeAttr("start", int64_t{-2})}}, {2}, {3, 4});
  ExpectValues({"Shape", 15, {x}, {MakeAttr("start", int64_t{1}), MakeAttr("end", int64_t{-1})}}, {1}, {3});
  ExpectValues({"Shape", 15, {x}, {MakeAttr("start", INT64_MIN), MakeAttr("end", INT64_MAX)}}, {3}, {2, 3, 4});
  ExpectValues({"Shape", 15, {x}, {MakeAttr("start", int64_t{2}), MakeAttr("end", int64_t{1})}}, {0}, {});
  ExpectValues({"Size", 7, {x}, {}}, {}, {24});
}

TEST(OpsConstant, EveryForm) {
  ExpectValues({"Constant", 13, {}, {MakeAttr("value", Floats({2}, {1, 2}))}}, {2}, {1, 2});
  ExpectValues({"Constant", 13, {}, {MakeAttr("value_int", int64_t{5})}}, {}, {5});
  ExpectValues({"Constant", 13, {}, {MakeAttr("value_float", 0.5f)}}, {}, {0.5});
  ExpectValues({"Constant", 13, {}, {MakeAttr("value_ints", IntList({1, 2}))}}, {2}, {1, 2});
  ExpectFailure({"Constant", 13, {}, {}}, {"value"});
}

TEST(OpsConstantOfShape, FillsAndBounds) {
  ExpectValues({"ConstantOfShape", 9, {Ints({2, 1})}, {}}, {2, 1}, {0, 0});
  ExpectValues({"ConstantOfShape", 9, {Ints({2})}, {MakeAttr("value", Ints({1}, {7}))}}, {2}, {7, 7});
  ExpectValues({"ConstantOfShape", 9, {Ints({0}, {})}, {}}, {}, {0});
  ExpectFailure({"ConstantOfShape", 9, {Ints({-1})}, {}}, {"negative"});
  ExpectFailure({"ConstantOfShape", 9, {Ints({int64_t{1} << 40, int64_t{1} << 40})}, {}}, {"2^63"});
  ExpectFailure({"ConstantOfShape", 9, {Ints({int64_t{1} << 40})}, {}}, {"exceeds"});
  ExpectFailure({"ConstantOfShape", 9, {Ints({2})}, {MakeAttr("value", Ints({1, 2}))}}, {"one element"});
}

TEST(OpsRange, CountsUpAndDown) {
  const auto scalar = [](int64_t value) { return Ints({}, {value}); };
  ExpectValues({"Range", 11, {scalar(1), scalar(7), scalar(3)}, {}}, {2}, {1, 4});
  ExpectValues({"Range", 11, {scalar(3), scalar(0), scalar(-2)}, {}}, {2}, {3, 1});
  ExpectValues({"Range", 11, {scalar(3), scalar(0), scalar(1)}, {}}, {0}, {});
  ExpectFailure({"Range", 11, {scalar(0), scalar(1), scalar(0)}, {}}, {"delta must not be 0"});
}

TEST(OpsReshape, Targets) {
  const Tensor x = Counting({2, 3, 4});
  ExpectValues({"Reshape", 7, {Counting({4}), Ints({2, -1})}, {}}, {2, 2}, {0, 1, 2, 3});
  EXPECT_EQ((*OpCase{"Reshape", 7, {x, Ints({0, -1})}, {}}.Evaluate())[0].shape(), (Shape{2, 12}));
  EXPECT_EQ(
      (*OpCase{"Reshape", 14, {Floats({0, 3}, {}), Ints({3, 0})}, {MakeAttr("allowzero", int64_t{1})}}.Evaluate())[0]
          .shape(),
      (Shape{3, 0}));
  ExpectFailure({"Reshape", 7, {x, Ints({-1, -1})}, {}}, {"one -1"});
  ExpectFailure({"Reshape", 7, {x, Ints({5, -1})}, {}}, {"24", "5"});
  ExpectFailure({"Reshape", 7, {x, Ints({5, 5})}, {}}, {"24", "25"});
  ExpectFailure({"Reshape", 7, {x, Ints({-2, 12})}, {}}, {"below -1"});
  ExpectFailure({"Reshape", 7, {x, Ints({24, 1, 1, 0})}, {}}, {"axis 3"});
  ExpectFailure({"Reshape", 14, {x, Ints({0, -1})}, {MakeAttr("allowzero", int64_t{1})}}, {"allowzero"});
  ExpectFailure({"Reshape", 7, {x, Ints({int64_t{1} << 62, int64_t{1} << 62})}, {}}, {"2^63"});
}

TEST(OpsReshape, TheBatchsSymbolSurvives) {
  const std::vector<Dim> image = {Dim{-1, "N"}, Dim{8, ""}, Dim{2, ""}, Dim{2, ""}};
  OpCase op = {"Reshape", 13, {Counting({1, 8, 2, 2}), Ints({-1, 32})}, {}};
  EXPECT_EQ(InferOne(op, {Symbolic(image)})->dims, (std::vector<Dim>{Dim{-1, "N"}, Dim{32, ""}}));
  op.inputs[1] = Ints({0, -1});
  EXPECT_EQ(InferOne(op, {Symbolic(image)})->dims, (std::vector<Dim>{Dim{-1, "N"}, Dim{32, ""}}));
  // Without a name it is still known that the batch is what is copied.
  EXPECT_EQ(InferOne(op, {Symbolic({Dim{}, Dim{8, ""}, Dim{2, ""}, Dim{2, ""}})})->dims,
            (std::vector<Dim>{Dim{}, Dim{32, ""}}));
  // Not every quotient is known.
  op.inputs[1] = Ints({-1, 8});
  EXPECT_EQ(InferOne(op, {Symbolic(image)})->dims, (std::vector<Dim>{Dim{}, Dim{8, ""}}));
}

TEST(OpsFlatten, AnyAxis) {
  const Tensor x = Counting({2, 3, 4});
  const auto shape = [&](int64_t axis) {
    return (*OpCase{"Flatten", 11, {x}, {MakeAttr("axis", axis)}}.Evaluate())[0].shape();
  };
  EXPECT_EQ(shape(0), (Shape{1, 24}));
  EXPECT_EQ(shape(1), (Shape{2, 12}));
  EXPECT_EQ(shape(3), (Shape{24, 1}));
  EXPECT_EQ(shape(-1), (Shape{6, 4}));
  ExpectFailure({"Flatten", 11, {x}, {MakeAttr("axis", int64_t{4})}}, {"axis", "[-3, 3]", "4"});
  EXPECT_EQ(InferOne({"Flatten", 11, {x}, {}}, {Symbolic({Dim{-1, "N"}, Dim{3, ""}, Dim{4, ""}})})->dims,
            (std::vector<Dim>{Dim{-1, "N"}, Dim{12, ""}}));
}

TEST(OpsSqueeze, AxesAsAttributeAndAsInput) {
  const Tensor x = Counting({1, 2, 1});
  ExpectValues({"Squeeze", 11, {x}, {MakeAttr("axes", IntList({0}))}}, {2, 1}, {0, 1});
  ExpectValues({"Squeeze", 13, {x, Ints({-1})}, {}}, {1, 2}, {0, 1});
  ExpectValues({"Squeeze", 13, {x}, {}}, {2}, {0, 1});
  ExpectFailure({"Squeeze", 13, {x, Ints({1})}, {}}, {"axis 1", "2"});
  ExpectFailure({"Squeeze", 13, {x, Ints({3})}, {}}, {"axis", "[-3, 2]", "3"});
  ExpectFailure({"Squeeze", 13, {x, Ints({0, -3})}, {}}, {"twice"});
}

TEST(OpsUnsqueeze, AxesAsAttributeAndAsInput) {
  const Tensor x = Counting({2});
  ExpectValues({"Unsqueeze", 11, {x}, {MakeAttr("axes", IntList({0, 2}))}}, {1, 2, 1}, {0, 1});
  ExpectValues({"Unsqueeze", 13, {x, Ints({-1})}, {}}, {2, 1}, {0, 1});
  ExpectFailure({"Unsqueeze", 11, {x}, {}}, {"axes are missing"});
  ExpectFailure({"Unsqueeze", 13, {x, Ints({2})}, {}}, {"axis", "2"});
}

TEST(OpsExpand, BroadcastsBothWays) {
  ExpectValues({"Expand", 8, {Counting({2, 1}), Ints({2})}, {}}, {2, 2}, {0, 0, 1, 1});
  ExpectValues({"Expand", 8, {Counting({2, 1}), Ints({3, 1, 1})}, {}}, {3, 2, 1}, {0, 1, 0, 1, 0, 1});
  ExpectFailure({"Expand", 8, {Counting({2}), Ints({3})}, {}}, {"broadcast"});
  ExpectFailure({"Expand", 8, {Counting({1}), Ints({int64_t{1} << 40, int64_t{1} << 40})}, {}}, {"2^63"});
}

TEST(OpsTile, RepeatsEveryAxis) {
  ExpectValues({"Tile", 7, {Counting({1, 2}), Ints({2, 2})}, {}}, {2, 4}, {0, 1, 0, 1, 0, 1, 0, 1});
  ExpectFailure({"Tile", 7, {Counting({2}), Ints({1, 2})}, {}}, {"1 elements", "has 2"});
  ExpectFailure({"Tile", 7, {Counting({2}), Ints({int64_t{1} << 63})}, {}}, {"negative"});
  ExpectFailure({"Tile", 7, {Counting({4}), Ints({int64_t{1} << 62})}, {}}, {"2^63"});
}

}  // namespace
}  // namespace crease
