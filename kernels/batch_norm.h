// SPDX-License-Identifier: Apache-2.0
// Batch normalization as functions: with given statistics, or with the batch's own.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/aligned_vector.h"
#include "kernels/kernel.h"

namespace crease {

// What is normalized. Plain: dense (batch, channels, plane). Channels-last: batch * plane pixels of
// `channels` elements, pitches apart. src and dst are of one dtype (float32, float64, float16,
// bfloat16) and layout; they may be the same memory.
struct NormTensor {
  const void* src = nullptr;
  const void* residual = nullptr;  // where an epilogue has one; as src, or the same memory as dst
  void* dst = nullptr;
  DType dtype = DType::kFloat32;
  Layout layout = Layout::kPlain;
  int64_t batch = 0, channels = 0, plane = 1;
  int64_t src_pitch = 0, residual_pitch = 0, dst_pitch = 0;  // channels-last

  int64_t values_per_channel() const { return batch * plane; }
};

// Per-channel parameters; weight and bias may be empty (1 and 0).
struct NormParameters {
  std::span<const double> weight, bias;
  double eps = 1e-5;
};

// y = weight * (x - mean) / sqrt(var + eps) + bias as it is applied: combined in double, rounded once.
// float32 results are within 2 units in the last place of the largest of |y|, |bias|, |y - bias|.
// Immutable once made.
class NormMap {
 public:
  // `dtype`: of the tensors.
  NormMap(DType dtype, const NormParameters& parameters, std::span<const double> mean, std::span<const double> var);
  // The tensor must have as many channels, and that dtype; the epilogue must be one that CanFuse. It is applied before
  // the rounding to the dtype: a bound on the results is the float32 one above, what the activation makes of it
  // (kernels/activation-inl.h) and half a unit in the last place of the dtype.
  void Apply(const RunContext& context, const NormTensor& tensor, const Epilogue& epilogue = {}) const;

 private:
  template <typename T>
  auto View(AlignedVector<T>& values) const;

  int64_t channels_, period_;      // of the arrays: kernels/batch_norm_map.h
  AlignedVector<float> floats_;    // empty for float64
  AlignedVector<double> doubles_;  // for float64
};

// Whether NormMap::Apply takes this epilogue: a residual, Relu, Clip, LeakyRelu, HardSwish and Silu, for float32,
// float16 and bfloat16; none for float64.
bool CanFuse(DType dtype, const Epilogue& epilogue);

// What the functions below need as context.scratch; they allocate nothing.
size_t NormScratchBytes(const NormTensor& tensor);

// As NormMap.
void NormalizeWith(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                   std::span<const double> mean, std::span<const double> var, const Epilogue& epilogue = {});

// Running statistics, moved by `factor` towards those of a batch: (1 - factor) * running + factor * batch; the variance
// towards the unbiased one of `count` > 1 values. Rounded to float32 unless the tensors' dtype is float64.
struct RunningStatistics {
  std::span<double> mean, var;
  double factor = 0.1;

  // Channels [first, last), given those of the batch for all channels.
  void Track(DType dtype, int64_t count, std::span<const double> batch_mean, std::span<const double> batch_var,
             int64_t first, int64_t last) const;
};

// The same with the batch's mean and biased variance, which it returns, and by which it moves `running` where there are
// any. The same bits at any number of threads. Needs values_per_channel() >= 1, with `running` > 1.
void NormalizeByBatch(const RunContext& context, const NormTensor& tensor, const NormParameters& parameters,
                      std::span<double> mean, std::span<double> var, const RunningStatistics* running = nullptr);

// Mean and biased variance alone.
void BatchStatistics(const RunContext& context, const NormTensor& tensor, std::span<double> mean,
                     std::span<double> var);

}  // namespace crease
