// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/epilogue.h"

#include <cmath>

namespace crease::test {

double Activate(Activation activation, double a, double b, double x) {
  const auto clip = [](double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
  };
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kClip:
      return clip(x, a, b);
    case Activation::kLeakyRelu:
      return x < 0 ? a * x : x;
    case Activation::kHardSwish:
      return x * clip(x / 6 + 0.5, 0, 1);
    case Activation::kHardSigmoid:
      return clip(a * x + b, 0, 1);
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kElu:
      return x < 0 ? a * std::expm1(x) : x;
    case Activation::kGelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kMish:
      return x * std::tanh(std::log1p(std::exp(x)));
  }
  return std::nan("");
}

double Finish(const Epilogue& epilogue, double x, double residual) {
  const auto activate = [&](double y) {
    return Activate(epilogue.activation, static_cast<double>(epilogue.a), static_cast<double>(epilogue.b), y);
  };
  switch (epilogue.residual) {
    case Residual::kNone:
      return activate(x);
    case Residual::kBeforeActivation:
      return activate(x + residual);
    case Residual::kAfterActivation:
      return activate(x) + residual;
  }
  return std::nan("");
}

}  // namespace crease::test
