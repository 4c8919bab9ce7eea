// SPDX-License-Identifier: Apache-2.0
#include "kernels/epilogue.h"

#include "kernels/view.h"

namespace crease {

const char* Name(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return "none";
    case Activation::kRelu:
      return "relu";
    case Activation::kClip:
      return "clip";
    case Activation::kLeakyRelu:
      return "leaky_relu";
    case Activation::kHardSwish:
      return "hard_swish";
    case Activation::kHardSigmoid:
      return "hard_sigmoid";
    case Activation::kSigmoid:
      return "sigmoid";
    case Activation::kSilu:
      return "silu";
    case Activation::kTanh:
      return "tanh";
    case Activation::kElu:
      return "elu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kMish:
      return "mish";
  }
  return "?";
}

const char* Name(Layout layout) { return layout == Layout::kPlain ? "plain" : "channels_last"; }

}  // namespace crease
