// SPDX-License-Identifier: Apache-2.0
// Pools, reductions, softmax and resize. Bounds: maxima and nearest pixels are exact; averages and sums
// are within a few roundings of the mean magnitude; softmax has the exponential's 1.2e-7 and a sum.
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

using Ints64 = std::vector<int64_t>;

KernelCase Pool(const char* op, const Shape& shape, std::vector<Attribute> attributes) {
  KernelCase c;
  c.node = MakeNode(op, std::move(attributes));
  c.inputs = {RandomTensor(shape, 1)};
  c.absolute = std::string(op) == "MaxPool" ? 0 : 1e-6;
  return c;
}

void CheckPools(const Shape& shape, const std::vector<Attribute>& attributes) {
  CheckLayouts(Pool("MaxPool", shape, attributes), "pool", false);
  for (const int64_t include : {0, 1}) {
    std::vector<Attribute> own;
    for (const Attribute& a : attributes) {
      if (a.name != "dilations") own.push_back(a);
    }
    own.push_back(MakeAttr("count_include_pad", include));
    CheckLayouts(Pool("AveragePool", shape, own), "pool", false);
  }
}

TEST(Pool, ChannelCounts) {
  for (const int64_t channels : {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 67, 130}) {
    CheckPools({2, channels, 7, 6}, {MakeAttr("kernel_shape", Ints64{3, 3}), MakeAttr("strides", Ints64{2, 2}),
                                     MakeAttr("pads", Ints64{1, 1, 1, 1})});
  }
}

TEST(Pool, PadsStridesDilationsCeil) {
  for (const int64_t ceil : {0, 1}) {
    CheckPools({1, 9, 11, 13}, {MakeAttr("kernel_shape", Ints64{2, 3}), MakeAttr("strides", Ints64{2, 3}),
                                MakeAttr("pads", Ints64{1, 0, 0, 2}), MakeAttr("ceil_mode", ceil)});
    CheckLayouts(
        Pool("MaxPool", {1, 9, 11, 13},
             {MakeAttr("kernel_shape", Ints64{3, 2}), MakeAttr("strides", Ints64{1, 2}),
              MakeAttr("dilations", Ints64{2, 3}), MakeAttr("pads", Ints64{2, 1, 1, 2}), MakeAttr("ceil_mode", ceil)}),
        "pool", false);
  }
  CheckPools({1, 5, 9, 9}, {MakeAttr("kernel_shape", Ints64{3, 3}), MakeAttr("strides", Ints64{2, 2}),
                            MakeAttr("auto_pad", "SAME_UPPER")});
  // Windows larger than the input.
  CheckPools({2, 19, 2, 5}, {MakeAttr("kernel_shape", Ints64{3, 7}), MakeAttr("strides", Ints64{2, 3}),
                             MakeAttr("ceil_mode", int64_t{1})});
}

TEST(Pool, OneAndThreeSpatialAxes) {
  CheckPools({2, 17, 19}, {MakeAttr("kernel_shape", Ints64{4}), MakeAttr("strides", Ints64{3})});
  CheckPools({1, 17, 5, 6, 7}, {MakeAttr("kernel_shape", Ints64{2, 3, 2}), MakeAttr("strides", Ints64{1, 2, 2}),
                                MakeAttr("pads", Ints64{0, 1, 1, 1, 1, 0})});
}

TEST(Pool, LargeOnThreads) {
  CheckPools({1, 40, 41, 43}, {MakeAttr("kernel_shape", Ints64{3, 3}), MakeAttr("strides", Ints64{1, 1}),
                               MakeAttr("pads", Ints64{1, 1, 1, 1})});
}

TEST(Pool, NanWins) {
  KernelCase c = Pool("MaxPool", {1, 2, 2, 2}, {MakeAttr("kernel_shape", Ints64{2, 2})});
  const float nan = std::nanf("");
  c.inputs = {Tensor::From<float>({1, 2, 2, 2}, {nan, 1, 2, 3, 1, 2, 3, nan})};
  c.definition = [](const EvalContext&) -> Result<std::vector<Tensor>> {
    return std::vector<Tensor>{Tensor::From<double>({1, 2, 1, 1}, {std::nan(""), std::nan("")})};
  };
  c.channels_last = true;
  CheckKernel(c, "pool");
}

TEST(Reduce, GlobalPools) {
  for (const char* op : {"GlobalAveragePool", "GlobalMaxPool"}) {
    for (const Shape& shape : {Shape{2, 17, 7, 7}, Shape{1, 64, 1, 1}, Shape{1, 3, 33, 37}, Shape{2, 5, 4},
                               Shape{1, 130, 30, 30}, Shape{2, 9, 3, 4, 5}, Shape{1, 1, 9, 9}, Shape{2, 87, 41, 31}}) {
      KernelCase c = Pool(op, shape, {});
      c.absolute = std::string(op) == "GlobalMaxPool" ? 0 : 2e-6;
      CheckLayouts(c, "reduce");
    }
  }
}

TEST(Reduce, EveryOperatorAndAxis) {
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}) {
    for (const Ints64& axes : {Ints64{2, 3}, Ints64{-1}, Ints64{0}, Ints64{0, 1, 2, 3}}) {
      for (const int64_t keepdims : {0, 1}) {
        KernelCase c = Pool(op, {3, 18, 5, 7}, {MakeAttr("keepdims", keepdims)});
        c.opset = 18;
        c.inputs.push_back(Tensor::From<int64_t>({static_cast<int64_t>(axes.size())}, axes));
        c.constant = {false, true};
        c.absolute = 1e-3;
        c.relative = 1e-5;
        CheckLayouts(c, "reduce", true, axes == Ints64{2, 3});
      }
    }
  }
}

TEST(Reduce, ChannelsInChannelsLast) {
  KernelCase c = Pool("ReduceMean", {2, 18, 5, 7}, {MakeAttr("axes", Ints64{1})});
  c.absolute = 1e-6;
  CheckLayouts(c, "reduce");
}

TEST(Reduce, SumsOfManyStayAccurate) {
  KernelCase c = Pool("ReduceMean", {1, 2, 300, 300}, {MakeAttr("axes", Ints64{2, 3})});
  c.inputs = {RandomTensor({1, 2, 300, 300}, 1, 0, 1)};
  c.absolute = 0;
  c.relative = 1e-6;
  CheckLayouts(c, "reduce");
}

TEST(Softmax, AxesAndSizes) {
  for (const char* op : {"Softmax", "LogSoftmax"}) {
    for (const int64_t n : {1, 3, 4, 5, 15, 16, 17, 33, 1000}) {
      KernelCase c = Pool(op, {3, n}, {});
      c.inputs = {RandomTensor({3, n}, 1, -20, 20)};
      c.relative = 4e-6;  // x - max is rounded at up to 40: 2^-19
      c.absolute = std::string(op) == "Softmax" ? 1e-30 : 4e-6;
      CheckKernel(c, "softmax");
    }
    for (const int64_t axis : {0, 1, 2, 3}) {
      KernelCase c = Pool(op, {2, 21, 5, 19}, {MakeAttr("axis", axis)});
      c.relative = 1e-6;
      c.absolute = std::string(op) == "Softmax" ? 1e-30 : 4e-6;
      CheckLayouts(c, "softmax", true, axis == 1);
      c.opset = 11;
      CheckKernel(c, "softmax");
    }
  }
}

TEST(Softmax, InfinitiesMask) {
  KernelCase c = Pool("Softmax", {1, 4}, {});
  c.inputs = {Tensor::From<float>({1, 4}, {-INFINITY, 0, 1000, 1000})};
  c.relative = 1e-6;
  CheckKernel(c, "softmax");
}

TEST(Resize, ModesAndCoordinates) {
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const char* coordinates : {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"}) {
      for (const Ints64& sizes :
           {Ints64{1, 17, 10, 14}, Ints64{1, 17, 3, 4}, Ints64{1, 17, 7, 21}, Ints64{1, 17, 1, 1}}) {
        KernelCase c = Pool("Resize", {1, 17, 5, 7},
                            {MakeAttr("mode", mode), MakeAttr("coordinate_transformation_mode", coordinates)});
        c.inputs = {RandomTensor({1, 17, 5, 7}, 1), Tensor(), Tensor(), Tensor::From<int64_t>({4}, sizes)};
        c.constant = {false, false, false, true};
        c.absolute = std::string(mode) == "nearest" ? 0 : 2e-6;
        CheckLayouts(c, "resize", false);
      }
    }
  }
}

TEST(Resize, ScalesAndOtherRanks) {
  for (const Shape& shape : {Shape{2, 5, 9}, Shape{2, 5, 9, 3}, Shape{1, 5, 3, 4, 5}}) {
    for (const char* mode : {"nearest", "linear"}) {
      KernelCase c = Pool("Resize", shape, {MakeAttr("mode", mode)});
      std::vector<float> scales(shape.size(), 1.7f);
      scales[0] = scales[1] = 1;
      c.inputs.push_back(Tensor());
      c.inputs.push_back(Tensor::From<float>({static_cast<int64_t>(shape.size())}, scales));
      c.constant = {false, false, true};
      c.absolute = 2e-6;
      CheckLayouts(c, "resize", false);
    }
  }
}

TEST(Resize, LargeOnThreads) {
  KernelCase c = Pool("Resize", {1, 40, 21, 23}, {MakeAttr("mode", "linear")});
  c.inputs.push_back(Tensor());
  c.inputs.push_back(Tensor::From<float>({4}, {1, 1, 2, 2}));
  c.constant = {false, false, true};
  c.absolute = 2e-6;
  CheckLayouts(c, "resize", false);
}

}  // namespace
}  // namespace crease::test
