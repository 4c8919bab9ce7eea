// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_vector.h"

#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

constexpr double kBound = 1e-5;  // rounding of at most 1,000 products

TEST(MatrixVector, EveryLength) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    for (const int64_t depth : {1, 7, 15, 16, 17, 31, 32, 33, 100, 1000}) {
      for (const int64_t columns : {1, 3, 4, 5, 64, 67, 150}) {
        ConvCase test{MakeConvShape(1, 1, 1, depth, columns, 1)};
        test.epilogue = {Activation::kHardSwish, 0, 0, static_cast<Residual>(columns % 3)};
        test.bias = depth % 2 == 0;
        test.in_place = columns % 2 == 0;
        ConvData one(test), three(test);
        const MatrixVector product{one.weights, one.bias, 1, 1, columns, depth, test.epilogue};
        SerialExecutor serial;
        Multiply(product, {serial}, one.src.data(), one.dst.data(), one.operands().residual);
        one.Check(kBound);
        ThreadsExecutor threads(3);
        Multiply(product, {threads}, three.src.data(), three.dst.data(), three.operands().residual);
        ASSERT_EQ(one.dst, three.dst);
      }
    }
  });
}

TEST(MatrixVector, MatrixAtAnyAddress) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    const ConvCase test{MakeConvShape(1, 1, 1, 37, 11, 1)};
    ConvData aligned(test), shifted(test);
    const auto bytes = std::make_shared<std::vector<std::byte>>(aligned.weights.byte_size() + 1);
    std::copy_n(aligned.weights.bytes(), aligned.weights.byte_size(), bytes->data() + 1);
    const Result<Tensor> odd =
        Tensor::View(DType::kFloat32, aligned.weights.shape(), std::span(*bytes).subspan(1), bytes);
    ASSERT_TRUE(odd.ok());
    SerialExecutor serial;
    Multiply({aligned.weights, aligned.bias, 1, 1, 11, 37, {}}, {serial}, aligned.src.data(), aligned.dst.data(),
             nullptr);
    Multiply({*odd, aligned.bias, 1, 1, 11, 37, {}}, {serial}, shifted.src.data(), shifted.dst.data(), nullptr);
    ASSERT_EQ(aligned.dst, shifted.dst);
  });
}

}  // namespace
}  // namespace crease::test
