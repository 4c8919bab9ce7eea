// SPDX-License-Identifier: Apache-2.0
// Data movement copies bits: every comparison is exact.
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

KernelCase Case(Node node, std::vector<Tensor> inputs) {
  KernelCase c;
  c.node = std::move(node);
  c.inputs = std::move(inputs);
  return c;
}

Definition SameElements() {
  return [](const EvalContext& e) -> Result<std::vector<Tensor>> { return std::vector<Tensor>{e.input(0)}; };
}

TEST(Reorder, BetweenEveryPairOfLayouts) {
  for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{1, 3, 33, 31}, Shape{2, 2, 5, 9}, Shape{1, 4, 17, 3},
                             Shape{2, 17, 6, 5}, Shape{1, 64, 9, 9}, Shape{3, 1, 4, 4}, Shape{2, 5, 1, 1},
                             Shape{2, 19, 37}, Shape{1, 9, 3, 4, 5}, Shape{0, 3, 2, 2}, Shape{1, 70, 40, 40}}) {
    for (const Layout from : {Layout::kPlain, Layout::kChannelsLast}) {
      for (const Layout to : {Layout::kPlain, Layout::kChannelsLast}) {
        for (const int64_t extra : {0, 6}) {
          KernelCase c = Case(MakeNode("Reorder", {}, kInternalDomain), {RandomTensor(shape, 1)});
          c.definition = SameElements();
          c.mixed = true;
          c.src_layout_override = from;
          c.dst_layout_override = to;
          c.src_extra = c.dst_extra = extra;
          CheckKernel(c, "copy");
        }
      }
    }
  }
}

TEST(Reshape, ReadsAndWritesChannelsLast) {
  KernelCase c = Case(MakeNode("Reshape"), {RandomTensor({2, 6, 3, 5}, 1), Ints({2, 90})});
  c.constant = {false, true};
  c.mixed = true;
  for (const Layout from : {Layout::kPlain, Layout::kChannelsLast}) {
    c.src_layout_override = from;
    CheckKernel(c, "copy");
  }
  c.inputs = {RandomTensor({2, 90}, 1), Ints({2, 6, 3, 5})};
  c.src_layout_override = Layout::kPlain;
  c.dst_layout_override = Layout::kChannelsLast;
  CheckKernel(c, "copy");
  c.inputs = {RandomTensor({2, 6, 15}, 1), Ints({2, 6, 3, 5})};
  c.src_layout_override = Layout::kChannelsLast;
  EXPECT_EQ(Refusal(c, "copy"), "reshape between channels-last tensors");
}

TEST(Transpose, EveryPermutationOfFourAxes) {
  std::vector<int64_t> perm = {0, 1, 2, 3};
  do {
    KernelCase c = Case(MakeNode("Transpose", {MakeAttr("perm", perm)}), {RandomTensor({2, 5, 4, 19}, 1)});
    CheckLayouts(c, "copy");
    c.inputs = {Tensor::From<int64_t>({2, 1, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})};
    CheckKernel(c, "copy");
  } while (std::next_permutation(perm.begin(), perm.end()));
}

TEST(Transpose, LargeOnThreads) {
  CheckKernel(
      Case(MakeNode("Transpose", {MakeAttr("perm", std::vector<int64_t>{1, 0})}), {RandomTensor({301, 207}, 1)}),
      "copy");
}

TEST(Concat, EveryAxis) {
  for (const int64_t axis : {0, 1, 2, 3, -1}) {
    Shape a = {2, 5, 3, 4}, b = a, d = a;
    const auto k = static_cast<size_t>(axis < 0 ? axis + 4 : axis);
    b[k] = 17;
    d[k] = 0;
    const KernelCase c = Case(MakeNode("Concat", {MakeAttr("axis", axis)}),
                              {RandomTensor(a, 1), RandomTensor(b, 2), RandomTensor(d, 3)});
    CheckLayouts(c, "copy");
  }
}

TEST(Concat, ConstantsAndIntegers) {
  KernelCase c = Case(MakeNode("Concat", {MakeAttr("axis", int64_t{1})}),
                      {RandomTensor({1, 5, 3, 4}, 1), RandomTensor({1, 2, 3, 4}, 2)});
  c.constant = {false, true};
  CheckLayouts(c, "copy");
  CheckKernel(Case(MakeNode("Concat", {MakeAttr("axis", int64_t{0})}), {Ints({1, 2}), Ints({3})}), "copy");
}

TEST(Split, EveryAxis) {
  for (const int64_t axis : {0, 1, 2, 3}) {
    KernelCase c = Case(MakeNode("Split", {MakeAttr("axis", axis)}, "", 2),
                        {RandomTensor({4, 10, 6, 8}, 1), Ints({1, axis == 1   ? 9
                                                                  : axis == 2 ? 5
                                                                  : axis == 3 ? 7
                                                                              : 3})});
    c.constant = {false, true};
    CheckLayouts(c, "copy");
  }
}

TEST(Slice, StepsAndNegatives) {
  KernelCase c = Case(MakeNode("Slice"), {RandomTensor({2, 20, 7, 9}, 1), Ints({1, -1, 0}), Ints({15, -100, 100}),
                                          Ints({1, 2, 3}), Ints({3, -2, 2})});
  c.constant = {false, true, true, true, true};
  CheckLayouts(c, "copy");
  c.inputs = {RandomTensor({2, 20, 7, 9}, 1), Ints({4}), Ints({17}), Ints({1}), Ints({1})};
  CheckLayouts(c, "copy");
  c.constant[1] = false;
  EXPECT_EQ(Refusal(c, "copy"), "input 1 is not constant");
}

TEST(Pad, ConstantsAndCuts) {
  KernelCase c =
      Case(MakeNode("Pad"), {RandomTensor({2, 5, 7, 9}, 1), Ints({0, 1, 2, -1, 0, 0, -3, 2}), Tensor::Scalar(1.5f)});
  c.constant = {false, true, true};
  CheckLayouts(c, "copy");
  c.inputs[2] = Tensor();
  CheckLayouts(c, "copy");
  c.node = MakeNode("Pad", {MakeAttr("mode", "reflect")});
  EXPECT_EQ(Refusal(c, "copy"), "pads with something else than a constant");
}

TEST(Tile, RepeatsAxes) {
  KernelCase c = Case(MakeNode("Tile"), {RandomTensor({1, 3, 2, 5}, 1), Ints({2, 1, 3, 2})});
  c.constant = {false, true};
  CheckLayouts(c, "copy");
}

TEST(Expand, Broadcasts) {
  KernelCase c = Case(MakeNode("Expand"), {RandomTensor({3, 1, 5}, 1), Ints({2, 3, 4, 1})});
  c.constant = {false, true};
  CheckKernel(c, "copy");
}

TEST(Gather, ConstantIndices) {
  for (const int64_t axis : {0, 1, 2}) {
    KernelCase c =
        Case(MakeNode("Gather", {MakeAttr("axis", axis)}), {RandomTensor({5, 6, 7}, 1), Ints({4, -1, 0, 2})});
    c.constant = {false, true};
    CheckKernel(c, "copy");
    c.inputs[1] = Tensor::Scalar<int64_t>(-2);
    CheckKernel(c, "copy");
    c.inputs[1] = Tensor::From<int64_t>({2, 2}, {0, 1, 2, 3});
    CheckKernel(c, "copy");
  }
}

TEST(DepthToSpace, BothModes) {
  for (const char* mode : {"DCR", "CRD"}) {
    CheckLayouts(Case(MakeNode("DepthToSpace", {MakeAttr("blocksize", int64_t{2}), MakeAttr("mode", mode)}),
                      {RandomTensor({2, 20, 3, 5}, 1)}),
                 "copy");
  }
  CheckLayouts(Case(MakeNode("SpaceToDepth", {MakeAttr("blocksize", int64_t{3})}), {RandomTensor({2, 5, 6, 9}, 1)}),
               "copy");
}

TEST(ChannelShuffle, EveryGroupCount) {
  for (const int64_t groups : {1, 2, 3, 4, 8, 24}) {
    KernelCase c = Case(MakeNode("ChannelShuffle", {MakeAttr("groups", groups)}, kInternalDomain),
                        {RandomTensor({2, 48, 5, 3}, 1)});
    c.definition = [groups](const EvalContext& e) -> Result<std::vector<Tensor>> {
      const Tensor& x = e.input(0);
      Tensor y = Tensor::Allocate(DType::kFloat64, x.shape()).value();
      const int64_t channels = x.dim(1), plane = x.dim(2) * x.dim(3), width = channels / groups;
      for (int64_t i = 0; i < x.size(); ++i) {
        const int64_t channel = i / plane % channels;
        const int64_t to = channel % width * groups + channel / width;
        y.mutable_data<double>()[i + (to - channel) * plane] = x.AsDouble(i);
      }
      return std::vector<Tensor>{y};
    };
    CheckLayouts(c, "copy");
  }
}

}  // namespace
}  // namespace crease::test
