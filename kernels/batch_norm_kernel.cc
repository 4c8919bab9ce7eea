// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "graph/ops/batch_norm.h"
#include "graph/ops/common.h"
#include "kernels/batch_norm.h"
#include "kernels/kernels.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

constexpr size_t kParameters = 4;  // gamma, beta, mean, var

float Widened(uint16_t bits, DType dtype) {
  return dtype == DType::kFloat16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

void ReadDoubles(const ConstTensorView& view, std::span<double> values) {
  const auto count = static_cast<int64_t>(values.size());
  for (int64_t i = 0; i < count; ++i) {
    double& value = values[static_cast<size_t>(i)];
    if (view.dtype == DType::kFloat32) value = static_cast<double>(Elements<float>(view.data, count)[i]);
    if (view.dtype == DType::kFloat64) value = Elements<double>(view.data, count)[i];
    if (ByteSize(view.dtype) == 2) {
      value = static_cast<double>(Widened(Elements<uint16_t>(view.data, count)[i], view.dtype));
    }
  }
}

template <typename T>
void WriteElement(T value, const TensorView& view, size_t i) {
  std::memcpy(static_cast<std::byte*>(view.data) + i * sizeof(T), &value, sizeof(T));
}

void WriteDouble(double value, const TensorView& view, size_t i) {
  const auto narrow = static_cast<float>(value);
  if (view.dtype == DType::kFloat32) WriteElement(narrow, view, i);
  if (view.dtype == DType::kFloat64) WriteElement(value, view, i);
  if (view.dtype == DType::kFloat16) WriteElement(FloatToHalf(narrow), view, i);
  if (view.dtype == DType::kBFloat16) WriteElement(FloatToBFloat16(narrow), view, i);
}

// Parameters are read at every run: they need not be constant.
class BatchNormKernel final : public Kernel {
 public:
  BatchNormKernel(const ops::BatchNormAttributes& attributes, const NormTensor& tensor)
      : attributes_(attributes), tensor_(tensor) {}

  std::string Describe() const override {
    return attributes_.training ? "batch_norm by batch statistics" : "batch_norm";
  }

  size_t scratch_bytes(int /*workers*/) const override { return VectorBytes() + NormScratchBytes(tensor_); }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    const auto channels = static_cast<size_t>(tensor_.channels);
    const auto vector = [&](size_t i) {
      return std::span<double>(reinterpret_cast<double*>(context.scratch) + i * channels, channels);
    };
    for (size_t i = 0; i < kParameters; ++i) ReadDoubles(src[i + 1], vector(i));
    const std::span<double> mean = vector(4), var = vector(5);
    NormTensor tensor = tensor_;
    tensor.src = src[0].data;
    tensor.dst = dst[0].data;
    tensor.src_pitch = src[0].pitch;
    tensor.dst_pitch = dst[0].pitch;
    const RunContext inner{context.executor, context.scratch + VectorBytes()};
    const NormParameters parameters{vector(0), vector(1), static_cast<double>(attributes_.epsilon)};
    if (!attributes_.training) {
      NormalizeWith(inner, tensor, parameters, vector(2), vector(3));
      return;
    }
    NormalizeByBatch(inner, tensor, parameters, mean, var);
    const double momentum = static_cast<double>(attributes_.momentum);
    for (size_t c = 0; c < channels; ++c) {
      const std::array<double, kParameters> outputs = {vector(2)[c] * momentum + mean[c] * (1 - momentum),
                                                       vector(3)[c] * momentum + var[c] * (1 - momentum), mean[c],
                                                       var[c]};
      for (size_t i = 1; i < dst.size(); ++i) {
        if (dst[i].data != nullptr) WriteDouble(outputs[i - 1], dst[i], c);
      }
    }
  }

 private:
  // gamma, beta, old mean and variance, the batch's mean and variance.
  size_t VectorBytes() const {
    return static_cast<size_t>(RoundUp(tensor_.channels * 6 * static_cast<int64_t>(sizeof(double)), 64));
  }

  ops::BatchNormAttributes attributes_;
  NormTensor tensor_;  // without memory
};

}  // namespace

KernelResult MakeBatchNorm(const KernelRequest& request) {
  const Operand &x = request.src[0], &y = request.dst[0];
  if (!request.epilogue.empty()) return Refuse("epilogue");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (!x.present || !y.present || !IsFloat(x.dtype) || y.dtype != x.dtype) return Refuse("not of one float type");
  if (x.constant != nullptr) return Refuse("constant input");
  if (x.shape.size() < 2) return Refuse("rank < 2");
  CREASE_ASSIGN_OR_RETURN(const auto attributes, ops::ParseBatchNorm(request.node, request.opset));
  NormTensor tensor;
  tensor.dtype = x.dtype;
  tensor.layout = x.shape.size() == 2 ? Layout::kPlain : x.layout;
  tensor.batch = x.shape[0];
  tensor.channels = x.shape[1];
  tensor.plane = ops::Product(x.shape, 2, x.shape.size());
  tensor.src_pitch = x.pitch;
  tensor.dst_pitch = y.pitch;
  if (tensor.values_per_channel() == 0 || tensor.channels == 0) return Refuse("no values");
  if (request.src.size() != kParameters + 1) return Refuse("too few inputs");
  for (size_t i = 1; i <= kParameters; ++i) {
    const Operand& parameter = request.src[i];
    if (!parameter.present || !IsFloat(parameter.dtype)) return Refuse("parameters are not floats");
    if (parameter.shape != Shape{tensor.channels}) return Refuse("parameter length differs from the channels");
  }
  return std::unique_ptr<Kernel>(new BatchNormKernel(attributes, tensor));
}

}  // namespace crease
