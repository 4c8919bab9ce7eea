// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/eval.h"

#include <algorithm>

namespace crease::ops {
namespace {

constexpr int64_t kMaxTensorBytes = int64_t{16} << 30;  // a bomb is an error, not an OOM kill

// Fails where the shape, its dimensions of 0 taken as 1, would pass the limit: loops over the other
// dimensions of an empty tensor must end as well.
Result<void> CheckSize(std::string_view what, size_t index, const Shape& shape, DType dtype) {
  int64_t extent = static_cast<int64_t>(ByteSize(dtype));
  bool fits = true;
  for (const int64_t dim : shape) {
    fits = fits && CheckedMul(extent, std::max<int64_t>(dim, 1), &extent) && extent <= kMaxTensorBytes;
  }
  if (fits) return {};
  return Error{ErrorCode::kLimitExceeded,
               StrCat(what, " ", index, " of shape ", ToString(shape), " exceeds ", kMaxTensorBytes, " bytes"), ""};
}

}  // namespace

Result<std::vector<Tensor>> AllocateOutputs(InferFunction infer, const EvalContext& context) {
  std::vector<TensorType> types;
  std::vector<const TensorType*> inputs;
  types.reserve(context.inputs.size());
  for (size_t i = 0; i < context.inputs.size(); ++i) {
    const Tensor* tensor = context.inputs[i];
    if (tensor) CREASE_RETURN_IF_ERROR(CheckSize("input", i, tensor->shape(), tensor->dtype()));
    types.push_back(tensor ? TensorType::Of(tensor->dtype(), tensor->shape()) : TensorType{});
    inputs.push_back(tensor ? &types.back() : nullptr);
  }
  std::vector<TensorType> outputs(static_cast<size_t>(context.output_count));
  InferContext inferring(context.node, context.opset, inputs, context.inputs, outputs);
  CREASE_RETURN_IF_ERROR(infer(inferring));
  std::vector<Tensor> tensors(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].is_static() || outputs[i].dtype == DType::kUndefined) {
      if (i > 0 && !inferring.has_output(static_cast<int>(i))) continue;
      return Unsupported("the shape of output ", i, " depends on the inputs' elements");
    }
    const DType dtype = IsFloat(outputs[i].dtype) ? DType::kFloat64 : outputs[i].dtype;
    CREASE_RETURN_IF_ERROR(CheckSize("output", i, outputs[i].shape(), dtype));
    CREASE_ASSIGN_OR_RETURN(tensors[i], Tensor::Allocate(dtype, outputs[i].shape()));
  }
  return tensors;
}

void CopyStrided(const std::byte* src, const std::vector<int64_t>& src_strides, std::byte* dst,
                 const std::vector<int64_t>& dst_strides, std::span<const int64_t> shape, size_t element_bytes) {
  const auto copy = [&](auto element) {
    using T = decltype(element);
    const T* from = reinterpret_cast<const T*>(src);
    T* to = reinterpret_cast<T*>(dst);
    ForEachIndex<2>(shape, {src_strides, dst_strides},
                    [&](const std::array<int64_t, 2>& offsets) { to[offsets[1]] = from[offsets[0]]; });
  };
  switch (element_bytes) {
    case 1:
      return copy(uint8_t{});
    case 2:
      return copy(uint16_t{});
    case 4:
      return copy(uint32_t{});
    default:
      return copy(uint64_t{});
  }
}

void GatherStrided(const Tensor& src, int64_t offset, const std::vector<int64_t>& src_strides, Tensor& dst) {
  const auto bytes = static_cast<int64_t>(ByteSize(src.dtype()));
  CopyStrided(src.bytes() + offset * bytes, src_strides, dst.mutable_data<std::byte>(), RowMajorStrides(dst.shape()),
              dst.shape(), ByteSize(src.dtype()));
}

std::vector<Tensor> One(Tensor tensor) {
  std::vector<Tensor> result;
  result.push_back(std::move(tensor));
  return result;
}

}  // namespace crease::ops
