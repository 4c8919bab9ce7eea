// SPDX-License-Identifier: Apache-2.0
// What a kernel does to its result on the way to memory.
#pragma once

#include <cstdint>

namespace crease {

// GCC 12 sees Activation::kNone as a shadow of crease::kNone, which it is not.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif

enum class Activation : uint8_t {
  kNone,
  kRelu,
  kClip,         // min(max(x, a), b); ReLU6 is Clip(0, 6); infinite bounds are allowed
  kLeakyRelu,    // x < 0 ? a * x : x
  kHardSwish,    // x * min(max(x / 6 + 1/2, 0), 1)
  kHardSigmoid,  // min(max(a * x + b, 0), 1)
  kSigmoid,      // 1 / (1 + exp(-x))
  kSilu,         // x / (1 + exp(-x))
  kTanh,
  kElu,   // x < 0 ? a * (exp(x) - 1) : x
  kGelu,  // x * (1 + erf(x / sqrt 2)) / 2
  kMish,  // x * tanh(log(1 + exp(x)))
};

const char* Name(Activation activation);

enum class Residual : uint8_t {
  kNone,
  kBeforeActivation,  // act(y + r): ResNet
  kAfterActivation,   // act(y) + r: Darknet, linear bottlenecks with an activation
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

// dst = act(y + residual), or act(y) + residual. The residual is one more input tensor (the last), of
// dst's shape and layout, with a pitch of its own; it may be the same memory as dst (in place).
struct Epilogue {
  Activation activation = Activation::kNone;
  float a = 0, b = 0;  // parameters of the activation, see above
  Residual residual = Residual::kNone;

  bool empty() const { return activation == Activation::kNone && residual == Residual::kNone; }
  friend bool operator==(const Epilogue&, const Epilogue&) = default;
};

// dst = epilogue(src), for rows x columns that a micro-kernel left in src without epilogue; strides count floats. dst
// may be src or residual.
struct FinishTile {
  const float* src = nullptr;
  int64_t src_stride = 0;
  float* dst = nullptr;
  int64_t dst_stride = 0;
  const float* residual = nullptr;  // null without one
  int64_t residual_stride = 0;
  int64_t rows = 0, columns = 0;
};

// What is done to the source on the way in: x' = act(scale[c] * x + shift[c]), per channel. Padding
// is zero after it (the pre-activation networks' meaning). scale and shift are constants of the plan.
struct Prologue {
  const float* scale = nullptr;  // null: no prologue
  const float* shift = nullptr;
  Activation activation = Activation::kNone;
  float a = 0, b = 0;
};

}  // namespace crease
