// SPDX-License-Identifier: Apache-2.0
// Batch normalization as PyTorch's BatchNorm1d, BatchNorm2d and BatchNorm3d define it:
//   y = (x - mean) / sqrt(var + eps) * weight + bias, per channel.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "crease/session.h"
#include "crease/status.h"
#include "crease/tensor.h"

#pragma GCC visibility push(default)
namespace crease {

// A tensor in the caller's memory. Strides are in elements, one an axis, none negative; empty: dense,
// row-major. A stride of 0 repeats the elements along its axis, in what is read. Axes are (N, C, spatial...) whatever
// lies where: NHWC memory is shape (N, C, H, W) with strides (H*W*C, 1, W*C, C).
struct ConstArray {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;
  Shape strides;
};
struct Array {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;
  Shape strides;
};

// What eval mode does to its results before they are rounded to y's dtype.
enum class NormActivation : uint8_t {
  kIdentity,
  kRelu,
  kClip,       // min(max(y, a), b), a <= b, either may be infinite; ReLU6 is 0 and 6
  kLeakyRelu,  // y < 0 ? a * y : y
  kHardSwish,  // y * min(max(y / 6 + 1/2, 0), 1)
  kSilu,       // y / (1 + exp(-y))
};
struct NormEpilogue {
  NormActivation activation = NormActivation::kIdentity;
  float a = 0, b = 0;
  ConstArray residual = {};    // of x's shape and dtype, in any strides; no data: none
  bool residual_last = false;  // activation(y) + residual in place of activation(y + residual)
};

struct BatchNormOptions {
  int64_t num_features = 0;              // channels
  double eps = 1e-5;                     // finite, >= 0; > 0 where the batch's statistics are used
  std::optional<double> momentum = 0.1;  // of the new value, in [0, 1]; none: cumulative moving average
  bool affine = true;                    // has weight and bias
  bool track_running_stats = true;       // has running_mean, running_var, num_batches_tracked
  DType dtype = DType::kFloat32;         // of x and y: float32, float64, bfloat16, float16
  int threads = 0;                       // as in Options
  HostExecutor executor;                 // as in Options
};

// Parameters and statistics are rounded to float32 when they are set (unless the tensors are float64), as save() writes
// them. Results are rounded once; sums are compensated, so that a large mean costs no digits.
//
// In eval mode forward() may be called from several threads at once. Everything else may not.
class BatchNorm {
 public:
  BatchNorm(BatchNorm&&) noexcept;
  BatchNorm(const BatchNorm&) = delete;
  BatchNorm& operator=(const BatchNorm&) = delete;
  BatchNorm& operator=(BatchNorm&&) noexcept;
  ~BatchNorm();

  const BatchNormOptions& options() const;
  bool training() const;
  void train();  // as it is made
  void eval();

  // x to y, of the same shape and dtype, in any strides, or in place (the same memory and strides;
  // other overlaps are not allowed). Training mode normalizes by the batch's mean and biased variance,
  // and moves the running statistics towards its mean and unbiased variance. Eval mode uses the
  // running statistics, or the batch's where they are not tracked.
  // Errors (kInvalidArgument): rank, channels, dtype, y unlike x, strides, null data where there are elements; the
  // batch's statistics of one value a channel, or with eps 0; running_var + eps <= 0 or not finite (names the channel).
  // A batch of NaN or infinities makes NaN in their channels. kOutOfMemory.
  Result<void> forward(const ConstArray& x, const Array& y);

  // The same with an epilogue in the same pass over memory: eval mode with running statistics, float32, float16 and
  // bfloat16. Rounded once, where three operators one after the other would round three times. y may also be the
  // residual (the same memory and strides). Errors (kInvalidArgument) besides those above: batch statistics, float64,
  // a residual unlike x, bounds of kClip that are NaN or in the wrong order.
  Result<void> forward(const ConstArray& x, const Array& y, const NormEpilogue& epilogue);

  // State: "weight" and "bias" (if affine), "running_mean", "running_var" (if tracked), num_features
  // values each. Errors: no such name, another length; a negative count. A count at int64's end stays there.
  Result<std::vector<double>> state(std::string_view name) const;
  Result<void> set_state(std::string_view name, std::span<const double> values);
  int64_t num_batches_tracked() const;
  Result<void> set_num_batches_tracked(int64_t count);

  // All of the state under PyTorch's names, from and to a .npz or .safetensors file (by its suffix).
  // Arrays may have a prefix ("layer1.bn1."); `prefix` says which, and no others are read. num_batches_tracked may be
  // missing. Errors: file, a missing array, a length that is not num_features, a dtype that is none of the four (of
  // num_batches_tracked: no integer). Then nothing has changed.
  Result<void> load(const std::string& path, const std::string& prefix = "");
  Result<void> save(const std::string& path, const std::string& prefix = "") const;

 protected:
  struct [[gnu::visibility("hidden")]] Impl;
  explicit BatchNorm(std::shared_ptr<Impl> impl);
  static Result<std::shared_ptr<Impl>> Make(int spatial_rank, const BatchNormOptions& options);
  static Result<std::shared_ptr<Impl>> FromNode(int spatial_rank, const std::string& path, const std::string& node_name,
                                                const BatchNormOptions& options);
  std::shared_ptr<Impl> impl_;  // never shared; any pointer that can delete an incomplete type
};

template <int kSpatialRank>
class BatchNormNd final : public BatchNorm {
 public:
  // weight 1, bias 0, running_mean 0, running_var 1. Errors: num_features < 1, eps, momentum, dtype, threads,
  // CREASE_TARGET.
  static Result<BatchNormNd> create(const BatchNormOptions& options) { return Wrap(Make(kSpatialRank, options)); }

  // From the BatchNormalization node of that name (or that output) in an ONNX file, in eval mode;
  // num_features, eps and momentum are the node's (PyTorch's momentum is 1 - ONNX's), the rest as in
  // `options`. Errors: those of loading the file; no such node; parameters that are not constant;
  // those of create().
  static Result<BatchNormNd> from_onnx_node(const std::string& path, const std::string& node_name,
                                            const BatchNormOptions& options = {}) {
    return Wrap(FromNode(kSpatialRank, path, node_name, options));
  }

 private:
  using BatchNorm::BatchNorm;
  static Result<BatchNormNd> Wrap(Result<std::shared_ptr<Impl>> impl) {
    if (!impl.ok()) return std::move(impl).error();
    return BatchNormNd(std::move(impl).value());
  }
};

using BatchNorm1d = BatchNormNd<1>;  // (N, C) and (N, C, L)
using BatchNorm2d = BatchNormNd<2>;  // (N, C, H, W) and (C, H, W)
using BatchNorm3d = BatchNormNd<3>;  // (N, C, D, H, W)

}  // namespace crease
#pragma GCC visibility pop
