// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/pool.h"

#include <algorithm>
#include <limits>

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferPool(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 3));
  const TensorType& x = context.input(0);
  if (!x.has_rank) {
    SetOutput(context, 0, x);
    if (context.has_output(1)) SetOutput(context, 1, TensorType{DType::kInt64, false, {}});
    return {};
  }
  CREASE_ASSIGN_OR_RETURN(const PoolAttributes attributes, ParsePool(context.node, x.rank() - 2));
  std::vector<Dim> dims = {x.dims[0], x.dims[1]};
  for (int axis = 0; axis < x.rank() - 2; ++axis) {
    CREASE_ASSIGN_OR_RETURN(const Dim output,
                            ResolveWindowDim(attributes.window, axis, x.dims[static_cast<size_t>(axis) + 2]));
    dims.push_back(output);
  }
  if (context.has_output(1)) SetOutput(context, 1, TypeOf(DType::kInt64, dims));
  SetOutput(context, 0, TypeOf(x.dtype, std::move(dims)));
  return {};
}

// Taps of output o that read the input: positions first, first + step, ... (count of them).
struct TapRange {
  int64_t first = 0, step = 1, count = 0;
};

// Taps k of the window at `start` with low <= start + k * dilation < high.
TapRange TapsInside(const WindowAxis& axis, int64_t output, int64_t low, int64_t high) {
  const int64_t start = output * axis.stride - axis.pad_begin;
  const int64_t begin = start >= low ? 0 : CeilDiv(low - start, axis.dilation);
  const int64_t end = start >= high ? 0 : std::min(axis.kernel, CeilDiv(high - start, axis.dilation));
  return {start + begin * axis.dilation, axis.dilation, std::max<int64_t>(0, end - begin)};
}

// Input pixels in the window of output pixel dst, and the divisor of an average over it.
void WindowPixels(const PoolShape& shape, int64_t dst, std::vector<int64_t>& pixels, int64_t& divisor) {
  pixels.assign(1, 0);
  divisor = 1;
  std::vector<TapRange> ranges(shape.axes.size());
  for (size_t i = shape.axes.size(); i-- > 0;) {
    const WindowAxis& axis = shape.axes[i];
    const int64_t output = dst % axis.output;
    dst /= axis.output;
    ranges[i] = TapsInside(axis, output, 0, axis.input);
    divisor *= shape.count_include_pad ? TapsInside(axis, output, -axis.pad_begin, axis.input + axis.pad_end).count
                                       : ranges[i].count;
  }
  std::vector<int64_t> next;
  for (size_t i = 0; i < ranges.size(); ++i) {
    next.clear();
    for (int64_t pixel : pixels) {
      for (int64_t k = 0; k < ranges[i].count; ++k) {
        next.push_back(pixel * shape.axes[i].input + ranges[i].first + k * ranges[i].step);
      }
    }
    pixels.swap(next);
  }
}

struct Maximum {
  double value = -std::numeric_limits<double>::infinity();
  int64_t pixel = -1;  // the first that has it; of a window without input: -1
};

Maximum MaxOf(const double* plane, const std::vector<int64_t>& pixels) {
  Maximum result;
  for (int64_t pixel : pixels) {
    const double value = plane[pixel];
    if (result.pixel >= 0 && value <= result.value) continue;
    result = {value, pixel};
    if (value != value) break;  // a NaN wins and stays
  }
  return result;
}

// A pixel's number where the first spatial axis runs fastest; `pixel` counts with the last one fastest.
int64_t ColumnMajor(const PoolShape& shape, int64_t pixel) {
  int64_t stride = 1;
  for (const WindowAxis& axis : shape.axes) stride *= axis.input;
  int64_t result = 0;
  for (size_t i = shape.axes.size(); i-- > 0;) {
    stride /= shape.axes[i].input;
    result += pixel % shape.axes[i].input * stride;
    pixel /= shape.axes[i].input;
  }
  return result;
}

double AverageOf(const double* plane, const std::vector<int64_t>& pixels, int64_t divisor) {
  double total = 0;
  for (int64_t pixel : pixels) total += plane[pixel];
  return divisor > 0 ? total / static_cast<double>(divisor) : 0.0;
}

Result<std::vector<Tensor>> EvalPool(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferPool, context));
  const Tensor& x = context.input(0);
  CREASE_ASSIGN_OR_RETURN(const PoolShape shape, ResolvePool(context.node, x.shape()));
  const bool max = context.node.op_type == "MaxPool";
  const int64_t src_pixels = Product(x.shape(), 2, x.shape().size());
  const int64_t dst_pixels = Product(outputs[0].shape(), 2, x.shape().size());
  int64_t* const indices = outputs.size() > 1 && outputs[1].defined() ? outputs[1].mutable_data<int64_t>() : nullptr;
  std::vector<int64_t> pixels;
  for (int64_t p = 0; p < dst_pixels; ++p) {
    int64_t divisor = 1;
    WindowPixels(shape, p, pixels, divisor);
    for (int64_t plane = 0; plane < shape.batch * shape.channels; ++plane) {
      const double* src = x.data<double>() + plane * src_pixels;
      double& dst = outputs[0].mutable_data<double>()[plane * dst_pixels + p];
      if (!max) {
        dst = AverageOf(src, pixels, divisor);
        continue;
      }
      const Maximum maximum = MaxOf(src, pixels);
      dst = maximum.value;
      if (indices == nullptr) continue;
      const bool transposed = shape.column_major && maximum.pixel >= 0;
      const int64_t pixel = transposed ? ColumnMajor(shape, maximum.pixel) : maximum.pixel;
      indices[plane * dst_pixels + p] = pixel < 0 ? -1 : plane * src_pixels + pixel;
    }
  }
  return outputs;
}

Result<void> InferGlobalPool(InferContext& context) {
  CREASE_RETURN_IF_ERROR(RequireFloat(context, 0));
  CREASE_RETURN_IF_ERROR(RequireRank(context, 0, 3));
  TensorType type = context.input(0);
  for (size_t i = 2; i < type.dims.size(); ++i) {
    if (type.dims[i].value == 0) {
      return InvalidModel("a global pool needs at least one pixel, the input is ", context.input(0).ToString());
    }
    type.dims[i] = Dim{1, ""};
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalGlobalPool(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferGlobalPool, context));
  const Tensor& x = context.input(0);
  const bool max = context.node.op_type == "GlobalMaxPool";
  std::vector<int64_t> pixels(static_cast<size_t>(Product(x.shape(), 2, x.shape().size())));
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<int64_t>(i);
  const auto count = static_cast<int64_t>(pixels.size());
  for (int64_t plane = 0; plane < outputs[0].size(); ++plane) {
    const double* src = x.data<double>() + plane * count;
    outputs[0].mutable_data<double>()[plane] = max ? MaxOf(src, pixels).value : AverageOf(src, pixels, count);
  }
  return outputs;
}

}  // namespace

Shape PoolShape::output() const {
  Shape shape = {batch, channels};
  for (const WindowAxis& axis : axes) shape.push_back(axis.output);
  return shape;
}

Result<PoolAttributes> ParsePool(const Node& node, int spatial_rank) {
  PoolAttributes attributes;
  CREASE_ASSIGN_OR_RETURN(attributes.window, ParseWindow(node, spatial_rank));
  CREASE_ASSIGN_OR_RETURN(const int64_t ceil_mode, AttrInt(node, "ceil_mode", 0));
  attributes.window.ceil_mode = ceil_mode != 0;
  const WindowAttributes& window = attributes.window;
  if (window.kernel.empty()) return InvalidModel("attribute 'kernel_shape' is missing");
  for (size_t i = 0; i < window.pads.size(); ++i) {
    const size_t axis = i % window.kernel.size();
    const int64_t extent = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
    if (window.pads[i] >= extent) {
      return InvalidModel("pads must be smaller than the dilated kernel, found ", window.pads[i], " for ", extent);
    }
  }
  CREASE_ASSIGN_OR_RETURN(const int64_t include, AttrInt(node, "count_include_pad", 0));
  attributes.count_include_pad = include != 0;
  CREASE_ASSIGN_OR_RETURN(const int64_t order, AttrInt(node, "storage_order", 0));
  if (order != 0 && order != 1) return InvalidModel("attribute 'storage_order' must be 0 or 1, it is ", order);
  attributes.column_major = order == 1;
  return attributes;
}

Result<PoolShape> ResolvePool(const Node& node, const Shape& x) {
  if (x.size() < 3) return InvalidModel("the input must have rank 3 or more, its shape is ", ToString(x));
  CREASE_ASSIGN_OR_RETURN(const PoolAttributes attributes, ParsePool(node, static_cast<int>(x.size()) - 2));
  PoolShape shape;
  shape.batch = x[0];
  shape.channels = x[1];
  shape.count_include_pad = attributes.count_include_pad;
  shape.column_major = attributes.column_major;
  for (size_t axis = 2; axis < x.size(); ++axis) {
    CREASE_ASSIGN_OR_RETURN(const WindowAxis window,
                            ResolveAxis(attributes.window, static_cast<int>(axis) - 2, x[axis]));
    shape.axes.push_back(window);
  }
  return shape;
}

const OpDef kMaxPool = {"MaxPool", "", 7, 1, 1, 1, 2, InferPool, EvalPool};
const OpDef kAveragePool = {"AveragePool", "", 7, 1, 1, 1, 1, InferPool, EvalPool};
const OpDef kGlobalMaxPool = {"GlobalMaxPool", "", 7, 1, 1, 1, 1, InferGlobalPool, EvalGlobalPool};
const OpDef kGlobalAveragePool = {"GlobalAveragePool", "", 7, 1, 1, 1, 1, InferGlobalPool, EvalGlobalPool};

}  // namespace crease::ops
