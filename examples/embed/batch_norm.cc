// SPDX-License-Identifier: Apache-2.0
// batch_norm: one batch through a crease::BatchNorm2d in training, then through it in eval mode with a ReLU behind;
// prints the running statistics and one result of each.
#include <crease/batch_norm.h>

#include <cstdio>
#include <numeric>
#include <vector>

int main() {
  const auto failed = [](const crease::Error& error) {
    return std::fprintf(stderr, "%s\n", error.ToString().c_str()), 1;
  };
  crease::BatchNormOptions options;  // eps 1e-5, momentum 0.1, as PyTorch's
  options.num_features = 3;
  crease::Result<crease::BatchNorm2d> norm = crease::BatchNorm2d::create(options);
  if (!norm) return failed(norm.error());

  const crease::Shape shape = {2, 3, 4, 4};  // (N, C, H, W); strides for channels-last memory could follow
  std::vector<float> x(96), y(96);
  std::iota(x.begin(), x.end(), 0.0f);
  const crease::ConstArray source{x.data(), crease::DType::kFloat32, shape, {}};
  const crease::Array result{y.data(), crease::DType::kFloat32, shape, {}};
  if (crease::Result<void> done = norm->forward(source, result); !done) return failed(done.error());
  const double trained = y.back();

  norm->eval();
  crease::NormEpilogue relu;
  relu.activation = crease::NormActivation::kRelu;
  if (crease::Result<void> done = norm->forward(source, result, relu); !done) return failed(done.error());

  const auto mean = norm->state("running_mean"), var = norm->state("running_var");
  if (!mean) return failed(mean.error());
  if (!var) return failed(var.error());
  std::printf("running mean %.2f %.2f %.2f, variance %.2f %.2f %.2f\n", (*mean)[0], (*mean)[1], (*mean)[2], (*var)[0],
              (*var)[1], (*var)[2]);
  std::printf("the last value, %g, becomes %.4f in training and %.4f in eval mode\n", x.back(), trained, y.back());
}
