// SPDX-License-Identifier: Apache-2.0
// Tensors may share their bytes, as two initializers do that name one place of an external file: what is packed from
// one is not what the other needs.
#include <gtest/gtest.h>

#include "kernels/conv_gemm.h"
#include "kernels/conv_group.h"
#include "kernels/conv_strassen.h"
#include "kernels/conv_winograd.h"
#include "kernels/depthwise.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

constexpr double kBound = 1e-4;

template <typename Conv>
void Run(const Result<Conv>& conv, ConvData& data) {
  ASSERT_TRUE(conv.ok());
  ThreadsExecutor executor(1);
  FloatBuffer scratch(conv->scratch_bytes(1) / sizeof(float));
  conv->Run({executor, reinterpret_cast<std::byte*>(scratch.data())}, data.operands());
}

// Both from the weights of the first, one after the other with one cache. `make(shape, weights, cache)` is a kernel's.
template <typename Make>
void CheckBoth(const ConvShape& first, const ConvShape& second, const Make& make) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    PackCache cache;
    const auto run = [&](const ConvShape& shape, const Tensor* bytes) {
      ConvCase test{shape};
      test.bias = false;
      ConvData data(test);
      if (bytes != nullptr) data.weights = bytes->Reshaped(data.weights.shape());
      Run(make(shape, data.weights, &cache), data);
      data.Check(kBound);
      return data.weights;
    };
    const Tensor bytes = run(first, nullptr);
    run(second, &bytes);
  });
}

TEST(PackCache, OneTensorInTwoShapes) {
  const ConvShape wide = MakeConvShape(1, 7, 6, 16, 48, 1), narrow = MakeConvShape(1, 7, 6, 48, 16, 1);
  CheckBoth(wide, narrow, [](const ConvShape& shape, const Tensor& weights, PackCache* cache) {
    StrassenConv::Options options;
    options.cache = cache;
    return StrassenConv::Make(shape, weights, nullptr, options);
  });
  CheckBoth(wide, narrow, [](const ConvShape& shape, const Tensor& weights, PackCache* cache) {
    GemmConv::Options options;
    options.src_pitch = shape.channels;
    options.cache = cache;
    return GemmConv::Make(shape, ConvMatrix(shape, weights, nullptr), options);
  });
  CheckBoth(MakeConvShape(1, 7, 6, 16, 48, 3), MakeConvShape(1, 7, 6, 48, 16, 3),
            [](const ConvShape& shape, const Tensor& weights, PackCache* cache) {
              WinogradConv::Options options;
              options.cache = cache;
              return WinogradConv::Make(shape, weights, nullptr, options);
            });
}

TEST(PackCache, OneTensorInTwoKernelSizes) {
  ConvShape row = MakeConvShape(1, 7, 9, 8, 8, 3, 1, -1, 1, 8);  // 3 x 9 taps
  row.kernel_w = 9;
  row.pad_left = 4;
  CheckBoth(MakeConvShape(1, 7, 9, 24, 24, 3, 1, -1, 1, 24), row,
            [](const ConvShape& shape, const Tensor& weights, PackCache* cache) {
              return DepthwiseConv::Make(shape, weights, nullptr, Epilogue{}, cache);
            });
}

// Groups of four channels and of two.
TEST(PackCache, OneTensorInTwoGroupings) {
  CheckBoth(MakeConvShape(1, 7, 6, 32, 32, 3, 1, -1, 1, 8), MakeConvShape(1, 7, 6, 64, 64, 3, 1, -1, 1, 32),
            [](const ConvShape& shape, const Tensor& weights, PackCache* cache) {
              GroupConv::Options options;
              options.cache = cache;
              return GroupConv::Make(shape, weights, nullptr, options);
            });
}

}  // namespace
}  // namespace crease::test
